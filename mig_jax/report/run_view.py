"""A finished run as a report reads it: from its folder alone."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from mig_jax.core.errors import UserError
from mig_jax.runs.manifest import SelectManifest, read_manifest

_OF_STATS = ("rows", "usable", "selected", "sources", "labels", "picks", "runners_up")


@dataclass(frozen=True)
class RunView:
    """What a page shows. Facts that are not known are None.

    Args:
      name: the run's name.
      folder: that holds its files.
      manifest: manifest.json.
      stats: pool_stats.json.
      rows: the pool row of each pick; int64 ``[n]``.
      objective: E(D) after each pick, NaN where it is not known; float64 ``[n]``.
      gains: the gain of each pick; float64 ``[n]``.
      rise: what E(D) grew by with each pick, E(empty) = 0, NaN where it is not known; float64 ``[n]``.
    """

    name: str
    folder: Path
    manifest: SelectManifest
    stats: dict[str, Any]
    rows: Int64[np.ndarray, " n"]
    objective: Float64[np.ndarray, " n"]
    gains: Float64[np.ndarray, " n"]
    rise: Float64[np.ndarray, " n"]

    @property
    def n(self) -> int:
        """Rows that were selected."""
        return self.manifest.n

    @property
    def budget(self) -> int:
        """Rows that were requested; more than ``n`` where a system's own rules left no more."""
        return max(self.manifest.budgets, default=self.n)

    @property
    def system(self) -> str:
        """The sampler's name."""
        return system(self.manifest)

    @property
    def has_labels(self) -> bool:
        """Whether the pool has labels, without which E(D) is not known."""
        return has_labels(self.manifest)

    @property
    def gain_is_first_order(self) -> bool:
        """Whether the gains are those of MIG in first order: in the unit of E(D), and larger than its rise."""
        sampler = self.manifest.config.get("sampler")
        return self.has_labels and isinstance(sampler, Mapping) and sampler.get("gain") == "first_order"

    @property
    def reached(self) -> float | None:
        """E(D) of all picks."""
        return self.manifest.objective.get(self.budget) if self.has_labels else None

    @property
    def random(self) -> float | None:
        """E(D) of a random pick of as many rows, where it was computed."""
        return random_objective(self.manifest, self.budget)

    @property
    def certificate(self) -> float | None:
        """E(D) is at least this share of the optimum, where that was computed."""
        return proven_share(self.manifest, self.budget)


def system(manifest: SelectManifest) -> str:
    """The name of the sampler that made a run."""
    sampler = manifest.config.get("sampler") or ""
    return str(sampler.get("name", "") if isinstance(sampler, dict) else sampler)


def has_labels(manifest: SelectManifest) -> bool:
    """Whether the pool has labels, without which E(D) is not known."""
    return manifest.labels.total > 0


def random_objective(manifest: SelectManifest, budget: int) -> float | None:
    """E(D) of a random pick of as many rows as a budget's selection has, where it was computed."""
    return manifest.random_objective.get(min(budget, manifest.n)) if has_labels(manifest) else None


def proven_share(manifest: SelectManifest, budget: int) -> float | None:
    """The certificate of a budget: E(D) is at least this share of the optimum; None where it was not computed."""
    certificate = manifest.certificate.get(budget)
    return certificate.ratio if certificate is not None and has_labels(manifest) else None


def load_run(folder: str | Path) -> RunView:
    """Read a run from its folder.

    Raises:
      UserError: the folder is not that of a finished run, or one of its files is gone.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, SelectManifest)
    try:
        stats = json.loads((folder / "pool_stats.json").read_bytes())
        _check("pool_stats.json", stats, _OF_STATS)
        trace = read_numbers(folder / "trace.parquet", ("row", "objective", "gain", "rise"))
        if len(trace[0]) != manifest.n:
            raise ValueError(f"trace.parquet has {len(trace[0]):,} picks, manifest.json says {manifest.n:,}")
    except (OSError, ValueError, RecursionError) as error:  # Arrow's errors are ValueErrors
        raise UserError(f"{folder} is not a whole run: {error}") from None
    return RunView(manifest.name, folder, manifest, stats, *trace)


def _check(file: str, content: Any, keys: Sequence[str]) -> None:
    """Raises ValueError where a file of a run lacks what every run has there."""
    missing = [key for key in keys if key not in content] if isinstance(content, dict) else keys
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}")


def read_numbers(file: Path, columns: Sequence[str]) -> list[np.ndarray]:
    """Columns of numbers of a Parquet file, each ``[n]``, NaN for null; OSError or ValueError where it has none.

    ``read_table`` and ``to_numpy`` import pandas, which takes longer than a comparison; these calls do not.
    """
    with pq.ParquetFile(file) as opened:
        table = opened.read(columns=list(columns))
    arrays = []
    for name in columns:
        if name not in table.column_names:
            raise ValueError(f"{file.name} has no column {name}")
        column = table.column(name)
        column = column.fill_null(math.nan) if column.null_count else column
        parts = [np.from_dlpack(chunk) for chunk in column.chunks if len(chunk)]
        arrays.append(np.concatenate(parts) if parts else np.zeros(0, column.type.to_pandas_dtype()))
    return arrays
