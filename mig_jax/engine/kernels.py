"""The two gains as the heap evaluates them: the labels' state, the gain of a row, and the update after a pick.

With x the mass at each label, L_d the labels of row d, s_d its score, and u_d = sum_{l in L_d} P[l, :] its unit mass:

    first order   G(d) = s_d sum_{l in L_d} y_l,   y_l = sum_m P[l, m] phi'(x_m)
    exact         G(d) = sum_k phi(x_k + s_d u_dk) - phi(x_k)
    pick          x += s_d u_d

A kernel depends on labels and rows only, not on candidates, thresholds or devices. The state is float64, and gains are
computed from it in loops over single numbers (see scalar.py): a label has a handful of neighbours, and lists padded to
a common width would be mostly padding. So a gain does not depend on where the full pass runs or how that rounds: equal
rows have equal gains, and gains that differ in float64 stay different.

First order: y_l is summed when it is needed. Updating all y after each pick would touch labels two edges away: equally
fast for 4 neighbours a label, five times slower for 40.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from mig_jax.engine.problem import Objective, PaddedPropagation, Tensor
from mig_jax.engine.scalar import as_one_function, at, put
from mig_jax.objective.phi import Phi

PerLabel = Float64[np.ndarray | jax.Array, " L1"]


class FirstOrder(NamedTuple):
    """The state of the first-order gain: mass x and slope phi'(x) of each label; the last entry is padding's."""

    x: PerLabel
    slope: PerLabel


class Exact(NamedTuple):
    """The state of the exact gain: mass x and phi.height(x) of each label; the last entry is padding's."""

    x: PerLabel
    height: PerLabel


State = FirstOrder | Exact


class RowLabels(NamedTuple):
    """CSR of rows: ``idx[ptr[r]:ptr[r+1]]`` are the labels of row r; for the exact gain the labels that it reaches, and
    ``unit_mass`` its mass at each of them per unit of score (else None)."""

    ptr: Tensor
    idx: Tensor
    unit_mass: Tensor


class Kernel(NamedTuple):
    """The functions of one gain.

    ``start(objective)``: the state of the empty selection. ``gain(p, phi, state, rows, r, score)``: float64, of row r.
    ``absorb(p, phi, state, rows, start, stop, score)``: the state after picking the row with entries start..stop, the
    same state where start = stop. ``linear``: the gain is proportional to the score.
    """

    start: Callable[[Objective], Any]
    gain: Callable[..., Any]
    absorb: Callable[..., Any]
    linear: bool


def _first_order_start(objective: Objective) -> FirstOrder:
    x = np.zeros(objective.num_labels + 1)
    return FirstOrder(x, objective.phi.slope(x))


def _y(p: PaddedPropagation, slope, label):
    """y of one label; 0 for padding, which has no neighbours."""
    return jax.lax.fori_loop(
        at(p.ptr, label),
        at(p.ptr, label + 1),
        lambda e, total: total + at(p.val, e) * at(slope, at(p.idx, e)),
        jnp.zeros((), jnp.float64),
    )


@partial(jax.jit, static_argnames=("native",))
def label_gains(p: PaddedPropagation, slope: Tensor, *, native: bool) -> Any:
    """y of every label; float64 ``[L+1]``."""

    def run(p, slope):
        y = jnp.zeros_like(slope)
        return [jax.lax.fori_loop(0, len(slope), lambda label, y: put(y, label, _y(p, slope, label)), y)]

    return (as_one_function(run, p, slope) if native else run(p, slope))[0]


def _first_order_gain(p: PaddedPropagation, phi: Phi, state: FirstOrder, rows: RowLabels, r, score):
    start = at(rows.ptr, r)
    return score * jax.lax.fori_loop(
        start + 1,
        at(rows.ptr, r + 1),
        lambda e, total: total + _y(p, state.slope, at(rows.idx, e)),
        _y(p, state.slope, at(rows.idx, start)),
    )


def _first_order_absorb(
    p: PaddedPropagation, phi: Phi, state: FirstOrder, rows: RowLabels, start, stop, score
) -> FirstOrder:
    """x += s P[l] for every label l of the row, and phi' with it."""

    def tag(t, state):
        label = at(rows.idx, t)
        return jax.lax.fori_loop(at(p.ptr, label), at(p.ptr, label + 1), edge, state)

    def edge(e, state):
        k = at(p.idx, e)
        x = put(state.x, k, at(state.x, k) + score * at(p.val, e))
        return FirstOrder(x, put(state.slope, k, phi.slope(at(x, k))))

    return jax.lax.fori_loop(start, stop, tag, state)


def _exact_start(objective: Objective) -> Exact:
    x = np.zeros(objective.num_labels + 1)
    return Exact(x, objective.phi.height(x))


def _exact_gain(p: PaddedPropagation, phi: Phi, state: Exact, rows: RowLabels, r, score):
    def term(e, total):
        k = at(rows.idx, e)
        return total + phi.rise(at(state.x, k), score * at(rows.unit_mass, e), at(state.height, k))

    return jax.lax.fori_loop(at(rows.ptr, r), at(rows.ptr, r + 1), term, jnp.zeros((), jnp.float64))


def _exact_absorb(p: PaddedPropagation, phi: Phi, state: Exact, rows: RowLabels, start, stop, score) -> Exact:
    def term(e, state):
        k = at(rows.idx, e)
        x = put(state.x, k, at(state.x, k) + score * at(rows.unit_mass, e))
        return Exact(x, put(state.height, k, phi.height(at(x, k))))

    return jax.lax.fori_loop(start, stop, term, state)


@partial(jax.jit, static_argnames=("kind", "native"))
def absorb_all(
    p: PaddedPropagation, phi: Phi, state: Any, rows: RowLabels, score: Tensor, count: Any, *, kind: str, native: bool
) -> tuple[Any, Any]:
    """Pick the first ``count`` rows, one after the other: (state, the gain of each at its pick, float64 ``[R]``)."""

    def run(p, phi, state, rows, score, count):
        kernel = KERNELS[kind]

        def gain(state, r):
            return kernel.gain(p, phi, state, rows, r, at(score, r))

        def row(r, carry):
            state, gains, gain_r = carry
            gains = put(gains, r, gain_r)
            state = kernel.absorb(p, phi, state, rows, at(rows.ptr, r), at(rows.ptr, r + 1), at(score, r))
            return state, gains, gain(state, r + 1)

        state, gains, _ = jax.lax.fori_loop(0, count, row, (state, jnp.zeros_like(score), gain(state, jnp.int32(0))))
        return state, gains

    args = (p, phi, state, rows, score, count)
    return as_one_function(run, *args) if native else run(*args)


KERNELS = {
    "first_order": Kernel(_first_order_start, _first_order_gain, _first_order_absorb, linear=True),
    "exact": Kernel(_exact_start, _exact_gain, _exact_absorb, linear=False),
}
