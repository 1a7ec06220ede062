"""A pool as training data: every row is encoded, cut or skipped, and counted by the reason."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from mig_jax.core.progress import Progress, silent
from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer
from mig_jax.models.tokenizers.tokens import Tokens
from mig_jax.training.conversations import Example, encode_conversation
from mig_jax.training.packing import Rows

ROLES = {"function_call": "assistant"}
"""Roles of a pool that templates know by another name: a call of a function is what the assistant writes."""


@dataclass(frozen=True)
class TrainingData:
    """The rows of a pool that can be trained on.

    Args:
      rows: as token ids.
      pool_row: their rows in the pool; int64 ``[N]``.
      cut: rows that were longer than ``max_length``; they are trained on without their end.
      skipped: reason -> pool rows that are not trained on.
      details: reason -> what the first such row has to it, where there is more to know.
    """

    rows: Rows
    pool_row: Int64[np.ndarray, " N"]
    cut: int
    skipped: Mapping[str, Sequence[int]] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pool_row)

    @property
    def counts(self) -> dict[str, int]:
        """Reason -> number of rows, for messages and the manifest; "cut" among them."""
        return {"cut at max_length": self.cut} | {reason: len(rows) for reason, rows in self.skipped.items()}


def encode_rows(
    dialogs: Iterable[Sequence[tuple[str, str]]],
    tokenizer: TextTokenizer,
    *,
    max_length: int,
    train_on: str = "assistant",
    total: int | None = None,
    progress: Progress = silent,
) -> TrainingData:
    """Encode the dialogs of a pool, in its order.

    Args:
      dialogs: (role, content) of every turn of each row.
      max_length, train_on: see ``encode_conversation``.
      total: rows, for ``progress``.

    Raises:
      UserError: see ``encode_conversation``.
    """
    ids: list[np.ndarray] = [np.zeros(0, np.int32)]
    trained: list[np.ndarray] = [np.zeros(0, bool)]
    pool_row: list[int] = []
    skipped: dict[str, list[int]] = {}
    details: dict[str, str] = {}
    cut = 0
    for row, dialog in enumerate(dialogs):
        messages = [{"role": ROLES.get(role, role), "content": content} for role, content in dialog]
        encoded = encode_conversation(messages, tokenizer, max_length=max_length, train_on=train_on)
        if isinstance(encoded, Example):
            ids.append(encoded.ids)
            trained.append(encoded.trained)
            pool_row.append(row)
            cut += encoded.cut > 0
        else:
            skipped.setdefault(encoded.reason, []).append(row)
            details.setdefault(encoded.reason, encoded.detail)
        if row % 256 == 0:
            progress("encode rows", row, total, "rows")
    ptr = np.cumsum([0, *(len(part) for part in ids[1:])], dtype=np.int64)
    tokens = Tokens(np.concatenate(ids), ptr, cut)
    return TrainingData(
        Rows(tokens, np.concatenate(trained)),
        np.array(pool_row, np.int64),
        cut,
        skipped,
        {reason: detail for reason, detail in details.items() if detail},
    )
