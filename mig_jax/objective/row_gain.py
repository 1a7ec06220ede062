"""The gains of one row in JAX, for one row; vmap makes them a pool's. Float32, for bounds on many rows at once.

With u_d = sum_{l in L_d} P[l, :] the unit mass of a row, s_d its score, and x = sum s_d u_d over the picks:

    first order   G(d) = s_d u_d . phi'(x) = s_d sum_{l in L_d} y_l,   y = P phi'(x)   (MIG, eq. 5)
    exact         G(d) = sum_k phi(x_k + s_d u_dk) - phi(x_k)                          (the rise of E(D))

Both fall as x grows, and the exact gain is never above the first-order one, phi being concave. In floating point the
first-order gain falls too: it is a sum of terms that fall, times s_d >= 0, and every step is monotone in IEEE
arithmetic. So does the exact gain up to rounding (see phi.py).

The picks are decided by the same sums in float64, one row at a time (engine/kernels.py).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from mig_jax.objective.phi import Phi

UNROLL = 16  # a sum of at most so many terms is unrolled, so that XLA fuses it into one loop over the rows


def first_order_sum(y: Float[Array, " L1"], labels: Int[Array, " T"]) -> Float[Array, ""]:
    """sum_t y[labels_t], in order; times s_d it is the gain. Padding is label L, whose y is 0."""
    if labels.shape[0] <= UNROLL:
        total = take(y, labels[0])
        for t in range(1, labels.shape[0]):
            total = total + take(y, labels[t])
        return total
    return jax.lax.fori_loop(0, labels.shape[0], lambda t, total: total + take(y, labels[t]), jnp.zeros((), y.dtype))


def exact_gain(
    phi: Phi, x: Float[Array, " L1"], labels: Int[Array, " W"], unit_mass: Float[Array, " W"], score: Float[Array, ""]
) -> Float[Array, ""]:
    """sum_w phi(x_w + s u_w) - phi(x_w) over the W distinct labels that the row reaches; padding has unit mass 0."""
    return jnp.sum(phi.rise(take(x, labels), score * unit_mass))


def take(values: Shaped[Array, " L1"], index: Int[Array, "*S"]) -> Shaped[Array, "*S"]:
    """values[index] without the clamping of a checked gather; callers guarantee 0 <= index < len(values)."""
    return values.at[index].get(mode="promise_in_bounds")
