"""A pool on disk, in blocks of rows that gain alike, of which a pass reads only those that may matter.

A file of blocks, each ``labels`` (uint16 or int32 ``[W, B]``, padded with L), ``score`` (float64 ``[B]``) and ``row``
(int32 ``[B]``, ascending), and beside it index.npz: where each block begins, its W, its B, and its weight, the largest
score times number of labels in it. A row's gain is s times a sum of y over its labels, so a block gains at most its
weight times the largest y, and at most what it gained when it was last read. Rows are sorted into blocks by width and
by weight as they stream in: light blocks then lie under the cut for good, and are never read.
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
from mig_jax.engine.full_pass import first
from mig_jax.engine.kernels import Rows
from mig_jax.engine.lazy_heap import NO_ROW, Heap, Queues
from mig_jax.engine.problem import NARROWEST, make_groups, power_of_two
from mig_jax.engine.resident import Candidates, raised, slacks
from mig_jax.objective.gain import labels_sum

BLOCK = 1 << 17  # rows a block
PER_DOUBLING = 4  # bins of weight for each power of two
BOUND_SLACK = 1.001  # the product may round below a gain that it bounds
DATA, INDEX = "blocks.bin", "index.npz"


def label_type(num_labels: int) -> np.dtype:
    """Of labels 0 .. L on disk."""
    return np.dtype(np.uint16 if num_labels < 2**16 else np.int32)


class BlockWriter:
    """Streams rows into blocks; ``with BlockWriter(folder, num_labels) as out: out.add(...)``.

    Memory: at most one block for each width and bin of weight, a few dozen on real pools.
    """

    def __init__(self, folder: Path, num_labels: int, block: int = BLOCK):
        self.folder, self.num_labels, self.block = folder, num_labels, block
        self.dtype = label_type(num_labels)
        self.rows, self.bins, self.index, self.score = 0, {}, [], 0.0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)  # blocks are there when their index is
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
        temporary = self.folder / (INDEX + ".tmp")
        with temporary.open("wb") as file:
            np.savez(
                file, offset=offset, width=width, size=size, weight=parts[3],
                rows=self.rows, num_labels=self.num_labels, score=self.score,
            )  # fmt: skip
        temporary.replace(self.folder / INDEX)

    def add(self, ptr: np.ndarray, idx: np.ndarray, score: np.ndarray) -> None:
        """The pool's next rows: CSR of distinct labels, and scores. Rows that can never gain anything only count."""
        width = np.diff(ptr)
        first_row, self.rows = self.rows, self.rows + len(width)
        if self.rows >= 2**31:
            raise UserError(f"{self.rows} rows: the engine counts them in 31 bits")
        if len(idx) and int(idx.max()) >= self.num_labels:
            raise ValueError(f"label {idx.max()} of {self.num_labels}")
        usable = np.flatnonzero((width > 0) & (score > 0))
        if not len(usable):
            return
        self.score = max(self.score, float(score[usable].max()))
        wide = np.maximum(power_of_two(width[usable]), NARROWEST)
        weight = (score[usable] * width[usable]).astype(np.float32)
        grade = np.floor(PER_DOUBLING * np.log2(weight)).astype(np.int64)
        key = np.stack([wide, grade], 1)
        for w, g in np.unique(key, axis=0):
            rows = usable[(wide == w) & (grade == g)]
            labels = np.full((int(w), len(rows)), self.num_labels, self.dtype)
            entry = np.arange(width[rows].sum()) - np.repeat(np.cumsum(width[rows]) - width[rows], width[rows])
            source = np.repeat(ptr[rows], width[rows]) + entry
            labels[entry, np.repeat(np.arange(len(rows)), width[rows])] = idx[source]
            self._keep((int(w), int(g)), labels, score[rows].astype(np.float64), (first_row + rows).astype(np.int32))

    def _keep(self, key: tuple[int, int], *new: np.ndarray) -> None:
        there = self.bins.get(key)
        self.bins[key] = (
            new if there is None else tuple(np.concatenate(pair, -1) for pair in zip(there, new, strict=True))
        )
        while len(self.bins[key][1]) >= self.block:
            self._flush(key, self.block)

    def _flush(self, key: tuple[int, int], count: int) -> None:
        labels, score, row = self.bins[key]
        weight = float((score[:count] * (labels[:, :count] < self.num_labels).sum(0)).max())
        size = self.block if count == self.block else int(4 ** np.ceil(np.log(max(count, 256)) / np.log(4)))
        self.index.append((self._file.tell(), key[0], size, weight))
        pads = (labels[:, :count], self.num_labels), (score[:count], 0), (row[:count], NO_ROW)
        for part, pad in pads:  # few sizes: each is compiled for
            wide = [(0, 0)] * (part.ndim - 1) + [(0, size - count)]
            self._file.write(np.pad(part, wide, constant_values=pad).data)
        self.bins[key] = (labels[:, count:], score[count:], row[count:])


class Blocks:
    """Where the shortlists of a greedy over blocks come from; the counterpart of Resident.

    Args:
      folder: what BlockWriter wrote.
      shortlist_size: candidates of a pass.
      taken: the rows picked before, if any.

    Raises:
      UserError: the folder holds no blocks, or not all of them.
    """

    def __init__(self, folder: Path, shortlist_size: int, taken: np.ndarray):
        try:
            with np.load(folder / INDEX, allow_pickle=False) as stored:
                self.offset, self.width, self.size = stored["offset"], stored["width"], stored["size"]
                self.weight = stored["weight"].astype(np.float32)
                self.rows, self.num_labels = int(stored["rows"]), int(stored["num_labels"])
                self.score = float(stored["score"])
            self._file = os.open(folder / DATA, os.O_RDONLY)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{folder}: no blocks of a pool ({error})") from error
        self.dtype = label_type(self.num_labels)
        self.bytes = self.size * (self.width * self.dtype.itemsize + 12)
        expected = int((self.offset + self.bytes).max(initial=0))
        if os.fstat(self._file).st_size != expected:
            os.close(self._file)
            raise UserError(f"{folder / DATA}: {expected} bytes expected; written only in part, or changed since")
        self._shape(shortlist_size)
        self.bound = np.full(len(self.size), np.inf, np.float32)
        self.gone = np.sort(taken.astype(np.int32))
        self.blocks_read = self.bytes_read = 0

    def close(self) -> None:
        os.close(self._file)

    def shortlist(self, y: np.ndarray) -> Candidates:
        """The first rows, by y (the labels' gains), of the blocks that may hold any of them."""
        y = y.astype(np.float32)
        np.minimum(self.bound, self.weight * y.max() * np.float32(BOUND_SLACK), out=self.bound)
        best = _Best(self.shortlist_size)
        y = jax.device_put(y)
        for block in np.argsort(-self.bound, kind="stable").tolist():
            if best.full and self.bound[block] <= best.bound[-1]:
                break
            labels, score, row = self._read(block)
            keep = min(self.shortlist_size, self.size[block])
            gone = np.searchsorted(row, self.gone)
            gone = gone[(gone < len(row)) & (row[np.minimum(gone, len(row) - 1)] == self.gone)]
            score[gone] = 0
            value, index = _block_top(y, labels, score.astype(np.float32), keep=int(keep))
            value, index = np.asarray(value), np.asarray(index)
            self.bound[block] = value[0]
            fits = value > best.bound[-1] if best.full else value >= 0
            best.add(value[fits], row[index[fits]], score[index[fits]], labels[:, index[fits]])
        return self._candidates(best)

    def taken(self, found: Candidates, heap: Heap) -> None:
        """The rows before the heads of the listed queues are gone."""
        moved = np.flatnonzero(heap.head > found.head)
        rows = [found.queues.row[found.head[i] : heap.head[i]] for i in moved]
        self.gone = np.sort(np.concatenate([self.gone, *rows]))

    def _read(self, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width, size = int(self.width[block]), int(self.size[block])
        data = bytearray(int(self.bytes[block]))
        done = 0
        while done < len(data):
            count = os.preadv(self._file, [memoryview(data)[done:]], int(self.offset[block]) + done)
            if not count:
                raise UserError("the file of blocks has shrunk while it was read")
            done += count
        self.blocks_read += 1
        self.bytes_read += len(data)
        cut = width * size * self.dtype.itemsize
        labels = np.frombuffer(data, self.dtype, width * size).reshape(width, size)
        return labels, np.frombuffer(data, np.float64, size, cut), np.frombuffer(data, np.int32, size, cut + 8 * size)

    def _candidates(self, best: "_Best") -> Candidates:
        """The rows found, those of equal labels in one queue, as in memory; a queue's bound is its rows' largest."""
        by_row = np.argsort(best.row)
        labels, row, bound = best.labels.T[by_row], best.row[by_row], best.bound[by_row]
        real = labels < self.num_labels
        ptr = np.append(0, np.cumsum(real.sum(1)))
        groups = make_groups(ptr, labels[real], best.score[by_row], self.num_labels)
        slack, least = slacks(int(self.width.max(initial=1)), self.score)  # those of blocks that were skipped, too
        cut = float(raised(best.bound[-1:], slack, least)[0]) if best.full and not self.whole else -1.0
        most = np.maximum.reduceat(bound[groups.row], groups.queue[:-1]) if groups.many else bound
        missing = self.shortlist_size - groups.many
        end = np.pad(groups.queue[1:], (0, missing))
        head = np.pad(groups.queue[:-1], (0, missing))
        room = np.zeros(self.room, np.int32)
        room[: len(groups.idx)] = groups.idx
        ptr = np.pad(groups.ptr, (0, missing), mode="edge").astype(np.int32)
        queues = Queues(*(np.pad(a, (0, self.shortlist_size - len(row))) for a in (row[groups.row], groups.score)))
        return Candidates(
            np.arange(self.shortlist_size), np.pad(raised(most, slack, least), (0, missing), constant_values=-1),
            queues.row[head], head, end, Rows(ptr, room, None), cut, queues,
        )  # fmt: skip

    @property
    def whole(self) -> bool:
        """Whether the list holds all there are."""
        return self.shortlist_size >= int(self.size.sum())

    def widen(self) -> None:
        """From now on the list holds four times as many rows."""
        self._shape(4 * self.shortlist_size)

    def _shape(self, shortlist_size: int) -> None:
        self.shortlist_size = max(1, min(shortlist_size, int(self.size.sum())))
        self.room = int(power_of_two(self.shortlist_size * int(self.width.max(initial=1))))


class _Best:
    """The ``count`` rows with the largest bounds so far, in falling order."""

    def __init__(self, count: int):
        self.count = count
        self.bound, self.row, self.score = np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0)
        self.labels = np.zeros((NARROWEST, 0), np.int32)

    @property
    def full(self) -> bool:
        return len(self.bound) >= self.count

    def add(self, bound: np.ndarray, row: np.ndarray, score: np.ndarray, labels: np.ndarray) -> None:
        wide = max(len(labels), len(self.labels))
        pad = np.iinfo(np.int32).max
        both = [a.astype(np.int32) for a in (self.labels, labels)]
        both = [np.pad(a, ((0, wide - len(a)), (0, 0)), constant_values=pad) for a in both]
        bound = np.concatenate([self.bound, bound])
        order = np.argsort(-bound, kind="stable")[: self.count]
        self.bound, self.row = bound[order], np.concatenate([self.row, row])[order]
        self.score = np.concatenate([self.score, score])[order]
        self.labels = np.concatenate(both, 1)[:, order]


@partial(jax.jit, static_argnames=("keep",))
def _block_top(y: Any, labels: Any, score: Any, *, keep: int) -> tuple[Any, Any]:
    """The first ``keep`` gains of a block and their columns; -1 where the score is 0."""
    gain = jax.vmap(labels_sum, in_axes=(None, 1))(y, labels.astype(jnp.int32)) * score
    return first(jnp.where(score > 0, gain, -1.0), keep)
