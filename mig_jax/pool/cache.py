"""The cache of pools on disk, by content: one folder of .npy files and a meta.json per pool."""

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
"""Increase it whenever the arrays of a Pool, or their meaning, change."""

_STALE_SECONDS = 24 * 3600
_ARRAYS = tuple(f.name for f in fields(Pool) if f.name not in (
    "sources", "tag_names", "source_names", "columns", "columns_state", "rejects", "fields",
))  # fmt: skip


def content_key(settings: dict[str, Any], contents: Sequence[Any]) -> str:
    """Hex sha256 of the format version, the settings, and one value per file (its size or its sha256), in order.

    The versions of the two libraries that convert a parquet row to JSON are included: the bytes of a row have a crc.
    """
    versions = [FORMAT, msgspec.__version__, pa.__version__]
    return hashlib.sha256(json.dumps([versions, settings, list(contents)], sort_keys=True).encode()).hexdigest()


class Cache:
    """Entries ``<shape>-<key>`` in one folder.

    The shape (settings and file sizes) is known before the files are read, the key (settings and file contents) only
    afterwards. If no entry has the shape, the pool is not hashed for a lookup.

    Raises:
      UserError: the folder cannot be created.
    """

    def __init__(self, folder: Path, shape: str):
        self._folder, self._shape = Path(folder), shape[:16]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot be created: {error.strerror or error};"
                " cache=DIR sets another folder, cache=null disables the cache",
                where=f"cache folder {folder}",
            ) from error

    def may_hold(self) -> bool:
        """Whether an entry has this shape."""
        return any(self._folder.glob(f"{self._shape}-*"))

    def load(self, key: str, paths: Sequence[str], mtimes: Sequence[int]) -> Pool | None:
        """The pool, with its sources at ``paths``; None if there is no entry or it is damaged."""
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
                Reject(**{**reject, "file": paths[reject["file"]], "head": base64.b64decode(reject["head"])})
                for reject in meta["rejects"]
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
        """Write the entry to a temporary folder and rename it, so that a reader sees a complete entry or none.

        If the entry cannot be written (disk full or read-only), warn and continue.
        """
        temporary = self._folder / f".{uuid.uuid4().hex}"
        try:
            self._remove_stale()
            temporary.mkdir()
            crc = {}
            for name, values in _arrays(pool):
                np.save(temporary / f"{name}.npy", values, allow_pickle=False)
                crc[name] = _crc(temporary / f"{name}.npy")
            (temporary / "meta.json").write_text(json.dumps(_meta(key, pool, crc)), encoding="utf-8")
            self._put(temporary, self._entry(key))
        except OSError as error:
            warnings.warn(
                f"the pool was not cached in {self._folder}: {error.strerror or error}", RuntimeWarning, stacklevel=2
            )
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _entry(self, key: str) -> Path:
        return self._folder / f"{self._shape}-{key[:32]}"

    def _put(self, temporary: Path, entry: Path) -> None:
        """Rename ``temporary`` to ``entry``, and replace an existing entry.

        A folder cannot be renamed onto a non-empty folder, so an existing entry is moved away first. It is damaged, or
        another process has just written the same content.
        """
        for _ in range(10):
            try:
                temporary.rename(entry)
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
        """Remove temporary folders of processes that were killed while writing."""
        for folder in self._folder.glob(".*"):
            if len(folder.name) == 33 and folder.is_dir() and time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _arrays(pool: Pool) -> Iterator[tuple[str, np.ndarray]]:
    for name in _ARRAYS:
        yield name, getattr(pool, name)
    for i, name in enumerate(pool.columns):
        yield f"column{i}", pool.columns[name]
        yield f"column{i}_state", pool.columns_state[name]


def _meta(key: str, pool: Pool, crc: dict[str, int]) -> dict[str, Any]:
    # Paths are left out: files of the same content at other paths use the same entry.
    number = {info.path: i for i, info in enumerate(pool.sources)}
    return {
        "key": key,
        "crc": crc,
        "sources": [asdict(info) | {"path": ""} for info in pool.sources],
        "tag_names": pool.tag_names,
        "source_names": pool.source_names,
        "columns": list(pool.columns),
        "rejects": [
            asdict(reject) | {"file": number[reject.file], "head": base64.b64encode(reject.head).decode()}
            for reject in pool.rejects
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
    """The array, memory-mapped and read-only. Raises ValueError if the file does not have this crc."""
    if _crc(path) != crc:
        raise ValueError(f"{path} is damaged")
    # An empty array cannot be mapped.
    mapped = path.stat().st_size > 4096
    values = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    values.flags.writeable = False
    return np.asarray(values) if mapped else values
