"""sha256 of files, and a cache of them, so that the gigabytes of a model are not read once more only to name them."""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from mig_jax.core.files import write_atomic

_RECENT_NS = 2 * 10**9  # a file written this recently may change again within one tick of its clock


def sha256_file(file: Path, cache: Path | None = None) -> str:
    """sha256 of a file's bytes, 64 hex digits.

    Args:
      cache: folder of known digests; the entry's name is the identity of the file: path, device, inode, size and time
        of the last write. None: the file is read.
    """
    if cache is None:
        return _read(file)
    before = _identity(file)
    entry = cache / "digests" / hashlib.sha256(json.dumps(before).encode()).hexdigest()
    with suppress(OSError, ValueError):
        if len(bytes.fromhex(text := entry.read_text("ascii"))) == 32:
            return text
    digest = _read(file)
    settled = time.time_ns() - before[-1] > _RECENT_NS
    if settled and _identity(file) == before:
        with suppress(OSError):  # a full or read-only disk costs the entry, not the run
            entry.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(entry, digest)
    return digest


def _read(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _identity(file: Path) -> tuple[str, int, int, int, int]:
    status = file.stat()
    return str(file.resolve()), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
