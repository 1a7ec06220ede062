"""Unit embeddings of the points of a pool, read in blocks from an array in memory or a .npy file on disk."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Int64

from mig_jax.core.index import PointArray, PoolRowArray, as_points
from mig_jax.core.progress import Progress, silent

BLOCK = 1 << 14


class Vectors:
    """The unit embeddings of M points, d numbers each. A row of zeros stays zero: its cosine with every vector is 0.

    Args:
      array: a vector for each pool row, of any length; float ``[R, d]``. A ``numpy.memmap`` is read in blocks.
      rows: the pool row of each point; int64 ``[M]``.
    """

    def __init__(self, array: np.ndarray, rows: Int64[PoolRowArray, " M"]):
        self.array, self.rows = array, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        """d, the numbers in a vector."""
        return self.array.shape[1]

    def take(self, points: Int64[PointArray, " m"]) -> Float32[np.ndarray, "m d"]:
        """The unit vectors of some points. Lengths are computed in float64: the result depends on the vector alone."""
        found = np.asarray(self.array[self.rows[points]], np.float32)
        length = np.sqrt(np.einsum("md,md->m", found, found, dtype=np.float64))
        return (found / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32)

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, Float32[np.ndarray, "m d"]]]:
        """(first point, unit vectors) of consecutive blocks of ``size`` points."""
        for start in range(0, len(self), size):
            yield start, self.take(as_points(np.arange(start, min(start + size, len(self)))))

    def not_finite(self, progress: Progress = silent) -> Bool[np.ndarray, " M"]:
        """Whether the vector of each point holds NaN or infinity. Reads all vectors."""
        found = np.zeros(len(self), bool)
        for start in range(0, len(self), BLOCK):
            with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is reported
                block = np.asarray(self.array[self.rows[start : start + BLOCK]]).astype(np.float32, copy=False)
            found[start : start + len(block)] = ~np.isfinite(block).all(axis=1)
            progress("check embeddings", min(start + BLOCK, len(self)), len(self))
        return found
