"""Parts of the networks: linear maps and tables with named axes, norms, activations, masks, attention.

Letters, here and in the files that use it: B rows, L tokens in a row, S tokens that can be seen (L, or those of a
cache), D hidden size, H heads, G key/value heads, K size of a head, F feed-forward size, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from mig_jax.core.errors import UserError
from mig_jax.models.networks.sharding import Axes, constrain, uneven

_MASKED = -1e30  # finite, so that a token whose mask is all False gets a mean and not NaN


@dataclass(frozen=True)
class Build:
    """How a network is built, whatever its family.

    Args:
      dtype: of parameters and activations: float32, or bfloat16 (norms, softmax, rotations and logits stay float32).
      attention: "fused" (cuDNN's flash attention: GPU, bfloat16), "plain" (XLA: anywhere), or "auto": fused where it
        can be.
    """

    dtype: str = "float32"
    attention: str = "auto"


FLOAT32 = Build()
"""How a network is built where nothing is said."""


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``x/2 (1 + erf(x / sqrt 2))``, as torch has it; XLA's CPU runs erf 2.6 times as fast as jax.nn.gelu's erfc."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * (0.5**0.5)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""``hidden_act`` of a config.json -> the function (transformers/activations.py)."""


class Linear(nnx.Module):
    """``y = x W + b``, where x's last axes are ``inputs`` and y's last axes ``outputs``: heads need no reshape.

    Args:
      inputs, outputs: sizes; the kernel is ``[*inputs, *outputs]``.
      axes: the kernel's axes, names of ``sharding.RULES``; the bias has the last of them.
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], axes: Axes, *, bias: bool, dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        normal = jax.nn.initializers.normal(1 / math.sqrt(math.prod(inputs)))
        self.kernel = nnx.Param(normal(rngs.params(), (*inputs, *outputs), dtype), axes=axes)
        self.bias = nnx.Param(jnp.zeros(outputs, dtype), axes=axes[len(inputs) :]) if bias else None
        self.contracted = len(inputs)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Contract x's last axes with the kernel's first."""
        y = jnp.tensordot(x, self.kernel[...], self.contracted)
        return y if self.bias is None else y + self.bias[...]


class Embed(nnx.Module):
    """A table of vectors, one a row."""

    def __init__(self, rows: int, dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs, axes: Axes = (None, "embed")):
        normal = jax.nn.initializers.normal(0.02)
        self.embedding = nnx.Param(normal(rngs.params(), (rows, dim), dtype), axes=axes)

    def __call__(self, index_BxL: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Indices must be in range: they are not checked (a checked gather costs more than a layer's attention)."""
        return self.embedding[...].at[index_BxL].get(mode="promise_in_bounds")


class RMSNorm(nnx.Module):
    """``x / sqrt(mean(x^2) + eps) * scale``, in float32 (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float, *, dtype: DTypeLike):
        self.scale = nnx.Param(jnp.ones(dim, dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Over the last axis."""
        wide = x.astype(jnp.float32)
        wide *= jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return wide.astype(x.dtype) * self.scale[...]


def layer_norm(dim: int, eps: float, *, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """``(x - mean) / sqrt(var + eps) * scale + bias``, the variance in two passes: 1e-12 hides no cancellation."""
    return nnx.LayerNorm(dim, epsilon=eps, use_fast_variance=False, dtype=dtype, param_dtype=dtype, rngs=rngs)


def segment_mask(segment_BxL: Int[Array, "B L"]) -> Bool[Array, "B L L"]:
    """The attention mask of rows that hold several texts: ``mask[b, i, j] = segment[b, i] == segment[b, j]``.

    A usual attention mask (1 token, 0 padding) is the case of one segment: padding then sees padding only, and no
    softmax is over nothing.
    """
    return segment_BxL[:, :, None] == segment_BxL[:, None, :]


def segment_positions(segment_BxL: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """Position of each token in its own segment: ``l - first l' of the segment``; segments are contiguous."""
    index_L = jnp.arange(segment_BxL.shape[1], dtype=segment_BxL.dtype)
    before_BxL = jnp.pad(segment_BxL, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    start_BxL = jax.lax.cummax(jnp.where(segment_BxL != before_BxL, index_L, 0), axis=1)
    return index_L - start_BxL


def attend(
    q_BxLxHxK: Float[Array, "B L H K"],
    k_BxSxGxK: Float[Array, "B S G K"],
    v_BxSxGxK: Float[Array, "B S G K"],
    mask_BxLxS: Bool[Array, "B L S"],
    *,
    bias_HxLxS: Float[Array, "H L S"] | None = None,
    causal: bool = False,
    how: str = "auto",
) -> Float[Array, "B L H K"]:
    """``softmax(q k^T / sqrt K + bias) v`` within the mask, H / G queries to each key (grouped-query attention).

    A token whose mask is all False gets some mean of values: padding gives no NaN.

    Args:
      causal: S = L and the mask hides from each token all that is later, so that need not be computed.
      how: ``Build.attention``.

    Raises:
      UserError: "fused" cannot be had here.
    """
    able = _can_fuse(q_BxLxHxK)
    if how == "fused" and not able:
        raise UserError(
            "attention=fused: needs an NVIDIA GPU of compute capability 8.0 or more, bfloat16, and heads whose size "
            "is a multiple of 8 up to 128; auto takes what there is"
        )
    if how == "plain" or not able:
        return _plain(q_BxLxHxK, k_BxSxGxK, v_BxSxGxK, mask_BxLxS, bias_HxLxS, causal)
    heads, groups = q_BxLxHxK.shape[2], k_BxSxGxK.shape[2]
    if uneven("heads", groups) and not uneven("heads", heads):  # cuDNN wants queries and keys cut alike
        k_BxSxGxK, v_BxSxGxK = (
            constrain(jnp.repeat(part, heads // groups, axis=2), "batch", None, "heads", None)
            for part in (k_BxSxGxK, v_BxSxGxK)
        )
    return jax.nn.dot_product_attention(
        q_BxLxHxK,
        k_BxSxGxK,
        v_BxSxGxK,
        bias=None if bias_HxLxS is None else bias_HxLxS[None].astype(q_BxLxHxK.dtype),
        mask=mask_BxLxS[:, None],
        implementation="cudnn",
    )


def _can_fuse(q_BxLxHxK: Float[Array, "B L H K"]) -> bool:
    """Whether cuDNN's flash attention takes these queries, on the devices there are."""
    size = q_BxLxHxK.shape[-1]
    if jax.default_backend() != "gpu" or q_BxLxHxK.dtype not in (jnp.bfloat16, jnp.float16) or size % 8 or size > 128:
        return False
    capability = getattr(jax.devices()[0], "compute_capability", "")  # "9.0"; AMD's say "gfx90a"
    return capability.replace(".", "").isdecimal() and float(capability) >= 8.0


_QUERIES, _PARTS = 128, 8  # tokens whose scores are held at once, unless that makes more parts than this


def _plain(q_BxLxHxK, k_BxSxGxK, v_BxSxGxK, mask_BxLxS, bias_HxLxS, causal: bool):
    """``attend`` on any backend, some queries at a time.

    All scores of 4,096 tokens would be 2 GB a row of 32 heads; and on a CPU those of 128 tokens stay in its caches:
    twice as fast at 512 tokens. Where later keys are masked for all of a part they are left out: twice as fast again.
    """
    L, S = mask_BxLxS.shape[1:]
    step = max(_QUERIES, -(-L // _PARTS))
    parts = []
    for start in range(0, L, step):
        at, seen = slice(start, start + step), slice(0, min(start + step, S) if causal else S)
        bias = None if bias_HxLxS is None else bias_HxLxS[:, at, seen]
        parts.append(_part(q_BxLxHxK[:, at], k_BxSxGxK[:, seen], v_BxSxGxK[:, seen], mask_BxLxS[:, at, seen], bias))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def _part(q_BxLxHxK, k_BxSxGxK, v_BxSxGxK, mask_BxLxS, bias_HxLxS):
    """Attention in two products, 1.3 to 3 times as fast on two CPU cores as jax.nn.dot_product_attention's.

    Three things do it: the R = H / G queries of a key lie side by side, so that each key takes part in one product and
    is not repeated; the mask is added, which XLA fuses better than a choice; and it is the result that is divided by
    the softmax's sum, S / K times fewer numbers than its weights. Scores and sums are float32.
    """
    B, L, H, K = q_BxLxHxK.shape
    S, G = k_BxSxGxK.shape[1:3]
    N = H // G * L  # queries of a key
    q_BxGxNxK = q_BxLxHxK.transpose(0, 2, 1, 3).reshape(B, G, N, K)
    score_BxGxNxS = jnp.einsum("bgnk,bsgk->bgns", q_BxGxNxK, k_BxSxGxK, preferred_element_type=jnp.float32)
    # Scaled here, in float32: 128 ** -0.5 is no power of two, and bfloat16 queries would be rounded by it.
    score_BxHxLxS = score_BxGxNxS.reshape(B, H, L, S) * K**-0.5 + jnp.where(mask_BxLxS, 0.0, _MASKED)[:, None]
    if bias_HxLxS is not None:
        score_BxHxLxS += bias_HxLxS.astype(jnp.float32)
    most_BxHxLx1 = jax.lax.stop_gradient(score_BxHxLxS.max(-1, keepdims=True))  # any number gives the same result
    weight_BxHxLxS = jnp.exp(score_BxHxLxS - most_BxHxLx1)
    sum_BxHxL = weight_BxHxLxS.sum(-1)
    weight_BxGxNxS = weight_BxHxLxS.astype(v_BxSxGxK.dtype).reshape(B, G, N, S)
    out_BxGxNxK = jnp.einsum("bgns,bsgk->bgnk", weight_BxGxNxS, v_BxSxGxK, preferred_element_type=jnp.float32)
    out_BxHxLxK = out_BxGxNxK.reshape(B, H, L, K) / sum_BxHxL[..., None]
    return out_BxHxLxK.transpose(0, 2, 1, 3).astype(q_BxLxHxK.dtype)
