"""A snapshot of the greedy on disk, replaced in one step: after a crash there is the last one or none, never a part."""

import io
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mig_jax.engine.greedy import Snapshot

NAME = "greedy.npz"
FORMAT = 2  # of the state; a snapshot of another is no snapshot


def to_bytes(snapshot: Snapshot | None) -> bytes:
    """Empty for None."""
    if snapshot is None:
        return b""
    buffer = io.BytesIO()
    state: dict[str, Any] = {f"state_{i}": part for i, part in enumerate(snapshot.state)}
    np.savez(buffer, format=FORMAT, rows=snapshot.rows, gains=snapshot.gains, **state)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Snapshot | None:
    """None for nothing, or for what is no snapshot."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            if int(stored["format"]) != FORMAT:
                return None
            state = tuple(stored[f"state_{i}"] for i in range(len(stored.files) - 3))
            return Snapshot(stored["rows"], stored["gains"], state)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


class Checkpoint:
    """Keeps the newest snapshot in a folder, at most one write every ``every`` seconds."""

    def __init__(self, folder: Path, every: float):
        self.path, self.every = folder / NAME, every
        self._written = time.monotonic()

    def load(self) -> Snapshot | None:
        """The snapshot there is, if any."""
        return from_bytes(self.path.read_bytes()) if self.path.exists() else None

    def __call__(self, snapshot: Snapshot) -> None:
        if time.monotonic() - self._written < self.every:
            return
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(to_bytes(snapshot))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        self._written = time.monotonic()
