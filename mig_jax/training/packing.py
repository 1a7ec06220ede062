"""Which rows share an update, and where each row lies in the batches of its update.

The order of an epoch is a function of (seed, epoch). An update is the next ``batch_size`` rows of it; the last one of
an epoch may have fewer. The rows of an update are packed into sequences; tokens attend within their own row only, and
positions restart with each row, so packing changes no result but by rounding.

Letters: N rows of the data, B sequences of a batch, L tokens in a sequence, P positions.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from mig_jax.models.inference.packing import Batch, fill, plan_batches, usual_batch_tokens, widths_upto
from mig_jax.models.tokenizers.tokens import Tokens


class Rows(NamedTuple):
    """N rows as token ids, end to end.

    Args:
      tokens: their ids.
      trained: whether a token counts in the loss; bool ``[Z]``.
    """

    tokens: Tokens
    trained: Bool[np.ndarray, " Z"]


class Arrays(NamedTuple):
    """A batch as the device takes it.

    Args:
      id_BxL: token ids, 0 at padding. segment_BxL: 1, 2, ... for the rows of a sequence, 0 at padding.
      position_P: where the state lies that predicts a trained token, sequences end to end; target_P: that token. The
        first ``count`` of them count; P = B L, so that every batch of a width has one shape.
    """

    id_BxL: Int32[np.ndarray, "B L"]
    segment_BxL: Int32[np.ndarray, "B L"]
    position_P: Int32[np.ndarray, " P"]
    target_P: Int32[np.ndarray, " P"]
    count: np.int32


def epoch_order(rows: int, seed: int, epoch: int, shuffle: bool) -> Int64[np.ndarray, " N"]:
    """The rows in the order of an epoch (from 0)."""
    return np.random.default_rng([seed, epoch]).permutation(rows) if shuffle else np.arange(rows)


def updates_per_epoch(rows: int, batch_size: int) -> int:
    """The last, smaller update counts as well."""
    return -(-rows // batch_size)


def update_rows(
    rows: int, batch_size: int, update: int, *, seed: int, shuffle: bool
) -> tuple[int, Int64[np.ndarray, " n"]]:
    """The epoch of an update (both from 0), and its rows."""
    epoch, at = divmod(update, updates_per_epoch(rows, batch_size))
    return epoch, epoch_order(rows, seed, epoch, shuffle)[at * batch_size : (at + 1) * batch_size]


def plan_update(
    data: Rows, row: Int64[np.ndarray, " n"], *, max_length: int, micro_batch: int | None = None, packing: bool = True
) -> tuple[Batch, ...]:
    """The batches of an update.

    Args:
      micro_batch: sequences of a batch; None: what suits the backend.
      packing: several rows in one sequence; else each row has its own, padded at the right.
    """
    length_n = data.tokens.length[row]
    width = next(width for width in widths_upto(max_length) if width >= length_n.max())
    sequences = max(1, usual_batch_tokens() // width) if micro_batch is None else micro_batch
    if packing:
        planned = plan_batches(length_n, max_length=width, batch_tokens=sequences * width)
        return tuple(batch._replace(text=row[batch.text]) for batch in planned)
    zero = np.zeros(sequences, np.int64)
    return tuple(
        Batch(sequences, width, part, np.arange(len(part)), zero[: len(part)], zero[: len(part)])
        for part in np.split(row, range(sequences, len(row), sequences))
    )


def arrays(batch: Batch, data: Rows, *, multiple: int = 1) -> Arrays:
    """A planned batch with its ids, and what is trained in it.

    Args:
      multiple: sequences of padding follow until B is a multiple of it (see ``fill``).
    """
    id_BxL, segment_BxL = fill(batch, data.tokens, multiple=multiple)
    length_n, ptr_n = data.tokens.length[batch.text], data.tokens.ptr[batch.text]
    within = np.arange(length_n.sum()) - np.repeat(np.cumsum(length_n) - length_n, length_n)
    token = np.repeat(ptr_n, length_n) + within
    counts = data.trained[token] & (within > 0)  # nothing predicts the first token of a row
    place = np.repeat(batch.row * batch.width + batch.start, length_n) + within - 1
    position_P = np.zeros(id_BxL.size, np.int32)
    target_P = np.zeros(id_BxL.size, np.int32)
    count = int(counts.sum())
    position_P[:count], target_P[:count] = place[counts], data.tokens.id[token[counts]]
    return Arrays(id_BxL, segment_BxL, position_P, target_P, np.int32(count))
