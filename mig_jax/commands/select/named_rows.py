"""Rows of the pool that a setting names: an earlier run, records, ids, or row numbers."""

import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mig_jax.core.errors import UserError
from mig_jax.pool import Pool, load_pool
from mig_jax.runs.manifest import MANIFEST, SelectManifest, read_manifest

Named = str | Sequence[int | str]  # a file, or ids and row numbers themselves


def find_points(named: Named | None, key: str, pool: Pool, points: np.ndarray) -> list[int]:
    """The points of named rows, in their order, each once.

    Args:
      key: the setting, for messages.
      points: the point of each pool row, -1 where it has none; int64 ``[R]``.

    Raises:
      UserError: also where a row is not in the pool or has no point.
    """
    if named is None:
        return []
    rows = find_rows(named, key, pool)
    missing = [at for at, row in enumerate(rows) if row < 0]
    if missing:
        message = (
            f"{len(missing)} of its {len(rows)} rows are not in the pool; the first such is number {missing[0] + 1}"
        )
        raise UserError(message, key=key, value=shown(named))
    for row in rows:
        if points[row] < 0:
            message = f"{pool.where(row)} cannot be picked: it lacks what the sampler needs"
            raise UserError(message, key=key, value=shown(named))
    return [*dict.fromkeys(int(points[row]) for row in rows)]


def find_rows(named: Named, key: str, pool: Pool, all_of: bool = False) -> list[int]:
    """The pool rows that are named; -1 where the pool has no such row.

    Args:
      all_of: an id means all its rows; else the first row, then the second where it is named again, and so on.

    Raises:
      UserError: the file is missing or is not a list of rows.
    """
    if not isinstance(named, str):
        numbers = [row if type(row) is int and 0 <= row < len(pool) else -1 for row in named]
        of_ids = iter(_by_id([name for name in named if isinstance(name, str)], pool, False))
        return [next(of_ids) if isinstance(name, str) else row for name, row in zip(named, numbers, strict=True)]
    path = Path(named).expanduser()
    if not path.exists():
        raise UserError("no such file or folder", key=key, value=named)
    try:
        if path.is_dir() or path.name == MANIFEST:
            return _of_run(path if path.is_dir() else path.parent, pool, all_of)
        if path.suffix == ".npy":
            return _of_numbers(path, pool)
        ids = _ids(path) if path.suffix in (".txt", ".json") else None
    except _NotRows as error:
        raise UserError(str(error), key=key, value=named) from None
    return _of_records(path, pool, all_of) if ids is None else _by_id(ids, pool, all_of)


def shown(named: Named | None) -> Any:
    """A setting's value as a message shows it: a file by its name; rows are too many."""
    return named if isinstance(named, str) else ...


class _NotRows(ValueError):
    """The file is not a list of rows; the text is the message."""


def _of_run(folder: Path, pool: Pool, all_of: bool) -> list[int]:
    """The rows of a run, by their numbers if it is of this pool, else by their ids."""
    try:
        manifest = read_manifest(folder, SelectManifest)
        columns = pq.read_table(folder / "trace.parquet", columns=["row", "id"])
    except (OSError, ValueError) as error:
        raise _NotRows(f"not a complete run: {error}") from None
    if [source.sha256 for source in manifest.inputs] == [source.sha256 for source in pool.sources]:
        return columns.column("row").to_pylist()
    ids = columns.column("id").to_pylist()
    if None in ids:
        raise _NotRows("a run on another pool, whose rows have no ids to find them by")
    return _by_id(ids, pool, all_of)


def _of_numbers(path: Path, pool: Pool) -> list[int]:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _NotRows(f"not an array of row numbers: {error}") from None
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise _NotRows(f"must hold whole numbers in one dimension, pool rows from 0; it is {rows.dtype} {rows.shape}")
    return np.where((rows >= 0) & (rows < len(pool)), rows, -1).astype(np.int64).tolist()


def _ids(path: Path) -> list[str] | None:
    """The ids of a .txt, one a line, or of a .json list; None where the file holds records."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            return [line.strip() for line in text.splitlines() if line.strip()]
        ids = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise _NotRows(f"cannot be read as a list of ids: {error}") from None
    if not isinstance(ids, list) or not all(type(name) in (str, int) for name in ids):
        return None
    return [str(name) for name in ids]


def _by_id(ids: Iterable[str], pool: Pool, all_of: bool) -> list[int]:
    ids = [*ids]
    wanted, rows_of_id = set(ids), {}
    for row in range(len(pool)):
        name = pool.id(row)
        if name is not None and name in wanted:
            rows_of_id.setdefault(name, []).append(row)
    return _assigned(ids, rows_of_id, all_of)


def _of_records(path: Path, pool: Pool, all_of: bool) -> list[int]:
    """Records as select wrote them, or others with the pool's ids: found by their bytes, else by their id."""
    records = load_pool([str(path)], fields=pool.fields)
    raws = [*records.read_rows(np.arange(len(records)))]
    wanted = {(zlib.crc32(raw), len(raw)) for raw in raws}
    alike = [row for row, key in enumerate(zip(pool.crc.tolist(), pool.length.tolist(), strict=True)) if key in wanted]
    rows_of_digest: dict[bytes, list[int]] = {}
    for row, raw in zip(
        alike, pool.read_rows(np.array(alike, np.int64)), strict=True
    ):  # different rows may share a crc
        rows_of_digest.setdefault(_digest(raw), []).append(row)
    rows = _assigned([_digest(raw) for raw in raws], rows_of_digest, all_of)
    unknown = [at for at, raw in enumerate(raws) if _digest(raw) not in rows_of_digest]
    by_id = _by_id([records.id(at) or "" for at in unknown], pool, all_of)
    if all_of:
        return [row for row in rows if row >= 0] + by_id
    for at, row in zip(unknown, by_id, strict=True):
        rows[at] = row
    return rows


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _assigned(names: Sequence[Any], rows_of_name: dict[Any, list[int]], all_of: bool) -> list[int]:
    """The rows of names: all of a name, or one after the other where a name occurs several times."""
    if all_of:
        return [row for name in dict.fromkeys(names) for row in rows_of_name.get(name, [-1])]
    used: dict[Any, int] = {}
    rows = []
    for name in names:
        candidates, at = rows_of_name.get(name, []), used.get(name, 0)
        rows.append(candidates[min(at, len(candidates) - 1)] if candidates else -1)
        used[name] = at + 1
    return rows
