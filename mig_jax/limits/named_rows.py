"""Rows of the pool that a file names: an earlier run, records, ids, or row numbers."""

import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mig_jax.errors import UserError
from mig_jax.export.manifest import MANIFEST, read_manifest
from mig_jax.pool import Pool, load_pool


def points_of(path: str | None, key: str, pool: Pool, points: np.ndarray) -> list[int]:
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


def rows_of(name: str, key: str, pool: Pool, all_of: bool = False) -> list[int]:
    """The pool rows that a file names, -1 where the pool has none; ``all_of``: every row of an id, not one by one."""
    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(f"{key}={name}: no such file or folder")
    if path.is_dir() or path.name == MANIFEST:
        return _rows_of_run(path if path.is_dir() else path.parent, f"{key}={name}", pool)
    if path.suffix == ".npy":
        return _rows_of_numbers(path, f"{key}={name}", pool)
    if path.suffix in (".txt", ".json"):
        ids = _ids(path, f"{key}={name}")
        if ids is not None:
            return _rows_of_ids(ids, pool, all_of)
    return _rows_of_records(path, pool, all_of)


def _rows_of_run(folder: Path, told: str, pool: Pool) -> list[int]:
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
    return _rows_of_ids(ids, pool, False)


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
        if name in asked:
            there.setdefault(name, []).append(row)  # type: ignore[arg-type]
    return _handed_out(wanted, there, all_of)


def _rows_of_records(path: Path, pool: Pool, all_of: bool) -> list[int]:
    """Records as select wrote them, or others with the pool's ids: found by their bytes, else by their id."""
    given = load_pool([str(path)])
    bytes_of: dict[Any, list[int]] = {}
    for row, key in enumerate(zip(pool.crc.tolist(), pool.length.tolist(), strict=True)):
        bytes_of.setdefault(key, []).append(row)
    keys = [(zlib.crc32(raw), len(raw)) for raw in given.read_rows(np.arange(len(given)))]
    found = _handed_out(keys, bytes_of, all_of)
    unknown = [at for at, row in enumerate(found) if row < 0]
    if unknown and not all_of:
        ids = [given.id(at) for at in unknown]
        for at, row in zip(unknown, _rows_of_ids([one or "" for one in ids], pool, all_of), strict=True):
            found[at] = row
    elif unknown:
        found += _rows_of_ids([one for at in unknown if (one := given.id(at)) is not None], pool, all_of)
    return found


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
