"""The architectures that can be read: ``model_type`` of config.json -> how its fields are read.

``networks.families`` builds the networks of the same names. This table imports no Flax, so that a checkpoint can be
checked, and its results found in a cache, without loading the network.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mig_jax.models.checkpoints.decoder_config import DecoderConfig
from mig_jax.models.checkpoints.encoder_config import bert_config, mpnet_config, roberta_config


class Architecture(NamedTuple):
    """Args:
    causal: whether a token sees only the tokens before it: a decoder.
    read_config: (config.json, its name for messages) -> the config, which has ``vocab_size``, ``hidden_size`` and
      ``max_positions``; UserError where it does not fit.
    """

    causal: bool
    read_config: Callable[[Mapping[str, Any], str], Any]


_DECODER = Architecture(True, DecoderConfig.from_json)
_ROBERTA = Architecture(False, roberta_config)

ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _DECODER),
    "bert": Architecture(False, bert_config),
    "mpnet": Architecture(False, mpnet_config),
    **dict.fromkeys(("roberta", "xlm-roberta"), _ROBERTA),
}
"""SmolLM2, InsTagger and the DEITA scorers name themselves llama or mistral; Qwen2.5 names itself qwen2."""
