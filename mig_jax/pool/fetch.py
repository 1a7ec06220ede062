"""Read the bytes of rows again, in any order, and verify them by length and crc."""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING
from zlib import crc32

import numpy as np

from mig_jax.core.errors import UserError
from mig_jax.pool.records import flatten
from mig_jax.pool.sources import Source
from mig_jax.pool.stream import FileReader
from mig_jax.pool.tabular import hf_records, parquet_records

if TYPE_CHECKING:
    from mig_jax.pool.table import Pool, SourceInfo

OPEN_FILES = 64


def read_rows(pool: "Pool", rows: np.ndarray) -> Iterator[bytes]:
    """See ``Pool.read_rows``."""
    unique_rows = np.unique(rows)
    spooled: dict[int, tuple[int, int]] = {}
    with _Files() as files, tempfile.TemporaryFile() as spool:
        for file in np.unique(pool.file[unique_rows]):
            source = pool.sources[file]
            if not _is_seekable(source):
                _spool(pool, source, unique_rows[pool.file[unique_rows] == file], spool, spooled)
        spool.flush()
        for row in rows.tolist():
            source = pool.sources[pool.file[row]]
            if _is_seekable(source):
                raw = files.read(source.path, int(pool.offset[row]), int(pool.length[row]))
                raw = flatten(raw) if source.format == "json" else raw
            else:
                position, length = spooled.get(row, (0, -1))
                raw = os.pread(spool.fileno(), length, position) if length >= 0 else None
            if raw is None or len(raw) != pool.length[row] or crc32(raw) != pool.crc[row]:
                raise UserError("the file changed while the run read it; load the pool again", where=pool.where(row))
            yield raw


def _is_seekable(source: "SourceInfo") -> bool:
    return not source.compression and source.format in ("jsonl", "json")


def _spool(
    pool: "Pool", source: "SourceInfo", rows: np.ndarray, spool: IO[bytes], spooled: dict[int, tuple[int, int]]
) -> None:
    """Write the rows, all of one file, to ``spool`` in file order, and the (offset, length) of each to ``spooled``."""
    rows = rows[np.argsort(pool.offset[rows], kind="stable")]
    if source.format == "hf":
        records = hf_records(source.path, pool.offset[rows].tolist())
    elif source.format == "parquet":
        records = parquet_records(_as_source(source), pool.offset[rows].tolist())
    else:
        records = _from_stream(_as_source(source), pool.offset[rows].tolist(), pool.length[rows].tolist())
    # If the file has become shorter, there are fewer records; the missing rows are then not in ``spooled``.
    for row, (_, raw) in zip(rows.tolist(), records, strict=False):
        spooled[row] = (spool.tell(), len(raw))
        spool.write(flatten(raw) if source.format == "json" else raw)


def _as_source(source: "SourceInfo") -> Source:
    return Source(source.path, source.format, source.compression)


def _from_stream(source: Source, offsets: list[int], lengths: list[int]) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of records in a compressed stream; offsets ascend. Fewer if the stream ends early."""
    buffer, base, i = b"", 0, 0
    for block in FileReader(source):
        buffer += block
        while i < len(offsets) and offsets[i] + lengths[i] <= base + len(buffer):
            yield offsets[i], buffer[offsets[i] - base : offsets[i] - base + lengths[i]]
            i += 1
        if i == len(offsets):
            return
        cut = min(offsets[i] - base, len(buffer))
        buffer, base = buffer[cut:], base + cut


class _Files:
    """Open files; the least recently used is closed first, as a pool may have more files than a process may open."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, path: str, offset: int, length: int) -> bytes:
        try:
            descriptor = self._open.pop(path, None)
            if descriptor is None:
                descriptor = os.open(path, os.O_RDONLY)
                if len(self._open) >= OPEN_FILES:
                    os.close(self._open.popitem(last=False)[1])
            self._open[path] = descriptor
            # One call reads at most 2 GiB.
            parts, done = [], 0
            while done < length and (part := os.pread(descriptor, length - done, offset + done)):
                parts.append(part)
                done += len(part)
            return b"".join(parts)
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror or error}", where=path) from error
