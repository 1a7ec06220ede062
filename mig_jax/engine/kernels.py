"""The two gains as the engine runs them: the state of the labels, a row's gain in it, and what a pick changes.

A kernel knows labels and rows and nothing of candidates, thresholds or devices. State is float64, and what the picks
are decided by is computed from it in loops over single numbers (see scalar.py): a label has a handful of neighbours,
and lists padded to a common width would be mostly padding. So a gain is one number, wherever the full pass runs and
whatever that rounds: equal rows are equal, and what float64 can tell apart is told apart.

First order: y_l = sum_m P[l, m] phi'(x_m) is added up where it is asked for. Kept up to date instead, a pick would
change all y two steps away: as fast for 4 neighbours a label, five times slower for 40.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from mig_jax.engine.problem import Labels, Side, Tensor
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


class Rows(NamedTuple):
    """Rows as the loops read them: row r owns ``idx[ptr[r]:ptr[r+1]]``, and its parts (exact gain; else None)."""

    ptr: Tensor
    idx: Tensor
    part: Tensor


class Kernel(NamedTuple):
    """``start(side)`` is the empty selection's state. ``gain(labels, phi, state, rows, r, score)`` float64.

    ``absorb(labels, phi, state, rows, start, stop, score)`` adds the row that owns start..stop, or nothing where
    start = stop. ``linear``: the gain is the score times what does not depend on it.
    """

    start: Callable[[Side], Any]
    gain: Callable[..., Any]
    absorb: Callable[..., Any]
    linear: bool


def _first_order_start(side: Side) -> FirstOrder:
    x = np.zeros(side.num_labels + 1)
    return FirstOrder(x, side.phi.slope(x))


def _y(labels: Labels, slope, label):
    """y of one label; of one without neighbours at all (padding), 0."""
    return jax.lax.fori_loop(
        at(labels.ptr, label),
        at(labels.ptr, label + 1),
        lambda e, total: total + at(labels.val, e) * at(slope, at(labels.idx, e)),
        jnp.zeros((), jnp.float64),
    )


@partial(jax.jit, static_argnames=("native",))
def label_gains(labels: Labels, slope: Tensor, *, native: bool) -> Any:
    """y of every label; float64 ``[L+1]``."""

    def run(labels, slope):
        y = jnp.zeros_like(slope)
        return [jax.lax.fori_loop(0, len(slope), lambda label, y: put(y, label, _y(labels, slope, label)), y)]

    return (as_one_function(run, labels, slope) if native else run(labels, slope))[0]


def _first_order_gain(labels: Labels, phi: Phi, state: FirstOrder, rows: Rows, r, score):
    start = at(rows.ptr, r)
    return score * jax.lax.fori_loop(
        start + 1,
        at(rows.ptr, r + 1),
        lambda e, total: total + _y(labels, state.slope, at(rows.idx, e)),
        _y(labels, state.slope, at(rows.idx, start)),
    )


def _first_order_absorb(labels: Labels, phi: Phi, state: FirstOrder, rows: Rows, start, stop, score) -> FirstOrder:
    """x += s P[l] for every tag, and phi' with it."""

    def tag(t, state):
        label = at(rows.idx, t)
        return jax.lax.fori_loop(at(labels.ptr, label), at(labels.ptr, label + 1), edge, state)

    def edge(e, state):
        k = at(labels.idx, e)
        x = put(state.x, k, at(state.x, k) + score * at(labels.val, e))
        return FirstOrder(x, put(state.slope, k, phi.slope(at(x, k))))

    return jax.lax.fori_loop(start, stop, tag, state)


def _exact_start(side: Side) -> Exact:
    x = np.zeros(side.num_labels + 1)
    return Exact(x, side.phi.height(x))


def _exact_gain(labels: Labels, phi: Phi, state: Exact, rows: Rows, r, score):
    def term(e, total):
        k = at(rows.idx, e)
        return total + phi.rise(at(state.x, k), score * at(rows.part, e), at(state.height, k))

    return jax.lax.fori_loop(at(rows.ptr, r), at(rows.ptr, r + 1), term, jnp.zeros((), jnp.float64))


def _exact_absorb(labels: Labels, phi: Phi, state: Exact, rows: Rows, start, stop, score) -> Exact:
    def term(e, state):
        k = at(rows.idx, e)
        x = put(state.x, k, at(state.x, k) + score * at(rows.part, e))
        return Exact(x, put(state.height, k, phi.height(at(x, k))))

    return jax.lax.fori_loop(start, stop, term, state)


@partial(jax.jit, static_argnames=("kind", "native"))
def absorb_all(
    labels: Labels, phi: Phi, state: Any, rows: Rows, score: Tensor, count: Any, *, kind: str, native: bool
) -> tuple[Any, Any]:
    """Add the first ``count`` rows, one after the other: (state, what each gained then, float64 ``[R]``)."""

    def run(labels, phi, state, rows, score, count):
        kernel = KERNELS[kind]

        def gain(state, r):
            return kernel.gain(labels, phi, state, rows, r, at(score, r))

        def row(r, carry):
            state, gains, here = carry
            gains = put(gains, r, here)
            state = kernel.absorb(labels, phi, state, rows, at(rows.ptr, r), at(rows.ptr, r + 1), at(score, r))
            return state, gains, gain(state, r + 1)

        state, gains, _ = jax.lax.fori_loop(0, count, row, (state, jnp.zeros_like(score), gain(state, jnp.int32(0))))
        return state, gains

    args = (labels, phi, state, rows, score, count)
    return as_one_function(run, *args) if native else run(*args)


KERNELS = {
    "first_order": Kernel(_first_order_start, _first_order_gain, _first_order_absorb, linear=True),
    "exact": Kernel(_exact_start, _exact_gain, _exact_absorb, linear=False),
}
