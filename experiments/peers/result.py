"""What every peer hands back, and the arrays several of them start from."""

from dataclasses import dataclass

import numpy as np

from mig_jax.encode import Encoded


@dataclass(frozen=True)
class PeerResult:
    """``points`` int64 ``[n]`` and ``gains`` ``[n]`` in pick order; fewer than asked where nothing gains any more.

    Args:
      evaluations: gains computed while picking (the first ones of all rows not counted).
      compile_s, setup_s, pick_s: seconds; compile is the process's own, once; setup whatever a pool needs once (layout,
        grouping, first gains).
      margins: float64 ``[n]``, (gain of the best - gain of the second) / gain of the best at each step; where asked.
      facts: other counts, by name.
    """

    points: np.ndarray
    gains: np.ndarray
    evaluations: int
    compile_s: float
    setup_s: float
    pick_s: float
    margins: np.ndarray | None = None
    facts: dict[str, int] | None = None


def candidates(encoded: Encoded) -> np.ndarray:
    """The rows that can gain anything: with a label and a positive score."""
    return np.flatnonzero((encoded.label_count > 0) & (encoded.score > 0))
