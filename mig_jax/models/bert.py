"""BERT (Devlin et al. 2019) and what is built like it: MiniLM, BGE, E5, GTE.

Source of names and numerics: transformers/models/bert/modeling_bert.py.
"""

from collections.abc import Mapping
from typing import Any

from mig_jax.models.encoder import EncoderConfig, ignored, read_config, stack_rules
from mig_jax.models.weights import WeightMap


def config_from_json(raw: Mapping[str, Any], where: str = "config.json") -> EncoderConfig:
    """Read config.json; UserError with every field that is missing or unusable."""
    return read_config(raw, where)


def weight_map(*, pooler: bool = False) -> WeightMap:
    """BERT's checkpoints, with or without the prefix ``bert.``; heads for other tasks are ignored."""
    old = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))  # checkpoints of 2018
    return WeightMap(stack_rules(pooler=pooler), ignored("bert.", pooler=pooler), base="bert.", renamed=old)
