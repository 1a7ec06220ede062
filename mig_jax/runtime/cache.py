"""Arrays kept on disk under the hash of what they were made from; safe for any number of runs at once."""

import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np


class ArrayCache:
    """A folder of .npz files. ``folder`` None: nothing is kept."""

    def __init__(self, folder: Path | None):
        self.folder = folder

    def get(self, kind: str, key: Any, make: Callable[[], dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], bool]:
        """The arrays of ``make()``, from disk where they are there: (arrays, whether they were).

        ``key`` is JSON-able and names everything that ``make`` depends on. A damaged entry is made again.
        """
        if self.folder is None:
            return make(), False
        name = hashlib.sha256(json.dumps([kind, key], sort_keys=True).encode()).hexdigest()
        path = self.folder / kind / f"{name}.npz"
        with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path) as stored:
            return {field: stored[field] for field in stored.files}, True
        arrays = make()
        with suppress(OSError):  # a full or read-only disk costs the cache, not the run
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
            try:
                with temporary.open("wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return arrays, False
