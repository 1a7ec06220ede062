"""Several runs compared with each other: systems on one pool, or one system with several settings.

from mig_jax.report import compare
both = compare(["runs/all/0-sampler=mig", "runs/all/1-sampler=random"])
both.rows[0]["times_random"], both.shared
print(both.text())
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from mig_jax.core.errors import UserError
from mig_jax.core.text import visible
from mig_jax.report.measures import COLUMNS, measured, shown
from mig_jax.report.run_view import RunView, load_run
from mig_jax.report.settings import differing, names, plain
from mig_jax.report.sweep import Sweep, SweepSettings, order_sweep
from mig_jax.report.text import NO_LABELS

LEADING = ("run", "system", "settings")  # the first columns of comparison.csv, by which it is recognised
SOURCES = 10  # that have a colour and a column of their own
WIDTH = 160  # of the table in a log
# A narrow terminal shows the first of them.
IN_TEXT = (
    *("rows", "objective", "times_random", "certificate", "overlap", "paper", "mean_degree", "isolated"),
    *("labels_covered", "label_entropy_bits", "score_mean", "tokens_mean", "chars_mean"),
    *("select_seconds", "total_seconds", "peak_bytes"),
)
OF_GRAPH = ("mean_degree", "isolated")  # shown where runs have different graphs
_ASPECTS: dict[str, Callable[[RunView], Any]] = {
    "pools": lambda run: [source.sha256 for source in run.manifest.inputs],
    "labels": lambda run: run.manifest.labels.total,
    "scores of rows": lambda run: run.manifest.config.get("score"),
    "label graphs": lambda run: (run.manifest.graph, _propagation(run)),
    "phi": lambda run: run.manifest.config.get("phi"),
}


@dataclass(frozen=True)
class Comparison:
    """Runs in the order in which they are shown; k of them.

    Args:
      runs: as read.
      names: of each; all different.
      settings: of each the settings in which they differ.
      different: what must be equal for E(D) of two runs to be one quantity, and is not.
      left_out: of runs that could not be read, where each is and what is wrong with it.
      sweep: what a sweep varies; None: these runs are no sweep.
    """

    runs: tuple[RunView, ...]
    names: tuple[str, ...]
    settings: tuple[dict[str, str], ...]
    different: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    sweep: Sweep | None = None

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Of each run its name, system, settings and ``mig_jax.report.measures.COLUMNS``; None: not known."""
        rows = []
        for at, (name, run, settings) in enumerate(zip(self.names, self.runs, self.settings, strict=True)):
            row = {"run": name, "system": run.system}
            row["settings"] = ", ".join(f"{key}={value}" for key, value in settings.items())
            row |= measured(run)
            if self.sweep is not None:
                row |= {"overlap": self.overlap(at, self.sweep.reference), "paper": self.sweep.published[at]}
            rows.append(row)
        return rows

    def known(self, keys: Sequence[str]) -> list[str]:
        """The columns in which any run has a value; those of the label graph only where graphs differ."""
        graphs = "label graphs" in self.different
        return [
            key for key in keys if (graphs or key not in OF_GRAPH) and any(row[key] is not None for row in self.rows)
        ]

    def head(self, key: str, short: bool = False) -> str:
        """The heading of a column."""
        if key == "paper" and self.sweep is not None:
            return visible(self.sweep.paper)
        return COLUMNS[key].short if short else COLUMNS[key].head

    def overlap(self, i: int, j: int) -> float | None:
        """The Jaccard index of two selections, |A and B| / |A or B|; None where their pools differ."""
        common = int(self.shared[i, j])
        either = self.runs[i].n + self.runs[j].n - common
        return None if common < 0 else common / either if either else 1.0

    @cached_property
    def shared(self) -> Int64[np.ndarray, "k k"]:
        """Rows that two selections have in common; -1 where their pools are not the same."""
        k = len(self.runs)
        shared = np.full((k, k), -1, np.int64)
        sorted_rows = [np.sort(run.rows) for run in self.runs]
        pools = [_ASPECTS["pools"](run) for run in self.runs]
        for i in range(k):
            shared[i, i] = len(sorted_rows[i])
            for j in range(i):
                if pools[i] == pools[j]:
                    common = len(np.intersect1d(sorted_rows[i], sorted_rows[j], assume_unique=True))
                    shared[i, j] = shared[j, i] = common
        return shared

    @cached_property
    def sources(self) -> list[str | None]:
        """The sources with the largest shares of the selections, the pool's biggest first; None: rows that name none.

        At most ``SOURCES``.
        """
        share: dict[str | None, float] = {}
        size: dict[str | None, int] = {}
        for run in self.runs:
            for entry in run.stats["sources"]["top"]:
                name = entry["name"]
                share[name] = share.get(name, 0.0) + entry["selected"] / max(run.n, 1)
                size[name] = max(size.get(name, 0), entry["pool"])
        largest = sorted(share, key=lambda name: (-share[name], -size[name], name or ""))[:SOURCES]
        return sorted(largest, key=lambda name: (-size[name], name or ""))

    def composition(self, run: RunView, which: str = "selected") -> list[int]:
        """Rows of ``sources``, and of all others last; ``which``: "selected" or "pool"."""
        of = {entry["name"]: entry[which] for entry in run.stats["sources"]["top"]}
        parts = [of.get(name, 0) for name in self.sources]
        return [*parts, (run.n if which == "selected" else run.manifest.pool.usable) - sum(parts)]

    @property
    def notes(self) -> list[str]:
        """What a reader must know before comparing the numbers."""
        notes = [left_out_note(self.left_out)] if self.left_out else []
        if self.different:
            notes.append(f"These runs have different {_listed(self.different)}: their E(D) cannot be compared.")
        sizes = sorted({run.n for run in self.runs if not whole(run)})
        if len(sizes) > 1:
            notes.append(
                f"The runs have from {sizes[0]:,} to {sizes[-1]:,} rows, and E(D) grows with every row: "
                "compare it between runs of as many, or by its ratio to random picks."
            )
        for name, run in zip(self.names, self.runs, strict=True):
            if run.n < run.budget:
                notes.append(f"{name} has {run.n:,} of {run.budget:,} requested rows.")
        bare = [name for name, run in zip(self.names, self.runs, strict=True) if not run.has_labels]
        if bare:
            whose = "The pool has" if len(bare) == len(self.runs) else f"{_listed(bare)}: the pool has"
            notes.append(f"{whose} {NO_LABELS}.")
        if self.sweep is not None:
            at = self.sweep.reference
            reference = f"{self.sweep.key}={plain(self.sweep.values[at])}"
            notes.append(f"overlap: the Jaccard index with the rows of {reference}.")
        return notes

    def csv(self) -> str:
        """One line a run: ``rows`` with all digits, settings, rows of each source and shared with each run, folder."""
        sources = [*self.sources, "other sources"]
        settings = dict.fromkeys(key for of in self.settings for key in of)
        table = []
        for at, (row, run) in enumerate(zip(self.rows, self.runs, strict=True)):
            of_sources = zip(sources, self.composition(run), strict=True)
            line = row | {key: self.settings[at].get(key) for key in settings}
            line |= {f"rows of {name or '(no source)'}": many for name, many in of_sources}
            shared = zip(self.names, self.shared[at].tolist(), strict=True)
            line |= {f"shared with {name}": many if many >= 0 else None for name, many in shared}
            table.append(line | {"finished": run.manifest.finished, "folder": str(run.folder)})
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, [*table[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        return buffer.getvalue().encode("utf-8", "replace").decode()

    def text(self, width: int = WIDTH) -> str:
        """The table as plain text of at most ``width`` columns, with as much as fits, and the notes."""
        keys = self.known(IN_TEXT)
        if "tokens_mean" in keys and "chars_mean" in keys:
            keys.remove("chars_mean")
        first = _column("run", [visible(name) for name in self.names], width // 3, left=True)
        others = [_column(self.head(key, short=True), [shown(key, row) for row in self.rows], width) for key in keys]
        while others and sum(len(column[0]) + 2 for column in others) + len(first[0]) > width:
            others.pop()
        lines = ["  ".join(cells).rstrip() for cells in zip(first, *others, strict=True)]
        return "\n".join([*lines, *(f"note: {visible(note)}" for note in self.notes)]) + "\n"


def compare(
    folders: Sequence[str | Path | RunView], left_out: Sequence[str] = (), sweep: SweepSettings | None = None
) -> Comparison:
    """Finished runs in the order of what a sweep varies; else the largest E(D) first where all are one quantity of as
    many rows, or in the order of ``folders``.

    Args:
      folders: of the runs, or the runs as read.
      left_out: see ``Comparison``.
      sweep: the runs are those of a sweep.

    Raises:
      UserError: no folder, or one of them holds no whole run.
    """
    if not folders:
        raise UserError("report: name at least one run's folder")
    runs = [folder if isinstance(folder, RunView) else load_run(folder) for folder in folders]
    different = tuple(name for name, aspect in _ASPECTS.items() if len({repr(aspect(run)) for run in runs}) > 1)
    reached = [run.reached for run in runs]
    order = None
    if sweep is not None:
        runs, order = order_sweep(runs, sweep)
    elif not different and len({run.budget for run in runs if not whole(run)}) <= 1 and None not in reached:
        runs.sort(key=lambda run: -(run.reached or 0.0))  # stable
    settings = differing(runs, order.key if order else None)
    called = tuple(names(runs, settings))
    return Comparison(tuple(runs), called, tuple(settings), different, tuple(left_out), order)


def left_out_note(left_out: Sequence[str]) -> str:
    """The note about runs that could not be read."""
    many = f"{len(left_out):,} runs are" if len(left_out) > 1 else "One run is"
    return f"{many} left out: {'; '.join(left_out)}."


def whole(run: RunView) -> bool:
    """Whether a run took every usable row: the pool that selections are compared with, and no selection."""
    return run.n == run.manifest.pool.usable


def _propagation(run: RunView) -> Any:
    return (run.manifest.config.get("graph") or {}).get("propagation")


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _column(head: str, cells: Sequence[str], widest: int, left: bool = False) -> list[str]:
    """Cells of one width; those that are too long lose their middle."""
    cut = [cell if len(cell) <= widest else f"{cell[: widest // 2]}…{cell[-(widest // 2 - 1) :]}" for cell in cells]
    width = max(map(len, (head, *cut)))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in (head, *cut)]
