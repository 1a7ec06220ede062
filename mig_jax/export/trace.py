"""trace.parquet and runners_up.parquet: why each pick was picked, and what nearly was.

trace.parquet, one row a pick, in pick order:

| column | type | meaning |
|---|---|---|
| rank | int64 | 1, 2, ... |
| row | int64 | row of the pool, from 0 over all its files |
| id | string | the row's own id, null without one |
| gain | double | what the sampler ranked by when it took the row (manifest: gain_meaning) |
| objective | double | E(D) of this and all earlier picks |
| score | double | the score s_d of the row |
| tokens | int64 | tokens of the row, null where they were not counted |
| source | string | the row's source, null without one |
| labels | list<struct<label: string, share: double>> | labels that earned the gain, biggest first, at most 8 |

runners_up.parquet has row, id, gain (at the end of the run), score, labels. The same run writes the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from mig_jax.export.jsonable import clean_text
from mig_jax.export.pool_view import PoolView, source_name

MOST_LABELS = 8
ROW_GROUP = 1 << 16
Shares = Sequence[tuple[str, float]]

LABELS = pa.list_(pa.struct([pa.field("label", pa.string()), pa.field("share", pa.float64())]))
TRACE = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("gain", pa.float64()),
        pa.field("objective", pa.float64()),
        pa.field("score", pa.float64()),
        pa.field("tokens", pa.int64()),
        pa.field("source", pa.string()),
        pa.field("labels", LABELS),
    ]
)
RUNNERS_UP = pa.schema([TRACE.field(name) for name in ("row", "id", "gain", "score", "labels")])


def write_trace(
    path: Path,
    pool: PoolView,
    rows: Int64[np.ndarray, " n"],
    gains: Float64[np.ndarray, " n"],
    objective: Float64[np.ndarray, " n"],
    scores: Float64[np.ndarray, " n"],
    labels_earned: Sequence[Shares],
) -> None:
    """Write trace.parquet; ``labels_earned`` may be empty where a sampler earns nothing by labels."""
    with _writer(path, TRACE) as writer:
        for start in range(0, len(rows), ROW_GROUP):
            part = slice(start, start + ROW_GROUP)
            chosen = rows[part]
            tokens = pool.tokens[chosen].astype(np.int64)
            columns: dict[str, Any] = {
                "rank": np.arange(start + 1, start + 1 + len(chosen), dtype=np.int64),
                "row": chosen,
                "id": _ids(pool, chosen),
                "gain": gains[part],
                "objective": objective[part],
                "score": scores[part],
                "tokens": pa.array(tokens, mask=tokens < 0),
                "source": [source_name(pool, int(row)) for row in chosen],
                "labels": _labels(labels_earned[part], len(chosen)),
            }
            writer.write_table(pa.table(columns, schema=TRACE))


def write_runners_up(
    path: Path,
    pool: PoolView,
    rows: Int64[np.ndarray, " r"],
    gains: Float64[np.ndarray, " r"],
    scores: Float64[np.ndarray, " r"],
    labels: Sequence[Shares],
) -> None:
    """Write runners_up.parquet, in the order given (gain descending)."""
    with _writer(path, RUNNERS_UP) as writer:
        columns = {
            "row": rows,
            "id": _ids(pool, rows),
            "gain": gains,
            "score": scores,
            "labels": _labels(labels, len(rows)),
        }
        writer.write_table(pa.table(columns, schema=RUNNERS_UP))


def biggest(shares: Shares) -> list[tuple[str, float]]:
    """The at most 8 biggest shares, biggest first, names in order among equals."""
    return sorted(((clean_text(label), float(share)) for label, share in shares), key=lambda s: (-s[1], s[0]))[
        :MOST_LABELS
    ]


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd")


def _ids(pool: PoolView, rows: Int64[np.ndarray, " n"]) -> list[str | None]:
    ids = (pool.id(int(row)) for row in rows)
    return [None if found is None else clean_text(found) for found in ids]


def _labels(shares: Sequence[Shares], count: int) -> list[list[dict[str, Any]]]:
    if len(shares) == 0:
        return [[] for _ in range(count)]
    return [[{"label": label, "share": share} for label, share in biggest(row)] for row in shares]
