"""``mig-jax embed``: which texts, and the run around their one pass."""

from mig_jax.commands.embed.run import Embedded, run_embed
from mig_jax.commands.embed.texts import Texts, texts_of

__all__ = ["Embedded", "Texts", "run_embed", "texts_of"]
