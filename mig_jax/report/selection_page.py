"""report.html of a selection: one self-contained page, without scripts, legible in light and in dark."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mig_jax.report.charts import NARROW, WIDE, Chart, Line, drawn_ranks, histogram, line_chart, objective_line
from mig_jax.report.render import render
from mig_jax.report.reproduce import reproduce
from mig_jax.report.run_view import RunView, load_run, proven_share, random_objective
from mig_jax.report.text import NO_LABELS, count, floor_percent, number, seconds, share

KIND = "mig_jax run"  # of page
SHOWN_SOURCES = 20
SHOWN_LABELS = 14
GAIN_HEIGHT = 210
DISTRIBUTIONS = (
    ("score", "Score", False),
    ("tokens", "Tokens", True),
    ("chars", "Characters", True),
    ("turns", "Turns", False),
)
"""Key of pool_stats.json, title, whether the axis is logarithmic."""


def page(folder: str | Path) -> str:
    """The report of the run in ``folder`` as HTML; ``write_run`` takes it as its ``page``.

    Raises:
      UserError: the folder holds no whole run.
    """
    return selection_page(load_run(folder))


def selection_page(run: RunView) -> str:
    """The page of a run that was read."""
    manifest, stats = run.manifest, run.stats
    gained = any(pick["gain"] for pick in stats["picks"])  # a random pick has no gain
    rises = run.rise.tolist() if run.has_labels else []
    sources = stats["sources"]["top"][:SHOWN_SOURCES]
    return render(
        "selection.html.j2",
        title=f"{run.name}: selection report",
        kind=KIND,
        kicker=f"{run.name} · {manifest.finished[:16].replace('T', ' ')} UTC",
        run=run,
        stats=stats,
        no_labels=NO_LABELS,
        facts=_facts(run),
        objective=_objective(run) if run.has_labels else None,
        gains=_gains(run),
        sums=_sums(run) if run.gain_is_first_order else None,
        budgets=_budgets(run),
        sources=_with_widths(sources, stats),
        labels=_labels(stats) if stats["labels"]["total"] else None,
        distributions=_distributions(stats),
        picks=[_row(pick, str(at + 1), gained, rises[at : at + 1]) for at, pick in enumerate(stats["picks"])],
        shown=_shown(stats["picks"]),
        runners_up=[_row(row, f"+{at + 1}", True, ()) for at, row in enumerate(stats["runners_up"])],
        dropped=[
            (reason, count(n), share(n, stats["rows"]))
            for reason, n in sorted(manifest.dropped.items(), key=lambda item: -item[1])
            if n
        ],
        **reproduce(manifest),
    )


def _facts(run: RunView) -> list[tuple[str, str, str]]:
    """The large numbers at the top: name, value, note."""
    manifest = run.manifest
    fewer = f"; {count(run.budget)} were requested" if run.budget > run.n else ""
    facts = [("Rows selected", count(run.n), f"of {count(manifest.pool.usable)} usable{fewer}")]
    facts.append(("Information E(D)", number(run.reached, 4), _against_random(run) if run.has_labels else NO_LABELS))
    if run.certificate is not None:
        facts.append(("At least", f"{floor_percent(run.certificate)} %", "of the optimum, proven"))
    if run.has_labels:
        covered, total = manifest.labels.covered, manifest.labels.total
        facts.append(("Labels covered", count(covered), f"of {count(total)} ({share(covered, total)})"))
    return [*facts, ("Time", seconds(sum(manifest.timings.values())), "all stages")]


def _against_random(run: RunView) -> str:
    if not run.random or run.reached is None:
        return "E of the empty set is 0"
    return f"{run.reached / run.random:.2f} × a random pick of as many"


def _both_sizes(draw: Any, height: int = WIDE[1]) -> tuple[Chart, Chart]:
    return draw((WIDE[0], height)), draw((NARROW[0], min(height, NARROW[1])))


def _objective(run: RunView) -> tuple[Chart, Chart]:
    """E(D) over the number of picks, with random picks where they are known."""
    lines = [objective_line(run.objective, "main")]
    known = sorted((n, value) for n, value in run.manifest.random_objective.items() if value is not None)
    if known:
        n, values = np.array([(0, 0.0), *known]).T
        lines.insert(0, Line(n, values, "other dashed"))
    last = max([1, run.n, *(n for n, _ in known)])
    label = f"E(D) over the number of rows picked; it reaches {number(run.reached, 4)} at {count(run.n)} rows"
    return _both_sizes(lambda size: line_chart(lines, label, "rows picked", "E(D)", size, x_range=(0, last)))


def _gains(run: RunView) -> tuple[Chart, Chart] | None:
    """The gain of each pick over its rank, and the rise of E(D) beside a first-order gain; None without any gain."""
    series = [(run.gains, "main")]
    if run.gain_is_first_order:
        series.insert(0, (run.rise, "other dashed"))
    lines = [_positive(values, style) for values, style in series]
    if len(lines[-1].x) < 2:
        return None
    values = np.concatenate([line.y for line in lines])
    steep = float(values.max()) > 20 * float(values.min())
    label = "The gain of each row over its rank" + (", and the rise of E(D)" if run.gain_is_first_order else "")

    def draw(size: tuple[int, int]) -> Chart:
        last = max(run.n, 2)
        return line_chart(lines, label, "rows picked", "gain", size, x_range=(1, last), x_log=True, y_log=steep)

    return _both_sizes(draw, GAIN_HEIGHT)


def _positive(values: np.ndarray, style: str) -> Line:
    """The values above 0, which a logarithmic axis can show, over their ranks."""
    at = np.flatnonzero(np.isfinite(values) & (values > 0))
    at = at[drawn_ranks(len(at)) - 1]
    return Line(at + 1.0, values[at], style)


def _sums(run: RunView) -> dict[str, float]:
    return {"gains": float(np.sum(run.gains)), "rises": float(np.sum(run.rise))}


def _budgets(run: RunView) -> list[tuple[str, ...]]:
    """Of several budgets each; none of one alone."""
    manifest = run.manifest
    if len(manifest.budgets) < 2 or not run.has_labels:
        return []
    return [
        (
            count(budget),
            number(manifest.objective.get(budget), 4),
            number(random_objective(manifest, budget), 4),
            _percent(proven_share(manifest, budget)),
        )
        for budget in manifest.budgets
    ]


def _percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{floor_percent(ratio)} %"


def _with_widths(entries: Sequence[Mapping[str, Any]], stats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Counts of pool and selection with the widths of their bars: each a share of its own total, on one scale."""
    totals = {"pool": max(stats["usable"], 1), "selected": max(stats["selected"], 1)}
    widest = max((entry[of] / total for entry in entries for of, total in totals.items()), default=0) or 1
    return [
        {**entry} | {f"{of}_width": _width(entry[of] / total / widest) for of, total in totals.items()}
        for entry in entries
    ]


def _width(part: float) -> str:
    """Of a bar, in percent; something is never drawn as nothing."""
    return f"{max(100 * part, 0.5) if part else 0:.1f}"


def _labels(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The pool's most frequent labels, and of which labels the largest and smallest part was selected."""
    labels = stats["labels"]
    selected = [entry for entry in labels["top"] if entry["selected"]]
    least = sorted(selected, key=lambda entry: entry["selected"] / entry["pool"])
    most = sorted(least, key=lambda entry: (-entry["selected"] / entry["pool"], -entry["pool"]))
    sizes = {"pool": stats["usable"], "selected": stats["selected"]}
    return {
        "per_row": {of: labels["assignments"][of] / max(size, 1) for of, size in sizes.items()},
        "top": _with_widths(labels["top"][:SHOWN_LABELS], stats),
        "most": most[: SHOWN_LABELS // 2],
        "least": least[: SHOWN_LABELS // 2],
    }


def _distributions(stats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores, lengths and turns, pool against selection: the share of rows in each bin."""
    figures = []
    for key, title, logarithmic in DISTRIBUTIONS:
        bins = stats.get(key)
        if bins is None or sum(map(bool, bins["pool"])) < 2:  # one value only
            continue
        filled = [at for at, (a, b) in enumerate(zip(bins["pool"], bins["selected"], strict=True)) if a or b]
        first, last = filled[0], filled[-1] + 1
        shares = {
            of: [100 * many / max(sum(bins[of]), 1) for many in bins[of][first:last]] for of in ("pool", "selected")
        }
        chart = histogram(
            bins["edges"][first : last + 1],
            f"{title}: share of rows in each bin, pool and selection",
            area=shares["pool"],
            step=shares["selected"],
            logarithmic=logarithmic,
            whole=key == "turns",
            unit=" %",
        )
        mean = bins["mean"]
        caption = f"mean {number(mean['selected'])} selected, {number(mean['pool'])} in the pool"
        figures.append({"title": title, "chart": chart, "caption": caption})
    return figures


def _shown(picks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands beside the picks."""
    shown = []
    if any(pick["reason"] for pick in picks):
        shown.append("why each was taken")
    if any(pick["labels"] for pick in picks):
        shown.append("the labels that earned them, with their share of the gain")
    return shown


def _row(row: Mapping[str, Any], rank: str, gained: bool, rises: Sequence[float]) -> dict[str, Any]:
    """A row as the page shows it."""
    facts = [row["reason"]] if row["reason"] else []
    facts += [f"gain {number(row['gain'])}"] if gained else []
    facts += [f"E(D) rose by {number(rise)}" for rise in rises]
    origin = [row[key] for key in ("source", "id", "where") if row[key] is not None]
    return {**row, "rank": rank, "facts": facts, "origin": origin}
