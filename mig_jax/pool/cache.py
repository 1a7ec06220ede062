"""Pools kept on disk by content: a folder of .npy files and a meta.json for each."""

import base64
import hashlib
import json
import shutil
import time
import uuid
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mig_jax.core.errors import UserError
from mig_jax.pool.table import Pool, Reject, SourceInfo

FORMAT = 2
"""Raise it whenever the arrays of a Pool, or what is put in them, change."""

_STALE_SECONDS = 24 * 3600
_ARRAYS = tuple(f.name for f in fields(Pool) if f.name not in (
    "sources", "tag_names", "source_names", "columns", "columns_state", "rejects", "fields",
))  # fmt: skip


def content_key(settings: dict[str, Any], contents: Sequence[Any]) -> str:
    """Hex sha256 of this format's version, the settings, and something of each file in order.

    The versions of the two libraries that make a parquet row's JSON are part of it: its bytes are checked by crc.
    """
    versions = [FORMAT, msgspec.__version__, pa.__version__]
    return hashlib.sha256(json.dumps([versions, settings, list(contents)], sort_keys=True).encode()).hexdigest()


class Cache:
    """Entries ``<shape>-<key>`` in one folder.

    The shape (settings and file sizes) is known before any file is read, the key (settings and file contents) only
    after; so a pool never met is not hashed twice.

    Raises:
      UserError: the folder cannot be made.
    """

    def __init__(self, folder: Path, shape: str):
        self._folder, self._shape = Path(folder), shape[:16]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cache folder {folder}: cannot be made: {error.strerror or error};"
                " cache=DIR names another, cache=null keeps none"
            ) from error

    def may_hold(self) -> bool:
        """Whether some entry has this shape."""
        return any(self._folder.glob(f"{self._shape}-*"))

    def load(self, key: str, paths: Sequence[str], mtimes: Sequence[int]) -> Pool | None:
        """The pool, its sources at the present paths; None where there is none or it is damaged."""
        entry = self._entry(key)
        try:
            meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
            if meta["key"] != key or len(meta["sources"]) != len(paths):
                return None
            arrays = {name: _read(entry / f"{name}.npy", crc) for name, crc in meta["crc"].items()}
            sources = [
                SourceInfo(**{**info, "path": path, "mtime_ns": mtime})
                for info, path, mtime in zip(meta["sources"], paths, mtimes, strict=True)
            ]
            rejects = [
                Reject(**{**r, "file": paths[r["file"]], "head": base64.b64decode(r["head"])}) for r in meta["rejects"]
            ]
            return Pool(
                sources=tuple(sources),
                tag_names=tuple(meta["tag_names"]),
                source_names=tuple(meta["source_names"]),
                columns={name: arrays[f"column{i}"] for i, name in enumerate(meta["columns"])},
                columns_state={name: arrays[f"column{i}_state"] for i, name in enumerate(meta["columns"])},
                rejects=tuple(rejects),
                fields=meta["fields"],
                **{name: arrays[name] for name in _ARRAYS},
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None

    def store(self, key: str, pool: Pool) -> None:
        """Writes the entry beside and renames it into place, so that a reader sees all of it or none.

        A full or read-only disk costs a warning, not the pool that was just read.
        """
        beside = self._folder / f".{uuid.uuid4().hex}"
        try:
            self._remove_stale()
            beside.mkdir()
            crc = {}
            for name, values in _arrays(pool):
                np.save(beside / f"{name}.npy", values, allow_pickle=False)
                crc[name] = _crc(beside / f"{name}.npy")
            (beside / "meta.json").write_text(json.dumps(_meta(key, pool, crc)), encoding="utf-8")
            self._put(beside, self._entry(key))
        except OSError as error:
            warnings.warn(
                f"the pool was not cached in {self._folder}: {error.strerror or error}", RuntimeWarning, stacklevel=2
            )
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _entry(self, key: str) -> Path:
        return self._folder / f"{self._shape}-{key[:32]}"

    def _put(self, beside: Path, entry: Path) -> None:
        """Renames ``beside`` to ``entry``, whatever lies there.

        A folder cannot be renamed onto one that is not empty, so that one (damaged, since we were rebuilding, or just
        written by another process, and then the same) is moved away first.
        """
        for _ in range(10):
            try:
                beside.rename(entry)
                return
            except OSError:
                old = self._folder / f".{uuid.uuid4().hex}"
                try:
                    entry.rename(old)
                except FileNotFoundError:
                    continue
                shutil.rmtree(old, ignore_errors=True)
        raise OSError(f"{entry} could not be replaced")

    def _remove_stale(self) -> None:
        """Folders left by processes that were killed while writing."""
        for left in self._folder.glob(".*"):
            if len(left.name) == 33 and left.is_dir() and time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _arrays(pool: Pool) -> Iterator[tuple[str, np.ndarray]]:
    for name in _ARRAYS:
        yield name, getattr(pool, name)
    for i, name in enumerate(pool.columns):
        yield f"column{i}", pool.columns[name]
        yield f"column{i}_state", pool.columns_state[name]


def _meta(key: str, pool: Pool, crc: dict[str, int]) -> dict[str, Any]:
    # Paths are left out: the entry serves the same contents elsewhere.
    number = {info.path: i for i, info in enumerate(pool.sources)}
    return {
        "key": key,
        "crc": crc,
        "sources": [asdict(info) | {"path": ""} for info in pool.sources],
        "tag_names": pool.tag_names,
        "source_names": pool.source_names,
        "columns": list(pool.columns),
        "rejects": [
            asdict(r) | {"file": number[r.file], "head": base64.b64encode(r.head).decode()} for r in pool.rejects
        ],
        "fields": pool.fields,
    }


def _crc(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total = zlib.crc32(block, total)
    return total


def _read(path: Path, crc: int) -> np.ndarray:
    """The array, mapped and read-only. Raises ValueError where the file is not what was written."""
    if _crc(path) != crc:
        raise ValueError(f"{path} is damaged")
    # An empty array cannot be mapped.
    mapped = path.stat().st_size > 4096
    values = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    values.flags.writeable = False
    return np.asarray(values) if mapped else values
