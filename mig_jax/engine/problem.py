"""The layout of a pool for the engine: points with equal labels share a queue; the queues are divided into shards.

Only points with a label and a positive score can gain anything. The gains of points with equal labels differ by the
score only, so only the best of them that is not picked can be the next pick. They form one group: a queue ordered by
(score descending, point ascending). The engine evaluates the heads of G groups, never the points behind them. (Of two
points whose gains round to one number, the higher score goes first.) Groups are ordered by their first heads. Shard s
of S holds groups s n .. (s+1) n - 1. Within a shard groups of similar width share a bucket, padded to the bucket's
power of two, so that one row with forty tags does not widen a million others.

Where points are ordered by their first-order gain per cost, a queue is ordered by score / cost. By the exact gain per
cost the order of points with equal labels can change with the state: then each point is a group of its own.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64, Int32

from mig_jax.core.errors import UserError
from mig_jax.encode.encoded import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.matrices import propagation_matrix, unit_masses
from mig_jax.objective.phi import Phi

NARROWEST = 4
Tensor = Any  # a numpy array on the host, a jax array inside the engine; the docstrings give shapes and types


class Bucket(NamedTuple):
    """Groups of one width, shard after shard (``S n_b`` columns). Padding has label L, unit mass 0 and score 0.

    ``labels`` int32 ``[W, S n_b]``. Where these are the labels that a group reaches: ``unit_mass`` float32 of that
    shape, and ``score`` float32 ``[S n_b]`` of the first head; else None.
    """

    labels: Tensor
    unit_mass: Tensor
    score: Tensor


class Groups(NamedTuple):
    """G groups in CSR: their labels or, for the exact gain, the labels that they reach.

    ``ptr`` int64 ``[G+1]``, ``idx`` int32 ``[...]`` ascending; ``unit_mass`` float64 ``[...]``, the mass at each label
    reached per unit of score, or None. The queue of group g is ``point`` (int32) and ``score`` (float64) at positions
    ``queue[g] .. queue[g+1] - 1``; ``queue`` int32 ``[G+1]``. ``cost``: float64 like ``score`` where points are ordered
    by their gain per cost, else None.
    """

    ptr: np.ndarray
    idx: np.ndarray
    unit_mass: np.ndarray | None
    queue: np.ndarray
    point: np.ndarray
    score: np.ndarray
    cost: np.ndarray | None = None

    @property
    def ratio(self) -> np.ndarray:
        """The order of a queue: the score, or score / cost."""
        return self.score if self.cost is None else self.score / self.cost

    @property
    def num_groups(self) -> int:
        """G."""
        return len(self.queue) - 1


class PaddedPropagation(NamedTuple):
    """P in CSR: ``ptr`` int32 ``[L+2]``, ``idx`` int32 and ``val`` float64 ``[...]``. Label L is padding: an empty row.

    ``idx`` and ``val`` are padded to a power of two: graphs of similar density share a compilation.
    """

    ptr: Tensor
    idx: Tensor
    val: Tensor


class Objective(NamedTuple):
    """What gains are computed from: ``kind`` "first_order" or "exact", phi, and P over ``num_labels`` labels."""

    kind: str
    phi: Phi
    p: PaddedPropagation
    num_labels: int


@dataclass(frozen=True)
class Problem:
    """All that the engine needs; host arrays.

    ``column`` int32 ``[S n]``: the column of each group when the buckets of its shard are laid end to end. ``reach``,
    for the exact gain: the buckets of the labels that groups reach, and the groups' columns in these.
    """

    objective: Objective
    groups: Groups
    buckets: tuple[Bucket, ...]
    column: Int32[np.ndarray, " S_n"]
    reach: tuple[tuple[Bucket, ...], Int32[np.ndarray, " S_n"]] | None
    shards: int

    @property
    def num_points(self) -> int:
        """How many points can be picked."""
        return len(self.groups.point)


def make_problem(
    encoded: Encoded,
    p: Propagation,
    phi: Phi,
    kind: str = "first_order",
    shards: int = 1,
    cost: Float64[np.ndarray, " M"] | None = None,
) -> Problem:
    """The layout of a pool for ``shards`` devices; with a ``cost`` (> 0) of each point, for picks by gain per cost.

    Raises:
      UserError: there are 2^31 rows or edge ends, or more.
    """
    count = len(encoded.labels)
    if len(encoded) >= 2**31 or len(p.idx) >= 2**31:
        raise UserError(f"{len(encoded)} rows and {len(p.idx)} edge ends: the engine counts both in 31 bits")
    groups = make_groups(encoded.label_ptr, encoded.label_idx, encoded.score, count, cost, one_row_each=kind == "exact")
    buckets, column = _buckets(groups, count, shards)
    reach = None
    if kind == "exact":
        rows = sp.csr_array((np.ones(len(groups.idx)), groups.idx, groups.ptr), shape=(len(groups.ptr) - 1, count))
        near = unit_masses(rows, propagation_matrix(p))
        near.sort_indices()
        groups = groups._replace(
            ptr=near.indptr.astype(np.int64), idx=near.indices.astype(np.int32), unit_mass=near.data
        )
        reach = _buckets(groups, count, shards)
    objective = Objective(kind, phi, pad_propagation(p), count)
    return Problem(objective, groups, buckets, column, reach, shards)


def make_groups(
    ptr: np.ndarray,
    idx: np.ndarray,
    score: np.ndarray,
    num_labels: int,
    cost: np.ndarray | None = None,
    one_row_each: bool = False,
) -> Groups:
    """Groups of equal labels from the rows of a CSR (labels of a row in any order).

    Args:
      one_row_each: with a cost, make each point a group.
    """
    point = np.flatnonzero((np.diff(ptr) > 0) & (score > 0)).astype(np.int32)
    ptr, idx = csr_rows(ptr, idx, point)
    idx = _sorted_within(ptr, idx, num_labels)
    score = score[point].astype(np.float64)
    count, width = len(point), np.diff(ptr)
    if not count:
        empty = np.zeros(0, np.int32)
        return Groups(np.zeros(1, np.int64), empty, None, np.zeros(1, np.int32), empty, np.zeros(0))
    if cost is not None:
        cost = cost[point]
    if cost is not None and one_row_each:
        return Groups(ptr, idx, None, np.arange(count + 1, dtype=np.int32), point, score, cost)
    order, new = _by_labels(ptr, idx, width, score if cost is None else score / cost, num_labels)
    first = np.flatnonzero(new)  # positions in `order` at which a group starts
    by_head = np.argsort(order[first], kind="stable")
    size = np.diff(np.append(first, count))[by_head]
    queue = np.concatenate([[0], np.cumsum(size)])
    rank = order[np.repeat(first[by_head] - queue[:-1], size) + np.arange(count)]
    heads = rank[queue[:-1]]
    group_ptr, group_idx = csr_rows(ptr, idx, heads)
    cost = None if cost is None else cost[rank]
    return Groups(group_ptr, group_idx, None, queue.astype(np.int32), point[rank], score[rank], cost)


def _by_labels(ptr, idx, width, score, num_labels):
    """An order of the rows in which equal label sets are adjacent, best first; and whether a new set begins there."""
    for seed in range(8):
        code = np.random.default_rng([seed, 1504]).integers(0, 2**63, num_labels + 1, dtype=np.uint64)
        digest = np.add.reduceat(code[idx], ptr[:-1])  # a sum modulo 2^64 of the labels' random codes
        order = np.argsort(digest)
        same = digest[order][1:] == digest[order][:-1]
        shared = np.append(same, False) | np.append(False, same)  # rows in a group of several
        rows = order[shared]
        order[shared] = rows[np.lexsort((rows, -score[rows], digest[rows]))]
        if _equal_labels(ptr, idx, width, order[1:][same], order[:-1][same]):
            return order, np.concatenate([[True], ~same])
    raise AssertionError("eight 64-bit digests of different label sets are equal")


def _equal_labels(ptr, idx, width, a, b) -> bool:
    """Whether rows a[i] and b[i] have equal labels, for all i; equal digests do not prove it."""
    if not np.array_equal(width[a], width[b]):
        return False
    return np.array_equal(csr_rows(ptr, idx, a)[1], csr_rows(ptr, idx, b)[1])


def pad_propagation(p: Propagation) -> PaddedPropagation:
    """P, padded."""
    slack = np.zeros(int(power_of_two(len(p.idx))) - len(p.idx))
    return PaddedPropagation(
        np.append(p.ptr, p.ptr[-1]).astype(np.int32),
        np.concatenate([p.idx, slack]).astype(np.int32),
        np.concatenate([p.val, slack]),
    )


def power_of_two(value):
    """The least power of two >= value, elementwise, at least 1."""
    return np.int64(1) << np.ceil(np.log2(np.maximum(value, 1))).astype(np.int64)


def csr_rows(ptr: np.ndarray, idx: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some rows of a CSR (ptr, idx), as a CSR."""
    if len(rows) == len(ptr) - 1 and (rows == np.arange(len(rows))).all():
        return ptr, idx
    counts = ptr[rows + 1] - ptr[rows]
    out_ptr = np.concatenate([[0], np.cumsum(counts)])
    return out_ptr, idx[np.arange(out_ptr[-1]) + np.repeat(ptr[rows] - out_ptr[:-1], counts)]


def _sorted_within(ptr, idx, num_labels):
    """The labels of each row in ascending order: equal sets must be summed in equal order."""
    owner = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    key = owner * np.int64(num_labels) + idx
    if (np.diff(key) > 0).all():
        return idx
    key.sort()
    return (key - owner * np.int64(num_labels)).astype(np.int32)


def _buckets(groups: Groups, num_labels: int, shards: int):
    n_all = groups.num_groups
    n = max(1, -(-n_all // shards))
    ptr, width = groups.ptr, np.diff(groups.ptr)
    bucket_of = np.maximum(power_of_two(width), NARROWEST)
    shard_of = np.arange(n_all) // n
    column_of = np.zeros(shards * n, np.int32)
    buckets, offset = [], 0
    for w in np.unique(bucket_of) if n_all else [NARROWEST]:
        rows = np.flatnonzero(bucket_of == w)
        per_shard = np.bincount(shard_of[rows], minlength=shards)
        size = int(per_shard.max(initial=1))
        first = np.concatenate([[0], np.cumsum(per_shard)])[:-1]
        column = np.arange(len(rows)) - first[shard_of[rows]]  # within the shard's section of this bucket
        column_of[rows] = offset + column
        column = column + shard_of[rows] * size
        labels = np.full((int(w), shards * size), num_labels, np.int32)
        entry = np.arange(width[rows].sum()) - np.repeat(np.cumsum(width[rows]) - width[rows], width[rows])
        source = np.repeat(ptr[rows], width[rows]) + entry
        target = np.repeat(column, width[rows])
        labels[entry, target] = groups.idx[source]
        unit_mass = score = None
        if groups.unit_mass is not None:
            unit_mass = np.zeros(labels.shape, np.float32)
            unit_mass[entry, target] = groups.unit_mass[source]
            score = np.zeros(shards * size, np.float32)
            score[column] = groups.score[groups.queue[rows]]
        buckets.append(Bucket(labels, unit_mass, score))
        offset += size
    return tuple(buckets), column_of
