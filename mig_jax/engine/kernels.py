"""The two gains as the engine runs them: (init, gain, absorb) over a small replicated state.

A kernel knows rows and labels and nothing of candidates, thresholds or devices. ``gain`` is of one row, for vmap.
Arrays of L + 1 entries keep a last one for padding.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mig_jax.engine.problem import Labels, Tensor
from mig_jax.gain.gain import exact_gain, first_order_gain, label_value, take
from mig_jax.gain.phi import Phi


class State(NamedTuple):
    """x the mass at each label; for the first-order gain also slope = phi'(x) and y = P slope; float32 ``[L+1]``."""

    x: Float[Array, " L1"]
    slope: Tensor
    y: Tensor


class Row(NamedTuple):
    """One row: labels ``[W]``, part ``[W]`` (exact gain only) and score ``[]``; or many, with a last axis more."""

    labels: Tensor
    part: Tensor
    score: Tensor


class Kernel(NamedTuple):
    """``eager``: a gain is so cheap that all candidates are kept fresh, rather than only the one in front."""

    init: Callable[[Labels, Phi, int], State]
    gain: Callable[[Phi, State, Row], Array]
    absorb: Callable[[Labels, Phi, State, Row], State]
    eager: bool


def gains(kernel: Kernel, phi: Phi, state: State, rows: Row) -> Array:
    """The gain of every row; labels ``[W, B]`` -> ``[B]``."""
    axes: Any = Row(1, None if rows.part is None else 1, 0)
    return jax.vmap(partial(kernel.gain, phi, state), in_axes=(axes,))(rows)


def _first_order_init(labels: Labels, phi: Phi, num_labels: int) -> State:
    x = jnp.zeros(num_labels + 1, jnp.float32)
    slope = phi.slope(x)
    y = jnp.zeros(num_labels + 1, jnp.float32)
    for hop in labels.hops:
        y = y.at[hop.label].set(jax.vmap(label_value, in_axes=(None, 1, 1))(slope, hop.idx, hop.val))
    return State(x, slope, y)


def _first_order_absorb(labels: Labels, phi: Phi, state: State, row: Row) -> State:
    """x += s P[l] for every tag, phi' with it; then y wherever a phi' is read that has changed.

    One tag after another, and only those there are: the labels of two tags may meet, the order of additions must not
    depend on chance, and a padded tag would cost as much as a real one.
    """
    pad = state.x.shape[0] - 1
    tags = jnp.sum(row.labels != pad)

    def spread(t, carry):
        x, slope = carry
        idx, val = _slice_of_p(labels, row.labels[t], pad)
        x = x.at[idx].add(row.score * val, mode="promise_in_bounds")
        return x, slope.at[idx].set(phi.slope(take(x, idx)), mode="promise_in_bounds")

    x, slope = jax.lax.fori_loop(0, tags, spread, (state.x, state.slope))

    def refresh(t, y):
        for hop in labels.hops:
            near_W = _near(hop, row.labels[t])
            row_DxW = [matrix.at[:, near_W].get(mode="promise_in_bounds") for matrix in (hop.idx, hop.val)]
            value_W = jax.vmap(label_value, in_axes=(None, 1, 1))(slope, *row_DxW)
            y = y.at[take(hop.label, near_W)].set(value_W, mode="promise_in_bounds")
        return y

    return State(x, slope, jax.lax.fori_loop(0, tags, refresh, state.y))


def _slice_of_p(labels: Labels, label: Array, pad: int) -> tuple[Array, Array]:
    start = labels.ptr[label]
    width = labels.reach.shape[0]
    inside = labels.reach < labels.ptr[label + 1] - start
    idx = jax.lax.dynamic_slice_in_dim(labels.idx, start, width)
    val = jax.lax.dynamic_slice_in_dim(labels.val, start, width)
    return jnp.where(inside, idx, pad), jnp.where(inside, val, 0.0)


def _near(hop, label: Array) -> Array:
    start = hop.ptr[label]
    near = jax.lax.dynamic_slice_in_dim(hop.near, start, hop.reach.shape[0])
    return jnp.where(hop.reach < hop.ptr[label + 1] - start, near, hop.label.shape[0] - 1)


def _exact_init(labels: Labels, phi: Phi, num_labels: int) -> State:
    return State(jnp.zeros(num_labels + 1, jnp.float32), None, None)


def _exact_absorb(labels: Labels, phi: Phi, state: State, row: Row) -> State:
    """x += s part: a row's labels are distinct, and padding adds 0."""
    return State(state.x.at[row.labels].add(row.score * row.part, mode="promise_in_bounds"), None, None)


KERNELS = {
    "first_order": Kernel(
        _first_order_init,
        lambda phi, state, row: first_order_gain(state.y, row.labels, row.score),
        _first_order_absorb,
        eager=True,
    ),
    "exact": Kernel(
        _exact_init,
        lambda phi, state, row: exact_gain(phi, state.x, row.labels, row.part, row.score),
        _exact_absorb,
        eager=False,
    ),
}
