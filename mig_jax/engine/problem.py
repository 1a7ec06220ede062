"""A pool laid out for the engine: rows that differ in score alone share a queue, queues are cut into shards.

Only rows with a label and a positive score can ever gain anything. Of rows with the same labels the gain is the same
but for the score, so only the best of them that is left can be the next pick: they form one group, a queue ordered by
(score descending, row ascending), and the engine looks at G groups and never at what waits behind a head. (Of two whose
gains round to one number, the higher score goes first.) Groups stand in the order of their first heads. Shard s of S
holds groups s n .. (s+1) n - 1. Within a shard groups of similar width share a bucket, padded to the bucket's power of
two, so that one row with forty tags does not widen a million others.

Where rows are ordered by their first-order gain per cost, a queue is ordered by score / cost. The exact gain per cost
orders rows of equal labels now one way, now another: each row is a group of its own then.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float64, Int32

from mig_jax.core.errors import UserError
from mig_jax.encode.encoded import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.information import propagation_matrix, reached
from mig_jax.objective.phi import Phi

NARROWEST = 4
Tensor = Any  # numpy where it is laid out, jax inside the engine: the docstrings give shapes and types


class Bucket(NamedTuple):
    """Groups of one width, shard after shard (``S n_b`` columns): padding has label L, part 0 and score 0.

    ``labels`` int32 ``[W, S n_b]``; where they are those that a group reaches also ``part`` float32 of that shape and
    ``score`` float32 ``[S n_b]``, the first head's; else None.
    """

    labels: Tensor
    part: Tensor
    score: Tensor


class Groups(NamedTuple):
    """G groups in CSR. What a group gains by: its labels or, for the exact gain, the labels it reaches and their parts.

    ``ptr`` int64 ``[G+1]``, ``idx`` int32 ``[...]`` ascending, ``part`` float64 ``[...]`` or None. The queue of group g
    is ``row`` (int32, points) and ``score`` (float64) at ``queue[g] .. queue[g+1] - 1``; ``queue`` int32 ``[G+1]``.
    ``cost``: float64 like ``score`` where rows are ordered by their gain per cost, else None.
    """

    ptr: np.ndarray
    idx: np.ndarray
    part: np.ndarray | None
    queue: np.ndarray
    row: np.ndarray
    score: np.ndarray
    cost: np.ndarray | None = None

    @property
    def ratio(self) -> np.ndarray:
        """What a queue is ordered by: the score, or score / cost."""
        return self.score if self.cost is None else self.score / self.cost

    @property
    def many(self) -> int:
        """G."""
        return len(self.queue) - 1


class Labels(NamedTuple):
    """P by rows: ``ptr`` int32 ``[L+2]``, ``idx`` int32 and ``val`` float64 ``[...]``. Label L is padding, without any.

    ``idx`` and ``val`` end in slack up to a power of two: graphs of similar density share a compilation.
    """

    ptr: Tensor
    idx: Tensor
    val: Tensor


class Side(NamedTuple):
    """The labels' side of a selection. ``kind`` is "first_order" or "exact"."""

    kind: str
    phi: Phi
    labels: Labels
    num_labels: int


@dataclass(frozen=True)
class Problem:
    """All that the engine needs; host arrays.

    ``where`` int32 ``[S n]``: a group's column in its shard's buckets laid end to end. ``reach``, for the exact gain:
    buckets of the labels that groups reach, with their parts, and where groups are in these.
    """

    side: Side
    groups: Groups
    buckets: tuple[Bucket, ...]
    where: Int32[np.ndarray, " S_n"]
    reach: tuple[tuple[Bucket, ...], Int32[np.ndarray, " S_n"]] | None
    shards: int

    @property
    def rows(self) -> int:
        """How many rows can be picked."""
        return len(self.groups.row)


def make_problem(
    encoded: Encoded,
    p: Propagation,
    phi: Phi,
    kind: str = "first_order",
    shards: int = 1,
    cost: Float64[np.ndarray, " M"] | None = None,
) -> Problem:
    """Lay a pool out for ``shards`` devices; with a ``cost`` (> 0) of each row to be picked by the gain per cost."""
    count = len(encoded.labels)
    if len(encoded) >= 2**31 or len(p.idx) >= 2**31:
        raise UserError(f"{len(encoded)} rows and {len(p.idx)} edge ends: the engine counts both in 31 bits")
    groups = make_groups(encoded.label_ptr, encoded.label_idx, encoded.score, count, cost, alone=kind == "exact")
    buckets, where = _buckets(groups, count, shards)
    reach = None
    if kind == "exact":
        rows = sp.csr_array((np.ones(len(groups.idx)), groups.idx, groups.ptr), shape=(len(groups.ptr) - 1, count))
        near = reached(rows, propagation_matrix(p))
        near.sort_indices()
        groups = groups._replace(ptr=near.indptr.astype(np.int64), idx=near.indices.astype(np.int32), part=near.data)
        reach = _buckets(groups, count, shards)
    side = Side(kind, phi, make_labels(p), count)
    return Problem(side, groups, buckets, where, reach, shards)


def make_groups(
    ptr: np.ndarray,
    idx: np.ndarray,
    score: np.ndarray,
    num_labels: int,
    cost: np.ndarray | None = None,
    alone: bool = False,
) -> Groups:
    """Rows (CSR of labels, any order within a row) to groups of equal labels; ``alone``: to one each, if they cost."""
    point = np.flatnonzero((np.diff(ptr) > 0) & (score > 0)).astype(np.int32)
    ptr, idx = rows_of(ptr, idx, point)
    idx = _sorted_within(ptr, idx, num_labels)
    score = score[point].astype(np.float64)
    count, width = len(point), np.diff(ptr)
    if not count:
        none = np.zeros(0, np.int32)
        return Groups(np.zeros(1, np.int64), none, None, np.zeros(1, np.int32), none, np.zeros(0))
    if cost is not None:
        cost = cost[point]
    if cost is not None and alone:
        return Groups(ptr, idx, None, np.arange(count + 1, dtype=np.int32), point, score, cost)
    order, new = _by_labels(ptr, idx, width, score if cost is None else score / cost, num_labels)
    first = np.flatnonzero(new)  # where a group starts in `order`
    by_head = np.argsort(order[first], kind="stable")
    size = np.diff(np.append(first, count))[by_head]
    queue = np.concatenate([[0], np.cumsum(size)])
    rank = order[np.repeat(first[by_head] - queue[:-1], size) + np.arange(count)]
    heads = rank[queue[:-1]]
    group_ptr, group_idx = rows_of(ptr, idx, heads)
    cost = None if cost is None else cost[rank]
    return Groups(group_ptr, group_idx, None, queue.astype(np.int32), point[rank], score[rank], cost)


def _by_labels(ptr, idx, width, score, num_labels):
    """Rows ordered so that equal label sets stand together, best first, and where a new set begins."""
    for seed in range(8):
        mark = np.random.default_rng([seed, 1504]).integers(0, 2**63, num_labels + 1, dtype=np.uint64)
        digest = np.add.reduceat(mark[idx], ptr[:-1])  # a sum modulo 2^64 of each label's mark
        order = np.argsort(digest)
        same = digest[order][1:] == digest[order][:-1]
        shared = np.append(same, False) | np.append(False, same)  # only these need more than their digest
        rows = order[shared]
        order[shared] = rows[np.lexsort((rows, -score[rows], digest[rows]))]
        if _truly_equal(ptr, idx, width, order[1:][same], order[:-1][same]):
            return order, np.concatenate([[True], ~same])
    raise AssertionError("eight 64-bit digests of different label sets met")


def _truly_equal(ptr, idx, width, a, b) -> bool:
    """Whether rows a[i] and b[i] have equal labels, for all i: a digest alone would be a bet."""
    if not np.array_equal(width[a], width[b]):
        return False
    return np.array_equal(rows_of(ptr, idx, a)[1], rows_of(ptr, idx, b)[1])


def make_labels(p: Propagation) -> Labels:
    """P with its slack."""
    slack = np.zeros(int(power_of_two(len(p.idx))) - len(p.idx))
    return Labels(
        np.append(p.ptr, p.ptr[-1]).astype(np.int32),
        np.concatenate([p.idx, slack]).astype(np.int32),
        np.concatenate([p.val, slack]),
    )


def power_of_two(value):
    """The least power of two >= value, elementwise, at least 1."""
    return np.int64(1) << np.ceil(np.log2(np.maximum(value, 1))).astype(np.int64)


def rows_of(ptr: np.ndarray, idx: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CSR rows ``rows`` of (ptr, idx)."""
    if len(rows) == len(ptr) - 1 and (rows == np.arange(len(rows))).all():
        return ptr, idx
    counts = ptr[rows + 1] - ptr[rows]
    out_ptr = np.concatenate([[0], np.cumsum(counts)])
    return out_ptr, idx[np.arange(out_ptr[-1]) + np.repeat(ptr[rows] - out_ptr[:-1], counts)]


def _sorted_within(ptr, idx, num_labels):
    """Every row's labels in ascending order: equal sets must add up in equal order."""
    owner = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    key = owner * np.int64(num_labels) + idx
    if (np.diff(key) > 0).all():
        return idx
    key.sort()
    return (key - owner * np.int64(num_labels)).astype(np.int32)


def _buckets(groups: Groups, num_labels: int, shards: int):
    n_all = groups.many
    n = max(1, -(-n_all // shards))
    ptr, width = groups.ptr, np.diff(groups.ptr)
    bucket_of = np.maximum(power_of_two(width), NARROWEST)
    shard_of = np.arange(n_all) // n
    where = np.zeros(shards * n, np.int32)
    buckets, offset = [], 0
    for w in np.unique(bucket_of) if n_all else [NARROWEST]:
        rows = np.flatnonzero(bucket_of == w)
        per_shard = np.bincount(shard_of[rows], minlength=shards)
        size = int(per_shard.max(initial=1))
        first = np.concatenate([[0], np.cumsum(per_shard)])[:-1]
        column = np.arange(len(rows)) - first[shard_of[rows]]  # within the shard's part of this bucket
        where[rows] = offset + column
        column = column + shard_of[rows] * size
        labels = np.full((int(w), shards * size), num_labels, np.int32)
        entry = np.arange(width[rows].sum()) - np.repeat(np.cumsum(width[rows]) - width[rows], width[rows])
        source = np.repeat(ptr[rows], width[rows]) + entry
        target = np.repeat(column, width[rows])
        labels[entry, target] = groups.idx[source]
        part = score = None
        if groups.part is not None:
            part = np.zeros(labels.shape, np.float32)
            part[entry, target] = groups.part[source]
            score = np.zeros(shards * size, np.float32)
            score[column] = groups.score[groups.queue[rows]]
        buckets.append(Bucket(labels, part, score))
        offset += size
    return tuple(buckets), where
