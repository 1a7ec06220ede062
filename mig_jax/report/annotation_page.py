"""report.html of ``mig-jax annotate``: what the rows were given, and a few of them to judge it by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mig_jax.core.errors import UserError
from mig_jax.report.bars import count_bars, histogram_bars, shares
from mig_jax.report.elements import assemble, section, table
from mig_jax.report.reproduce import reproduce
from mig_jax.report.text import count, escaped, isolated, number, row_count, seconds, share
from mig_jax.runs.manifest import read_manifest

KIND = "mig_jax annotation"  # the kind of page
STATS = "annotation_stats.json"
NAMES = {"tags": "Tags", "deita": "DEITA", "ifd": "IFD", "car": "CaR", "tokens": "Tokens"}
SCORES = {
    "complexity": ("Complexity", "From 1 to 6, averaged over a row's turns"),
    "quality": ("Quality", "From 1 to 6, averaged over a row's turns"),
    "ifd": ("IFD", "Below 1 the instruction helps to predict the answer"),
    "car": ("CaR", "Averaged over a row's turns"),
    "tokens": ("Tokens", "Of all turns"),
}
"""Of each score its name, and what it is."""


@dataclass(frozen=True)
class AnnotationView:
    """What the page shows: manifest.json and annotation_stats.json of a folder."""

    manifest: dict[str, Any]
    stats: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the folder it was made for."""
        return Path(str(self.manifest["config"].get("out") or "annotated")).name

    @property
    def n(self) -> int:
        """Rows."""
        return self.manifest["n"]


def load_annotation(folder: str | Path) -> AnnotationView:
    """Read what an annotation's page is made of.

    Raises:
      UserError: the folder is not that of a finished ``mig-jax annotate``, or its statistics are gone.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if "annotators" not in manifest:
        raise UserError(f"{folder} holds no annotated rows: {manifest.get('command') or 'another command'} made it")
    try:
        stats = json.loads((folder / STATS).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder} is not a whole run: {error}") from None
    if not isinstance(stats, dict) or not {"rows", "refused", "rejected", "scores", "samples"} <= stats.keys():
        raise UserError(f"{folder} is not a whole run: {STATS} is none of mig_jax")
    return AnnotationView(manifest, stats)


def page(folder: str | Path) -> str:
    """The page of the annotated rows in ``folder`` as HTML.

    Raises:
      UserError: see ``load_annotation``.
    """
    return render(load_annotation(folder))


def render(view: AnnotationView) -> str:
    """The page of what has been read."""
    parts = (_headline, _refused, _labels, _distributions, _speed, _samples)
    body = [part(view) for part in parts] + [reproduce(view.manifest)]
    return assemble(f"{view.name}: annotation report", body, KIND)


def _headline(view: AnnotationView) -> str:
    """How many rows got what."""
    manifest, n = view.manifest, view.n
    total, files = manifest["pool"]["rows"], manifest["pool"]["sources"]
    lead = f"<b>{count(n)}</b> of <b>{count(total)}</b> rows" if n < total else f"All <b>{count(n)}</b> rows"
    if files:
        lead += f" of {isolated(Path(files[0]['path']).name)}"
        lead += f" and {count(len(files) - 1)} more" if len(files) > 1 else ""
    given = [f"<b>{escaped(NAMES.get(name, name))}</b>" for name in manifest["annotators"]]
    lead += f", given {' and '.join(filter(None, (', '.join(given[:-1]), given[-1] if given else 'nothing')))}"
    if manifest["rejected"]:
        lead += f"; <b>{count(manifest['rejected'])}</b> are no JSON objects and stand in rejects.jsonl"
    facts = []
    for name, of in manifest["annotators"].items():
        refused = sum(of["refused"].values())
        below = f"of {count(n)} rows" + (f"; {count(refused)} refused" if refused else "")
        facts.append((escaped(NAMES.get(name, name)), count(of["annotated"]), below))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{below}</small></dd></div>" for name, value, below in facts)
    notes = "".join(f'<p class="warning">{escaped(note)}</p>' for note in manifest["notes"])
    finished = escaped(manifest["finished"][:16].replace("T", " "))
    took = seconds(sum(manifest["timings"].values()))
    return (
        f'<header><div class="kicker">{isolated(view.name)} · {finished} UTC · {took}</div>'
        f"<h1>What these rows were given</h1><p class='lead'>{lead}.</p></header>"
        f'<dl class="facts">{cells}</dl>{notes}'
    )


def _refused(view: AnnotationView) -> str:
    """Rows without a value, by annotator and reason, with examples."""
    rows = [
        (
            "" if at else f'<span class="n">{escaped(NAMES.get(name, name))}</span>',
            escaped(kind["reason"]),
            count(kind["rows"]),
            share(kind["rows"], view.n),
            "".join(f"<div>{_example(one, kind['reason'])}</div>" for one in kind["examples"]),
        )
        for name, kinds in view.stats["refused"].items()
        for at, kind in enumerate(kinds)
    ]
    rejected = view.stats["rejected"]
    if rejected["rows"]:
        examples = "".join(
            f"<div>{isolated(one['where'])}<small>{escaped(one['reason'])}</small></div>"
            for one in rejected["examples"]
        )
        rows.append(("", "no JSON object: not in pool.jsonl", count(rejected["rows"]), "", examples))
    if not rows:
        return ""
    without = "without the value (null where they came with one)"
    intro = f"Refused rows are in pool.jsonl all the same, {without}; refused.jsonl has a line for each"
    return section("What was refused", intro) + table(("", "Reason", "Rows", "", "The first of them"), rows, (2, 3))


def _example(one: Mapping[str, Any], kind: str) -> str:
    """Where in the input, and what the reason has beyond its kind."""
    told = isolated(one["where"]) + (f" · {isolated(one['id'])}" if one["id"] is not None else "")
    beyond = one["reason"].removeprefix(kind).lstrip(": ")
    if beyond:
        told += f"<small>{escaped(beyond)}</small>"
    if one.get("wrote") is not None:
        told += f"<small>it wrote: {isolated(one['wrote'])}</small>"
    return told


def _labels(view: AnnotationView) -> str:
    """The labels that most rows have."""
    labels, tags = view.stats.get("labels"), view.stats.get("tags")
    if not labels or not tags:
        return ""
    vocabulary = view.manifest["annotators"].get("tags", {}).get("vocabulary")
    intro = f"{count(labels['total'])} labels" + (f" of a vocabulary of {count(vocabulary)}" if vocabulary else "")
    intro += f" are on some row, {count(labels['once'])} of them on one alone; {number(tags['mean'])} tags a row"
    if not labels["top"]:
        return section("Labels", intro)
    widths = shares(labels["top"])
    rows = [
        (
            isolated(entry["name"]),
            count(entry["rows"]),
            share(entry["rows"], tags["rows"]),
            f'<i class="main" style="width:{width:.1f}%"></i>',
        )
        for entry, width in zip(labels["top"], widths, strict=True)
    ]
    half = (len(rows) + 1) // 2
    columns = "".join(f"<div>{_bar_table(part)}</div>" for part in (rows[:half], rows[half:]) if part)
    return section("Labels", intro) + f'<h3>On most rows</h3><div class="pair">{columns}</div>'


def _bar_table(rows: Sequence[Sequence[str]]) -> str:
    lines = (
        f"<tr><td>{name}</td><td class='n'>{many}</td><td class='n'>{part}</td><td class='bar'>{bar}</td></tr>"
        for name, many, part, bar in rows
    )
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _distributions(view: AnnotationView) -> str:
    """Tags a row, and each score."""
    figures = []
    tags = view.stats.get("tags")
    if tags:
        without = f"; {row_count(tags['counts'][0])} without any" if tags["counts"][0] else ""
        beyond = f"; {row_count(tags['above'])} with more than {len(tags['counts']) - 1}" if tags["above"] else ""
        caption = f"{number(tags['mean'])} on average{without}{beyond}"
        figures.append(_figure("Tags a row", count_bars(tags["counts"]), caption))
    for name, (title, what) in SCORES.items():
        found = view.stats["scores"].get(name)
        if found:
            figures.append(_score(name, title, what, found))
    if not figures:
        return ""
    return section("Distributions", "Rows in each bin") + f'<div class="pair">{"".join(figures)}</div>'


def _score(name: str, title: str, what: str, found: Mapping[str, Any]) -> str:
    wrong = f"{row_count(found['not_finite'])} without a finite number" if found["not_finite"] else ""
    if not found["rows"]:
        return _figure(title, "", f"{what}; {wrong}")
    low, quarter, median, three, high = found["quartiles"]
    if low == high:
        return _figure(title, "", "; ".join(filter(None, (what, f"{number(low)} on every row", wrong))))
    middle = f"mean {number(found['mean'])}, median {number(median)}"
    parts = [what, middle, f"half of the rows from {number(quarter)} to {number(three)}"]
    if "above_one" in found:
        parts.append(
            f"{row_count(found['above_one'])} ({share(found['above_one'], found['rows'])}) above the line at 1"
        )
    outside = [
        f"{row_count(found[end])} {end} the picture, {word} {number(value)}"
        for end, word, value in (("below", "down to", low), ("above", "up to", high))
        if found[end]
    ]
    picture = histogram_bars(
        found["edges"], found["counts"], logarithmic=name == "tokens", mark=1.0 if name == "ifd" else None
    )
    return _figure(title, picture, "; ".join(filter(None, (*parts, *outside, wrong))))


def _figure(title: str, picture: str, caption: str) -> str:
    return f"<figure><h3>{title}</h3>{picture}<figcaption>{caption}.</figcaption></figure>"


def _samples(view: AnnotationView) -> str:
    """Rows from all over the pool."""
    shown = view.stats["samples"]
    if not shown:
        return ""
    title = row_count(len(shown)) if len(shown) > 1 else "The row"
    items = []
    for one in shown:
        where = [isolated(one["where"])]
        if one["id"] is not None:
            where.append(isolated(one["id"]))
        if one["exchanges"] > 1:
            where.append(f"the first of {count(one['exchanges'])} exchanges")
        turns = "".join(
            f'<div class="turn{kind}" dir="auto">{escaped(text) or f"<em>{nothing}</em>"}</div>'
            for kind, text, nothing in (("", one["asked"], "nothing asked"), (" answer", one["answered"], "no answer"))
        )
        scores = [
            f"{escaped(SCORES[name][0] if name in SCORES else name)} <b>{number(value)}</b>"
            for name, value in one["scores"].items()
        ]
        told = [f'<div class="meta">{" · ".join(scores)}</div>'] if scores else []
        if one["tags"] is not None:
            tags = "".join(f'<span class="tag">{isolated(tag)}</span>' for tag in one["tags"])
            told.append(f'<div class="tags">{tags}</div>' if tags else '<div class="meta">no label</div>')
        if one.get("wrote") is not None:
            told.append(f'<div class="meta">The tagger wrote: {isolated(one["wrote"])}</div>')
        told += [
            f'<div class="meta">{escaped(NAMES.get(name, name))} refused: {escaped(reason)}</div>'
            for name, reason in one["refused"].items()
        ]
        items.append(
            f'<li><div class="rank">{count(one["line"])}</div><div><div class="meta">{" · ".join(where)}</div>'
            f"{turns}{''.join(told)}</div></li>"
        )
    intro = "Taken evenly from first to last, whatever they are; the number is the line of pool.jsonl"
    return section(f"{title} to judge by eye", intro) + f'<ol class="rows">{"".join(items)}</ol>'


def _speed(view: AnnotationView) -> str:
    """Each pass of a model."""
    rows = [
        _pass(f"{NAMES.get(name, name)}{f': {one}' if one != name else ''}", of)
        for name, facts in view.manifest["annotators"].items()
        for one, of in facts["passes"].items()
    ]
    if not rows:
        return ""
    intro = (
        "Of what this run computed itself, compilation left out; rows weigh as much as their tokens.<br>"
        "The last column: against one large matrix product in the same number format, measured on this machine"
    )
    head = ("Pass", "Texts", "Tokens", "Time", "Rows/s", "Tokens/s", "GFLOP/s", "Of a matrix product")
    return section("Speed", intro) + table(head, rows, numeric=range(1, len(head)))


def _pass(name: str, of: Mapping[str, Any]) -> list[str]:
    tokens = count(of["tokens"])
    if of["computed"] < of["tokens"]:
        tokens += f"<small>{count(of['computed'])} of them now</small>" if of["computed"] else "<small>before</small>"
    rate, part = of.get("flops_per_s"), of.get("share_of_matmul")
    return [
        escaped(name),
        count(of["texts"]),
        tokens,
        seconds(of.get("seconds")),
        number(of.get("rows_per_s")),
        count(of.get("tokens_per_s")),
        "–" if rate is None else number(rate / 1e9),
        "–" if part is None else f"{100 * part:.0f} %",
    ]
