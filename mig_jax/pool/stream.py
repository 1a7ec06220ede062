"""Bytes of a file as they lie: read in blocks, hashed, decompressed, and checked not to change meanwhile."""

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

# Small enough for a block, its lines and their strings to stay in a core's cache: a sixth faster than 1 MB.
BLOCK_BYTES = 1 << 18
HASHED_BYTES = 1 << 20
SPAN_BYTES = 1 << 22  # what a reading process is given at once: long beside the asking, short beside the whole
# A compressed block can grow a thousandfold, and the decompressors give all of it at once.
COMPRESSED_BYTES = 1 << 17
MAGIC = {"gz": b"\x1f\x8b", "zst": b"\x28\xb5\x2f\xfd"}
SKIPPABLE = b"\x2a\x4d\x18"
PARQUET = b"PAR1"
UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Stamp(NamedTuple):
    """What was read of a file: sha256 of the bytes as they lie (hex), how many, and when it was last written (ns)."""

    sha256: str
    size_bytes: int
    mtime_ns: int


class FileReader:
    """Iterates the decompressed blocks of a file once; ``stamp`` says what was read, when all was.

    Args:
      source: the file.
      block_bytes: how much of the file to read at once; the blocks given may have any size when it is compressed.
      on_bytes: called with the number of raw bytes of each block read.

    Raises (while iterating):
      UserError: cannot be opened, the content is not what the suffix says, cut short, or changed while it was read.
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
        """The blocks as bytes; or, into the same buffer again and again, how many bytes of it are the next."""
        path, sha256, size = self._source.path, hashlib.sha256(), 0
        try:
            with Path(path).open("rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                _check_head(os.pread(file.fileno(), 4, 0), self._source)
                while True:
                    if buffer is None:
                        block = given = file.read(self._block_bytes)
                    else:
                        given = file.readinto(buffer)
                        block = memoryview(buffer)[:given]
                    if not given:
                        break
                    size += len(block)
                    sha256.update(block)
                    if self._on_bytes:
                        self._on_bytes(len(block))
                    yield given
            after = Path(path).stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        if identity(before) != identity(after) or size != after.st_size:
            raise UserError(
                f"{path}: changed while it was read ({before.st_size} -> {after.st_size} bytes); run again when done"
            )
        self.stamp = Stamp(sha256.hexdigest(), size, after.st_mtime_ns)

    def drain(self) -> Stamp:
        """Reads all of it for the stamp alone, without decompressing."""
        for _ in self._raw(bytearray(HASHED_BYTES)):
            pass
        assert self.stamp is not None
        return self.stamp

    def spans(self) -> Iterator[tuple[int, int]]:
        """(start, end) of runs of whole lines of a plain file; nothing is kept of what lies there but the hash."""
        start = at = 0
        buffer = bytearray(SPAN_BYTES)
        for count in self._raw(buffer):
            if cut := buffer.rfind(b"\n", 0, count) + 1:
                yield start, at + cut
                start = at + cut
            at += count
        if start < at:
            yield start, at


def identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """What tells one state of a file from another: device, inode, size, time of the last write."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def stat_file(path: str) -> os.stat_result:
    """``os.stat`` with a message for the user."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: not a regular file")
    return status


def spool(source: Source, on_bytes: Callable[[int], Any] | None = None) -> tuple[IO[bytes], Stamp]:
    """The decompressed file in an unnamed temporary file (in memory up to 64 MB), for formats that need to seek."""
    reader = FileReader(source, on_bytes=on_bytes)
    out = tempfile.SpooledTemporaryFile(max_size=1 << 26)  # noqa: SIM115 (the caller closes it)
    for block in reader:
        out.write(block)
    out.seek(0)
    assert reader.stamp is not None
    return out, reader.stamp


def _check_head(head: bytes, source: Source) -> None:
    """A file named against its content gives a riddle further on; say it here."""
    want = MAGIC.get(source.compression)
    # pzstd opens each of its frames with a skippable one.
    if want and not head.startswith(want) and not (source.compression == "zst" and head[1:4] == SKIPPABLE):
        raise UserError(
            f"{source.path}: named .{source.compression}, but its content is not {source.compression}; rename it"
        )
    if want or source.format == "hf":
        return
    for name, magic in MAGIC.items():
        if head.startswith(magic):
            raise UserError(f"{source.path}: its content is {name}-compressed; add .{name} to its name")
    if source.format == "parquet" and not head.startswith(PARQUET):
        raise UserError(f"{source.path}: named .parquet, but its content is not parquet; rename it")
    if source.format != "parquet" and head.startswith(PARQUET):
        raise UserError(f"{source.path}: its content is parquet; name it .parquet")
    if source.format != "parquet" and head.startswith(UTF16):
        raise UserError(f"{source.path}: its text is UTF-16; JSON files are UTF-8, so convert it")


def _decompress(raw: Iterator[bytes], source: Source) -> Iterator[bytes]:
    """gz and zst alike: frames one after the other, each of which must come to its end."""
    # `zstd --long` asks for windows beyond the default limit.
    zstd = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    fresh: Callable[[], Any] = (
        (lambda: zlib.decompressobj(wbits=31)) if source.compression == "gz" else zstd.decompressobj
    )
    engine: Any = None
    for block in raw:
        while block:
            # gzip may be padded with zeros after its last member (tapes, some object stores).
            if engine is None and source.compression == "gz" and not block.strip(b"\0"):
                break
            engine = engine or fresh()
            try:
                text = engine.decompress(block)
            except (zlib.error, zstandard.ZstdError) as error:
                raise UserError(f"{source.path}: damaged {source.compression} data: {error}") from error
            if text:
                yield text
            block = b""
            if engine.eof:
                block, engine = engine.unused_data, None
    if engine is not None:
        raise UserError(f"{source.path}: the {source.compression} data is cut short; copy or download the file again")
