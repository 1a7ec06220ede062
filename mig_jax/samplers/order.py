"""What a sampler returns: the order of its picks."""

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
    """

    points: Int64[np.ndarray, " n"]
    gains: Float64[np.ndarray, " n"]
    reason: str
    rounds: dict[str, int]

    def __len__(self) -> int:
        return len(self.points)
