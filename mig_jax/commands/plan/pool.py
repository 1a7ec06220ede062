"""The pool's sizes, and what reading it takes, from its first megabytes; or from nothing but what the keys say."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zstandard

from mig_jax.commands.plan.engine import fastest, most_bytes, through
from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.inputs import columns_of, encoded_of
from mig_jax.config.check import part
from mig_jax.core.errors import UserError
from mig_jax.encode import Encoded
from mig_jax.encode.config import ScoreConfig
from mig_jax.labels import LabelGraph
from mig_jax.pool import Pool, load_pool
from mig_jax.pool.configured import BUNDLED, bundled_pool, pool_of
from mig_jax.pool.parallel import workers_for
from mig_jax.pool.sources import Source, resolve
from mig_jax.pool.stream import FileReader

SLICE = 32_000_000  # bytes of text that are parsed: enough for the processes' start not to count
FEW, WRITTEN = 20, 4_000  # rows of selections that are written to be timed


@dataclass(frozen=True)
class Sizes:
    """What there is to select from.

    Args:
      bytes: of all files, as they lie. ``text``: decompressed.
      labels, tags: distinct labels; labels a row.
      usable: share of the rows that can be picked.
      cached: whether the pool cache holds it.
      how: where the numbers are from, in words.
    """

    rows: int
    bytes: int
    text: int
    labels: int
    tags: float
    usable: float
    cached: bool
    compression: str
    how: str


def cached_entry(config: SelectConfig, sources: list[Source], cache: Path | None) -> dict[str, Any] | None:
    """Rows, tags and tag names of a pool that the cache holds: by the files' sizes and times, not their contents."""
    if cache is None or any(source.format == "hf" for source in sources):
        return None
    wanted = [(Path(s.path).stat().st_size, Path(s.path).stat().st_mtime_ns) for s in sources]
    for meta in (cache / "pools").glob("*/meta.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(meta.read_text(encoding="utf-8"))
            if [(s["size_bytes"], s["mtime_ns"]) for s in told["sources"]] == wanted:
                tags = np.load(meta.with_name("tag_idx.npy"), mmap_mode="r", allow_pickle=False)
                rows = sum(s["rows"] for s in told["sources"])
                return {"rows": rows, "tags": len(tags) / max(rows, 1), "names": told["tag_names"]}
    return None


def sources_of(config: SelectConfig) -> list[Source]:
    """The pool's files; UserError as in a run."""
    return resolve([str(bundled_pool()) if path == BUNDLED else path for path in config.pool.paths])


def identity(sources: list[Source]) -> list[Any]:
    """What a measured slice holds for."""
    found = []
    for s in sources:
        stat = None if s.format == "hf" else Path(s.path).stat()
        found.append([s.path, stat and stat.st_size, stat and stat.st_mtime_ns])
    return found


def measure_pool(config: SelectConfig, sources: list[Source], like: int | None, text_bytes: int) -> dict[str, Any]:
    """Seconds and bytes of reading, encoding and writing, and what a row is like, from a slice of the pool.

    Args:
      like: bytes a row of a pool that does not exist: the bundled rows are made as long. None: it is there.
      text_bytes: of the whole pool, about: decides whether other processes parse.
    """
    if like:
        bundled = {"path": sources[0].path, "name": "bundled", "layout": "auto", "fields": {}, "valid_tags": None}
        config = msgspec.structs.replace(
            config,
            pool=msgspec.structs.replace(config.pool, **bundled),
            score=part("select", "score", ScoreConfig),
        )
    skipping = msgspec.structs.replace(config.pool, on_error="skip")
    with tempfile.TemporaryDirectory(prefix="mig_jax_plan_") as place:
        parts = _slices(Path(place), sources[0], like, min(SLICE, max(text_bytes, 1)))
        workers = workers_for(text_bytes) if sources[0].format == "jsonl" else 0
        lines, kept, pool = [], [], None
        for i, path in enumerate(parts):
            given = msgspec.structs.replace(skipping, path=str(path))
            start = time.perf_counter()
            pool = _load(given, config, Path(place) / f"cache{i}", workers, sources[0].path, path)
            lines.append((path.stat().st_size, time.perf_counter() - start))
            again, _ = fastest(2, lambda g=given, i=i: pool_of(g, columns_of(config), Path(place) / f"cache{i}"))
            kept.append((path.stat().st_size, again))
        assert pool is not None
        encode_s, encoded = fastest(2, lambda: encoded_of(pool, config, skip=True))
        text = int(pool.length.sum()) + len(pool)
        found = {
            "read": through(lines),
            "kept": through(kept),
            "encode": encode_s / len(pool),
            "encode_bytes": most_bytes(lambda: encoded_of(pool, config, skip=True)) / len(pool),
            "encoded_bytes": sum(a.nbytes for a in (encoded.row, encoded.label_ptr, encoded.label_idx, encoded.score))
            / len(pool),
            "table_bytes": _table(pool) / len(pool),
            "workers": workers,
            "row_bytes": parts[-1].stat().st_size / len(pool),
            "text_bytes": text / len(pool),
            "usable": len(encoded) / len(pool),
            "tags": len(encoded.label_idx) / max(len(encoded), 1),
            "labels": len(encoded.labels),
            "growth": _growth(encoded),
            "slice": parts[-1].stat().st_size,
        }
        return found | {"write": _write(config, pool, encoded, Path(place))}


def _load(given, config: SelectConfig, cache: Path, workers: int, name: str, path: Path) -> Pool:
    """Parsed and stored, as a run does it. What is wrong is told of the pool, not of the slice."""
    try:
        return load_pool(
            str(path),
            layout=given.layout,
            fields=given.fields,
            columns=columns_of(config),
            on_error="skip",
            cache_dir=cache / "pools",
            workers=workers,
        )
    except UserError as error:
        raise UserError(str(error).replace(str(path), name)) from None


def _slices(place: Path, source: Source, like: int | None, most: int) -> list[Path]:
    """Files with the pool's first rows, in its own format and compression: a quarter, and all that is measured."""
    if source.format in ("parquet", "hf", "json"):
        return [_table_slice(place, source)]
    parts: list[bytes] = []
    size = 0
    for line in _stretched(source, like) if like else _lines(source):
        parts.append(line)
        size += len(line)
        if size >= (most if like else SLICE):
            break
    if not parts:
        raise UserError(f"{source.path}: an empty pool: no record in it")
    out = []
    for name, share in (("part", 4), ("whole", 1)):
        text = b"".join(parts[: max(1, len(parts) // share)])
        path = place / f"{name}.jsonl{'.' + source.compression if source.compression else ''}"
        path.write_bytes(_compressed(text, source.compression))
        out.append(path)
    return out


def _lines(source: Source) -> Iterator[bytes]:
    """The file's lines, each with its end."""
    left = b""
    for block in FileReader(source):
        lines = (left + block).split(b"\n")
        left = lines.pop()
        yield from (line + b"\n" for line in lines)
    if left:
        yield left + b"\n"


def _stretched(source: Source, size: int) -> Iterator[bytes]:
    """The bundled rows again and again, their dialogs repeated until a row has about ``size`` bytes."""
    rows = [msgspec.json.decode(line) for line in _lines(source) if line.strip()]
    mean = Path(source.path).stat().st_size / len(rows)
    times = max(1, round(size / mean))
    lines = [msgspec.json.encode(row | {"dialogs": row["dialogs"] * times}) + b"\n" for row in rows]
    while True:
        yield from lines


def _compressed(text: bytes, how: str) -> bytes:
    if how == "zst":
        return zstandard.ZstdCompressor().compress(text)
    if how == "gz":
        import gzip

        return gzip.compress(text, 4)
    return text


def _table_slice(place: Path, source: Source) -> Path:
    """Of a parquet file its first rows; a .json array is taken whole where it is small."""
    path = Path(source.path)
    if source.format == "parquet" and not source.compression:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path)
            batch = next(file.iter_batches(batch_size=20_000))
        except (pa.ArrowInvalid, StopIteration, OSError) as error:
            raise UserError(f"{source.path}: not parquet, or empty ({error})") from None
        pq.write_table(pa.Table.from_batches([batch]), place / "slice.parquet")
        return place / "slice.parquet"
    if source.format != "hf" and path.stat().st_size <= SLICE:
        copy = place / path.name
        copy.write_bytes(path.read_bytes())
        return copy
    raise UserError(
        f"{source.path}: a plan cannot look at the first rows of this kind of pool; say what it is like with"
        " plan.rows=, plan.labels=, plan.tags= and plan.bytes="
    )


def _growth(encoded: Encoded) -> float:
    """Heaps' exponent: how the number of distinct labels grows with the rows (0 where it does not any more)."""
    half = len(np.unique(encoded.label_idx[: encoded.label_ptr[len(encoded) // 2]]))
    return float(np.log2(len(encoded.labels) / half)) if half else 0.0


def _table(pool: Pool) -> int:
    """Bytes of the columns."""
    return sum(value.nbytes for value in vars(pool).values() if isinstance(value, np.ndarray))


def _write(config: SelectConfig, pool: Pool, encoded: Encoded, place: Path) -> list[float]:
    """(seconds, seconds a pick) of the files of a run: two selections of the slice, written."""
    from mig_jax.api import select

    count = len(encoded.labels)
    nothing = np.zeros(0, np.int32)
    graph = LabelGraph(encoded.labels, np.ones(count, np.float32), nothing, nothing, np.zeros(0, np.float32), 1.0)
    points = []
    for n in (FEW, FEW, WRITTEN):  # the first one imports what draws the report, as a run's does
        made = select(
            pool,
            min(n, len(encoded)),
            graph=graph,
            valid_tags=config.pool.valid_tags,
            score=config.score.source,
            turns=config.score.turns,
            normalize=config.score.normalize,
            on_error="skip",
        )
        seconds, _ = fastest(1, lambda made=made: made.write(place / f"run{len(points)}"))
        points.append((len(made), seconds))
    return [points[0][1], through(points[1:])[1] if points[2][0] > points[1][0] else 0.0]
