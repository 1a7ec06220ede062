"""Plan batches: short texts are packed together into rows of a few widths.

All batches of a width have one shape, so there are at most ``len(widths)`` compilations, and little padding. The plan
depends only on the lengths of all texts: equal input has equal batches on every machine, also if only a part runs.

Letters: N texts, B rows of a batch, L width (tokens in a row), S slots of a row (texts it can hold).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int32, Int64

from mig_jax.models.tokenizers.tokens import Tokens

_NARROWEST = 32  # tokens: narrower rows would save little attention
_SLOTS = 16  # texts of a row: the device returns values for all slots, filled or not
_ON_CPU, _ON_ACCELERATOR = 1024, 32_768  # tokens of a batch
_MIN_BATCHES = 16  # a width is used, and compiled (0.4 s on 2 CPU cores), only for about this many batches


class Batch(NamedTuple):
    """The positions of some texts in an array of B rows of L tokens.

    Args:
      rows, width: B and L.
      text, row, start, slot: for each text in the batch: its index in the input, its row, the position of its first
        token in the row, and its 0-based number among the texts of the row; int64 ``[n]``.
    """

    rows: int
    width: int
    text: Int64[np.ndarray, " n"]
    row: Int64[np.ndarray, " n"]
    start: Int64[np.ndarray, " n"]
    slot: Int64[np.ndarray, " n"]

    @property
    def slots(self) -> int:
        """S."""
        return slots_of(self.width)


def slots_of(width: int) -> int:
    """The number of texts that a row can hold: half its tokens, at most 16.

    A text with its special tokens has two or more tokens. Many short texts are packed into narrower rows, so wide rows
    do not require more slots.
    """
    return max(1, min(width // 2, _SLOTS))


def usual_batch_tokens() -> int:
    """The default of ``batch_tokens``: two CPU cores reach their peak (200 GFLOP/s) at 1,024; accelerators need more.

    It depends on the backend only, not on the number of devices, so that all machines of a kind plan the same batches.
    """
    return _ON_CPU if jax.default_backend() == "cpu" else _ON_ACCELERATOR


def plan_batches(
    length_N: Sequence[int] | Int64[np.ndarray, " N"], *, max_length: int, batch_tokens: int
) -> tuple[Batch, ...]:
    """Pack texts into rows (best fit, longest first, ties by index) and rows into batches.

    Args:
      length_N: tokens of each text, 0..max_length. A text of 0 tokens is in no batch.
      max_length: the maximum length of a text.
      batch_tokens: B L of every batch; a batch has one row if L is larger.
    """
    length_N = np.asarray(length_N, np.int64)
    batches = []
    for width, text in _by_width(length_N, max_length, batch_tokens):
        slots = _pack(length_N, text, width)  # [n, 4]: row, start, slot, text
        rows = max(1, batch_tokens // width)
        slots = slots[np.argsort(slots[:, 0], kind="stable")]
        cuts = np.searchsorted(slots[:, 0], np.arange(rows, slots[-1, 0] + 1, rows))
        batches += [Batch(rows, width, p[:, 3], p[:, 0] % rows, p[:, 1], p[:, 2]) for p in np.split(slots, cuts)]
    return tuple(batches)


def widths_upto(max_length: int) -> tuple[int, ...]:
    """The possible widths of rows: 32, 64, 128, ... and max_length, in ascending order."""
    widths = [_NARROWEST]
    while widths[-1] < max_length:
        widths.append(min(2 * widths[-1], max_length))
    return tuple(widths)


def fill(
    batch: Batch, tokens: Tokens, *, multiple: int = 1
) -> tuple[Int32[np.ndarray, "B L"], Int32[np.ndarray, "B L"]]:
    """The batch's token ids (0 at padding) and segments (slot + 1 of the text, 0 at padding), both int32 ``[B, L]``.

    Args:
      multiple: B is rounded up to a multiple of it with rows of padding, so that the devices get equally many rows. It
        is not part of the plan, which must not depend on the devices.
    """
    id_BxL = np.zeros((-(-batch.rows // multiple) * multiple, batch.width), np.int32)
    segment_BxL = np.zeros_like(id_BxL)
    length_n = tokens.length[batch.text]
    within = np.arange(length_n.sum()) - np.repeat(np.cumsum(length_n) - length_n, length_n)
    position = np.repeat(batch.row * batch.width + batch.start, length_n) + within
    id_BxL.flat[position] = tokens.id[np.repeat(tokens.ptr[batch.text], length_n) + within]
    segment_BxL.flat[position] = np.repeat(batch.slot + 1, length_n)
    return id_BxL, segment_BxL


def _by_width(length_N: np.ndarray, max_length: int, batch_tokens: int) -> Iterator[tuple[int, np.ndarray]]:
    """Assign each text to the narrowest used width of which it fills at most half; else to the widest one.

    The width of the longest text is used; a narrower one only if it has enough texts to justify its compilation.
    """
    remaining = np.flatnonzero(length_N > 0)
    if not len(remaining):
        return
    widest = next(width for width in widths_upto(max_length) if width >= length_N.max())
    for width in widths_upto(max_length):
        chosen = length_N[remaining] <= width // 2
        if width < widest and length_N[remaining][chosen].sum() >= _MIN_BATCHES * batch_tokens:
            yield width, remaining[chosen]
            remaining = remaining[~chosen]
    if len(remaining):
        yield widest, remaining


def _pack(length_N: np.ndarray, text: np.ndarray, width: int) -> np.ndarray:
    """Best fit decreasing: each text goes into the row with the least sufficient room; of equal ones, the latest."""
    order = text[np.argsort(-length_N[text], kind="stable")]
    room_of: list[int] = []
    texts_in: list[int] = []
    rows_with: list[list[int]] = [[] for _ in range(width + 1)]  # by room left
    nonempty = 0  # bit r: there is a row with room r
    placed = np.empty((len(order), 4), np.int64)
    slots = slots_of(width)
    for i, (n, length) in enumerate(zip(order.tolist(), length_N[order].tolist(), strict=True)):
        fitting = nonempty >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_with[room].pop()
            if not rows_with[room]:
                nonempty &= ~(1 << room)
        else:
            row, room = len(room_of), width
            room_of.append(width)
            texts_in.append(0)
        placed[i] = row, width - room, texts_in[row], n
        room_of[row] = room - length
        texts_in[row] += 1
        if room > length and texts_in[row] < slots:
            rows_with[room - length].append(row)
            nonempty |= 1 << (room - length)
    return placed
