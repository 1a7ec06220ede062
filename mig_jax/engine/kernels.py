"""The two gains as the engine runs them: the state of the labels, a row's gain in it, and what a pick changes.

A kernel knows labels and rows and nothing of candidates, thresholds or devices. State is float64, and what the picks
are decided by is computed from it in loops over single numbers (see scalar.py): a label has a handful of neighbours,
and lists padded to a common width would be mostly padding.

First order. y_l = sum_m P[l, m] phi'(x_m) is added up where it is asked for. (Kept up to date instead, a pick would
change all y two steps away: as fast for 4 neighbours a label, thirty times slower for 40.) A gain is the float32 sum of
y rounded to float32, here and in the full pass, so that equal rows are equal everywhere.

Exact. The full pass gives bounds: float32, raised by SLACK. A gain is added up in float64 and rounded once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mig_jax.engine.problem import Labels, Side, Tensor
from mig_jax.engine.scalar import as_one_function, at, put
from mig_jax.gain.phi import Phi

SLACK = 2.0**-14  # above what float32 may lose in a sum of rises


class FirstOrder(NamedTuple):
    """The mass x and the slopes phi'(x); float64 ``[L+1]``, the last is padding's."""

    x: Tensor
    slope: Tensor


class Exact(NamedTuple):
    """The mass x and phi.height(x); float64 ``[L+1]``, the last is padding's."""

    x: Tensor
    height: Tensor


class Rows(NamedTuple):
    """Rows as the loops read them: row r owns ``idx[ptr[r]:ptr[r+1]]``, and its parts (exact gain; else None)."""

    ptr: Tensor
    idx: Tensor
    part: Tensor


class Kernel(NamedTuple):
    """``start(side)`` is the empty selection's state. ``gain(labels, phi, state, rows, r, score)`` float32.

    ``absorb(labels, phi, state, rows, start, stop, score)`` adds the row that owns start..stop, or nothing where
    start = stop. ``decides``: the full pass computes the very gains (else bounds above them).
    """

    start: Callable[[Side], Any]
    gain: Callable[..., Any]
    absorb: Callable[..., Any]
    decides: bool


def _first_order_start(side: Side) -> FirstOrder:
    x = np.zeros(side.num_labels + 1)
    return FirstOrder(x, side.phi.slope(x))


def _y(labels: Labels, slope, label):
    """y of one label, in float32. Labels without neighbours at all (padding): 0."""
    total = jax.lax.fori_loop(
        at(labels.ptr, label),
        at(labels.ptr, label + 1),
        lambda e, total: total + at(labels.val, e) * at(slope, at(labels.idx, e)),
        jnp.zeros((), jnp.float64),
    )
    return total.astype(jnp.float32)


@partial(jax.jit, static_argnames=("native",))
def label_gains(labels: Labels, state: FirstOrder, *, native: bool) -> Any:
    """y of every label, as rows see it; float32 ``[L+1]``."""

    def run(labels, slope):
        y = jnp.zeros(slope.shape, jnp.float32)
        return [jax.lax.fori_loop(0, len(slope), lambda label, y: put(y, label, _y(labels, slope, label)), y)]

    return (as_one_function(run, labels, state.slope) if native else run(labels, state.slope))[0]


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


def _exact_gain(labels: None, phi: Phi, state: Exact, rows: Rows, r, score):
    def term(e, total):
        k = at(rows.idx, e)
        return total + phi.rise(at(state.x, k), score * at(rows.part, e), at(state.height, k))

    score = score.astype(jnp.float64)
    total = jax.lax.fori_loop(at(rows.ptr, r), at(rows.ptr, r + 1), term, jnp.zeros((), jnp.float64))
    return total.astype(jnp.float32)


def _exact_absorb(labels: None, phi: Phi, state: Exact, rows: Rows, start, stop, score) -> Exact:
    def term(e, state):
        k = at(rows.idx, e)
        x = put(state.x, k, at(state.x, k) + score * at(rows.part, e))
        return Exact(x, put(state.height, k, phi.height(at(x, k))))

    return jax.lax.fori_loop(start, stop, term, state)


KERNELS = {
    "first_order": Kernel(_first_order_start, _first_order_gain, _first_order_absorb, decides=True),
    "exact": Kernel(_exact_start, _exact_gain, _exact_absorb, decides=False),
}
