"""A finished run as a report reads it: from its folder alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float64

from mig_jax.errors import UserError
from mig_jax.export import read_manifest


@dataclass(frozen=True)
class RunView:
    """What a page shows.

    Args:
      name: the run's name.
      manifest: manifest.json.
      stats: pool_stats.json.
      objective: E(D) after each pick; float64 ``[n]``.
      gains: the gain of each pick; float64 ``[n]``.
    """

    name: str
    manifest: dict[str, Any]
    stats: dict[str, Any]
    objective: Float64[np.ndarray, " n"]
    gains: Float64[np.ndarray, " n"]

    @property
    def budget(self) -> str:
        """The largest budget, as the manifest's tables name it."""
        return str(max(self.manifest["budgets"]))

    @property
    def reached(self) -> float | None:
        """E(D) of the largest budget."""
        return self.manifest["objective"].get(self.budget)

    @property
    def random(self) -> float | None:
        """E(D) of a random pick of as many rows, where it was computed."""
        known = self.manifest["random_objective"]
        return known.get(str(self.manifest["n"]), known.get(self.budget))

    @property
    def certificate(self) -> float | None:
        """E(D) is at least this share of the optimum, where that was computed."""
        return (self.manifest["certificate"].get(self.budget) or {}).get("ratio")


def load_run(folder: str | Path) -> RunView:
    """Read a run from its folder.

    Raises:
      UserError: the folder is not that of a finished run, or one of its files is gone.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        stats = json.loads((folder / "pool_stats.json").read_bytes())
        trace = pq.read_table(folder / "trace.parquet", columns=["objective", "gain"])
    except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors
        raise UserError(f"{folder} is not a whole run: {error}") from None
    columns = (trace.column(name).to_numpy().astype(np.float64) for name in ("objective", "gain"))
    return RunView(manifest["name"], manifest, stats, *columns)
