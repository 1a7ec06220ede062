"""Picks among the candidates on the shortlist: lazy greedy (Minoux 1978), as one loop.

A heap orders the candidates by (key descending, point ascending); the key is the gain at the last evaluation. One
iteration:

    the first candidate was evaluated after the last pick?   it is the next pick: take it, its queue advances
    the first candidate may not be picked (see rules.py)?    its queue advances
    evaluate the gain of the candidate, now the head of its queue, and sift it down
    stop where the first key is not above ``cut``, the largest gain that a row outside the shortlist can have

Gains only fall, so an old gain bounds the current one: a first candidate with a current gain precedes all others.

With a budget of costs the key may be the gain per cost; all of this holds for that, too.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mig_jax.engine.kernels import KERNELS, RowLabels
from mig_jax.engine.problem import PaddedPropagation, Tensor
from mig_jax.engine.rules import consume, may_pick
from mig_jax.engine.scalar import as_one_function, at, put
from mig_jax.objective.phi import Phi

NO_POINT = np.int32(2**31 - 1)
BELOW_ALL = -2.0  # the key of the entry after the last candidate; an empty queue has -1


class Queues(NamedTuple):
    """All queues end to end: ``point`` int32 ``[N]`` at each position, and its ``score`` float64 ``[N]``.

    ``ratio``: score / cost, float64 ``[N]``, where rows are ordered by their gain per cost.
    """

    point: Tensor
    score: Tensor
    ratio: Tensor = None


class Top(NamedTuple):
    """The first candidate: key, point, slot and queue position, and whether its key is its gain in this state.

    ``pickable``: whether the rules allow it; None where there are no rules.
    """

    key: Tensor
    point: Tensor
    slot: Tensor
    head: Tensor
    current: Tensor
    pickable: Tensor = None


class Heap(NamedTuple):
    """In heap order ``[C+1]``, the last below all: ``key`` float64, ``point`` and ``slot`` int32. By slot, int32
    ``[C]``: ``head`` the position of the queue's head, ``end`` of its end, ``evaluated_at`` the number of picks
    at the last evaluation (-1: none). ``count``: picks so far. ``evaluations``: of the gain, so far."""

    key: Tensor
    point: Tensor
    slot: Tensor
    head: Tensor
    end: Tensor
    evaluated_at: Tensor
    top: Top
    count: Tensor
    evaluations: Tensor


class Picks(NamedTuple):
    """The picks of one call, in order: ``point`` int32 ``[B]``, padded with -1, and ``gain`` float64 ``[B]``."""

    point: Tensor
    gain: Tensor


def make_heap(bound: np.ndarray, point: np.ndarray, head: np.ndarray, end: np.ndarray) -> Heap:
    """A heap of C candidates, in any order; ``bound`` is at least their gain."""
    order = np.lexsort((point, -bound)).astype(np.int32)  # a sorted list is a heap
    key, point = np.append(bound[order], BELOW_ALL), np.append(point[order], NO_POINT)
    top = Top(key[0], point[0], order[0], head[order[0]], np.bool_(False))
    never = np.full(len(bound), -1, np.int32)
    return Heap(key, point, np.append(order, np.int32(0)), head, end, never, top, np.int32(0), np.int32(0))


def keys_by_slot(heap: Heap) -> np.ndarray:
    """The key of each candidate, by slot; float64 ``[C]``."""
    keys = np.empty(len(heap.head))
    keys[np.asarray(heap.slot)[:-1]] = np.asarray(heap.key)[:-1]
    return keys


@partial(jax.jit, static_argnames=("kind", "size", "native"))
def pick(
    p: PaddedPropagation,
    phi: Phi,
    state: Any,
    rows: RowLabels,
    queues: Queues,
    heap: Heap,
    cut: Any,
    limit: Any,
    rules: Any = None,
    remaining: Any = None,
    *,
    kind: str,
    size: int,
    native: bool,
) -> tuple[Any, Heap, Picks, Any, Any]:
    """Up to ``limit`` <= ``size`` picks: (state, heap, picks, whether the shortlist is exhausted, what remains).

    Args:
      cut: no row outside the shortlist has a larger key.
      rules: by queue position, and what ``remaining`` of them; None: every row may be picked.
      native: as one function of a CPU.
    """
    run = partial(_run, kind, size)
    args = (p, phi, state, rows, queues, heap, cut, limit, rules, remaining)
    return as_one_function(run, *args) if native else run(*args)


def _run(kind, size, p, phi, state, rows, queues, heap, cut, limit, rules, remaining):
    picks = Picks(jnp.full(size, -1, jnp.int32), jnp.zeros(size, jnp.float64))
    before = heap.count
    if rules is not None:
        heap = heap._replace(top=heap.top._replace(pickable=may_pick(rules, remaining, heap.top.head)))
    iteration = partial(_iteration, KERNELS[kind], p, phi, rows, queues, rules, before)
    state, heap, picks, remaining = jax.lax.while_loop(
        lambda c: _continues(c[1].top, cut) & (c[1].count - before < limit), iteration, (state, heap, picks, remaining)
    )
    return state, heap._replace(top=heap.top._replace(pickable=None)), picks, ~_continues(heap.top, cut), remaining


def _continues(top: Top, cut):
    return (top.key > 0) & (top.key > cut)


def _comes_first(key, point, other_key, other_point):
    return (key > other_key) | ((key == other_key) & (point < other_point))


def _iteration(kernel, p, phi, rows, queues, rules: Any, before, carry):
    state, heap, picks, remaining = carry
    key, point, slot, head, current, is_pickable = heap.top
    picked, advances, gain = current, current, key
    if rules is not None:
        picked, advances = current & is_pickable, current | ~is_pickable
        gain = key if queues.ratio is None else key * at(rules.cost, head)
    start = at(rows.ptr, slot)
    stop = jnp.where(picked, at(rows.ptr, slot + 1), start)
    state = kernel.absorb(p, phi, state, rows, start, stop, at(queues.score, head))
    i = heap.count - before
    picks = Picks(put(picks.point, i, jnp.where(picked, point, -1)), put(picks.gain, i, gain))
    if rules is not None:
        remaining = consume(rules, remaining, head, picked)
    count = heap.count + picked.astype(jnp.int32)
    head = head + advances.astype(jnp.int32)
    empty = head >= at(heap.end, slot)
    next_point = at(queues.point, head)
    key = jnp.where(empty, -1.0, _key(kernel, p, phi, state, rows, queues, rules, slot, head))
    heads, evaluated_at = put(heap.head, slot, head), put(heap.evaluated_at, slot, count)
    keys, points, slots = _sift_down(heap, key, next_point, slot)
    first = at(slots, 0)
    first_head = at(heads, first)
    is_pickable = None if rules is None else may_pick(rules, remaining, first_head)
    top = Top(at(keys, 0), at(points, 0), first, first_head, at(evaluated_at, first) == count, is_pickable)
    heap = Heap(keys, points, slots, heads, heap.end, evaluated_at, top, count, heap.evaluations + 1)
    return state, heap, picks, remaining


def _key(kernel, p, phi, state, rows, queues, rules, slot, head):
    """The key of a candidate: its gain, or its gain per cost."""
    if queues.ratio is None:
        return kernel.gain(p, phi, state, rows, slot, at(queues.score, head))
    if kernel.linear:
        return kernel.gain(p, phi, state, rows, slot, at(queues.ratio, head))
    return kernel.gain(p, phi, state, rows, slot, at(queues.score, head)) / at(rules.cost, head)


def _sift_down(heap: Heap, key, point, slot):
    """Sift down: the first entry is free; children move up until (key, point) follows its parent."""
    size = heap.key.shape[0] - 1

    def better_child(keys, points, slots, i):
        left, right = jnp.minimum(2 * i + 1, size), jnp.minimum(2 * i + 2, size)
        is_right = _comes_first(at(keys, right), at(points, right), at(keys, left), at(points, left))
        child = jnp.where(is_right, right, left)
        return at(keys, child), at(points, child), at(slots, child), child

    def move_up(c):
        (keys, points, slots), i, (child_key, child_point, child_slot, child) = c
        arrays = put(keys, i, child_key), put(points, i, child_point), put(slots, i, child_slot)
        return arrays, child, better_child(*arrays, child)

    arrays = heap.key, heap.point, heap.slot
    start = (arrays, jnp.int32(0), better_child(*arrays, jnp.int32(0)))
    arrays, i, _ = jax.lax.while_loop(lambda c: _comes_first(c[2][0], c[2][1], key, point), move_up, start)
    return put(arrays[0], i, key), put(arrays[1], i, point), put(arrays[2], i, slot)
