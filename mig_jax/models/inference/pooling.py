"""From the states of tokens to one vector for each text of a row.

Letters: B rows, L tokens in a row, S texts a row can hold, D hidden size.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

POOLINGS = ("mean", "cls", "last")


def pool_segments(
    x_BxLxD: Float[Array, "B L D"], segment_BxL: Int[Array, "B L"], *, slots: int, pooling: str
) -> Float32[Array, "B S D"]:
    """One vector for each segment 1..S of each row, in float32; a segment without tokens gives zeros.

    "mean": ``sum_l x[b, l] / T`` over its T tokens; "cls": the state of its first token; "last": of its last, which in
    a decoder depends on the whole text.
    """
    index_L = jnp.arange(segment_BxL.shape[1])
    member_BxSxL = segment_BxL[:, None, :] == jnp.arange(1, slots + 1, dtype=segment_BxL.dtype)[:, None]
    if pooling == "mean":
        weight_BxSxL = member_BxSxL.astype(jnp.float32)
        sum_BxSxD = jnp.einsum("bsl,bld->bsd", weight_BxSxL, x_BxLxD.astype(jnp.float32))
        return sum_BxSxD / jnp.maximum(weight_BxSxL.sum(-1, keepdims=True), 1.0)
    if pooling == "cls":
        at_BxS = jnp.argmax(member_BxSxL, axis=-1)  # the first of equals
    else:
        at_BxS = jnp.max(jnp.where(member_BxSxL, index_L, 0), axis=-1)
    state_BxSxD = jnp.take_along_axis(x_BxLxD, at_BxS[..., None], axis=1).astype(jnp.float32)
    return jnp.where(member_BxSxL.any(-1)[..., None], state_BxSxD, 0.0)
