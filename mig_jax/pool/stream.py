"""Read the bytes of a file in blocks: hash and decompress them, and check that the file does not change."""

import hashlib
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import zstandard

from mig_jax.core.errors import UserError
from mig_jax.pool.sources import Source

# A block, its lines and their strings fit into a core's cache: a sixth faster than 1 MB.
BLOCK_BYTES = 1 << 18
HASHED_BYTES = 1 << 20
SPAN_BYTES = 1 << 22  # a task of a worker process: much work per message, and many tasks per pool
# A compressed block can grow a thousandfold, and the decompressors return all of it at once.
COMPRESSED_BYTES = 1 << 17
MAGIC = {"gz": b"\x1f\x8b", "zst": b"\x28\xb5\x2f\xfd"}
SKIPPABLE = b"\x2a\x4d\x18"
PARQUET = b"PAR1"
UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Stamp(NamedTuple):
    """The state of a file that was read: sha256 of the raw bytes (hex), their number, time of the last write (ns)."""

    sha256: str
    size_bytes: int
    mtime_ns: int


class FileReader:
    """Iterate once over the decompressed blocks of a file; at the end, ``stamp`` is the state that was read.

    Args:
      source: the file.
      block_bytes: the number of bytes to read at once; the blocks of a compressed file may have any size.
      on_bytes: called with the number of raw bytes of each block read.

    Raises (while iterating):
      UserError: the file cannot be opened, its content does not match its suffix, it is cut short, or it changed during
        the read.
    """

    def __init__(self, source: Source, block_bytes: int = BLOCK_BYTES, on_bytes: Callable[[int], Any] | None = None):
        self._source = source
        self._block_bytes = min(block_bytes, COMPRESSED_BYTES) if source.compression else block_bytes
        self._on_bytes = on_bytes
        self.stamp: Stamp | None = None

    def __iter__(self) -> Iterator[bytes]:
        raw = self._raw()
        return _decompress(raw, self._source) if self._source.compression else raw

    def _raw(self, buffer: bytearray | None = None) -> Iterator[Any]:
        """The blocks as bytes; or, with a buffer, fill it with each block and yield the number of bytes in it."""
        path, sha256, size = self._source.path, hashlib.sha256(), 0
        try:
            with Path(path).open("rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                _check_head(os.pread(file.fileno(), 4, 0), self._source)
                while True:
                    if buffer is None:
                        block = result = file.read(self._block_bytes)
                    else:
                        result = file.readinto(buffer)
                        block = memoryview(buffer)[:result]
                    if not result:
                        break
                    size += len(block)
                    sha256.update(block)
                    if self._on_bytes:
                        self._on_bytes(len(block))
                    yield result
            after = Path(path).stat()
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror or error}", where=path) from error
        if identity(before) != identity(after) or size != after.st_size:
            raise UserError(
                f"changed while it was read ({before.st_size} -> {after.st_size} bytes); run again when it is complete",
                where=path,
            )
        self.stamp = Stamp(sha256.hexdigest(), size, after.st_mtime_ns)

    def drain(self) -> Stamp:
        """Read the whole file for its stamp only, without decompressing it."""
        for _ in self._raw(bytearray(HASHED_BYTES)):
            pass
        assert self.stamp is not None
        return self.stamp

    def spans(self) -> Iterator[tuple[int, int]]:
        """(start, end) of ranges of whole lines in a plain file; their bytes are hashed and not stored."""
        start = position = 0
        buffer = bytearray(SPAN_BYTES)
        for count in self._raw(buffer):
            if cut := buffer.rfind(b"\n", 0, count) + 1:
                yield start, position + cut
                start = position + cut
            position += count
        if start < position:
            yield start, position


def identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """Device, inode, size and time of the last write: if one differs, the file has changed."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def stat_file(path: str) -> os.stat_result:
    """``os.stat`` of a regular file; raises UserError."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=path) from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError("not a regular file", where=path)
    return status


def spool(source: Source, on_bytes: Callable[[int], Any] | None = None) -> tuple[IO[bytes], Stamp]:
    """Decompress the file into an unnamed temporary file (in memory up to 64 MB), for formats that require seek."""
    reader = FileReader(source, on_bytes=on_bytes)
    out = tempfile.SpooledTemporaryFile(max_size=1 << 26)  # noqa: SIM115 (the caller closes it)
    for block in reader:
        out.write(block)
    out.seek(0)
    assert reader.stamp is not None
    return out, reader.stamp


def _check_head(head: bytes, source: Source) -> None:
    """Check that the suffix matches the content: otherwise the error messages of a parser would mislead."""
    expected = MAGIC.get(source.compression)
    # pzstd begins each frame with a skippable frame.
    if expected and not head.startswith(expected) and not (source.compression == "zst" and head[1:4] == SKIPPABLE):
        raise UserError(
            f"named .{source.compression}, but its content is not {source.compression}; rename it", where=source.path
        )
    if expected or source.format == "hf":
        return
    for name, magic in MAGIC.items():
        if head.startswith(magic):
            raise UserError(f"its content is {name}-compressed; add .{name} to its name", where=source.path)
    if source.format == "parquet" and not head.startswith(PARQUET):
        raise UserError("named .parquet, but its content is not parquet; rename it", where=source.path)
    if source.format != "parquet" and head.startswith(PARQUET):
        raise UserError("its content is parquet; name it .parquet", where=source.path)
    if source.format != "parquet" and head.startswith(UTF16):
        raise UserError("its text is UTF-16; JSON files are UTF-8, so convert it", where=source.path)


def _decompress(raw: Iterator[bytes], source: Source) -> Iterator[bytes]:
    """Decompress gz or zst: consecutive frames, each of which must be complete."""
    # `zstd --long` uses windows beyond the default limit.
    zstd = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    new_engine: Callable[[], Any] = (
        (lambda: zlib.decompressobj(wbits=31)) if source.compression == "gz" else zstd.decompressobj
    )
    engine: Any = None
    for block in raw:
        while block:
            # gzip may be padded with zeros after its last member (tapes, some object stores).
            if engine is None and source.compression == "gz" and not block.strip(b"\0"):
                break
            engine = engine or new_engine()
            try:
                text = engine.decompress(block)
            except (zlib.error, zstandard.ZstdError) as error:
                raise UserError(f"damaged {source.compression} data: {error}", where=source.path) from error
            if text:
                yield text
            block = b""
            if engine.eof:
                block, engine = engine.unused_data, None
    if engine is not None:
        raise UserError(
            f"the {source.compression} data is cut short; copy or download the file again", where=source.path
        )
