"""The learning rate of each update. Updates are counted from 0, across epochs, however many batches each has."""

import math
from typing import Literal, NamedTuple

Kind = Literal["linear", "cosine", "constant"]


class Schedule(NamedTuple):
    """``lr(i)`` as transformers' schedulers have it (optimization.py), with the peak ``learning_rate``.

    Warm-up, for i < warmup: ``i / warmup`` of the peak, so that the first update of a schedule with warm-up has 0.
    Then, with t = (i - warmup) / (total - warmup): linear: ``1 - t``; cosine: ``(1 + cos(pi t)) / 2``; constant: 1.
    """

    learning_rate: float
    kind: Kind
    warmup: int
    total: int

    def __call__(self, update: int) -> float:
        """The learning rate in force in an update."""
        if update < self.warmup:
            return self.learning_rate * update / max(1, self.warmup)
        left = max(1, self.total - self.warmup)
        match self.kind:
            case "linear":
                return self.learning_rate * max(0.0, (self.total - update) / left)
            case "cosine":
                return self.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * (update - self.warmup) / left)))
            case "constant":
                return self.learning_rate


def make_schedule(
    learning_rate: float, kind: Kind, total: int, *, warmup_ratio: float = 0.0, warmup_steps: int | None = None
) -> Schedule:
    """A schedule with ``warmup_steps``, or without them ``ceil(warmup_ratio * total)`` (transformers' rule)."""
    warmup = math.ceil(warmup_ratio * total) if warmup_steps is None else warmup_steps
    return Schedule(learning_rate, kind, min(warmup, total), total)
