"""What a sampler returns: the order of its picks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True)
class Order:
    """Points in the order they were picked. n picks; budgets are prefixes (``nested``) unless a sampler says otherwise.

    Args:
      points: index into ``Encoded`` of each pick; int64 ``[n]``.
      gains: the gain each pick had when it was taken (0 where a system has none); float64 ``[n]``.
      reason: a short phrase, the same for every row, of what ``gains`` is ("first-order gain", "score", ...).
      rounds: how the engine worked, for the manifest (full passes, small passes, ...); empty where it does not apply.
      why: of each pick, in a few words, why it was taken ("pass 3", "best of cluster 7"); empty: ``reason`` says it.
      notes: messages about it for the user.
    """

    points: Int64[np.ndarray, " n"]
    gains: Float64[np.ndarray, " n"]
    reason: str
    rounds: dict[str, int]
    why: Sequence[str] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.points)
