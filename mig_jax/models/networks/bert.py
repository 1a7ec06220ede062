"""BERT (Devlin et al. 2019) and what is built like it: MiniLM, BGE, E5, GTE.

Source of names and numerics: transformers/models/bert/modeling_bert.py.
"""

from mig_jax.models.networks.encoder import ignored, stack_rules
from mig_jax.models.networks.weights import WeightMap


def weight_map(*, pooler: bool = False) -> WeightMap:
    """BERT's checkpoints, with or without the prefix ``bert.``; heads for other tasks are ignored."""
    old = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))  # checkpoints of 2018
    return WeightMap(stack_rules(pooler=pooler), ignored("bert.", pooler=pooler), base="bert.", renamed=old)
