"""The numbers of a comparison: one for each column and run, None where it is not known."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mig_jax.report.run_view import RunView
from mig_jax.report.text import bytesize, count, floor_percent, number, seconds, share


@dataclass(frozen=True)
class Column:
    """A column of the tables.

    Args:
      head: its heading, with the unit.
      short: the heading in a terminal.
      show: writes a known value.
    """

    head: str
    short: str
    show: Callable[[Any], str] = number


def _mean(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else count(value)


COLUMNS = {
    "rows": Column("Rows", "rows", count),
    "requested": Column("Requested", "requested", count),
    "objective": Column("E(D)", "E(D)", lambda value: number(value, 4)),
    "random_objective": Column("E(D), random", "random", lambda value: number(value, 4)),
    "times_random": Column("× random", "x random", lambda value: f"{value:.2f}"),
    "certificate": Column("Of the optimum, at least", "optimum", lambda value: f"{floor_percent(value)} %"),
    "mean_degree": Column("Mean degree of a label", "degree"),
    "isolated": Column("Labels without a neighbour", "isolated", lambda value: share(value, 1.0)),
    "overlap": Column("Overlap with the reference", "overlap", lambda value: f"{value:.2f}"),
    "paper": Column("Published", "published", lambda value: f"{value:.2f}"),
    "labels_covered": Column("Labels covered", "labels", count),
    "labels_total": Column("Labels", "of", count),
    "label_entropy_bits": Column("Label entropy, bits", "bits", lambda value: f"{value:.2f}"),
    "label_entropy_share": Column("of log2 L", "of log2 L", lambda value: f"{100 * value:.0f} %"),
    "score_mean": Column("Score, mean", "score", lambda value: f"{value:.2f}" if value < 1000 else count(value)),
    "tokens_sum": Column("Tokens, sum", "tokens", count),
    "tokens_mean": Column("Tokens a row", "tokens/row", _mean),
    "chars_sum": Column("Characters, sum", "characters", count),
    "chars_mean": Column("Characters a row, mean", "chars/row", count),
    "chars_median": Column("Characters a row, median", "median", count),
    "turns_mean": Column("Turns a row", "turns", lambda value: f"{value:.1f}"),
    "select_seconds": Column("Picking the rows", "select", seconds),
    "total_seconds": Column("All stages", "all", seconds),
    "peak_bytes": Column("Peak memory", "memory", bytesize),
}
"""Name of each column: its headings and how it is shown. comparison.csv has them all, in this order."""


def measured(run: RunView) -> dict[str, Any]:
    """The run's ``COLUMNS``; "overlap" and "paper" are those of a sweep, which knows them."""
    manifest, reached, random = run.manifest, run.reached, run.random
    timings = manifest.timings.values()
    entropy, total = _of(run, "labels", "entropy"), manifest.labels.total
    tokens = run.stats.get("tokens") or {}
    counted = sum(tokens.get("selected", ())) == run.n  # else a sum would be that of some rows
    return {
        "rows": run.n,
        "requested": run.budget,
        "objective": reached,
        "random_objective": random,
        "times_random": reached / random if reached is not None and random else None,
        "certificate": run.certificate,
        "mean_degree": manifest.graph.get("mean_degree"),
        "isolated": manifest.graph.get("isolated_share"),
        "overlap": None,
        "paper": None,
        "labels_covered": manifest.labels.covered if run.has_labels else None,
        "labels_total": total or None,
        "label_entropy_bits": entropy,
        "label_entropy_share": entropy / math.log2(total) if entropy is not None and total > 1 else None,
        "score_mean": _of(run, "score", "mean"),
        "tokens_sum": _of(run, "tokens", "sum") if counted else None,
        "tokens_mean": _of(run, "tokens", "mean"),
        "chars_sum": _of(run, "chars", "sum"),
        "chars_mean": _of(run, "chars", "mean"),
        "chars_median": _of(run, "chars", "median"),
        "turns_mean": _of(run, "turns", "mean"),
        "select_seconds": manifest.timings.get("select"),
        "total_seconds": sum(timings) if timings else None,
        "peak_bytes": manifest.memory.peak_bytes,
    }


def of_pool(run: RunView) -> dict[str, Any]:
    """The same of all usable rows of the run's pool, for the columns in which a selection is compared with it."""
    entropy, total = _of(run, "labels", "entropy", "pool"), run.manifest.labels.total
    return dict.fromkeys(COLUMNS) | {
        "rows": run.manifest.pool.usable,
        "labels_covered": total or None,
        "label_entropy_bits": entropy,
        "score_mean": _of(run, "score", "mean", "pool"),
        "tokens_sum": _of(run, "tokens", "sum", "pool"),
        "tokens_mean": _of(run, "tokens", "mean", "pool"),
        "chars_sum": _of(run, "chars", "sum", "pool"),
        "chars_mean": _of(run, "chars", "mean", "pool"),
        "chars_median": _of(run, "chars", "median", "pool"),
        "turns_mean": _of(run, "turns", "mean", "pool"),
    }


def shown(key: str, row: Mapping[str, Any]) -> str:
    """A row's value in a column, as text; a dash where it is not known."""
    return "–" if row[key] is None else COLUMNS[key].show(row[key])


def _of(run: RunView, part: str, fact: str, which: str = "selected") -> Any:
    return ((run.stats.get(part) or {}).get(fact) or {}).get(which)
