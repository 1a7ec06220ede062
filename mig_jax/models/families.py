"""The model families that can be built from a checkpoint: ``model_type`` of config.json -> how."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flax import nnx

from mig_jax.models.bert import Bert, BertConfig, weight_rules
from mig_jax.models.weights import Rule


class Family(NamedTuple):
    """What a family's file offers.

    Args:
      read_config: config.json -> its config dataclass; UserError where it does not fit.
      build: the model of a config, with any rngs; called under ``nnx.eval_shape``.
      rules: the weight map.
    """

    read_config: Callable[[Mapping[str, Any], str], BertConfig]
    build: Callable[[BertConfig], Bert]
    rules: Sequence[Rule]


ENCODERS: dict[str, Family] = {
    "bert": Family(BertConfig.from_json, lambda config: Bert(config, rngs=nnx.Rngs(0)), weight_rules()),
}
"""Encoders whose token states are pooled into embeddings."""
