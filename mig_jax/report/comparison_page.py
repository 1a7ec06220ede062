"""The page of a comparison: tables, curves, which rows are shared, where they come from, what they are like."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mig_jax.report.comparison import SOURCES, Comparison, whole
from mig_jax.report.elements import assemble, section, table
from mig_jax.report.lines import Line, curves_chart, series_class, spark
from mig_jax.report.measures import COLUMNS, of_pool, shown
from mig_jax.report.run_view import RunView
from mig_jax.report.text import count, escaped, isolated, number, share
from mig_jax.runs.manifest import REPORT

KIND = "mig_jax comparison"
MOST_SHARED = 24  # runs of which every pair is shown
BINS = 20  # of a small histogram
REACHED = ("rows", "objective", "times_random", "certificate", "labels_covered", "label_entropy_bits")
ALIKE = ("score_mean", "tokens_sum", "tokens_mean", "chars_sum", "chars_mean", "chars_median", "turns_mean")
TOOK = ("select_seconds", "total_seconds", "peak_bytes")
DRAWN = (
    ("score", "Score", False),
    ("tokens", "Tokens", True),
    ("chars", "Characters", True),
    ("turns", "Turns", False),
)


def render(both: Comparison, beside: Path | None) -> str:
    """The page; ``beside``: the folder it will lie in, None: it links to nothing."""
    title = f"{len(both.runs)} selections compared"
    parts = (_head, _reached, _curves, _shared, _sources, _distributions, _took)
    return assemble(title, [part(both) for part in parts] + [_where(both, beside)], KIND)


def _head(both: Comparison) -> str:
    first = both.runs[0].manifest
    pools = dict.fromkeys(_pool(run) for run in both.runs)
    lead = f"From {', '.join(isolated(name) for name in list(pools)[:3])}"
    if "pools" not in both.different:
        lead += f": <b>{count(first['pool']['usable'])}</b> usable rows"
        if both.runs[0].judged:
            lead += f" with <b>{count(first['labels']['total'])}</b> labels"
    notes = "".join(f'<p class="warning">{escaped(note)}</p>' for note in both.notes)
    return (
        f'<header><div class="kicker">{_span(both)}</div><h1>{len(both.runs)} selections compared</h1>'
        f'<p class="lead">{lead}.</p></header>{notes}'
    )


def _pool(run: RunView) -> str:
    pool = run.manifest["config"].get("pool") or {}
    return str(pool.get("name") or "") or next((str(s["path"]) for s in run.manifest["pool"]["sources"]), "a pool")


def _span(both: Comparison) -> str:
    days = sorted({run.manifest["finished"][:10] for run in both.runs})
    return escaped(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")


def _name(both: Comparison, at: int) -> str:
    """What a run is called, after the mark of its colour."""
    return f'<span class="key {series_class(at)}"></span>{isolated(both.names[at])}'


def _numbers(both: Comparison, keys: Sequence[str], pool: bool, settings: bool = False) -> str:
    """The columns of which any run knows something; ``pool``: with all usable rows as the last line."""
    known = [key for key in keys if any(row[key] is not None for row in both.rows)]
    rows = []
    for at, row in enumerate(both.rows):
        told = _settings(both, at) if settings else ""
        rows.append([_name(both, at) + told, *(_cell(key, row) for key in known)])
    if pool and _one_pool(both):
        all_rows = of_pool(both.runs[0])
        if any(all_rows[key] is not None for key in known):
            mark = '<span class="key ground"></span>all usable rows'
            rows.append([mark, *(shown(key, all_rows) if key in known else "" for key in known)])
    head = ["System" if len(set(both.names)) == len({run.system for run in both.runs}) else "Run"]
    return _runs(table([*head, *(COLUMNS[key].head for key in known)], rows, numeric=range(1, len(known) + 1)))


def _runs(html: str) -> str:
    """A table whose first column has the names of runs."""
    return f'<div class="runs">{html}</div>'


def _settings(both: Comparison, at: int) -> str:
    """The settings in which runs differ, but for those that the name tells."""
    told = both.names[at].split()
    left = [f"{key}={value}" for key, value in both.settings[at].items()
            if f"{key.rpartition('.')[2]}={value}" not in told]  # fmt: skip
    return f"<small>{escaped(', '.join(left))}</small>" if left else ""


def _one_pool(both: Comparison) -> bool:
    """Whether the pool can stand beside its selections: there is one, and no run that took the whole of it."""
    return "pools" not in both.different and not any(map(whole, both.runs))


def _cell(key: str, row: dict[str, Any]) -> str:
    if key == "rows" and row["rows"] < row["asked"]:
        return f"{count(row['rows'])}<small>of {count(row['asked'])} asked for</small>"
    if key == "labels_covered" and row[key] is not None:
        return f"{count(row[key])}<small>{share(row[key], row['labels_total'])}</small>"
    if key == "label_entropy_bits" and row["label_entropy_share"] is not None:
        return f"{shown(key, row)}<small>{shown('label_entropy_share', row)} of log₂ L</small>"
    return shown(key, row)


def _reached(both: Comparison) -> str:
    told = "the largest E(D) first" if _sorted(both) else "in the order given"
    known = any(run.judged for run in both.runs)
    intro = f"E(D) is the information that MIG maximises, 0 for no rows; {told}" if known else ""
    return section("What each selection reached", intro) + _numbers(both, REACHED, pool=True, settings=True)


def _sorted(both: Comparison) -> bool:
    reached = [run.reached for run in both.runs]
    return not both.different and None not in reached and reached == sorted(reached, key=lambda value: -(value or 0.0))


def _curves(both: Comparison) -> str:
    drawn = [at for at, run in enumerate(both.runs) if run.judged and len(run.objective)]
    if not drawn:
        return ""
    title = "Information over rows"
    if both.different:
        return section(title, "Not drawn: E(D) is another quantity in each of these runs.")
    runs = [both.runs[at] for at in drawn]
    last = max([run.n for run in runs if not whole(run)] or [run.n for run in runs])
    lines = [Line(both.names[at], both.runs[at].objective, at) for at in drawn]
    random: dict[str, float] = {}  # one permutation of the pool, of which each run knows some places
    for run in runs:
        alike = run.manifest["config"].get("seed") == runs[0].manifest["config"].get("seed")
        random |= run.manifest["random_objective"] if alike and not run.manifest.get("limits") else {}
    intro = "E(D) after each pick"
    beyond = [both.names[at] for at in drawn if both.runs[at].n > last]
    if beyond:
        intro += f"; {', '.join(map(isolated, beyond))} goes on beyond the picture"
    return section(title, intro) + f'<figure class="wide">{curves_chart(lines, random, last)}</figure>'


def _shared(both: Comparison) -> str:
    """Which rows two selections have in common; whole pools have all of them and are left out."""
    at = [i for i, run in enumerate(both.runs) if not whole(run) and run.n]
    if len(at) < 2 or (both.shared[at][:, at] < 0).sum() > len(at) * (len(at) - 2):
        return ""
    title = "Rows that two selections share"
    if len(at) > MOST_SHARED:
        return section(title, f"Not shown for more than {MOST_SHARED} runs; comparison.csv has the numbers.")
    sizes = {both.runs[i].n for i in at}
    numbered = max(len(both.names[i]) for i in at) > 9
    heads = [f"{place}" if numbered else isolated(both.names[i]) for place, i in enumerate(at, 1)]
    lines = [f"<tr><th></th>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"]
    for place, i in enumerate(at, 1):
        number_ = f'<span class="place">{place}</span>' if numbered else ""
        cells = "".join(_pair(both, i, j) for j in at)
        lines.append(f"<tr><td>{number_}{_name(both, i)}</td>{cells}</tr>")
    if len(sizes) == 1:
        [n] = sizes
        usable = both.runs[at[0]].manifest["pool"]["usable"]
        intro = f"Of {count(n)} rows; two random selections share {share(n, usable)}"
    else:
        intro = "Shared rows, of all rows that either has (the Jaccard index: the selections have different sizes)"
    return section(title, intro) + f'<div class="scroll"><table class="heat">{"".join(lines)}</table></div>'


def _pair(both: Comparison, i: int, j: int) -> str:
    if i == j:
        return '<td class="self"></td>'
    common = int(both.shared[i, j])
    if common < 0:
        return '<td title="different pools">–</td>'
    a, b = both.runs[i].n, both.runs[j].n
    part = (
        common / (a + b - common) if a != b or len({run.n for run in both.runs if not whole(run)}) > 1 else common / a
    )
    told = f"{count(common)} rows in both of {both.names[i]} ({count(a)}) and {both.names[j]} ({count(b)})"
    text = f"{100 * part:.0f} %" if part in (0, 1) or 0.01 <= part <= 0.99 else share(part, 1.0)
    return f'<td title="{escaped(told)}"><i style="opacity:{0.6 * part:.2f}"></i><span>{text}</span></td>'


def _sources(both: Comparison) -> str:
    if len(both.sources) < 2:
        return ""
    rows = [(_name(both, at), both.composition(run), run.n) for at, run in enumerate(both.runs)]
    if _one_pool(both):
        usable = both.runs[0].manifest["pool"]["usable"]
        rows.append(('<span class="key ground"></span>all usable rows', both.composition(both.runs[0], "pool"), usable))
    letters = [chr(ord("A") + at) for at in range(len(both.sources))] + ["…"]
    others = any(parts[-1] for _, parts, _ in rows)
    titles = ["no source" if name is None else name for name in both.sources] + ["all other sources"]
    shown_ = range(len(titles) if others else len(titles) - 1)
    legend = "".join(f'<span><i class="q{_colour(at)}">{letters[at]}</i>{isolated(titles[at])}</span>' for at in shown_)
    lines = []
    for name, parts, whole_ in rows:
        bars = "".join(
            f'<i class="q{_colour(at)}" style="flex-grow:{parts[at]}" title="{escaped(titles[at])}: '
            f'{count(parts[at])} rows, {share(parts[at], whole_)}">{_inside(letters[at], parts[at], whole_)}</i>'
            for at in shown_
            if parts[at]
        )
        lines.append(f'<tr><td>{name}</td><td class="stack"><div>{bars}</div></td></tr>')
    numbers = [[name, *(share(parts[at], whole_) for at in shown_)] for name, parts, whole_ in rows]
    head = ["", *(isolated(titles[at]) for at in shown_)]
    return (
        section("Where the rows come from", "Share of each selection's rows, by source")
        + f'<p class="sources">{legend}</p><div class="scroll"><table class="stacks">{"".join(lines)}</table></div>'
        + f"<details><summary>As numbers</summary>{table(head, numbers, numeric=range(1, len(head)))}</details>"
    )


def _colour(at: int) -> str:
    return "x" if at == SOURCES else str(at)


def _inside(letter: str, part: int, whole_: int) -> str:
    """What fits into a bar's segment."""
    percent = 100 * part / max(whole_, 1)
    return f"{letter} {percent:.0f} %" if percent >= 9 else letter if percent >= 2.5 else ""


def _distributions(both: Comparison) -> str:
    """Scores, lengths and turns: the numbers, and a small histogram of each run over its pool's."""
    drawn = []
    tokens = any(run.stats.get("tokens") for run in both.runs)
    for key, title, logarithmic in DRAWN:
        if key == "chars" and tokens:  # both say how long
            continue
        found = [run.stats.get(key) for run in both.runs]
        if any(h is not None and sum(map(bool, h["pool"])) > 1 for h in found):
            drawn.append((title, logarithmic, found))
    intro = "Of a selection's rows; characters and tokens are those of all turns"
    parts = [section("What the rows are like", intro), _numbers(both, ALIKE, pool=True)]
    if drawn:
        head, columns = [""], []
        for title, logarithmic, found in drawn:
            low, high, top = _span_of([h for h in found if h is not None])
            ends = (number(low), number(high)) if title == "Score" else (count(math.ceil(low)), count(math.floor(high)))
            head.append(
                f"{title}{' (logarithmic)' if logarithmic else ''}"
                + "<small><span>{}</span><span>{}</span></small>".format(*ends)
            )
            columns.append([_spark(h, top, logarithmic, (low, high), at) for at, h in enumerate(found)])
        rows = [[_name(both, at), *(column[at] for column in columns)] for at in range(len(both.runs))]
        parts.append(f'<div class="sparks">{table(head, rows)}</div>')
        parts.append(
            '<p class="note"><span class="key ground"></span>share of the pool\'s usable rows; the line: of the '
            "selection's. One scale in each column.</p>"
        )
    return "".join(parts)


def _coarse(h: dict[str, Any]) -> dict[str, Any]:
    """At most ``BINS`` bins, from the first to the last that holds anything: neighbours become one."""
    filled = [at for at, many in enumerate(h["pool"]) if many] or [0]
    first, last = filled[0], filled[-1] + 1
    step = -(-(last - first) // BINS)
    starts = range(first, last, step)
    sums = {key: [sum(h[key][at : min(at + step, last)]) for at in starts] for key in ("pool", "selected")}
    return {"edges": [*(h["edges"][at] for at in starts), h["edges"][last]], **sums}


def _span_of(histograms: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """The smallest and largest edge of a bin that holds anything, and the share of rows that the pictures reach to."""
    low, high, of_pool_, of_selection = [], [], [1e-9], [1e-9]
    for h in map(_coarse, histograms):
        low.append(h["edges"][0])
        high.append(h["edges"][-1])
        of_pool_.append(max(h["pool"]) / max(sum(h["pool"]), 1))
        of_selection.append(max(h["selected"]) / max(sum(h["selected"]), 1))
    return min(low), max(high), max(*of_pool_, min(max(of_selection), 4 * max(of_pool_)))  # one spike flattens no other


def _spark(h: dict[str, Any] | None, top: float, logarithmic: bool, span: tuple[float, float], at: int) -> str:
    if h is None:
        return "–"
    few = _coarse(h)
    return spark(few["edges"], few["pool"], few["selected"], top, logarithmic, span, at)


def _took(both: Comparison) -> str:
    memory = [run.manifest.get("memory") or {} for run in both.runs]
    intro = "Wall clock; what was kept in the cache took no time again"
    if any(facts.get("since") == "process" for facts in memory):
        intro += "; the memory is that of the whole process, earlier runs of a sweep included"
    return section("What it took", intro) + _numbers(both, TOOK, pool=False)


def _where(both: Comparison, beside: Path | None) -> str:
    rows = []
    for at, run in enumerate(both.runs):
        folder = isolated(run.folder)
        if beside is not None and (run.folder / REPORT).is_file():
            link = quote(os.path.relpath(run.folder / REPORT, beside))
            folder = f'<a href="./{escaped(link)}">{folder}</a>'
        notes = "".join(f"<small>{escaped(note)}</small>" for note in run.manifest["notes"])
        command = f"<code>{escaped(run.manifest['command'])}</code>"
        rows.append((_name(both, at), f"{folder}<br>{command}{notes}"))
    return section("The runs") + _runs(table(("", ""), rows))
