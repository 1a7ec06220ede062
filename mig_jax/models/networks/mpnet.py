"""MPNet (Song et al. 2020), as in all-mpnet-base-v2: no token types, and a bias for how far apart two tokens are.

Source of names and numerics: transformers/models/mpnet/modeling_mpnet.py.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from mig_jax.models.checkpoints.weights import WeightMap, WeightRule
from mig_jax.models.networks.encoder import Encoder, EncoderConfig, ignored, read_config, stack_rules
from mig_jax.models.networks.layers import FLOAT32, Build, Embed

_BUCKETS = 32  # transformers uses this many, whatever the config says
_PAD = 1  # and this as the padding's id, after which positions begin


def config_from_json(raw: Mapping[str, Any], where: str = "config.json") -> EncoderConfig:
    """Read config.json; UserError with every field that is missing or unusable."""
    buckets = raw.get("relative_attention_num_buckets", _BUCKETS)
    wrong = (f"relative_attention_num_buckets is {buckets!r}; there is {_BUCKETS}",) if buckets != _BUCKETS else ()
    return read_config(raw, where, first_position=_PAD + 1, typed=False, wrong=wrong)


def bucket(distance: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Which of 32 numbers a distance gets: 16 for what stands later; of these, as of the others, 8 exact and 8 wide.

    With ``n = |distance|``: ``n`` where n < 8, else ``min(15, 8 + floor(8 log(n / 8) / log 16))``, which is
    ``8 + floor(log2(n^2 / 64))``, in whole numbers; 16 more where the distance is positive (T5's scheme, Raffel 2020).

    Args:
      distance: place of the token looked at minus that of the token that looks.
    """
    n = np.abs(distance)
    _, exponent = np.frexp(np.maximum(n * n, 64) // 64)  # floor(log2 m) + 1
    return np.where(n < 8, n, np.minimum(15, 7 + exponent)) + 16 * (distance > 0)


class RelativeBias(nnx.Module):
    """``bias[h, i, j] = table[bucket(j - i), h]``, the same in all layers."""

    def __init__(self, config: EncoderConfig, options: Build, *, rngs: nnx.Rngs):
        self.table = Embed(_BUCKETS, config.num_heads, axes=(None, "heads"), dtype=options.dtype, rngs=rngs)

    def __call__(self, length: int) -> Float[Array, "H L L"]:
        """For rows of L tokens."""
        by_distance = self.table.embedding[...].T[:, bucket(np.arange(1 - length, length))]
        place = jnp.arange(length)
        index = place[None, :] - place[:, None] + length - 1
        return by_distance.at[:, index].get(mode="promise_in_bounds")


def build(config: EncoderConfig, options: Build = FLOAT32, *, pooler: bool = False, rngs: nnx.Rngs) -> Encoder:
    """The network."""
    return Encoder(config, options, relative=RelativeBias(config, options, rngs=rngs), pooler=pooler, rngs=rngs)


_ATTENTION = {f"attention.attn.{name[0]}": name for name in ("query", "key", "value", "output")}


def weight_map(*, pooler: bool = False) -> WeightMap:
    """MPNet's checkpoints, with or without the prefix ``mpnet.``; heads for other tasks are ignored."""
    rules = stack_rules(typed=False, pooler=pooler, attention=_ATTENTION, attention_norm="attention.LayerNorm")
    bias = WeightRule("encoder.relative_attention_bias.weight", "relative.table.embedding")
    return WeightMap((*rules, bias), ignored("mpnet.", pooler=pooler), base="mpnet.")
