"""A sweep on one table and one picture, from the files of its runs alone.

from mig_jax.report.sweep import write_sweep
print(write_sweep("runs/threshold", key="graph.threshold"))
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mig_jax.core.errors import UserError
from mig_jax.core.text import visible
from mig_jax.report.run_view import judged, random_objective, read_numbers
from mig_jax.report.settings import flat, plain, swept
from mig_jax.report.text import count, floor_percent, number, seconds, share
from mig_jax.runs.manifest import MANIFEST, read_manifest

COLUMNS = {
    "mean_degree": "mean degree",  # of a label in the graph
    "isolated": "isolated",  # share of labels without a neighbour
    "labels_covered": "labels covered",  # labels that a selected row has
    "objective": "E(D)",
    "times_random": "x random",  # E(D) over that of random picks of as many
    "certificate": "certificate",  # E(D) over the least bound on the best E(D)
    "overlap": "overlap",  # Jaccard index of the rows with those of the reference
    "seconds": "seconds",  # of all stages
    "paper": "paper",
}
"""Column: its heading. The settings that differ stand before these."""
PERCENT = ("isolated", "certificate")
USUAL_PLOT = ("objective", "labels_covered", "overlap", "certificate")
_INK, _MUTED, _GRID, _LINE, _REFERENCE = "#1d232b", "#5b6570", "#dfe3e8", "#2563a8", "#c2571a"


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep, in the order of what is swept.

    Args:
      keys: the settings that differ, the plot's first; ("run",) where none does.
      rows: for each run its settings and ``COLUMNS``; None where something is not known.
      reference: position of the run that the others are compared with.
      paper: what the column of published numbers is called; None: there is none.
    """

    keys: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    reference: int
    paper: str | None

    @property
    def columns(self) -> dict[str, str]:
        """The columns that any run has something in, with their headings."""
        heads = dict.fromkeys(self.keys) | COLUMNS | ({"paper": self.paper} if self.paper else {})
        shown = {name: head or name for name, head in heads.items() if any(row[name] is not None for row in self.rows)}
        return shown


def load_sweep(
    folder: str | Path,
    key: str | None = None,
    reference: Any = None,
    paper: Mapping[Any, Any] | None = None,
    runs: Sequence[str | Path] | None = None,
) -> Sweep:
    """Read the runs of a sweep.

    Args:
      folder: the sweep's.
      key: the setting to order by; None: the first that differs.
      reference: its value in the run to compare with; None, or a value that no run has: the first run's.
      paper: published numbers, {"name": ..., value of ``key``: number}.
      runs: the folders of its runs; None: every run below ``folder``.

    Raises:
      UserError: there is no finished run.
    """
    folder = Path(folder)
    found = [(run, read_manifest(run)) for run in (_below(folder) if runs is None else map(Path, runs))]
    if not found:
        raise UserError(f"{folder} holds no folder of a finished run")
    settings = [flat(manifest["config"]) for _, manifest in found]
    keys = swept(settings, key)
    rows = []
    for (run, manifest), chosen in zip(found, settings, strict=True):
        own = {name: chosen.get(name) for name in keys} if keys else {"run": os.path.relpath(run, folder)}
        published = _of(paper or {}, chosen.get(key)) if key else None
        rows.append(own | _measured(manifest) | {"paper": published, "_rows": _rows(run)})
    keys = keys or ("run",)
    rows.sort(key=lambda row: [_order(row[name]) for name in keys])
    at = next((i for i, row in enumerate(rows) if reference is not None and _same(row[keys[0]], reference)), 0)
    compared = rows[at]["_rows"]
    for row in rows:
        row["overlap"] = _jaccard(row["_rows"], compared)
    final = tuple({name: value for name, value in row.items() if name != "_rows"} for row in rows)
    return Sweep(keys, final, at, str(paper["name"]) if paper and "name" in paper else None)


def write_sweep(
    folder: str | Path,
    key: str | None = None,
    reference: Any = None,
    paper: Mapping[Any, Any] | None = None,
    plot: Sequence[str] | None = None,
    runs: Sequence[str | Path] | None = None,
) -> str:
    """Write table.md, table.csv, plot.png and plot.svg into the sweep's folder; the table as it stands in table.md.

    Args:
      plot: columns to draw; None: ``USUAL_PLOT``. The others as for ``load_sweep``.

    Raises:
      UserError: there is no finished run, or ``plot`` names no column.
    """
    unknown = [name for name in plot or () if name not in COLUMNS]
    if unknown:
        raise UserError(f"hydra.callbacks.sweep.plot={unknown[0]}: must be one of {', '.join(COLUMNS)}")
    folder = Path(folder)
    sweep = load_sweep(folder, key, reference, paper, runs)
    text = markdown(sweep)
    (folder / "table.md").write_text(text, encoding="utf-8")
    (folder / "table.csv").write_text(as_csv(sweep), encoding="utf-8")
    with mpl.rc_context(_style()):
        figure = picture(sweep, plot or USUAL_PLOT)
        figure.savefig(folder / "plot.svg", metadata={"Date": None})
        figure.savefig(folder / "plot.png", dpi=160)
    return text


def markdown(sweep: Sweep) -> str:
    """The table as aligned Markdown, and what its columns mean."""
    head = [_cell(name) for name in sweep.columns.values()]
    body = [[_cell(_shown(name, row)) for name in sweep.columns] for row in sweep.rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, *body]
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    notes = "certificate: E(D) is at least this share of the optimum. "
    notes += f"overlap: Jaccard index with the rows of {_compared(sweep)}."
    if any(name.startswith(("graph.", "phi.", "embedder.", "pool.", "score.")) for name in sweep.keys):
        notes += " E(D) depends on what is swept: compare it by its ratio to random picks, not between lines."
    return "\n".join([*lines, "", _cell(notes)]) + "\n"


def as_csv(sweep: Sweep) -> str:
    """The same with all digits."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(sweep.columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sweep.rows)
    return buffer.getvalue()


def picture(sweep: Sweep, columns: Sequence[str] = USUAL_PLOT) -> Figure:
    """One panel for each column over what is swept, the reference marked."""
    columns = [name for name in columns if any(row[name] is not None for row in sweep.rows)]
    wide = min(2, max(1, len(columns)))
    high = -(-len(columns) // wide)
    figure = Figure(figsize=(4.2 * wide, 2.5 * high + 0.2), layout="constrained")
    panels = np.ravel(figure.subplots(high, wide, squeeze=False)) if columns else []
    for panel, name in zip(panels, columns, strict=False):
        _draw(panel, sweep, name)
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr]
    return figure


def _compared(sweep: Sweep) -> str:
    return ", ".join(f"{name}={plain(sweep.rows[sweep.reference][name])}" for name in sweep.keys)


def _draw(axes: Axes, sweep: Sweep, name: str) -> None:
    values = [row[sweep.keys[0]] for row in sweep.rows]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    numeric = numeric and len(sweep.keys) == 1
    x = np.asarray(values, float) if numeric else np.arange(len(values), dtype=float)
    y = np.asarray([np.nan if row[name] is None else row[name] for row in sweep.rows], float)
    y = 100 * y if name in PERCENT else y
    line = _MUTED if name == "paper" else _LINE  # not ours
    axes.plot(x, y, color=line, lw=1.6 if numeric else 0, marker="o", ms=5, clip_on=False, zorder=3)
    at = sweep.reference
    axes.plot(x[at : at + 1], y[at : at + 1], color=_REFERENCE, marker="o", ms=7, lw=0, clip_on=False, zorder=4)
    title = sweep.columns[name] + (", %" if name in PERCENT else "")
    title += f" with {_compared(sweep)}" if name == "overlap" else ""
    axes.set_title(visible(title), loc="left", fontsize=10, color=_INK, pad=8)
    if name == "overlap":
        axes.set_ylim(0, 1.02)
    elif name != "paper":
        axes.set_ylim(bottom=0, top=max(1.08 * float(np.nanmax(y)), 1e-9))
    else:
        axes.margins(y=0.15)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=name == "labels_covered"))
    axes.grid(axis="y", color=_GRID, lw=0.7)
    axes.set_axisbelow(True)
    if numeric:
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.set_xlabel(visible(sweep.keys[0]))
    else:
        labels = [", ".join(plain(row[key]) for key in sweep.keys)[-28:] for row in sweep.rows]
        axes.set_xticks(x, [visible(label) for label in labels], rotation=30, ha="right")
        axes.set_xlabel(visible(", ".join(sweep.keys)))
    axes.margins(x=0.05)


def _style() -> dict[Any, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "sweep",
        "font.size": 9,
        "figure.facecolor": "white",
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "ytick.major.size": 0,
        "text.parse_math": False,
    }


def _measured(manifest: Mapping[str, Any]) -> dict[str, Any]:
    budget = max(manifest["budgets"], default=manifest["n"])
    objective = manifest["objective"].get(str(budget)) if judged(manifest) else None
    random = random_objective(manifest, budget)
    return {
        "mean_degree": manifest["graph"].get("mean_degree"),
        "isolated": manifest["graph"].get("isolated_share"),
        "labels_covered": manifest["labels"]["covered"],
        "objective": objective,
        "times_random": objective / random if objective is not None and random else None,
        "certificate": (manifest["certificate"].get(str(budget)) or {}).get("ratio") if judged(manifest) else None,
        "seconds": sum(value for value in manifest["timings"].values() if value is not None),
    }


def _rows(run: Path) -> Int64[np.ndarray, " n"]:
    try:
        return read_numbers(run / "trace.parquet", ("row",))[0]
    except (OSError, ValueError) as error:
        raise UserError(f"{run} is not a whole run: {error}") from None


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    both = len(np.intersect1d(a, b, assume_unique=True))
    either = len(a) + len(b) - both
    return both / either if either else 1.0


def _of(paper: Mapping[Any, Any], value: Any) -> float | None:
    return next((float(number) for name, number in paper.items() if name != "name" and _same(name, value)), None)


def _same(a: Any, b: Any) -> bool:
    try:
        return float(a) == float(b)
    except (TypeError, ValueError):
        return str(a) == str(b)


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def _below(folder: Path) -> list[Path]:
    """The folders of finished runs; those under way are hidden."""
    files = [file for file in sorted(folder.glob(f"**/{MANIFEST}")) if file.parent != folder]
    return [file.parent for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _shown(name: str, row: Mapping[str, Any]) -> str:
    value = row[name]
    if name not in COLUMNS:
        return plain(value)
    if value is None:
        return "–"
    if name == "isolated":
        return share(value, 1.0)
    if name == "certificate":
        return f"{floor_percent(value)} %"
    if name in ("overlap", "times_random", "paper"):
        return f"{value:.2f}"
    return {"labels_covered": count, "seconds": seconds}.get(name, number)(value)


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|")
