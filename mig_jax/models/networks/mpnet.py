"""MPNet (Song et al. 2020), as in all-mpnet-base-v2: no token types, and a bias for how far apart two tokens are.

Source of names and numerics: transformers/models/mpnet/modeling_mpnet.py.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from mig_jax.models.checkpoints.encoder_config import MPNET_BUCKETS, EncoderConfig
from mig_jax.models.networks.encoder import Encoder, ignored, stack_rules
from mig_jax.models.networks.layers import FLOAT32, Build, Embed
from mig_jax.models.networks.weights import WeightMap, WeightRule


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
        self.table = Embed(MPNET_BUCKETS, config.num_heads, axes=(None, "heads"), dtype=options.dtype, rngs=rngs)

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
