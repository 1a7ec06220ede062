"""The model families that can be built from a checkpoint: ``model_type`` of config.json -> how."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import nnx

from mig_jax.models.checkpoints.weights import WeightMap
from mig_jax.models.networks import bert, decoder, mpnet, xlm_roberta
from mig_jax.models.networks.decoder import Decoder
from mig_jax.models.networks.decoder_config import DecoderConfig
from mig_jax.models.networks.encoder import Encoder, read_config
from mig_jax.models.networks.layers import Build


class Family(NamedTuple):
    """What a family's file offers. Every config has ``vocab_size``, ``hidden_size`` and ``max_positions``; every model
    takes token ids and segments, both ``[B, L]``, and gives an object with ``last_BxLxD``.

    Args:
      causal: whether a token sees only what is before it: a decoder.
      read_config: (config.json, its name for messages) -> the config; UserError where it does not fit.
      build: (config, options, head) -> the model, with any rngs; called under ``nnx.eval_shape``. ``head``: with the
        decoder's map to the vocabulary; encoders have none.
      weights: (config, head) -> the weight map.
    """

    causal: bool
    read_config: Callable[[Mapping[str, Any], str], Any]
    build: Callable[[Any, Build, bool], nnx.Module]
    weights: Callable[[Any, bool], WeightMap]


_DECODER = Family(
    causal=True,
    read_config=DecoderConfig.from_json,
    build=lambda config, options, head: Decoder(config, options, head=head, rngs=nnx.Rngs(0)),
    weights=lambda config, head: decoder.weight_map(config, head=head),
)

_BERT = Family(
    causal=False,
    read_config=read_config,
    build=lambda config, options, head: Encoder(config, options, rngs=nnx.Rngs(0)),
    weights=lambda config, head: bert.weight_map(),
)

_ROBERTA = _BERT._replace(
    read_config=xlm_roberta.config_from_json, weights=lambda config, head: xlm_roberta.weight_map()
)

_MPNET = Family(
    causal=False,
    read_config=mpnet.config_from_json,
    build=lambda config, options, head: mpnet.build(config, options, rngs=nnx.Rngs(0)),
    weights=lambda config, head: mpnet.weight_map(),
)

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _DECODER),
    "bert": _BERT,
    "mpnet": _MPNET,
    **dict.fromkeys(("roberta", "xlm-roberta"), _ROBERTA),
}
"""SmolLM2, InsTagger and the DEITA scorers name themselves llama or mistral; Qwen2.5 names itself qwen2."""
