"""How well a row compresses after others: zlib holds the others, and each row is tried on a copy of what it holds.

DEFLATE writes a block when it is full and never takes it back, so the bytes of ``compress(others + row)`` are those
already out for the others plus what a copy of the compressor still gives for the row. The number is the same as from
compressing everything again, at the price of the row alone.

Threads try the rows: zlib lets go of the interpreter's lock while it compresses, so that the copy alone holds it, 7 us
of the 200 to 350 us that a row takes. On two busy cores two processes had no better median than two threads.
"""

import mmap
import tempfile
import zlib
from array import array
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float64, Int64

LEVEL = 9
CHUNK = 16  # rows that a thread tries at a time: few enough for 200 of them to keep a dozen threads busy


class Records:
    """One record a row, as it stands in ``str(list of records)``, in a temporary file that is mapped into memory:
    a million of 3 KB are 3 GB, of which memory holds what it has room for.

    Args:
      records: ``repr`` of each.

    Raises:
      OSError: the temporary file cannot be written.
    """

    def __init__(self, records: Iterable[str]):
        ends = array("q", [0])
        with tempfile.TemporaryFile() as file:
            for record in records:
                # repr escapes halves of surrogate pairs (they are not printable), so there is always a UTF-8.
                ends.append(ends[-1] + file.write(record.encode() + b"]"))
            file.flush()
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._ends: Int64[np.ndarray, " M1"] = np.frombuffer(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> memoryview:
        """The record's bytes and the bracket that closes a list after it."""
        return self._bytes[self._ends[row] : self._ends[row + 1]]


class Prefix:
    """A list of records that grows. g(X) = bytes of ``str(X)`` / bytes of ``zlib.compress(str(X), 9)``.

    Args:
      records: of all rows.
      threads: what tries rows; how many there are changes nothing but the time.
    """

    def __init__(self, records: Records, threads: ThreadPoolExecutor):
        self._records, self._threads = records, threads
        self._zlib = zlib.compressobj(LEVEL)
        self._read, self._written = 0, 0
        self._feed(b"[")

    def append(self, row: int) -> None:
        """The list has one record more."""
        self._feed(self._records[row][:-1])
        self._feed(b", ")

    def ratios(self, rows: Int64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
        """g(list + [row]) of each row."""
        chunks = [rows[start : start + CHUNK].tolist() for start in range(0, len(rows), CHUNK)]
        return np.array([ratio for chunk in self._threads.map(self._try, chunks) for ratio in chunk], np.float64)

    def _try(self, rows: list[int]) -> list[float]:
        ratios = []
        for row in rows:
            record, tried = self._records[row], self._zlib.copy()
            written = self._written + len(tried.compress(record)) + len(tried.flush())
            ratios.append((self._read + len(record)) / written)
        return ratios

    def _feed(self, part: bytes | memoryview) -> None:
        self._read += len(part)
        self._written += len(self._zlib.compress(part))
