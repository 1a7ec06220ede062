"""The gain of one row, written for one row; vmap makes it a pool's.

With e_d = s_d sum_{l in L_d} P[l, :] and x the mass at each label (the sum of e_d over what is picked):

    first order   G(d) = phi'(x) . e_d = s_d sum_{l in L_d} y_l,   y = P phi'(x)      (MIG, eq. 5; the reference's gain)
    exact         G(d) = sum_k phi(x_k + e_dk) - phi(x_k)                              (what E(D) really rises by)

Both only fall as x grows, and the second is never above the first, phi being concave. In floating point the first-order
gain only falls too: sums of terms that fall, times s_d >= 0, every step monotone in IEEE arithmetic. So does the exact
gain up to rounding (see phi.py).

The engine decides by these sums in float64, one row at a time (engine/kernels.py). What is here is for many rows at
once, in float32, for bounds.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from mig_jax.objective.phi import Phi

UNROLL = 16  # up to here a sum is written out term by term, so that XLA fuses it into one loop over the rows


def labels_sum(y: Float[Array, " L1"], labels: Int[Array, " T"]) -> Float[Array, ""]:
    """sum_t y[labels_t], in order; a row with fewer labels is padded with L, where y is 0. Times s: the gain."""
    if labels.shape[0] <= UNROLL:
        total = take(y, labels[0])
        for t in range(1, labels.shape[0]):
            total = total + take(y, labels[t])
        return total
    return jax.lax.fori_loop(0, labels.shape[0], lambda t, total: total + take(y, labels[t]), jnp.zeros((), y.dtype))


def exact_gain(
    phi: Phi, x: Float[Array, " L1"], labels: Int[Array, " W"], part: Float[Array, " W"], score: Float[Array, ""]
) -> Float[Array, ""]:
    """sum_w phi(x_w + s part_w) - phi(x_w) over the W distinct labels that the row reaches; padding has part 0."""
    return jnp.sum(phi.rise(take(x, labels), score * part))


def take(values: Shaped[Array, " L1"], index: Int[Array, "*S"]) -> Shaped[Array, "*S"]:
    """values[index] without the clamp that a checked gather costs; every index is made here, in 0..L."""
    return values.at[index].get(mode="promise_in_bounds")
