"""The networks that can be built from a checkpoint: ``model_type`` of config.json -> network and weight map.

``checkpoints.architectures`` reads the config of the same names.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from mig_jax.models.networks import bert, decoder, mpnet, xlm_roberta
from mig_jax.models.networks.decoder import Decoder
from mig_jax.models.networks.encoder import Encoder
from mig_jax.models.networks.layers import Build
from mig_jax.models.networks.weights import WeightMap


class Family(NamedTuple):
    """How a network is built and filled. Every network takes token ids and segments, both ``[B, L]``, and returns an
    object with ``last_BxLxD``.

    Args:
      build: (config, options, head) -> the model, with any rngs; called under ``nnx.eval_shape``. ``head``: with the
        decoder's map to the vocabulary; encoders have none.
      weights: (config, head) -> the weight map.
    """

    build: Callable[[Any, Build, bool], nnx.Module]
    weights: Callable[[Any, bool], WeightMap]


_DECODER = Family(
    build=lambda config, options, head: Decoder(config, options, head=head, rngs=nnx.Rngs(0)),
    weights=lambda config, head: decoder.weight_map(config, head=head),
)

_BERT = Family(
    build=lambda config, options, head: Encoder(config, options, rngs=nnx.Rngs(0)),
    weights=lambda config, head: bert.weight_map(),
)

_ROBERTA = _BERT._replace(weights=lambda config, head: xlm_roberta.weight_map())

_MPNET = Family(
    build=lambda config, options, head: mpnet.build(config, options, rngs=nnx.Rngs(0)),
    weights=lambda config, head: mpnet.weight_map(),
)

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _DECODER),
    "bert": _BERT,
    "mpnet": _MPNET,
    **dict.fromkeys(("roberta", "xlm-roberta"), _ROBERTA),
}
