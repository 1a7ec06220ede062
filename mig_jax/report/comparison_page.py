"""The page of a comparison: tables, curves, which rows are shared, where they come from, what they are like."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mig_jax.report.charts import NARROW, WIDE, Chart, Line, dot_chart, line_chart, objective_line, series_class, spark
from mig_jax.report.comparison import Comparison, whole
from mig_jax.report.measures import of_pool, shown
from mig_jax.report.render import render
from mig_jax.report.run_view import RunView
from mig_jax.report.selection_page import DISTRIBUTIONS
from mig_jax.report.settings import plain
from mig_jax.report.text import count, number, share
from mig_jax.runs.manifest import REPORT

KIND = "mig_jax comparison"  # of page
MOST_SHARED = 24  # runs of which every pair is shown
BINS = 20  # of a small histogram
PERCENT = ("isolated", "certificate")  # drawn in percent
REACHED = (
    *("rows", "objective", "times_random", "certificate", "overlap", "paper", "mean_degree", "isolated"),
    *("labels_covered", "label_entropy_bits"),
)
ALIKE = ("score_mean", "tokens_sum", "tokens_mean", "chars_sum", "chars_mean", "chars_median", "turns_mean")
TOOK = ("select_seconds", "total_seconds", "peak_bytes")
GROUND = {"name": "all usable rows", "style": "ground"}  # the pool, beside its selections
Cells = list[tuple[str, str]]


def comparison_page(both: Comparison, beside: Path | None = None) -> str:
    """The page; ``beside``: its folder, from which it links to the pages of the runs; None: it links to nothing."""
    first = both.runs[0]
    days = sorted({run.manifest.finished[:10] for run in both.runs})
    return render(
        "comparison.html.j2",
        title=f"{len(both.runs)} selections compared",
        kind=KIND,
        days=days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        pools=list(dict.fromkeys(_pool(run) for run in both.runs))[:3],
        one_pool="pools" not in both.different,
        first=first.manifest,
        has_labels=first.has_labels,
        any_labels=any(run.has_labels for run in both.runs),
        notes=both.notes,
        order=_order(both),
        reached=_numbers(both, REACHED, pool=True, settings=True),
        **_panels(both),
        curves=_curves(both),
        shared=_shared(both),
        sources=_sources(both) if len(both.sources) > 1 else None,
        alike=_numbers(both, ALIKE, pool=True),
        sparks=_sparks(both),
        took=_numbers(both, TOOK, pool=False),
        memory_of_process=any(run.manifest.memory.since == "process" for run in both.runs),
        where=_where(both, beside),
    )


def _pool(run: RunView) -> str:
    pool = run.manifest.config.get("pool") or {}
    return str(pool.get("name") or "") or next((source.path for source in run.manifest.inputs), "a pool")


def _order(both: Comparison) -> str:
    if both.sweep is not None:
        return f"in the order of {both.sweep.key}"
    reached = [run.reached for run in both.runs]
    descending = None not in reached and reached == sorted(reached, key=lambda value: -(value or 0.0))
    return "the largest E(D) first" if descending and not both.different else "in the order of the command line"


def _run(both: Comparison, at: int) -> dict[str, str]:
    """What a run is called, and its colour."""
    return {"name": both.names[at], "style": series_class(at)}


def _numbers(both: Comparison, keys: Sequence[str], pool: bool, settings: bool = False) -> dict[str, Any]:
    """The columns in which any run has a value; ``pool``: with all usable rows as the last line."""
    known = both.known(keys)
    rows: list[tuple[Mapping[str, str], str, Cells]] = []
    for at, row in enumerate(both.rows):
        note = _settings(both, at) if settings else ""
        rows.append((_run(both, at), note, [_cell(key, row) for key in known]))
    if pool and _one_pool(both):
        whole_pool = of_pool(both.runs[0])
        if any(whole_pool[key] is not None for key in known):
            rows.append((GROUND, "", [(shown(key, whole_pool), "") for key in known]))
    first = "System" if len(set(both.names)) == len({run.system for run in both.runs}) else "Run"
    return {"first": first, "head": [both.head(key) for key in known], "rows": rows}


def _settings(both: Comparison, at: int) -> str:
    """The settings in which runs differ, without those in the name."""
    in_name = both.names[at].split()
    items = both.settings[at].items()
    return ", ".join(f"{key}={value}" for key, value in items if f"{key.rpartition('.')[2]}={value}" not in in_name)


def _one_pool(both: Comparison) -> bool:
    """Whether the pool can stand beside its selections: there is one, and no run that took the whole of it."""
    return "pools" not in both.different and not any(map(whole, both.runs))


def _cell(key: str, row: Mapping[str, Any]) -> tuple[str, str]:
    """A number, and the note below it."""
    note = ""
    if key == "rows" and row["rows"] < row["requested"]:
        note = f"of {count(row['requested'])} requested"
    elif key == "labels_covered" and row[key] is not None:
        note = share(row[key], row["labels_total"])
    elif key == "label_entropy_bits" and row["label_entropy_share"] is not None:
        note = f"{shown('label_entropy_share', row)} of log₂ L"
    return shown(key, row), note


def _panels(both: Comparison) -> dict[str, Any]:
    """One chart for each column of a sweep, over what is swept."""
    sweep = both.sweep
    if sweep is None:
        return {"panels": [], "swept": "", "reference": ""}
    panels = []
    for key in sweep.plot:
        values = [row[key] for row in both.rows]
        if any(value is not None for value in values):
            percent = key in PERCENT
            scaled = [None if value is None else 100 * value if percent else float(value) for value in values]
            chart = _panel(both, key, scaled, f"{both.head(key)} over {sweep.key}", " %" if percent else "")
            panels.append({"title": both.head(key), "chart": chart})
    return {"panels": panels, "swept": sweep.key, "reference": f"{sweep.key}={plain(sweep.values[sweep.reference])}"}


def _panel(both: Comparison, key: str, values: Sequence[float | None], label: str, unit: str) -> Chart:
    sweep = both.sweep
    assert sweep is not None
    if not sweep.numeric:
        return dot_chart(both.names, values, label, reference=sweep.reference, unit=unit)
    x = np.array(sweep.values, float)
    y = np.array([math.nan if value is None else value for value in values])
    at = sweep.reference
    lines = [Line(x, y, "main", dots=True), Line(x[at : at + 1], y[at : at + 1], "reference", dots=True)]
    margin = 0.04 * (x.max() - x.min()) or 1.0
    low, high = float(np.nanmin(y)), float(np.nanmax(y))
    y_range = None
    if key == "overlap":
        y_range = (0.0, 1.0)
    elif key == "paper":  # published numbers differ little
        y_range = (low - 0.15 * (high - low or 1), high + 0.15 * (high - low or 1))
    ends = (float(x.min() - margin), float(x.max() + margin))
    return line_chart(lines, label, sweep.key, "", (408, 210), x_range=ends, y_range=y_range, unit=unit)


def _curves(both: Comparison) -> dict[str, Any] | None:
    """E(D) over rows of all runs, and of random picks where they are known."""
    drawn = [at for at, run in enumerate(both.runs) if run.has_labels and len(run.objective)]
    if not drawn or both.different:
        return {"charts": None} if drawn else None
    runs = [both.runs[at] for at in drawn]
    last = max([run.n for run in runs if not whole(run)] or [run.n for run in runs])
    lines = [objective_line(both.runs[at].objective[:last], series_class(at), both.names[at]) for at in drawn]
    random: dict[int, float | None] = {}  # one permutation of the pool, of which each run knows some values
    for run in runs:
        alike = run.manifest.config.get("seed") == runs[0].manifest.config.get("seed")
        random |= run.manifest.random_objective if alike and not run.manifest.limits else {}
    known = sorted((n, value) for n, value in random.items() if value is not None and 0 < n <= last)
    legend = [_run(both, at) for at in drawn]
    if known:
        n, values = np.array([(0, 0.0), *known]).T
        lines.append(Line(n, values, "random", "random picks"))
        legend.append({"name": "random picks", "style": "random dashed"})
    label = f"E(D) over the number of rows picked, of {len(drawn)} runs"

    def draw(size: tuple[int, int], names: bool) -> Chart:
        return line_chart(lines, label, "rows picked", "E(D)", size, x_range=(0, max(last, 1)), names=names)

    beyond = [both.names[at] for at in drawn if both.runs[at].n > last]
    charts = draw((WIDE[0], 340), True), draw(NARROW, False)
    return {"charts": charts, "beyond": beyond, "legend": legend}


def _shared(both: Comparison) -> dict[str, Any] | None:
    """Which rows two selections have in common; whole pools have all of them and are left out."""
    at = [i for i, run in enumerate(both.runs) if not whole(run) and run.n]
    if len(at) < 2 or (both.shared[at][:, at] < 0).sum() > len(at) * (len(at) - 2):
        return None
    if len(at) > MOST_SHARED:
        note = f"Not shown for more than {MOST_SHARED} runs; comparison.csv has the numbers."
        return {"note": note, "rows": []}
    sizes = {both.runs[i].n for i in at}
    if len(sizes) == 1:
        [n] = sizes
        usable = both.runs[at[0]].manifest.pool.usable
        note = f"Of {count(n)} rows; two random selections share {share(n, usable)}."
    else:
        note = "Shared rows, of all rows that either has (the Jaccard index: the selections have different sizes)."
    numbered = max(len(both.names[i]) for i in at) > 9
    head = [str(number_) if numbered else both.names[i] for number_, i in enumerate(at, 1)]
    rows = [(_run(both, i), [None if i == j else _pair(both, i, j, len(sizes) == 1) for j in at]) for i in at]
    return {"note": note, "rows": rows, "numbered": numbered, "head": head}


def _pair(both: Comparison, i: int, j: int, same_size: bool) -> dict[str, str]:
    common, index = int(both.shared[i, j]), both.overlap(i, j)
    if index is None:
        return {"title": "different pools", "opacity": "0", "text": "–"}
    a, b = both.runs[i].n, both.runs[j].n
    part = common / a if same_size else index
    text = f"{100 * part:.0f} %" if part in (0, 1) or 0.01 <= part <= 0.99 else share(part, 1.0)
    title = f"{count(common)} rows in both of {both.names[i]} ({count(a)}) and {both.names[j]} ({count(b)})"
    return {"title": title, "opacity": f"{0.6 * part:.2f}", "text": text}


def _sources(both: Comparison) -> dict[str, Any]:
    """Bars of each run's rows by source."""
    rows = [(_run(both, at), both.composition(run), run.n) for at, run in enumerate(both.runs)]
    if _one_pool(both):
        rows.append((GROUND, both.composition(both.runs[0], "pool"), both.runs[0].manifest.pool.usable))
    titles = ["no source" if name is None else name for name in both.sources]
    letters = [chr(ord("A") + at) for at in range(len(titles))]
    legend = [
        {"title": title, "letter": letter, "colour": str(at)}
        for at, (title, letter) in enumerate(zip(titles, letters, strict=True))
    ]
    if any(parts[-1] for _, parts, _ in rows):
        legend.append({"title": "all other sources", "letter": "…", "colour": "x"})

    def segments(parts: Sequence[int], total: int) -> list[dict[str, Any]]:
        return [
            {**one, "rows": many, "share": share(many, total), "inside": _inside(one["letter"], many / max(total, 1))}
            for one, many in zip(legend, parts, strict=False)
        ]

    return {"legend": legend, "rows": [(run, segments(parts, total)) for run, parts, total in rows]}


def _inside(letter: str, part: float) -> str:
    """What fits into a bar's segment."""
    return f"{letter} {100 * part:.0f} %" if part >= 0.09 else letter if part >= 0.025 else ""


def _sparks(both: Comparison) -> dict[str, Any] | None:
    """A small histogram of each run over its pool's: scores, lengths and turns."""
    head, columns = [], []
    tokens = any(run.stats.get("tokens") for run in both.runs)
    for key, title, logarithmic in DISTRIBUTIONS:
        histograms = [run.stats.get(key) for run in both.runs]
        if (key == "chars" and tokens) or not any(h is not None and sum(map(bool, h["pool"])) > 1 for h in histograms):
            continue  # tokens and characters both give the length
        low, high, top = _span_of([h for h in histograms if h is not None])
        ends = (number(low), number(high)) if title == "Score" else (count(math.ceil(low)), count(math.floor(high)))
        head.append({"title": title + " (logarithmic)" * logarithmic, "low": ends[0], "high": ends[1]})
        columns.append(
            [
                None if h is None else _spark(h, f"{title} of {both.names[at]}", at, top, (low, high), logarithmic)
                for at, h in enumerate(histograms)
            ]
        )
    if not head:
        return None
    return {"head": head, "rows": [(_run(both, at), [c[at] for c in columns]) for at in range(len(both.runs))]}


def _coarse(h: Mapping[str, Any]) -> dict[str, Any]:
    """At most ``BINS`` bins, from the first to the last that holds anything: neighbours become one."""
    filled = [at for at, many in enumerate(h["pool"]) if many] or [0]
    first, last = filled[0], filled[-1] + 1
    step = -(-(last - first) // BINS)
    starts = range(first, last, step)
    sums = {key: [sum(h[key][at : min(at + step, last)]) for at in starts] for key in ("pool", "selected")}
    return {"edges": [*(h["edges"][at] for at in starts), h["edges"][last]], **sums}


def _span_of(histograms: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """The smallest and largest edge of a bin that holds anything, and the share of rows at the charts' upper edge."""
    coarse = [_coarse(h) for h in histograms]
    shares = {
        of: max(1e-9, *(max(h[of]) / max(sum(h[of]), 1) for h in coarse)) for of in ("pool", "selected")
    }  # at most four times the pool's: one spike flattens no other
    top = max(shares["pool"], min(shares["selected"], 4 * shares["pool"]))
    return min(h["edges"][0] for h in coarse), max(h["edges"][-1] for h in coarse), top


def _spark(
    h: Mapping[str, Any], label: str, at: int, top: float, span: tuple[float, float], logarithmic: bool
) -> Chart:
    few = _coarse(h)
    return spark(
        few["edges"],
        few["pool"],
        few["selected"],
        label,
        top=top,
        span=span,
        logarithmic=logarithmic,
        style=series_class(at),
    )


def _where(both: Comparison, beside: Path | None) -> list[dict[str, Any]]:
    """Each run's folder, with a link to its page, its command and its notes."""
    rows = []
    for at, run in enumerate(both.runs):
        linked = beside is not None and (run.folder / REPORT).is_file()
        link = f"./{quote(os.path.relpath(run.folder / REPORT, beside))}" if linked else None
        manifest = run.manifest
        rows.append(
            {
                "run": _run(both, at),
                "folder": str(run.folder),
                "link": link,
                "command": manifest.command,
                "notes": manifest.notes,
            }
        )
    return rows
