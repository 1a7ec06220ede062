"""The sections of a run's page, each from the run's facts to a piece of HTML."""

from collections.abc import Iterable, Sequence
from typing import Any

from mig_jax.report.charts import gain_chart, histogram_chart, objective_chart
from mig_jax.report.elements import section, table
from mig_jax.report.run_view import RunView, random_objective
from mig_jax.report.text import NO_LABELS, count, escaped, floor_percent, isolated, number, seconds, share

SHOWN_SOURCES = 20
SHOWN_LABELS = 14
KEY_BOTH = '<span class="legend"><span class="key main"></span>selection<span class="key other"></span>pool</span>'


def headline(run: RunView) -> str:
    """What was selected, from what, and how good it is."""
    manifest, n = run.manifest, run.n
    usable, rows = manifest["pool"]["usable"], manifest["pool"]["rows"]
    lead = f"<b>{count(n)}</b> of <b>{count(rows)}</b> rows"
    if usable < rows:
        lead += f", {count(usable)} of them usable"
    lead += f" ({share(n, usable)})"
    if run.system:
        lead += f", selected by <b>{escaped(run.system)}</b>"
    labels = manifest["labels"]
    fewer = f"; {count(run.asked)} were asked for" if run.asked > n else ""
    facts = [
        ("Rows selected", count(n), f"of {count(usable)} usable{fewer}"),
        ("Information E(D)", number(run.reached, 4), _against_random(run) if run.judged else NO_LABELS),
        ("Time", seconds(sum(value for value in manifest["timings"].values() if value is not None)), "all stages"),
    ]
    if run.judged:
        covered, total = labels["covered"], labels["total"]
        facts.insert(2, ("Labels covered", count(covered), f"of {count(total)} ({share(covered, total)})"))
    if run.certificate is not None:
        facts.insert(2, ("At least", f"{floor_percent(run.certificate)} %", "of the optimum, proven"))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{below}</small></dd></div>" for name, value, below in facts)
    notes = "".join(f'<p class="warning">{escaped(note)}</p>' for note in manifest["notes"])
    finished = escaped(manifest["finished"][:16].replace("T", " "))
    return (
        f'<header><div class="kicker">{isolated(run.name)} · {finished} UTC</div>'
        f"<h1>What this selection adds</h1><p class='lead'>{lead}.</p></header>"
        f'<dl class="facts">{cells}</dl>{notes}'
    )


def _against_random(run: RunView) -> str:
    if not run.random or run.reached is None:
        return "E of the empty set is 0"
    return f"{run.reached / run.random:.2f} × a random pick of as many"


def curve(run: RunView) -> str:
    """E(D) and the gain as the selection grows."""
    manifest = run.manifest
    parts = [section("Information over rows")]
    if run.judged:
        parts.append(
            f"<figure>{objective_chart(run.objective, manifest['random_objective'])}"
            '<figcaption><span class="key main"></span>this selection'
            + ('<span class="key other"></span>random picks' if manifest["random_objective"] else "")
            + "</figcaption></figure>"
        )
    else:
        parts.append(f'<p class="note">The pool has {NO_LABELS}.</p>')
    gains = gain_chart(run.gains)
    if gains:
        parts.append(
            f"<figure>{gains}<figcaption>The gain each row had when it was taken "
            f"({escaped(manifest['gain_meaning'])}).</figcaption></figure>"
        )
    if len(manifest["budgets"]) > 1 and run.judged:
        rows = [
            (
                count(budget),
                number(manifest["objective"].get(str(budget)), 4),
                number(random_objective(manifest, budget), 4),
                _percent((manifest["certificate"].get(str(budget)) or {}).get("ratio")),
            )
            for budget in manifest["budgets"]
        ]
        parts.append(
            table(("Budget", "E(D)", "Random", "At least, of the optimum"), rows, numeric=(0, 1, 2, 3), tight=True)
        )
    return "".join(parts)


def _percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{floor_percent(ratio)} %"


def sources(run: RunView) -> str:
    """The composition by source, pool against selection."""
    stats = run.stats["sources"]
    if not stats["top"]:
        return ""
    shown = stats["top"][:SHOWN_SOURCES]
    body = _pool_and_selection(run, shown, "Source", "no source", run.stats["usable"], run.stats["selected"])
    left = stats["total"] - len(shown)
    more = f'<p class="note">and {count(left)} smaller sources.</p>' if left > 0 else ""
    return section("Where the rows come from", f"{KEY_BOTH}: share of usable rows") + body + more


def _pool_and_selection(
    run: RunView, entries: Sequence[dict[str, Any]], title: str, nameless: str, pool: int, selected: int
) -> str:
    """Counts of pool and selection with bars; each bar a share of its own total, on one scale."""
    shares = [(entry["pool"] / max(pool, 1), entry["selected"] / max(selected, 1)) for entry in entries]
    widest = max((value for pair in shares for value in pair), default=0) or 1
    rows = []
    for entry, (in_pool, in_selection) in zip(entries, shares, strict=True):
        name = f"<em>{nameless}</em>" if entry["name"] is None else isolated(entry["name"])
        bars = (
            f'<i class="main" style="width:{100 * in_selection / widest:.1f}%"></i>'
            f'<i class="other" style="width:{100 * in_pool / widest:.1f}%"></i>'
        )
        rows.append(
            f"<tr><td>{name}</td>"
            f"<td class='n'>{count(entry['pool'])}</td><td class='n'>{share(entry['pool'], pool)}</td>"
            f"<td class='n'>{count(entry['selected'])}</td><td class='n'>{share(entry['selected'], selected)}</td>"
            f"<td class='bar'>{bars}</td></tr>"
        )
    head = (
        f"<tr><th>{title}</th><th class='n'>Pool</th><th class='n'></th>"
        "<th class='n'>Selected</th><th class='n'></th><th></th></tr>"
    )
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def labels(run: RunView) -> str:
    """How far the labels are covered: the pool's most frequent, and those that no selected row has."""
    stats = run.stats["labels"]
    if not stats["total"]:
        return ""
    per_row = [
        stats["assignments"][key] / max(run.stats[size], 1) for key, size in (("pool", "usable"), ("selected",) * 2)
    ]
    intro = (
        f"{count(stats['covered'])} of {count(stats['total'])} labels stand on a selected row; "
        f"{per_row[1]:.1f} labels a selected row, {per_row[0]:.1f} a row of the pool.<br>{KEY_BOTH}: share of rows"
    )
    parts = [section("Labels", intro), "<h3>Most frequent in the pool</h3>"]
    parts.append(
        _pool_and_selection(run, stats["top"][:SHOWN_LABELS], "Label", "", run.stats["usable"], run.stats["selected"])
    )
    # Taken against its frequency: the labels of which the selection keeps the smallest part.
    least = sorted((entry for entry in stats["top"] if entry["selected"]), key=lambda e: e["selected"] / e["pool"])
    most = sorted(least, key=lambda e: (-e["selected"] / e["pool"], -e["pool"]))
    columns = "".join(
        f"<div><h3>{title}</h3>{_kept(entries[: SHOWN_LABELS // 2])}</div>"
        for title, entries in (("Kept most", most), ("Kept least", least))
    )
    parts.append(f'<div class="pair">{columns}</div>')
    if len(stats["top"]) < stats["total"]:
        parts.append(f'<p class="note">Among the {count(len(stats["top"]))} most frequent labels.</p>')
    if stats["missed"]:
        names = ", ".join(f"{isolated(entry['name'])} ({count(entry['pool'])})" for entry in stats["missed"])
        parts.append(f"<h3>On no selected row, with their rows in the pool</h3><p>{names}</p>")
    return "".join(parts)


def _kept(entries: Iterable[dict[str, Any]]) -> str:
    rows = [
        (isolated(e["name"]), f"{count(e['selected'])} of {count(e['pool'])}", share(e["selected"], e["pool"]))
        for e in entries
    ]
    return table(("Label", "Rows kept", ""), rows, numeric=(1, 2)) if rows else '<p class="note">None.</p>'


def distributions(run: RunView) -> str:
    """Scores, lengths and turns, pool against selection."""
    figures = []
    for key, title, logarithmic in (
        ("score", "Score", False),
        ("tokens", "Tokens", True),
        ("chars", "Characters", True),
        ("turns", "Turns", False),
    ):
        histogram = run.stats.get(key)
        if histogram is None or sum(map(bool, histogram["pool"])) < 2:  # one value only: nothing to see
            continue
        mean = histogram["mean"]
        picture = histogram_chart(histogram, logarithmic, key)
        figures.append(
            f"<figure><h3>{title}</h3>{picture}<figcaption>mean {number(mean['selected'])} selected, "
            f"{number(mean['pool'])} in the pool</figcaption></figure>"
        )
    if not figures:
        return ""
    return section("Distributions", f"{KEY_BOTH}: share of rows") + f'<div class="pair">{"".join(figures)}</div>'


def picks(run: RunView) -> str:
    """The first picks, with the labels that earned them."""
    shown = run.stats["picks"]
    if not shown:
        return ""
    title = f"The first {len(shown)} picks" if len(shown) > 1 else "The pick"
    told = []
    if any(pick.get("reason") for pick in shown):
        told.append("why each was taken")
    if any(pick["labels"] for pick in shown):
        told.append("the labels that earned them, with their share of the gain")
    return section(title, f"With {' and '.join(told)}." if told else "") + _rows(shown, ranked=True)


def runners_up(run: RunView) -> str:
    """Those that nearly made it."""
    shown = run.stats["runners_up"]
    if not shown:
        return ""
    return section("Runners-up", "The next rows in line, with the gain they would add.") + _rows(shown, ranked=False)


def _rows(shown: Sequence[dict[str, Any]], ranked: bool) -> str:
    items = []
    gained = any(pick["gain"] for pick in shown)  # a random pick has none
    for rank, pick in enumerate(shown, start=1):
        reason = pick.get("reason")
        where = [f"<b>{escaped(reason)}</b>"] if reason else []
        if gained:
            where.append(f"gain {number(pick['gain'])}" if reason else f"gain <b>{number(pick['gain'])}</b>")
        where.append(f"score {number(pick['score'])}")
        if pick["source"] is not None:
            where.append(isolated(pick["source"]))
        if pick["id"] is not None:
            where.append(isolated(pick["id"]))
        where.append(isolated(pick["where"]))
        if pick["turns"] > 2:
            where.append(f"{count(pick['turns'])} turns")
        turns = "".join(
            f'<div class="turn{"" if at == 0 else " answer"}" dir="auto">{escaped(text)}</div>'
            for at, (_, text) in enumerate(pick["dialog"])
        )
        tags = "".join(
            f'<span class="tag">{isolated(name)}{f" <span>{100 * part:.0f} %</span>" if part else ""}</span>'
            for name, part in pick["labels"]
        )
        mark = str(rank) if ranked else f"+{rank}"
        items.append(
            f'<li><div class="rank">{mark}</div><div>'
            f'<div class="meta">{" · ".join(where)}</div>{turns}{tags}</div></li>'
        )
    return f'<ol class="rows">{"".join(items)}</ol>'


def dropped(run: RunView) -> str:
    """Rows of the pool that could not be selected, by reason."""
    reasons = {reason: n for reason, n in run.manifest["dropped"].items() if n}
    if not reasons:
        return ""
    rows = [
        (escaped(reason), count(n), share(n, run.stats["rows"]))
        for reason, n in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    return section("Rows left out") + table(("Reason", "Rows", "Of the pool"), rows, numeric=(1, 2), tight=True)
