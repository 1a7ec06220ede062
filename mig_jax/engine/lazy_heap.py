"""Picks among the candidates of a full pass, without looking at any other row (Minoux's lazy greedy, as one loop).

A heap orders the candidates by (gain when last looked at descending, row ascending). One turn of the loop:

    the first candidate was looked at since the last pick?    it is the next pick: take it, its queue moves up
    the first candidate may not be picked (see rules.py)?     its queue moves up
    look at it (at the new head of its queue) again, and let it sink to its place
    stop where the first gains no more than a row outside may

Gains only fall, so what was seen earlier bounds what is: a first candidate that is fresh comes before all others.

With a budget of costs the key may be the gain per cost instead; all of this holds for that, too.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mig_jax.engine.kernels import KERNELS, Rows
from mig_jax.engine.problem import Labels, Tensor
from mig_jax.engine.rules import may_pick, use_up
from mig_jax.engine.scalar import as_one_function, at, put
from mig_jax.objective.phi import Phi

NO_ROW = np.int32(2**31 - 1)
BELOW_ALL = -2.0  # the key of no candidate; -1 is that of an empty queue


class Queues(NamedTuple):
    """Points in the order of all queues (``row`` int32 ``[N]``) and their scores (float64).

    ``ratio``: score / cost (float64 ``[N]``) where rows are ordered by their gain per cost.
    """

    row: Tensor
    score: Tensor
    ratio: Tensor = None


class Top(NamedTuple):
    """The first candidate: its key, row, slot and place in the queues, and whether it was looked at in this state.

    ``open``: whether it may be picked; None where all may.
    """

    key: Tensor
    row: Tensor
    slot: Tensor
    head: Tensor
    fresh: Tensor
    open: Tensor = None


class Heap(NamedTuple):
    """Candidates in heap order, ``[C+1]`` (the last is below all); by slot ``[C]`` the place of the queue's head, the
    queue's end, and the number of picks when it was last looked at. ``count``: picks so far. ``looks``: evaluations."""

    key: Tensor
    row: Tensor
    slot: Tensor
    head: Tensor
    end: Tensor
    seen: Tensor
    top: Top
    count: Tensor
    looks: Tensor


class Picks(NamedTuple):
    """What one call picked, in order: ``row`` int32 and ``gain`` float64 ``[B]``."""

    row: Tensor
    gain: Tensor


def make_heap(bound: np.ndarray, row: np.ndarray, head: np.ndarray, end: np.ndarray) -> Heap:
    """Candidates in any order, and bounds above their gains."""
    order = np.lexsort((row, -bound)).astype(np.int32)  # a sorted list is a heap
    key, row = np.append(bound[order], BELOW_ALL), np.append(row[order], NO_ROW)
    top = Top(key[0], row[0], order[0], head[order[0]], np.bool_(False))
    never = np.full(len(bound), -1, np.int32)
    return Heap(key, row, np.append(order, np.int32(0)), head, end, never, top, np.int32(0), np.int32(0))


def last_seen(heap: Heap) -> np.ndarray:
    """The gain last seen of each candidate, by slot; float64 ``[C]``."""
    seen = np.empty(len(heap.head))
    seen[np.asarray(heap.slot)[:-1]] = np.asarray(heap.key)[:-1]
    return seen


@partial(jax.jit, static_argnames=("kind", "size", "native"))
def pick(
    labels: Labels,
    phi: Phi,
    state: Any,
    rows: Rows,
    queues: Queues,
    heap: Heap,
    cut: Any,
    limit: Any,
    rules: Any = None,
    left: Any = None,
    *,
    kind: str,
    size: int,
    native: bool,
) -> tuple[Any, Heap, Picks, Any, Any]:
    """Up to ``limit`` <= ``size`` picks: (state, heap, picks, whether the candidates are exhausted, what is left).

    No row outside has a key above ``cut``. ``rules``: Rules by place in the queues, and ``left`` of them, or None.
    ``native``: compiled for a CPU.
    """
    run = partial(_run, kind, size)
    args = (labels, phi, state, rows, queues, heap, cut, limit, rules, left)
    return as_one_function(run, *args) if native else run(*args)


def _run(kind, size, labels, phi, state, rows, queues, heap, cut, limit, rules, left):
    picks = Picks(jnp.full(size, -1, jnp.int32), jnp.zeros(size, jnp.float64))
    before = heap.count
    if rules is not None:
        heap = heap._replace(top=heap.top._replace(open=may_pick(rules, left, heap.top.head)))
    turn = partial(_turn, KERNELS[kind], labels, phi, rows, queues, rules, before)
    state, heap, picks, left = jax.lax.while_loop(
        lambda c: _passes(c[1].top, cut) & (c[1].count - before < limit), turn, (state, heap, picks, left)
    )
    return state, heap._replace(top=heap.top._replace(open=None)), picks, ~_passes(heap.top, cut), left


def _passes(top: Top, cut):
    return (top.key > 0) & (top.key > cut)


def _comes_first(key, row, other_key, other_row):
    return (key > other_key) | ((key == other_key) & (row < other_row))


def _turn(kernel, labels, phi, rows, queues, rules: Any, before, carry):
    state, heap, picks, left = carry
    key, row, slot, head, fresh, is_open = heap.top
    picked, moves, gain = fresh, fresh, key
    if rules is not None:
        picked, moves = fresh & is_open, fresh | ~is_open
        gain = key if queues.ratio is None else key * at(rules.cost, head)
    start = at(rows.ptr, slot)
    stop = jnp.where(picked, at(rows.ptr, slot + 1), start)
    state = kernel.absorb(labels, phi, state, rows, start, stop, at(queues.score, head))
    place = heap.count - before
    picks = Picks(put(picks.row, place, jnp.where(picked, row, -1)), put(picks.gain, place, gain))
    if rules is not None:
        left = use_up(rules, left, head, picked)
    count = heap.count + picked.astype(jnp.int32)
    head = head + moves.astype(jnp.int32)
    empty = head >= at(heap.end, slot)
    next_row = at(queues.row, head)
    key = jnp.where(empty, -1.0, _key(kernel, labels, phi, state, rows, queues, rules, slot, head))
    heads, seen = put(heap.head, slot, head), put(heap.seen, slot, count)
    keys, in_row, slots = _sink(heap, key, next_row, slot)
    first = at(slots, 0)
    first_head = at(heads, first)
    is_open = None if rules is None else may_pick(rules, left, first_head)
    top = Top(at(keys, 0), at(in_row, 0), first, first_head, at(seen, first) == count, is_open)
    return state, Heap(keys, in_row, slots, heads, heap.end, seen, top, count, heap.looks + 1), picks, left


def _key(kernel, labels, phi, state, rows, queues, rules, slot, head):
    """What candidates are ordered by: the gain, or the gain per cost."""
    if queues.ratio is None:
        return kernel.gain(labels, phi, state, rows, slot, at(queues.score, head))
    if kernel.linear:
        return kernel.gain(labels, phi, state, rows, slot, at(queues.ratio, head))
    return kernel.gain(labels, phi, state, rows, slot, at(queues.score, head)) / at(rules.cost, head)


def _sink(heap: Heap, key, row, slot):
    """The first place is free: children move up until (key, row) has found its own."""
    size = heap.key.shape[0] - 1

    def better_child(keys, rows, slots, i):
        left, right = jnp.minimum(2 * i + 1, size), jnp.minimum(2 * i + 2, size)
        is_right = _comes_first(at(keys, right), at(rows, right), at(keys, left), at(rows, left))
        child = jnp.where(is_right, right, left)
        return at(keys, child), at(rows, child), at(slots, child), child

    def move_up(c):
        (keys, rows, slots), i, (child_key, child_row, child_slot, child) = c
        arrays = put(keys, i, child_key), put(rows, i, child_row), put(slots, i, child_slot)
        return arrays, child, better_child(*arrays, child)

    arrays = heap.key, heap.row, heap.slot
    start = (arrays, jnp.int32(0), better_child(*arrays, jnp.int32(0)))
    arrays, i, _ = jax.lax.while_loop(lambda c: _comes_first(c[2][0], c[2][1], key, row), move_up, start)
    return put(arrays[0], i, key), put(arrays[1], i, row), put(arrays[2], i, slot)
