"""The gain of one row, written for one row; vmap makes it a pool's.

With e_d = s_d sum_{l in L_d} P[l, :] and x the mass at each label (the sum of e_d over what is picked):

    first order   G(d) = phi'(x) . e_d = s_d sum_{l in L_d} y_l,   y = P phi'(x)      (MIG, eq. 5; the reference's gain)
    exact         G(d) = sum_k phi(x_k + e_dk) - phi(x_k)                              (what E(D) really rises by)

Both only fall as x grows. In floating point the first-order gain does too: sums of terms that fall, times s_d >= 0,
every step monotone in IEEE arithmetic. So does the exact gain of exp and log; that of power falls up to rounding (see
phi.py), so that two candidates closer than that may change places with c1, c2 or a resume.

The terms are added in one fixed tree, whatever the batch: a full pass over millions of rows and a pass over two hundred
give the same bits, which the engine's exactness rests on.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from mig_jax.gain.phi import Phi

UNROLL = 16  # up to here a sum is written out term by term, so that XLA fuses it into one loop over the rows


def first_order_gain(y: Float[Array, " L1"], labels: Int[Array, " T"], score: Float[Array, ""]) -> Float[Array, ""]:
    """s sum_t y[labels_t]. T is a power of two; a row with fewer labels is padded with L, where y is 0."""
    if labels.shape[0] <= UNROLL:
        terms = [take(y, labels[t]) for t in range(labels.shape[0])]
        while len(terms) > 1:
            half = len(terms) // 2
            terms = [terms[i] + terms[i + half] for i in range(half)]
        return terms[0] * score
    return tree_sum(take(y, labels)) * score


def exact_gain(
    phi: Phi, x: Float[Array, " L1"], labels: Int[Array, " W"], part: Float[Array, " W"], score: Float[Array, ""]
) -> Float[Array, ""]:
    """sum_w phi(x_w + s part_w) - phi(x_w) over the W distinct labels that the row reaches; padding has part 0."""
    # A rise may end in a product: the max keeps a compiler from fusing it with the addition that follows into a
    # multiply-add, which it does for some widths and not for others, with other bits.
    return tree_sum(jnp.maximum(phi.rise(take(x, labels), score * part), 0.0))


def label_value(slope: Float[Array, " L1"], idx: Int[Array, " D"], val: Float[Array, " D"]) -> Float[Array, ""]:
    """y_l = sum_d P[l, idx_d] phi'(x)[idx_d] for one label; padding has val 0. The only producer of y."""
    return tree_sum(val * take(slope, idx))


def tree_sum(terms: Float[Array, " W"]) -> Float[Array, ""]:
    """The sum of 2^k terms, the upper half onto the lower until one is left: zeros appended change no bit of it."""
    if terms.shape[0] & (terms.shape[0] - 1):
        raise ValueError(f"{terms.shape[0]} terms: not a power of two")
    while terms.shape[0] > 1:
        half = terms.shape[0] // 2
        terms = terms[:half] + terms[half:]
    return terms[0]


def take(values: Shaped[Array, " L1"], index: Int[Array, "*S"]) -> Shaped[Array, "*S"]:
    """values[index] without the clamp that a checked gather costs; every index is made here, in 0..L."""
    return values.at[index].get(mode="promise_in_bounds")


def information(phi: Phi, x: Float[Array, " L"]) -> Float[Array, ""]:
    """E = sum_k phi(x_k) - phi(0)."""
    return jnp.sum(phi.value(x))
