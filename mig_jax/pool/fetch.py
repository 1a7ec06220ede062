"""Rows' bytes again, in any order, checked against what was read."""

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
    wanted = np.unique(rows)
    spooled: dict[int, tuple[int, int]] = {}
    with _Files() as files, tempfile.TemporaryFile() as spool:
        for file in np.unique(pool.file[wanted]):
            source = pool.sources[file]
            if not _is_seekable(source):
                _spool(pool, source, wanted[pool.file[wanted] == file], spool, spooled)
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
                raise UserError(f"{pool.where(row)}: the file changed while the run read it; load the pool again")
            yield raw


def _is_seekable(source: "SourceInfo") -> bool:
    return not source.compression and source.format in ("jsonl", "json")


def _spool(
    pool: "Pool", source: "SourceInfo", rows: np.ndarray, spool: IO[bytes], spooled: dict[int, tuple[int, int]]
) -> None:
    """Writes the rows, all of one file, to ``spool`` in the order they lie, and where to ``spooled``."""
    rows = rows[np.argsort(pool.offset[rows], kind="stable")]
    if source.format == "hf":
        found = hf_records(source.path, pool.offset[rows].tolist())
    elif source.format == "parquet":
        found = parquet_records(_as_source(source), pool.offset[rows].tolist())
    else:
        found = _from_stream(_as_source(source), pool.offset[rows].tolist(), pool.length[rows].tolist())
    # A file that ends early gives fewer; their rows are then missing from ``spooled``.
    for row, (_, raw) in zip(rows.tolist(), found, strict=False):
        spooled[row] = (spool.tell(), len(raw))
        spool.write(flatten(raw) if source.format == "json" else raw)


def _as_source(source: "SourceInfo") -> Source:
    return Source(source.path, source.format, source.compression)


def _from_stream(source: Source, offsets: list[int], lengths: list[int]) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the pieces of a compressed stream; offsets ascend. Fewer where the stream ends before."""
    buffer, base, at = b"", 0, 0
    for block in FileReader(source):
        buffer += block
        while at < len(offsets) and offsets[at] + lengths[at] <= base + len(buffer):
            yield offsets[at], buffer[offsets[at] - base : offsets[at] - base + lengths[at]]
            at += 1
        if at == len(offsets):
            return
        cut = min(offsets[at] - base, len(buffer))
        buffer, base = buffer[cut:], base + cut


class _Files:
    """Open files, the least recently used closed first: a pool may have more shards than a process may open."""

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
            # One call gives at most 2 GiB.
            parts, have = [], 0
            while have < length and (part := os.pread(descriptor, length - have, offset + have)):
                parts.append(part)
                have += len(part)
            return b"".join(parts)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
