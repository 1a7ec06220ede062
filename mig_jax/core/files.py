"""Files that appear whole or not at all: written under a temporary name beside their own, then renamed.

When to fsync: a file that a later process relies on after a power failure (a checkpoint, a shard) is written with
``durable=True``: its bytes are on the disk before the rename, the rename before the call returns. A cache entry or a
page is not: its reader recognises a torn one, and it is made again. ``runs.staging`` syncs a run's files once, when it
publishes them.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_atomic(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A new file that becomes ``path`` when the block ends, and disappears when the block raises.

    Several processes may write one path at once: each has a temporary name of its own, the last rename wins.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None  # the user does not know the temporary name
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def write_atomic(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Write a whole file; text as UTF-8, its line ends as they are."""
    with open_atomic(path, durable=durable) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
