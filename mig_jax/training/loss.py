"""The loss of a batch: the sum of ``-log p(token)`` over its trained tokens.

A sum, not a mean: an update divides once, by the trained tokens of all its batches. The mean of batch means would weigh
a token by the batch that it happens to lie in.

Letters: B rows of L tokens, P positions whose next token is trained (padded to a fixed number), C of them at once, D
hidden size, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from mig_jax.models.inference.logprobs import chunk_size_of
from mig_jax.models.networks.sharding import constrain


def summed_nll(
    x_TxD: Float[Array, "T D"],
    kernel_DxV: Float[Array, "D V"],
    position_P: Int[Array, " P"],
    target_P: Int[Array, " P"],
    count: Int[Array, ""],
    at_once: int | None = None,
) -> Float32[Array, ""]:
    """``sum_p -log softmax(x[position[p]] W)[target[p]]`` over p < count, without ``[P, V]`` logits.

    Chunks of ``at_once`` positions go through the vocabulary one after the other, as many as ``count`` needs. Where the
    gradient is asked for, the forward loop computes it at once: the logits of a chunk are there, and computing them
    again on the way back would cost a third product (the method of Liger's fused linear cross entropy, Hsu et al. 2024,
    arXiv 2410.10989).

    Args:
      x_TxD: states after the final norm, rows end to end, T = B L.
      kernel_DxV: the map to the vocabulary.
      position_P: where in x the state lies that predicts a trained token; what follows ``count`` is not read.
      target_P: the token predicted.
      at_once: C; None: what suits the backend.
    """
    if at_once is None:
        at_once = chunk_size_of(kernel_DxV.shape[1], len(position_P))
    padding = (0, -len(position_P) % at_once)
    return _summed_nll(x_TxD, kernel_DxV, jnp.pad(position_P, padding), jnp.pad(target_P, padding), count, at_once)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _summed_nll(x_TxD, kernel_DxV, position_P, target_P, count, at_once: int):
    return _chunks(x_TxD, kernel_DxV, position_P, target_P, count, at_once, gradients=False)[0]


def _forward(x_TxD, kernel_DxV, position_P, target_P, count, at_once):
    loss, dx_TxD, dkernel_DxV = _chunks(x_TxD, kernel_DxV, position_P, target_P, count, at_once, gradients=True)
    return loss, (dx_TxD.astype(x_TxD.dtype), dkernel_DxV.astype(kernel_DxV.dtype))


def _backward(at_once, gradients, cotangent):
    dx_TxD, dkernel_DxV = ((cotangent * gradient).astype(gradient.dtype) for gradient in gradients)
    return dx_TxD, dkernel_DxV, None, None, None


_summed_nll.defvjp(_forward, _backward)


def _chunks(x_TxD, kernel_DxV, position_P, target_P, count, at_once, gradients: bool):
    """The loss, and with ``gradients`` its derivatives by x and by the kernel, float32."""

    def chunk(index, carried):
        loss, dx_TxD, dkernel_DxV = carried
        start = index * at_once
        position_C, target_C = (jax.lax.dynamic_slice_in_dim(of, start, at_once) for of in (position_P, target_P))
        valid_C = start + jnp.arange(at_once) < count
        x_CxD = constrain(x_TxD.at[position_C].get(mode="promise_in_bounds"), "batch", None)
        logit_CxV = constrain(jnp.matmul(x_CxD, kernel_DxV, preferred_element_type=jnp.float32), "batch", "vocab")
        lse_C = jax.nn.logsumexp(logit_CxV, axis=-1)
        of_target_C = jnp.take_along_axis(logit_CxV, target_C[:, None], axis=-1)[:, 0]
        loss += jnp.where(valid_C, lse_C - of_target_C, 0.0).sum()
        if gradients:
            # d(-log p)/d logit = softmax - onehot
            p_CxV = jnp.exp(logit_CxV - lse_C[:, None])
            dlogit_CxV = (p_CxV.at[jnp.arange(at_once), target_C].add(-1.0) * valid_C[:, None]).astype(x_TxD.dtype)
            dx_CxD = jnp.matmul(dlogit_CxV, kernel_DxV.T, preferred_element_type=jnp.float32)
            dx_TxD = dx_TxD.at[position_C].add(dx_CxD, mode="promise_in_bounds")
            dkernel_DxV += jnp.matmul(x_CxD.T, dlogit_CxV, preferred_element_type=jnp.float32)
        return loss, dx_TxD, dkernel_DxV

    zeros = (jnp.zeros(x_TxD.shape, jnp.float32), jnp.zeros(kernel_DxV.shape, jnp.float32)) if gradients else (0.0, 0.0)
    chunks = (count + at_once - 1) // at_once
    return jax.lax.fori_loop(0, chunks, chunk, (jnp.float32(0), *zeros))
