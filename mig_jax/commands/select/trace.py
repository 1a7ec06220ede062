"""trace.parquet and runners_up.parquet: why each pick was picked, and what nearly was.

trace.parquet, one row a pick, in pick order:

| column | type | meaning |
|---|---|---|
| rank | int64 | 1, 2, ... |
| row | int64 | row of the pool, from 0 over all its files |
| id | string | the row's own id, null without one |
| gain | double | what the sampler ranked by when it took the row (manifest: gain_meaning) |
| rise | double | rise of E(D) by this pick, null where the pool has no labels |
| objective | double | E(D) of this and all earlier picks, null where the pool has no labels |
| reason | string | why the sampler took it; each phrase is stored once (dictionary) |
| score | double | the score s_d of the row |
| tokens | int64 | tokens of the row, null where they were not counted |
| source | string | the row's source, null without one |
| labels | list<struct<label: string, share: double>> | the 8 labels that earned most of the gain, biggest first |

A share is the part of the gain that the label earned, from 0 to 1; where a pick has more than 8 labels, the shares sum
to less than 1.

runners_up.parquet has row, id, gain (at the end of the run), score, labels. The same run writes the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from mig_jax.commands.select.shares import LabelShares, Shares
from mig_jax.core.json_files import clean_text
from mig_jax.pool.view import PoolView

ROW_GROUP = 1 << 16

LABELS = pa.list_(pa.struct([pa.field("label", pa.string()), pa.field("share", pa.float64())]))
TRACE = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("gain", pa.float64()),
        pa.field("rise", pa.float64()),
        pa.field("objective", pa.float64()),
        pa.field("reason", pa.dictionary(pa.int32(), pa.string())),
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
    rise: Float64[np.ndarray, " n"] | None,
    objective: Float64[np.ndarray, " n"] | None,
    reasons: Sequence[str],
    scores: Float64[np.ndarray, " n"],
    labels_earned: Sequence[Shares],
) -> None:
    """Write trace.parquet.

    Args:
      rise, objective: None where E(D) is not known.
      reasons: of each pick, or one for all.
      labels_earned: may be empty where a sampler earns nothing by labels.
    """
    labels = _labels(labels_earned, len(rows))
    reasons = _phrases(reasons, len(rows))
    known = None if objective is not None else np.zeros(len(rows), bool)
    zeros = np.zeros(len(rows))
    rise, objective = zeros if rise is None else rise, zeros if objective is None else objective
    with _writer(path, TRACE) as writer:
        for start in range(0, len(rows), ROW_GROUP):
            part = slice(start, start + ROW_GROUP)
            chosen = rows[part]
            tokens = pool.tokens[chosen].astype(np.int64)
            names = [*map(clean_text, pool.source_names), None]  # -1: none
            columns = [
                _numbers(np.arange(start + 1, start + 1 + len(chosen), dtype=np.int64)),
                _numbers(chosen),
                _strings(_ids(pool, chosen)),
                _numbers(gains[part]),
                _numbers(rise[part], None if known is None else known[part]),
                _numbers(objective[part], None if known is None else known[part]),
                reasons[part],
                _numbers(scores[part]),
                _numbers(tokens, tokens >= 0),
                _strings([names[at] for at in pool.source_idx[chosen].tolist()]),
                labels[part],
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=TRACE))


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
        columns = [
            _numbers(rows),
            _strings(_ids(pool, rows)),
            _numbers(gains),
            _numbers(scores),
            _labels(labels, len(rows)),
        ]
        writer.write_table(pa.Table.from_arrays(columns, schema=RUNNERS_UP))


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd")


def _ids(pool: PoolView, rows: Int64[np.ndarray, " n"]) -> list[str | None]:
    ids = (pool.id(int(row)) for row in rows)
    return [None if name is None else clean_text(name) for name in ids]


# Arrow's own pa.array(...) asks whether a value is pandas', and imports pandas for it: a second or three.


def _numbers(values: np.ndarray, valid: np.ndarray | None = None) -> pa.Array:
    """int64 or float64."""
    kind = pa.int64() if values.dtype.kind == "i" else pa.float64()
    values = np.ascontiguousarray(values, np.int64 if values.dtype.kind == "i" else np.float64)
    return pa.Array.from_buffers(kind, len(values), [_bitmap(valid), pa.py_buffer(values)])


def _strings(values: Sequence[str | None]) -> pa.StringArray:
    texts = [b"" if value is None else value.encode() for value in values]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int64).astype(np.int32)
    valid = np.array([value is not None for value in values], bool)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts)), _bitmap(valid))


def _taken(names: Sequence[str], index: np.ndarray) -> pa.StringArray:
    """``names[index]``. Arrow's own take imports pyarrow.compute, which takes longer than a small run's whole trace."""
    texts = [name.encode() for name in names]
    length = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.append(0, np.cumsum(length[index])).astype(np.int32)
    data = b"".join(map(texts.__getitem__, index.tolist()))
    return pa.StringArray.from_buffers(len(index), pa.py_buffer(ends), pa.py_buffer(data))


def _phrases(texts: Sequence[str], count: int) -> pa.DictionaryArray:
    """Texts that repeat, each stored once; a single text is that of every row."""
    clean = [clean_text(text) for text in texts]
    numbers = {text: at for at, text in enumerate(dict.fromkeys(clean))}
    number = np.array([numbers[text] for text in clean], np.int32)
    number = np.full(count, number[0], np.int32) if len(texts) == 1 else number
    indices = pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(number)])
    return pa.DictionaryArray.from_arrays(indices, _strings([*numbers]))


def _bitmap(valid: np.ndarray | None) -> pa.Buffer | None:
    """Arrow's validity bitmap; None where every value is valid."""
    if valid is None or valid.all():
        return None
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def _labels(shares: Sequence[Shares], count: int) -> pa.ListArray:
    """The biggest shares of each row; an empty list each where ``shares`` is empty."""
    biggest = LabelShares.of(shares if len(shares) else [()] * count).biggest()
    names = _taken(biggest.names, biggest.label)
    ends = pa.Array.from_buffers(pa.int32(), count + 1, [None, pa.py_buffer(biggest.ptr.astype(np.int32))])
    pairs = pa.StructArray.from_arrays([names, _numbers(biggest.share)], fields=[*LABELS.value_type])
    return pa.ListArray.from_arrays(ends, pairs, type=LABELS)
