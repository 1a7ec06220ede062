"""RoBERTa (Liu et al. 2019) and XLM-R (Conneau et al. 2020): BERT with positions that begin after the padding's id.

Source of names and numerics: transformers/models/{roberta,xlm_roberta}/modeling_*.py.
"""

from mig_jax.models.networks.encoder import ignored, stack_rules
from mig_jax.models.networks.weights import WeightMap


def weight_map(*, pooler: bool = False) -> WeightMap:
    """Checkpoints with or without the prefix ``roberta.``; the masked-word head and others are ignored."""
    return WeightMap(stack_rules(pooler=pooler), ignored("roberta.", pooler=pooler), base="roberta.")
