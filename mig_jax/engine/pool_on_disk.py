"""A pool on disk, in blocks of points with similar gains; a pass reads only blocks that may hold a candidate.

A file of blocks, each ``labels`` (uint16 or int32 ``[W, B]``, padded with L), ``score`` (float64 ``[B]``) and ``point``
(int32 ``[B]``, ascending), and beside it index.npz: the offset of each block, its W, its B, and its weight, the largest
score x number of labels in it. A gain is s times a sum of y over the labels, so no point of a block gains more than
weight x max(y), nor more than the largest gain when the block was last read. Points are distributed to blocks by width
and by weight as they stream in: light blocks then stay below the cut, and are never read.
"""

import os
import zipfile
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mig_jax.core.errors import UserError
from mig_jax.core.files import open_atomic
from mig_jax.core.index import as_points
from mig_jax.engine.full_pass import largest
from mig_jax.engine.kernels import RowLabels
from mig_jax.engine.lazy_heap import NO_POINT, Heap, Queues
from mig_jax.engine.pool_in_memory import Candidates, raise_bounds, rounding_slack
from mig_jax.engine.problem import NARROWEST, make_groups, power_of_two
from mig_jax.objective.row_gain import first_order_sum

BLOCK = 1 << 17  # points in a block
PER_DOUBLING = 4  # bins of weight for each power of two
BOUND_SLACK = 1.001  # the product may round below a gain that it bounds
DATA, INDEX = "blocks.bin", "index.npz"


def label_type(num_labels: int) -> np.dtype:
    """The dtype of labels 0 .. L on disk."""
    return np.dtype(np.uint16 if num_labels < 2**16 else np.int32)


class BlockWriter:
    """Streams points into blocks; ``with BlockWriter(folder, num_labels) as out: out.add(...)``.

    Memory: at most one block for each width and bin of weight, a few dozen on real pools.
    """

    def __init__(self, folder: Path, num_labels: int, block: int = BLOCK):
        self.folder, self.num_labels, self.block = folder, num_labels, block
        self.dtype = label_type(num_labels)
        self.num_points, self.bins, self.index, self.score = 0, {}, [], 0.0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)  # the index is written last: without it there are no blocks
        self._file = (folder / (DATA + ".tmp")).open("wb")

    def __enter__(self) -> "BlockWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if kind is not None:
                return
            for key in sorted(self.bins):
                if len(self.bins[key][1]):
                    self._flush(key, len(self.bins[key][1]))
            self._file.flush()
            os.fsync(self._file.fileno())
        (self.folder / (DATA + ".tmp")).replace(self.folder / DATA)
        parts = np.array(self.index, np.float64).reshape(-1, 4).T
        offset, width, size = parts[:3].astype(np.int64)
        with open_atomic(self.folder / INDEX) as file:
            np.savez(
                file, offset=offset, width=width, size=size, weight=parts[3],
                points=self.num_points, num_labels=self.num_labels, score=self.score,
            )  # fmt: skip

    def add(self, ptr: np.ndarray, idx: np.ndarray, score: np.ndarray) -> None:
        """Append points: CSR of distinct labels, and scores. Points without labels or score are counted, not stored.

        Raises:
          UserError: there are 2^31 points or more.
          ValueError: a label is out of range.
        """
        width = np.diff(ptr)
        first, self.num_points = self.num_points, self.num_points + len(width)
        if self.num_points >= 2**31:
            raise UserError("the engine counts them in 31 bits", key="rows", value=self.num_points)
        if len(idx) and int(idx.max()) >= self.num_labels:
            raise ValueError(f"label {idx.max()} of {self.num_labels}")
        usable = np.flatnonzero((width > 0) & (score > 0))
        if not len(usable):
            return
        self.score = max(self.score, float(score[usable].max()))
        wide = np.maximum(power_of_two(width[usable]), NARROWEST)
        weight = (score[usable] * width[usable]).astype(np.float32)
        bin_of = np.floor(PER_DOUBLING * np.log2(weight)).astype(np.int64)
        key = np.stack([wide, bin_of], 1)
        for w, g in np.unique(key, axis=0):
            rows = usable[(wide == w) & (bin_of == g)]
            labels = np.full((int(w), len(rows)), self.num_labels, self.dtype)
            entry = np.arange(width[rows].sum()) - np.repeat(np.cumsum(width[rows]) - width[rows], width[rows])
            source = np.repeat(ptr[rows], width[rows]) + entry
            labels[entry, np.repeat(np.arange(len(rows)), width[rows])] = idx[source]
            self._append((int(w), int(g)), labels, score[rows].astype(np.float64), (first + rows).astype(np.int32))

    def _append(self, key: tuple[int, int], *new: np.ndarray) -> None:
        pending = self.bins.get(key)
        self.bins[key] = (
            new if pending is None else tuple(np.concatenate(pair, -1) for pair in zip(pending, new, strict=True))
        )
        while len(self.bins[key][1]) >= self.block:
            self._flush(key, self.block)

    def _flush(self, key: tuple[int, int], count: int) -> None:
        labels, score, point = self.bins[key]
        weight = float((score[:count] * (labels[:, :count] < self.num_labels).sum(0)).max())
        size = self.block if count == self.block else int(4 ** np.ceil(np.log(max(count, 256)) / np.log(4)))
        self.index.append((self._file.tell(), key[0], size, weight))
        pads = (labels[:, :count], self.num_labels), (score[:count], 0), (point[:count], NO_POINT)
        for part, pad in pads:  # each size is compiled, so there are few
            wide = [(0, 0)] * (part.ndim - 1) + [(0, size - count)]
            self._file.write(np.pad(part, wide, constant_values=pad).data)
        self.bins[key] = (labels[:, count:], score[count:], point[count:])


class PoolOnDisk:
    """Makes the shortlists of a greedy from blocks on disk; the counterpart of PoolInMemory.

    Args:
      folder: written by BlockWriter.
      shortlist_size: candidates of a pass.
      picked: the points picked before, if any.

    Raises:
      UserError: the folder holds no blocks, or not all of them.
    """

    def __init__(self, folder: Path, shortlist_size: int, picked: np.ndarray):
        try:
            with np.load(folder / INDEX, allow_pickle=False) as stored:
                self.offset, self.width, self.size = stored["offset"], stored["width"], stored["size"]
                self.weight = stored["weight"].astype(np.float32)
                self.num_points, self.num_labels = int(stored["points"]), int(stored["num_labels"])
                self.score = float(stored["score"])
            self._file = os.open(folder / DATA, os.O_RDONLY)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"no blocks of a pool ({error})", where=folder) from error
        self.dtype = label_type(self.num_labels)
        self.bytes = self.size * (self.width * self.dtype.itemsize + 12)
        expected = int((self.offset + self.bytes).max(initial=0))
        if os.fstat(self._file).st_size != expected:
            os.close(self._file)
            raise UserError(f"{expected} bytes expected; written only in part, or changed since", where=folder / DATA)
        self._set_shape(shortlist_size)
        self.bound = np.full(len(self.size), np.inf, np.float32)
        self.picked = np.sort(picked.astype(np.int32))
        self.blocks_read = self.bytes_read = 0

    def close(self) -> None:
        os.close(self._file)

    def shortlist(self, y: np.ndarray) -> Candidates:
        """The points with the largest gains; y: the labels' gains, float64 ``[L+1]``."""
        y = y.astype(np.float32)
        np.minimum(self.bound, self.weight * y.max() * np.float32(BOUND_SLACK), out=self.bound)
        best = _Best(self.shortlist_size)
        y = jax.device_put(y)
        for block in np.argsort(-self.bound, kind="stable").tolist():
            if best.full and self.bound[block] <= best.bound[-1]:
                break
            labels, score, point = self._read(block)
            count = min(self.shortlist_size, self.size[block])
            at = np.searchsorted(point, self.picked)
            at = at[(at < len(point)) & (point[np.minimum(at, len(point) - 1)] == self.picked)]
            score[at] = 0
            value, index = _block_top(y, labels, score.astype(np.float32), count=int(count))
            value, index = np.asarray(value), np.asarray(index)
            self.bound[block] = value[0]
            enters = value > best.bound[-1] if best.full else value >= 0
            best.add(value[enters], point[index[enters]], score[index[enters]], labels[:, index[enters]])
        return self._candidates(best)

    def record_picks(self, candidates: Candidates, heap: Heap) -> None:
        """Record the picks: the points before the heads of the listed queues."""
        moved = np.flatnonzero(heap.head > candidates.head)
        points = [candidates.queues.point[candidates.head[i] : heap.head[i]] for i in moved]
        self.picked = np.sort(np.concatenate([self.picked, *points]))

    def _read(self, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width, size = int(self.width[block]), int(self.size[block])
        data = bytearray(int(self.bytes[block]))
        done = 0
        while done < len(data):
            count = os.preadv(self._file, [memoryview(data)[done:]], int(self.offset[block]) + done)
            if not count:
                raise UserError("the file of blocks shrank while it was read")
            done += count
        self.blocks_read += 1
        self.bytes_read += len(data)
        cut = width * size * self.dtype.itemsize
        labels = np.frombuffer(data, self.dtype, width * size).reshape(width, size)
        return labels, np.frombuffer(data, np.float64, size, cut), np.frombuffer(data, np.int32, size, cut + 8 * size)

    def _candidates(self, best: "_Best") -> Candidates:
        """The best points, those with equal labels in one queue, as in memory; a queue's bound is its largest."""
        by_point = np.argsort(best.point)
        labels, point, bound = best.labels.T[by_point], best.point[by_point], best.bound[by_point]
        real = labels < self.num_labels
        ptr = np.append(0, np.cumsum(real.sum(1)))
        groups = make_groups(ptr, labels[real], best.score[by_point], self.num_labels)
        slack, least = rounding_slack(int(self.width.max(initial=1)), self.score)  # of skipped blocks too
        cut = float(raise_bounds(best.bound[-1:], slack, least)[0]) if best.full and not self.lists_all else -1.0
        largest_bound = np.maximum.reduceat(bound[groups.point], groups.queue[:-1]) if groups.num_groups else bound
        missing = self.shortlist_size - groups.num_groups
        end = np.pad(groups.queue[1:], (0, missing))
        head = np.pad(groups.queue[:-1], (0, missing))
        label_idx = np.zeros(self.label_entries, np.int32)
        label_idx[: len(groups.idx)] = groups.idx
        ptr = np.pad(groups.ptr, (0, missing), mode="edge").astype(np.int32)
        queues = Queues(
            *(np.pad(a, (0, self.shortlist_size - len(point))) for a in (point[groups.point], groups.score))
        )
        return Candidates(
            np.arange(self.shortlist_size),
            np.pad(raise_bounds(largest_bound, slack, least), (0, missing), constant_values=-1),
            as_points(queues.point[head]), head, end, RowLabels(ptr, label_idx, None), cut, queues,
        )  # fmt: skip

    @property
    def lists_all(self) -> bool:
        """Whether the shortlist holds all points."""
        return self.shortlist_size >= int(self.size.sum())

    def widen(self) -> None:
        """Make the following shortlists four times as long."""
        self._set_shape(4 * self.shortlist_size)

    def _set_shape(self, shortlist_size: int) -> None:
        self.shortlist_size = max(1, min(shortlist_size, int(self.size.sum())))
        self.label_entries = int(power_of_two(self.shortlist_size * int(self.width.max(initial=1))))


class _Best:
    """The ``count`` points with the largest bounds so far, in falling order."""

    def __init__(self, count: int):
        self.count = count
        self.bound, self.point, self.score = np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0)
        self.labels = np.zeros((NARROWEST, 0), np.int32)

    @property
    def full(self) -> bool:
        return len(self.bound) >= self.count

    def add(self, bound: np.ndarray, point: np.ndarray, score: np.ndarray, labels: np.ndarray) -> None:
        wide = max(len(labels), len(self.labels))
        pad = np.iinfo(np.int32).max
        both = [a.astype(np.int32) for a in (self.labels, labels)]
        both = [np.pad(a, ((0, wide - len(a)), (0, 0)), constant_values=pad) for a in both]
        bound = np.concatenate([self.bound, bound])
        order = np.argsort(-bound, kind="stable")[: self.count]
        self.bound, self.point = bound[order], np.concatenate([self.point, point])[order]
        self.score = np.concatenate([self.score, score])[order]
        self.labels = np.concatenate(both, 1)[:, order]


@partial(jax.jit, static_argnames=("count",))
def _block_top(y: Any, labels: Any, score: Any, *, count: int) -> tuple[Any, Any]:
    """The ``count`` largest gains of a block and their columns; -1 where the score is 0."""
    gain = jax.vmap(first_order_sum, in_axes=(None, 1))(y, labels.astype(jnp.int32)) * score
    return largest(jnp.where(score > 0, gain, -1.0), count)
