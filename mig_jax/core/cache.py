"""Arrays cached on disk under the hash of what they were made from; any number of runs may use a cache at once."""

import fcntl
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mig_jax.core.files import open_atomic


@contextmanager
def one_at_a_time(folder: Path | None, what: str) -> Iterator[None]:
    """Hold a lock, so that of the processes of this machine that make the entry ``what`` one does and the others wait.

    The lock ends with the process, however it ends. There is no lock without a folder or where files cannot be locked.
    """
    if folder is None:
        yield
        return
    name = hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    file = None
    try:
        with suppress(OSError):
            (folder / "locks").mkdir(parents=True, exist_ok=True)
            file = (folder / "locks" / name).open("ab")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        if file is not None:
            file.close()


class ArrayCache:
    """A folder of .npz files. ``folder`` None: no cache."""

    def __init__(self, folder: Path | None):
        self.folder = folder

    def get(self, kind: str, key: Any, make: Callable[[], dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], bool]:
        """(the arrays of ``make()``, whether they come from the cache). A damaged entry is made again.

        Args:
          kind: the subfolder.
          key: all that ``make`` depends on, as JSON types.
          make: computes the arrays, by name.
        """
        if self.folder is None:
            return make(), False
        name = hashlib.sha256(json.dumps([kind, key], sort_keys=True).encode()).hexdigest()
        path = self.folder / kind / f"{name}.npz"
        damaged = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
        # An open file: given a path, np.load does not close a damaged file.
        with suppress(*damaged), path.open("rb") as file, np.load(file) as stored:
            return {field: stored[field] for field in stored.files}, True
        arrays = make()
        with suppress(OSError):  # on a full or read-only disk the run goes without a cache
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_atomic(path) as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        return arrays, False
