"""Finished batches on disk, so that no batch is computed twice: files that appear whole or not at all.

A shard is ``FIRST-LAST-STEP.npz``, the results of batches FIRST, FIRST + STEP, ..., LAST of the plan, in order. Its
name lists them, so that processes that share the folder see in a listing what the others have done.
"""

import re
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from mig_jax.batch.job import Batch
from mig_jax.core.files import open_atomic
from mig_jax.core.progress import Progress

MAX_BYTES = 256 << 20  # of a shard: it is in memory until it is written
_NAME = re.compile(r"(\d{8})-(\d{8})-(\d+)\.npz")


class Shards:
    """The shards of one plan in one folder.

    Args:
      folder: holds shards of this plan only. It may be gone: process 0 removes it when the results are published.
      plan: all batches.
      width: D, the numbers of each text; None: each shard has its own, and shorter texts are filled with ``blank``.
      dtype: of the numbers.
      blank: of texts that are in no batch.
    """

    def __init__(
        self,
        folder: Path,
        plan: Sequence[Batch],
        width: int | None,
        dtype: np.typing.DTypeLike = np.float32,
        blank: float = 0,
    ):
        self.folder, self.plan, self.width, self.dtype, self.blank = folder, plan, width, np.dtype(dtype), blank
        self._whole: dict[str, range] = {}  # files that were checked, and their batches
        self._widths: dict[str, int] = {}

    def saved(self) -> Bool[np.ndarray, " batches"]:
        """Which batches are in a shard; one that was cut short does not count."""
        names: set[str] = set()
        with suppress(FileNotFoundError):
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
        """The indices of the texts of some batches, in the order of a shard's results."""
        return np.concatenate([self.plan[number].text for number in run])

    def write(self, run: range, results: Sequence[Shaped[np.ndarray, "n D"]]) -> bool:
        """Write the results of the batches of ``run``; they are on the disk when this returns.

        Returns:
          False where the folder is gone.
        """
        path = self.folder / f"{run[0]:08}-{run[-1]:08}-{run.step}.npz"
        try:
            with open_atomic(path, durable=True) as file:
                np.savez(file, results=np.concatenate(self._even(results)))
        except FileNotFoundError:
            if self.folder.is_dir():
                raise
            return False
        return True

    def each(self) -> Iterator[tuple[range, Shaped[np.ndarray, "n D"]]]:
        """Every shard that ``saved`` counted. One whose content is damaged is removed and skipped."""
        for name, run in sorted(self._whole.items()):
            path = self.folder / name
            damaged = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
            results = None
            with suppress(*damaged), path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                results = stored["results"]  # reading it checks the CRC
            if results is None or not self._is_of(run, results.shape, results.dtype):
                path.unlink(missing_ok=True)
            else:
                yield run, results

    def assemble(self, file: Path, count: int, progress: Progress) -> bool:
        """Write ``[count, D]`` as .npy, one shard in memory at a time; texts in no batch get ``blank``.

        Returns:
          whether every batch was there; False where a shard was missing, or damaged and removed.
        """
        wanted = self.saved()
        if not wanted.all():
            return False
        width = max((self._widths[name] for name in self._whole), default=0) if self.width is None else self.width
        out_NxD = np.lib.format.open_memmap(file, mode="w+", dtype=self.dtype, shape=(count, width))
        if self.blank:
            out_NxD[:] = self.blank
        for done, (run, result_nxD) in enumerate(self.each(), 1):
            out_NxD[self.texts(run), : result_nxD.shape[1]] = result_nxD
            wanted[run.start : run.stop : run.step] = False
            progress("write", done, len(self._whole), "shards")
        out_NxD.flush()
        return not wanted.any()

    def _even(self, results: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The results, filled up to one width."""
        width = max(result.shape[1] for result in results)
        short = (((0, 0), (0, width - result.shape[1])) for result in results)
        return [np.pad(result, pad, constant_values=self.blank) for result, pad in zip(results, short, strict=True)]

    def _run(self, name: str) -> range | None:
        """The batches in a shard's name; None where it is no shard of this plan."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        first, last, step = map(int, match.groups())
        fits = step > 0 and first <= last < len(self.plan) and (last - first) % step == 0
        return range(first, last + 1, step) if fits else None

    def _fits(self, path: Path, run: range) -> bool:
        """Whether the file is whole, by its table of contents (at its end) and the array's header."""
        damaged = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
        with suppress(*damaged), zipfile.ZipFile(path) as archive, archive.open("results.npy") as stored:
            np.lib.format.read_magic(stored)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stored)
            size = stored.tell() + int(np.prod(shape)) * dtype.itemsize
            if self._is_of(run, shape, dtype) and not fortran and archive.getinfo("results.npy").file_size == size:
                self._widths[path.name] = shape[1]
                return True
        return False

    def _is_of(self, run: range, shape: tuple[int, ...], dtype: np.dtype) -> bool:
        return (
            len(shape) == 2
            and shape[0] == len(self.texts(run))
            and self.width in (None, shape[1])
            and dtype == self.dtype
        )


class ShardWriter:
    """Collects the batches of one process and writes them as shards.

    Args:
      step: the usual difference between the numbers of two batches of this process; a larger one ends a shard.
      every: seconds between two shards.
      max_bytes: a shard of this size is written at once.

    Attributes:
      folder_is_gone: a shard could not be written, as the folder was removed.
    """

    def __init__(self, shards: Shards, step: int, every: float, max_bytes: int = MAX_BYTES):
        self.shards, self.step, self.every, self.max_bytes = shards, step, every, max_bytes
        self.folder_is_gone = False
        self._numbers: list[int] = []
        self._results: list[np.ndarray] = []
        self._bytes, self._since = 0, time.monotonic()

    def add(self, number: int, results: Shaped[np.ndarray, "n D"]) -> None:
        """Add the next batch."""
        if self._numbers and number != self._numbers[-1] + self.step:
            self.flush()
        self._numbers.append(number)
        self._results.append(results)
        self._bytes += results.nbytes
        if time.monotonic() - self._since >= self.every or self._bytes >= self.max_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._numbers:
            run = range(self._numbers[0], self._numbers[-1] + 1, self.step)
            self.folder_is_gone |= not self.shards.write(run, self._results)
        self._numbers, self._results, self._bytes, self._since = [], [], 0, time.monotonic()
