"""What a selection sees of a pool: label ids and scores, no strings beyond the label names."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int32, Int64

from mig_jax.core.html import Described


@dataclass(frozen=True, repr=False)
class Encoded(Described):
    """The usable rows of a pool as arrays. M usable rows ("points"), L labels, Z label assignments.

    Args:
      row: pool row of each point, ascending; int64 ``[M]``.
      label_ptr: CSR offsets into ``label_idx``; int64 ``[M+1]``. A point may have no label (its gain is 0).
      label_idx: label ids of each point, without repeats, in the order of the row's tags; int32 ``[Z]``.
      score: the score s_d >= 0, finite; float64 ``[M]``.
      labels: the label names, sorted; ``L`` of them.
      dropped: how many pool rows are not points, by reason.
      faulty: pool rows that were left out for their score, where that was allowed; int64 ``[F]``.
      tag_count: the tags of each point that are labels, repeats counted; int64 ``[M]``; None: as the labels.
      scored: whether the scores are the pool's; else each is 1, because the pool has none.
    """

    row: Int64[np.ndarray, " M"]
    label_ptr: Int64[np.ndarray, " M1"]
    label_idx: Int32[np.ndarray, " Z"]
    score: Float64[np.ndarray, " M"]
    labels: tuple[str, ...]
    dropped: dict[str, int]
    faulty: Int64[np.ndarray, " F"] = field(default_factory=lambda: np.zeros(0, np.int64))
    tag_count: Int64[np.ndarray, " M"] | None = None
    scored: bool = True

    def __len__(self) -> int:
        return len(self.row)

    def _facts(self) -> dict[str, str]:
        return {
            "rows": f"{len(self):,}",
            "labels": f"{len(self.labels):,}",
            "assignments": f"{len(self.label_idx):,}",
            "scored": "yes" if self.scored else "no",
            "left_out": f"{sum(self.dropped.values()):,}",
        }

    @property
    def label_count(self) -> Int64[np.ndarray, " M"]:
        """Labels a point has; int64 ``[M]``."""
        return np.diff(self.label_ptr)

    def labels_digest(self) -> str:
        """sha256 of which labels each point has, and of how many tags they came from."""
        digest = hashlib.sha256("\0".join(self.labels).encode("utf-8", "surrogatepass"))
        for array in (self.row, self.label_ptr, self.label_idx, self.tag_count):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
