"""Snapshots of a selection, as bytes and in a file that is replaced in one step: a crash leaves the last one or none.

An .npz without pickle holds ``points``, ``gains`` and the sampler's state. The state is a NamedTuple whose annotations
are the schema: a field is an array with a jaxtyping annotation, or another such NamedTuple. Arrays are stored under the
path of their field (``state.x``), and the class of each NamedTuple under ``kind`` and its path.
"""

import io
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from jaxtyping import Float64, Int64, jaxtyped

from mig_jax.core.files import write_atomic
from mig_jax.core.index import PointArray

NAME = "greedy.npz"
FORMAT = 3


@dataclass(frozen=True)
class Snapshot:
    """All that a sampler needs to resume: its picks in order, their gains and its ``state``, a NamedTuple of arrays."""

    points: Int64[PointArray, " n"]
    gains: Float64[np.ndarray, " n"]
    state: Any


class NoSnapshot(ValueError):
    """The bytes hold no snapshot with the expected state."""


def to_bytes(snapshot: Snapshot | None) -> bytes:
    """Empty for None."""
    if snapshot is None:
        return b""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"format": FORMAT, "points": snapshot.points, "gains": snapshot.gains}
    np.savez(buffer, **arrays, **_flat("", snapshot.state))
    return buffer.getvalue()


def from_bytes(data: bytes, schema: Any) -> Snapshot | None:
    """The snapshot in ``data``; None where there is none whose state fits ``schema``.

    Args:
      schema: the NamedTuple class of the state, or a union of such classes; None: of a sampler without snapshots.
    """
    if not data or schema is None:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored, jaxtyped("context"):
            if int(stored["format"]) != FORMAT:
                return None
            state = _read(stored, "", schema)
            return Snapshot(stored["points"], stored["gains"], state)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # what numpy and zipfile raise on damage
        return None


def _flat(path: str, state: Any) -> dict[str, Any]:
    """The arrays of a NamedTuple and the names of its classes, by path."""
    arrays = {f"kind{path}": np.array(type(state).__name__)}
    for field, value in zip(state._fields, state, strict=True):
        if hasattr(value, "_fields"):
            arrays |= _flat(f"{path}.{field}", value)
        else:
            arrays[f"state{path}.{field}"] = np.asarray(value)
    return arrays


def _read(stored: Mapping[str, np.ndarray], path: str, schema: Any) -> Any:
    """The NamedTuple at ``path``, one of the classes in ``schema``.

    Raises:
      NoSnapshot: its class is not among them, or an array has another dtype or shape than its field.
      KeyError: a field is missing.
    """
    kinds = {kind.__name__: kind for kind in get_args(schema) or (schema,)}
    name = str(stored[f"kind{path}"])
    if name not in kinds:
        raise NoSnapshot(f"state of kind {name}, not {' or '.join(kinds)}")
    values = {}
    for field, hint in get_type_hints(kinds[name], include_extras=True).items():
        allowed = get_args(hint) or (hint,)
        if hasattr(allowed[0], "_fields"):
            values[field] = _read(stored, f"{path}.{field}", hint)
        else:
            values[field] = stored[f"state{path}.{field}"]
            if not any(isinstance(values[field], kind) for kind in allowed):
                raise NoSnapshot(f"state{path}.{field}: {values[field].dtype}{values[field].shape} is not {hint}")
    return kinds[name](**values)


class Checkpoint:
    """Stores the newest snapshot in a folder; writes at most once every ``every`` seconds."""

    def __init__(self, folder: Path, every: float):
        self.path, self.every = folder / NAME, every
        self._written = time.monotonic()

    def load(self, schema: Any) -> Snapshot | None:
        """The stored snapshot whose state fits ``schema`` (see ``from_bytes``), or None."""
        return from_bytes(self.path.read_bytes(), schema) if self.path.exists() else None

    def __call__(self, snapshot: Snapshot) -> None:
        if time.monotonic() - self._written < self.every:
            return
        write_atomic(self.path, to_bytes(snapshot), durable=True)
        self._written = time.monotonic()
