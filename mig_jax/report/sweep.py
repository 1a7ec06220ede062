"""What a sweep varies: the order of its runs, the run that the others are compared with, published numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mig_jax.core.errors import UserError
from mig_jax.report.measures import COLUMNS
from mig_jax.report.run_view import RunView
from mig_jax.report.settings import flat, swept

USUAL_PLOT = ("objective", "labels_covered", "overlap", "certificate")


@dataclass(frozen=True)
class SweepSettings:
    """What an experiment sets of its comparison.

    Args:
      key: the setting to order by; None: the first that differs.
      reference: its value in the run to compare with; None, or a value that no run has: the first run's.
      paper: published numbers, {"name": ..., value of ``key``: number}.
      plot: the columns to draw (``mig_jax.report.measures.COLUMNS``); none: the usual ones.

    Raises:
      UserError: ``plot`` names no column.
    """

    key: str | None = None
    reference: Any = None
    paper: Mapping[Any, Any] | None = None
    plot: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in self.plot:
            if name not in COLUMNS:
                raise UserError(key="hydra.callbacks.sweep.plot", value=name, allowed=tuple(COLUMNS))


@dataclass(frozen=True)
class Sweep:
    """A sweep's runs, k of them, in the order in which they are shown.

    Args:
      key: the setting.
      values: its value in each run.
      reference: index of the run that the others are compared with.
      published: the published number of each run, None without one.
      paper: the name of these numbers.
      plot: the columns to draw.
    """

    key: str
    values: tuple[Any, ...]
    reference: int
    published: tuple[float | None, ...]
    paper: str
    plot: tuple[str, ...]

    @property
    def numeric(self) -> bool:
        """Whether every value is a number."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)


def order_sweep(runs: Sequence[RunView], settings: SweepSettings) -> tuple[list[RunView], Sweep | None]:
    """The runs in the order of what is swept, and the sweep; None where no setting differs."""
    configs = [flat(run.manifest.config) for run in runs]
    keys = swept(configs, settings.key)
    if not keys:
        return list(runs), None
    order = sorted(range(len(runs)), key=lambda at: [_order(configs[at].get(key)) for key in keys])
    values = tuple(configs[at].get(keys[0]) for at in order)
    paper = settings.paper or {}
    known = settings.reference is not None
    reference = next((at for at, value in enumerate(values) if known and _same(value, settings.reference)), 0)
    published = tuple(_published(paper, value) if keys[0] == settings.key else None for value in values)
    name, plot = str(paper.get("name", "published")), tuple(settings.plot) or USUAL_PLOT
    return [runs[at] for at in order], Sweep(keys[0], values, reference, published, name, plot)


def _published(paper: Mapping[Any, Any], value: Any) -> float | None:
    return next((float(number) for name, number in paper.items() if name != "name" and _same(name, value)), None)


def _same(a: Any, b: Any) -> bool:
    try:
        return float(a) == float(b)
    except (TypeError, ValueError):
        return str(a) == str(b)


def _order(value: Any) -> tuple[int, float, str]:
    """Sorts numbers by size, before all other values."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)
