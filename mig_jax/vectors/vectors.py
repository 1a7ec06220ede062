"""Unit embeddings of the points of a pool, read in blocks from where they lie: an array in memory or a .npy on disk."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Int64

from mig_jax.core.progress import Progress, silent

BLOCK = 1 << 14


class Vectors:
    """M points, an embedding of d numbers each. A row of zeros stays one: its cosine with everything is 0.

    Args:
      array: one vector a row of the pool, of any length but not of unit length necessarily; float ``[R, d]``; a
        ``numpy.memmap`` is read in blocks only.
      rows: the pool row of each point; int64 ``[M]``.
    """

    def __init__(self, array: np.ndarray, rows: Int64[np.ndarray, " M"]):
        self.array, self.rows = array, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.array.shape[1]

    def take(self, points: Int64[np.ndarray, " m"]) -> Float32[np.ndarray, "m d"]:
        """The unit vectors of some points; lengths are taken in float64, so a vector's bits depend on itself alone."""
        found = np.asarray(self.array[self.rows[points]], np.float32)
        length = np.sqrt(np.einsum("md,md->m", found, found, dtype=np.float64))
        return (found / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32)

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, Float32[np.ndarray, "m d"]]]:
        """(number of the first point, unit vectors) of ``size`` points after ``size`` points."""
        for start in range(0, len(self), size):
            yield start, self.take(np.arange(start, min(start + size, len(self))))

    def wrong(self, progress: Progress = silent) -> Bool[np.ndarray, " M"]:
        """The points whose vector holds NaN or infinity; what reads them all may as well be asked once."""
        found = np.zeros(len(self), bool)
        for start in range(0, len(self), BLOCK):
            with np.errstate(over="ignore"):  # what float32 cannot hold is none either
                block = np.asarray(self.array[self.rows[start : start + BLOCK]]).astype(np.float32, copy=False)
            found[start : start + len(block)] = ~np.isfinite(block).all(axis=1)
            progress("check embeddings", min(start + BLOCK, len(self)), len(self))
        return found
