"""The sizes of a pool: as ``plan.*`` states them, or estimated from its first megabytes."""

import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from mig_jax.commands.plan.config import PlanKeys
from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.inputs import columns_of, encoded_of
from mig_jax.core.errors import UserError
from mig_jax.encode import Encoded
from mig_jax.labels.valid_tags import Vocabulary, read_valid_tags
from mig_jax.pool import Pool, load_pool
from mig_jax.pool.configured import BUNDLED, bundled_pool
from mig_jax.pool.sources import Source, resolve
from mig_jax.pool.stream import FileReader

SAMPLE = 32_000_000  # bytes of text that are read of a pool
LABELS, TAGS, ROW_BYTES = 4_531, 4.0, 3_200  # Tulu3's pool: the defaults of plan.labels, plan.tags and plan.bytes
STATED = "describe the pool instead, with plan.rows=, plan.labels=, plan.tags= and plan.bytes="


@dataclass(frozen=True)
class Sizes:
    """R rows, M of them usable.

    Args:
      rows, points: R and M.
      bytes: of all files, as stored; ``text``: decompressed.
      labels: distinct labels of the pool.
      tags: labels a usable row, on average.
      distinct: distinct label sets a usable row, at most 1: rows with equal labels share a queue of the engine.
      table: bytes a row of the columns of ``Pool``.
      source: how the numbers were found.
      widths: label counts of some usable rows.
    """

    rows: int
    points: int
    bytes: int
    labels: int
    tags: float
    distinct: float
    table: float
    text: int
    source: str
    widths: np.ndarray = field(repr=False)


def sizes_of(config: SelectConfig, keys: PlanKeys, graph_labels: int | None) -> Sizes:
    """Find the sizes; ``graph_labels``: the labels of a given graph.

    Raises:
      UserError: the pool cannot be read, or its first rows cannot be sampled.
    """
    if keys.rows is not None:
        return _stated(keys, graph_labels)
    sources = resolve([str(bundled_pool()) if path == BUNDLED else path for path in config.pool.paths])
    for source in sources:
        if source.format == "hf":
            raise UserError(f"a plan does not download data sets; {STATED}", where=source.path)
    size = sum(Path(source.path).stat().st_size for source in sources)
    with tempfile.TemporaryDirectory(prefix="mig_jax_plan_") as folder:
        path, read = _first_rows(sources[0], Path(folder))
        pool, encoded = _encoded(config, path, sources[0])
        rows = round(size * len(pool) / read)
    labels = keys.labels or _labels(config, encoded, rows / len(pool))
    source = "all rows were read" if rows == len(pool) else f"estimated from the first {len(pool):,} rows"
    usable = len(encoded) / len(pool)
    return Sizes(
        rows, round(rows * usable), size, max(labels, 1), keys.tags or max(1.0, float(encoded.label_count.mean())),
        _distinct(encoded), _table_bytes(pool) / len(pool), round(rows * int(pool.length.sum()) / len(pool)),
        f"{source}; {usable:.1%} of the rows are usable", encoded.label_count,
    )  # fmt: skip


def _stated(keys: PlanKeys, graph_labels: int | None) -> Sizes:
    """A pool like the bundled one, but for what ``plan.*`` states. Label counts are 1 + Poisson."""
    assert keys.rows is not None
    labels = keys.labels or graph_labels or LABELS
    tags = min(keys.tags or TAGS, labels)
    like = load_pool(bundled_pool())
    table = _table_bytes(like) / len(like) + like.tag_idx.itemsize * (tags - len(like.tag_idx) / len(like))
    widths = 1 + np.random.default_rng(2504).poisson(tags - 1, 10_000)
    size = keys.rows * (keys.bytes or ROW_BYTES)
    return Sizes(keys.rows, keys.rows, size, labels, tags, 1.0, table, size, "as plan.* states them", widths)


def _first_rows(source: Source, folder: Path) -> tuple[Path, int]:
    """A file with the first rows of a source, and how many bytes of the source these rows take.

    Rows of one file are assumed to be as long at its beginning as at its end.
    """
    path = Path(source.path)
    if source.format == "jsonl":
        done = [0]
        text, at_line_end = bytearray(), 0
        for block in FileReader(source, on_bytes=lambda count: done.append(done[-1] + count)):
            text += block
            if len(text) >= SAMPLE:
                at_line_end = text.rfind(b"\n") + 1
                break
        share = (at_line_end or len(text)) / max(len(text), 1)
        sample = folder / "sample.jsonl"
        sample.write_bytes(text[: at_line_end or len(text)])
        return sample, max(1, round(done[-1] * share))
    if source.format == "parquet" and not source.compression:
        import pyarrow as pa  # a third of a second
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path)
            batch = next(file.iter_batches(batch_size=20_000))
        except (pa.ArrowInvalid, StopIteration, OSError) as error:
            raise UserError(f"not parquet, or empty ({error})", where=source.path) from None
        sample = folder / "sample.parquet"
        pq.write_table(pa.Table.from_batches([batch]), sample)
        return sample, round(path.stat().st_size * len(batch) / file.metadata.num_rows)
    if path.stat().st_size <= SAMPLE:
        return path, path.stat().st_size
    raise UserError(f"a plan cannot read the first rows alone of such a file; {STATED}", where=source.path)


def _encoded(config: SelectConfig, sample: Path, source: Source) -> tuple[Pool, Encoded]:
    """The sample as a run would read it; errors name the pool, not the sample."""
    try:
        pool = load_pool(
            sample, layout=config.pool.layout, fields=config.pool.fields, columns=columns_of(config), on_error="skip",
            workers=0,
        )  # fmt: skip
    except UserError as error:
        raise _naming(source.path, str(sample), error) from None
    return pool, encoded_of(pool, config, skip=True)


def _naming(path: str, sample: str, error: UserError) -> UserError:
    """The error with the pool's path in its fields instead of the sample's."""
    message, where = error.message.replace(sample, path), error.where
    where = None if where is None else str(where).replace(sample, path)
    return UserError(message, key=error.key, value=error.value, allowed=error.allowed, where=where)


def _labels(config: SelectConfig, encoded: Encoded, times: float) -> int:
    """Heaps' law: V rows^b distinct labels, with b from the two halves of the sample; at most the valid tags."""
    middle = encoded.label_ptr[len(encoded) // 2]
    half = len(np.unique(encoded.label_idx[:middle]))
    growth = np.log2(len(encoded.labels) / half) if half else 0.0
    labels = round(len(encoded.labels) * max(times, 1.0) ** growth)
    if config.pool.valid_tags is None:
        return labels
    valid = read_valid_tags(config.pool.valid_tags)
    return min(labels, len(valid.labels if isinstance(valid, Vocabulary) else valid))


def _distinct(encoded: Encoded) -> float:
    """Distinct label sets a row of the sample; an upper bound for the whole pool."""
    ends = encoded.label_ptr.tolist()
    sets = {tuple(sorted(encoded.label_idx[a:b].tolist())) for a, b in pairwise(ends)}
    return len(sets) / max(len(encoded), 1)


def _table_bytes(pool: Pool) -> int:
    columns = [*vars(pool).values(), *pool.columns.values(), *pool.columns_state.values()]
    return sum(column.nbytes for column in columns if isinstance(column, np.ndarray))
