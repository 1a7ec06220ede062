"""Finished batches on disk, so that no batch is computed twice: files that appear whole or not at all.

A shard is ``FIRST-LAST-STEP.npz``, the vectors of batches FIRST, FIRST + STEP, ..., LAST of the plan, in order. Its
name says which, so that processes that share the folder learn from a listing what the others have done.
"""

import io
import os
import re
import time
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from mig_jax.models.packing import Batch
from mig_jax.runtime.progress import Progress

MOST_BYTES = 256 << 20  # of a shard: it is in memory until it is written
_NAME = re.compile(r"(\d{8})-(\d{8})-(\d+)\.npz")


class Shards:
    """The shards of one plan in one folder.

    Args:
      folder: exists, and holds shards of this plan only.
      plan: all batches.
      dim: D.
    """

    def __init__(self, folder: Path, plan: Sequence[Batch], dim: int):
        self.folder, self.plan, self.dim = folder, plan, dim
        empty = io.BytesIO()
        np.save(empty, np.empty((0, dim), np.float32))
        self._header = len(empty.getvalue())  # of the array in a shard; padded, whatever its length
        self._whole: dict[str, range] = {}  # files that were looked at

    def saved(self) -> Bool[np.ndarray, " batches"]:
        """Which batches are in a shard; one that was cut short does not count."""
        names = {path.name for path in self.folder.iterdir()}
        self._whole = {name: run for name, run in self._whole.items() if name in names}
        for name in names - self._whole.keys():
            run = self._run(name)
            if run is not None and self._fits(self.folder / name, run):
                self._whole[name] = run
        saved = np.zeros(len(self.plan), bool)
        for run in self._whole.values():
            saved[run.start : run.stop : run.step] = True
        return saved

    def texts(self, run: range) -> Int64[np.ndarray, " n"]:
        """The indices of the texts of some batches, in the order of a shard's vectors."""
        return np.concatenate([self.plan[number].text for number in run])

    def write(self, run: range, vectors: Sequence[Float32[np.ndarray, "n D"]]) -> None:
        """Write the vectors of the batches of ``run``; they are on the disk when this returns."""
        path = self.folder / f"{run[0]:08}-{run[-1]:08}-{run.step}.npz"
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("wb") as file:
                np.savez(file, vectors=np.concatenate(vectors))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(self.folder)

    def each(self) -> Iterator[tuple[range, Float32[np.ndarray, "n D"]]]:
        """Every shard that ``saved`` counted. One whose content is damaged is removed and passed over."""
        for name, run in sorted(self._whole.items()):
            path = self.folder / name
            damaged = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
            vectors = None
            with suppress(*damaged), path.open("rb") as file, np.load(file) as stored:  # which checks the CRC
                vectors = stored["vectors"]
            if vectors is None or vectors.shape != (len(self.texts(run)), self.dim) or vectors.dtype != np.float32:
                path.unlink(missing_ok=True)
            else:
                yield run, vectors

    def assemble(self, file: Path, count: int, progress: Progress) -> bool:
        """Write ``[count, D]`` float32 as .npy, one shard in memory at a time; texts in no batch get zeros.

        Returns:
          whether every batch was found; False where a shard was missing or damaged, which is gone then.
        """
        wanted = self.saved()
        if not wanted.all():
            return False
        out_NxD = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(count, self.dim))
        for done, (run, vector_nxD) in enumerate(self.each(), 1):
            out_NxD[self.texts(run)] = vector_nxD
            wanted[run.start : run.stop : run.step] = False
            progress("write", done, len(self._whole))
        out_NxD.flush()
        return not wanted.any()

    def _run(self, name: str) -> range | None:
        """The batches that a name tells; None where it is no shard's of this plan."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        first, last, step = map(int, match.groups())
        fits = step > 0 and first <= last < len(self.plan) and (last - first) % step == 0
        return range(first, last + 1, step) if fits else None

    def _fits(self, path: Path, run: range) -> bool:
        """Whether the file is whole by its table of contents, which stands at its end."""
        need = self._header + len(self.texts(run)) * self.dim * 4
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.getinfo("vectors.npy").file_size == need
        except (OSError, KeyError, zipfile.BadZipFile):
            return False


class Saver:
    """Gathers the batches of one process and writes them as shards.

    Args:
      step: between the numbers of two batches of this process, as a rule; where they leave one out a shard ends.
      every: seconds between two shards; ``most``: bytes after which one is written before.
    """

    def __init__(self, shards: Shards, step: int, every: float, most: int = MOST_BYTES):
        self.shards, self.step, self.every, self.most = shards, step, every, most
        self._numbers: list[int] = []
        self._vectors: list[np.ndarray] = []
        self._held, self._since = 0, time.monotonic()

    def add(self, number: int, vectors: Float32[np.ndarray, "n D"]) -> None:
        """The next batch."""
        if self._numbers and number != self._numbers[-1] + self.step:
            self.flush()
        self._numbers.append(number)
        self._vectors.append(vectors)
        self._held += vectors.nbytes
        if time.monotonic() - self._since >= self.every or self._held >= self.most:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._numbers:
            self.shards.write(range(self._numbers[0], self._numbers[-1] + 1, self.step), self._vectors)
        self._numbers, self._vectors, self._held, self._since = [], [], 0, time.monotonic()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
