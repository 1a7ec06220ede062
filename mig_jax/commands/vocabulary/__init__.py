"""``mig-jax vocabulary``: the tags of a pool become labels by the four steps of #InsTag (arXiv 2308.07074).

    frequency -> rules -> semantic -> association

Each step is a function that maps tags to tags (``Merging``); ``steps`` applies them one after another.
"""

from mig_jax.commands.vocabulary.run import run_vocabulary
from mig_jax.commands.vocabulary.steps import Normalised, Step, normalise
from mig_jax.commands.vocabulary.tags import Merging, Tags, tags_of

__all__ = ["Merging", "Normalised", "Step", "Tags", "normalise", "run_vocabulary", "tags_of"]
