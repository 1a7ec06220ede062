"""Rows of the pool that a file names: an earlier run, records, ids, or row numbers."""

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
from mig_jax.runs.manifest import MANIFEST, read_manifest


def points_of(path: str | Sequence[int | str] | None, key: str, pool: Pool, points: np.ndarray) -> list[int]:
    """The points of a file of rows, in its order, each once."""
    if path is None:
        return []
    rows = rows_of(path, key, pool)
    missing = [at for at, row in enumerate(rows) if row < 0]
    if missing:
        raise UserError(
            f"{key}={path}: {len(missing)} of its {len(rows)} rows are not in the pool;"
            f" the first such is number {missing[0] + 1}"
        )
    for row in rows:
        if points[row] < 0:
            raise UserError(
                f"{key}={path}: {pool.where(row)} cannot be picked: it is no usable row (tags or score missing)"
            )
    return [*dict.fromkeys(int(points[row]) for row in rows)]


def rows_of(name: str | Sequence[int | str], key: str, pool: Pool, all_of: bool = False) -> list[int]:
    """The pool rows that a file names, or ids or row numbers themselves; -1 where the pool has none.

    ``all_of``: every row of an id, not one after the other.
    """
    if not isinstance(name, str):
        numbers = [row if type(row) is int and 0 <= row < len(pool) else -1 for row in name]
        named = iter(_rows_of_ids([one for one in name if isinstance(one, str)], pool, False))
        return [next(named) if isinstance(one, str) else row for one, row in zip(name, numbers, strict=True)]
    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(f"{key}={name}: no such file or folder")
    if path.is_dir() or path.name == MANIFEST:
        return _rows_of_run(path if path.is_dir() else path.parent, f"{key}={name}", pool, all_of)
    if path.suffix == ".npy":
        return _rows_of_numbers(path, f"{key}={name}", pool)
    if path.suffix in (".txt", ".json"):
        ids = _ids(path, f"{key}={name}")
        if ids is not None:
            return _rows_of_ids(ids, pool, all_of)
    return _rows_of_records(path, pool, all_of)


def _rows_of_run(folder: Path, told: str, pool: Pool, all_of: bool) -> list[int]:
    try:
        manifest = read_manifest(folder)
        columns = pq.read_table(folder / "trace.parquet", columns=["row", "id"])
    except (OSError, ValueError) as error:
        raise UserError(f"{told}: not a whole run: {error}") from None
    if [source["sha256"] for source in manifest["pool"]["sources"]] == [source.sha256 for source in pool.sources]:
        return columns.column("row").to_pylist()
    ids = columns.column("id").to_pylist()
    if None in ids:
        raise UserError(f"{told}: a run on another pool, whose rows have no ids to find them by")
    return _rows_of_ids(ids, pool, all_of)


def _rows_of_numbers(path: Path, told: str, pool: Pool) -> list[int]:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{told}: not an array of row numbers: {error}") from None
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise UserError(
            f"{told}: must hold whole numbers in one dimension, pool rows from 0; it is {rows.dtype} {rows.shape}"
        )
    return np.where((rows >= 0) & (rows < len(pool)), rows, -1).astype(np.int64).tolist()


def _ids(path: Path, told: str) -> list[str] | None:
    """The ids of a .txt, one a line, or of a .json list; None where the file holds records."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            return [line.strip() for line in text.splitlines() if line.strip()]
        found = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{told}: cannot be read as a list of ids: {error}") from None
    if not isinstance(found, list) or not all(type(one) in (str, int) for one in found):
        return None
    return [str(one) for one in found]


def _rows_of_ids(ids: Iterable[str], pool: Pool, all_of: bool) -> list[int]:
    there: dict[str, list[int]] = {}
    wanted = [*ids]
    asked = set(wanted)
    for row in range(len(pool)):
        name = pool.id(row)
        if name is not None and name in asked:
            there.setdefault(name, []).append(row)
    return _handed_out(wanted, there, all_of)


def _rows_of_records(path: Path, pool: Pool, all_of: bool) -> list[int]:
    """Records as select wrote them, or others with the pool's ids: found by their bytes, else by their id."""
    given = load_pool([str(path)], fields=pool.fields)
    raws = [*given.read_rows(np.arange(len(given)))]
    asked = {(zlib.crc32(raw), len(raw)) for raw in raws}
    alike = [row for row, key in enumerate(zip(pool.crc.tolist(), pool.length.tolist(), strict=True)) if key in asked]
    rows_of_bytes: dict[bytes, list[int]] = {}
    for row, raw in zip(alike, pool.read_rows(np.array(alike, np.int64)), strict=True):  # a checksum would be a bet
        rows_of_bytes.setdefault(_digest(raw), []).append(row)
    found = _handed_out([_digest(raw) for raw in raws], rows_of_bytes, all_of)
    unknown = [at for at, raw in enumerate(raws) if _digest(raw) not in rows_of_bytes]
    ids = _rows_of_ids([given.id(at) or "" for at in unknown], pool, all_of)
    if all_of:
        return [row for row in found if row >= 0] + ids
    for at, row in zip(unknown, ids, strict=True):
        found[at] = row
    return found


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _handed_out(wanted: Sequence[Any], there: dict[Any, list[int]], all_of: bool) -> list[int]:
    """Rows for keys: all of a key, or one after the other where a key is asked for several times."""
    if all_of:
        return [row for key in dict.fromkeys(wanted) for row in there.get(key, [-1])]
    used: dict[Any, int] = {}
    rows = []
    for key in wanted:
        candidates = there.get(key, [])
        at = used.get(key, 0)
        rows.append(candidates[min(at, len(candidates) - 1)] if candidates else -1)
        used[key] = at + 1
    return rows
