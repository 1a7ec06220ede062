"""Floating-point operations of a batch: the reference of a measured speed.

Only matrix products count, 2 for a multiplication and an addition, of whole batches, padding included; norms, rotations
and softmax do not.
"""

import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mig_jax.models.checkpoints.decoder_config import DecoderConfig
from mig_jax.models.inference.loaded import LoadedModel


def forward_flops(loaded: LoadedModel, config: Any, rows: int, width: int) -> float:
    """Of a forward pass over ``rows`` rows of ``width`` tokens, without the output layer.

    ``2 P rows width`` for the P numbers of all kernels, and ``4 layers H K rows width^2`` for attention, half of it in
    a decoder, whose tokens do not attend to later ones.

    Args:
      config: the model's: an encoder's or a decoder's.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(loaded.state)
    kernels = sum(
        math.prod(leaf.shape)
        for path, leaf in leaves
        if "kernel" in (text := jax.tree_util.keystr(path)) and "'head'" not in text
    )
    causal = isinstance(config, DecoderConfig)
    across = config.num_heads * config.head_dim if causal else config.hidden_size
    attention = (2 if causal else 4) * config.num_layers * across * rows * width**2
    return float(2 * kernels * rows * width + attention)


@functools.cache
def matmul_rate(dtype: str, *, size: int | None = None, rounds: int = 6) -> float:
    """FLOP/s of a large matrix product on the default device: the best of some rounds, measured once a process.

    Args:
      dtype: float32 or bfloat16.
      size: of the square matrices; None: 1,024 on a CPU (10 ms), 8,192 elsewhere.
    """
    size = size or (1024 if jax.default_backend() == "cpu" else 8192)
    key = jax.random.key(0)
    square = jax.random.normal(key, (size, size), jnp.dtype(dtype))
    _square(square).block_until_ready()
    best = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        _square(square).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


@jax.jit
def _square(a_NxN: Float[Array, "N N"]) -> Float[Array, "N N"]:
    # As float32 models run: on an accelerator "default" would be a faster, rougher product.
    return jnp.matmul(a_NxN, a_NxN, precision="highest" if a_NxN.dtype == jnp.float32 else None)
