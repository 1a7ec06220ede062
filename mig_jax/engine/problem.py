"""A pool laid out for the engine: rows bucketed by width and cut into shards, label arrays beside them.

Only rows with a label and a positive score can ever gain anything: these are the N candidates, in row order. Shard s of
S holds candidates s n .. (s+1) n - 1. Within a shard rows of similar width share a bucket, padded to the bucket's power
of two, so that one row with forty tags does not widen a million others.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from mig_jax.encode.encoded import Encoded
from mig_jax.errors import UserError
from mig_jax.gain.objective import label_rows, propagation_matrix, reached
from mig_jax.gain.phi import Phi
from mig_jax.graph.label_graph import Propagation

NARROWEST = 4
MOST_HOPS = 500_000_000  # 4 GB of two-hop lists; below it every offset fits int32
Tensor = Any  # numpy where it is laid out, jax inside the engine: the docstrings give shapes and types


class Bucket(NamedTuple):
    """Rows of one width, shard after shard (``S n_b`` columns): padding has label L, part 0 and score 0.

    ``labels`` int32 ``[W, S n_b]``; ``part`` float32 of that shape for the exact gain, else None; ``score`` float32
    ``[S n_b]``.
    """

    labels: Tensor
    part: Tensor
    score: Tensor


class Hops(NamedTuple):
    """For every label the labels of one degree class whose y changes with it (two hops), and their rows of P.

    ``ptr`` int32 ``[L+2]`` and ``near`` int32 ``[...]``: positions into the class, label L's list empty; ``width`` the
    longest list is ``reach.shape[0]``. ``label`` int32 ``[C+1]``: the label at each position (the last is L, padding).
    ``idx`` int32 and ``val`` float32 ``[D, C+1]``: its row of P, padded.
    """

    ptr: Tensor
    near: Tensor
    reach: Tensor
    label: Tensor
    idx: Tensor
    val: Tensor


class Labels(NamedTuple):
    """The label side: P row by row (``ptr`` ``[L+2]``, ``idx``, ``val``, slack at the end), and who must be refreshed.

    ``reach`` is arange(widest row of P). ``hops`` is empty for the exact gain, which needs no y.
    """

    ptr: Tensor
    idx: Tensor
    val: Tensor
    reach: Tensor
    hops: tuple[Hops, ...]


@dataclass(frozen=True)
class Problem:
    """All that the engine needs; host arrays. N candidates, S shards of n rows each, L labels.

    ``point`` int64 ``[N]``: the point of each candidate. ``where`` int32 ``[S n]``: a row's column in its shard's
    buckets laid end to end. ``kind`` is "first_order" or "exact".
    """

    kind: str
    phi: Phi
    labels: Labels
    buckets: tuple[Bucket, ...]
    where: Int32[np.ndarray, " S_n"]
    point: Int64[np.ndarray, " N"]
    shards: int
    num_labels: int


def make_problem(encoded: Encoded, p: Propagation, phi: Phi, kind: str = "first_order", shards: int = 1) -> Problem:
    """Lay a pool out for ``shards`` devices."""
    count = len(encoded.labels)
    if len(encoded) >= 2**31 or len(p.idx) >= 2**31:
        raise UserError(f"{len(encoded)} rows and {len(p.idx)} edge ends: the engine counts both in 31 bits")
    point = np.flatnonzero((encoded.label_count > 0) & (encoded.score > 0)).astype(np.int64)
    if kind == "exact":
        reach = reached(label_rows(encoded, point), propagation_matrix(p))
        reach.sort_indices()
        ptr, idx, part = reach.indptr.astype(np.int64), reach.indices.astype(np.int32), reach.data.astype(np.float32)
    else:
        ptr, idx = _rows(encoded.label_ptr, encoded.label_idx, point)
        part = None
    buckets, where = _buckets(ptr, idx, part, encoded.score[point].astype(np.float32), count, shards)
    return Problem(kind, phi, _labels(p, kind), buckets, where, point, shards, count)


def _rows(ptr, idx, rows):
    """CSR rows ``rows`` of (ptr, idx)."""
    if len(rows) == len(ptr) - 1:
        return ptr, idx
    counts = np.diff(ptr)[rows]
    out_ptr = np.concatenate([[0], np.cumsum(counts)])
    source = np.arange(out_ptr[-1]) + np.repeat(ptr[rows] - out_ptr[:-1], counts)
    return out_ptr, idx[source]


def power_of_two(value):
    """The least power of two >= value, elementwise, at least 1."""
    return np.int64(1) << np.ceil(np.log2(np.maximum(value, 1))).astype(np.int64)


def _buckets(ptr, idx, part, score, num_labels, shards):
    n_all = len(ptr) - 1
    n = max(1, -(-n_all // shards))
    width = np.diff(ptr)
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
        labels[entry, target] = idx[source]
        parts = None
        if part is not None:
            parts = np.zeros(labels.shape, np.float32)
            parts[entry, target] = part[source]
        scores = np.zeros(shards * size, np.float32)
        scores[column] = score[rows]
        buckets.append(Bucket(labels, parts, scores))
        offset += size
    return tuple(buckets), where


def _labels(p: Propagation, kind: str) -> Labels:
    count = len(p.ptr) - 1
    widest = int(power_of_two(np.diff(p.ptr).max(initial=1)))
    ptr = np.concatenate([p.ptr, p.ptr[-1:]]).astype(np.int32)
    idx = np.concatenate([p.idx, np.full(widest, count, np.int32)])
    val = np.concatenate([p.val.astype(np.float32), np.zeros(widest, np.float32)])
    hops = () if kind == "exact" else _hops(p)
    return Labels(ptr, idx, val, np.arange(widest, dtype=np.int32), hops)


def _hops(p: Propagation) -> tuple[Hops, ...]:
    """Degree classes keep a hub's long row of P from widening everybody else's."""
    count = len(p.ptr) - 1
    degree = np.diff(p.ptr)
    pattern = propagation_matrix(p)
    pattern.data = np.ones_like(pattern.data)
    two_hops = reached(
        pattern, pattern
    ).tocsc()  # column m: the labels whose change reaches y_m; the pattern is symmetric
    classes = np.maximum(power_of_two(degree), 8)
    hops = []
    for wide in np.unique(classes):
        members = np.flatnonzero(classes == wide)
        near = two_hops[:, members].tocsr()
        near.sort_indices()
        longest = int(np.diff(near.indptr).max(initial=1))
        idx = np.full((int(wide), len(members) + 1), count, np.int32)
        val = np.zeros((int(wide), len(members) + 1), np.float32)
        entry = np.arange(degree[members].sum()) - np.repeat(
            np.cumsum(degree[members]) - degree[members], degree[members]
        )
        source = np.repeat(p.ptr[members], degree[members]) + entry
        target = np.repeat(np.arange(len(members)), degree[members])
        idx[entry, target], val[entry, target] = p.idx[source], p.val[source]
        hops.append(
            Hops(
                np.concatenate([near.indptr, near.indptr[-1:]]).astype(np.int32),
                np.concatenate([near.indices, np.zeros(longest, near.indices.dtype)]).astype(np.int32),
                np.arange(longest, dtype=np.int32),
                np.concatenate([members, [count]]).astype(np.int32),
                idx,
                val,
            )
        )
    return tuple(hops)
