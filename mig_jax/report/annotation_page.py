"""report.html of ``mig-jax annotate``: what the rows were given, and a few of them to judge it by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mig_jax.core.errors import UserError
from mig_jax.report.charts import Chart, count_bars, histogram
from mig_jax.report.render import render
from mig_jax.report.reproduce import reproduce
from mig_jax.report.text import count, number, row_count, seconds, share
from mig_jax.runs.manifest import AnnotateManifest, read_manifest

KIND = "mig_jax annotation"  # of page
STATS = "annotation_stats.json"
NAMES = {"tags": "Tags", "deita": "DEITA", "ifd": "IFD", "car": "CaR", "tokens": "Tokens"}
SCORES = {
    "complexity": ("Complexity", "From 1 to 6, averaged over a row's turns"),
    "quality": ("Quality", "From 1 to 6, averaged over a row's turns"),
    "ifd": ("IFD", "Below 1 the instruction helps to predict the answer"),
    "car": ("CaR", "Averaged over a row's turns"),
    "tokens": ("Tokens", "Of all turns"),
}
"""Of each score its name and its meaning."""


@dataclass(frozen=True)
class AnnotationView:
    """What the page shows: manifest.json and annotation_stats.json of a folder."""

    manifest: AnnotateManifest
    stats: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the folder for which it was made."""
        return Path(str(self.manifest.config.get("out") or "annotated")).name

    @property
    def n(self) -> int:
        """Rows."""
        return self.manifest.n


def load_annotation(folder: str | Path) -> AnnotationView:
    """Read what an annotation's page is made of.

    Raises:
      UserError: the folder is not that of a finished ``mig-jax annotate``, or its statistics are gone.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, AnnotateManifest)
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
    return annotation_page(load_annotation(folder))


def annotation_page(view: AnnotationView) -> str:
    """The page of what was read."""
    manifest, stats = view.manifest, view.stats
    files = manifest.inputs
    top = (stats.get("labels") or {}).get("top", [])
    most = max((entry["rows"] for entry in top), default=0) or 1
    finished = manifest.finished[:16].replace("T", " ")
    return render(
        "annotation.html.j2",
        title=f"{view.name}: annotation report",
        kind=KIND,
        kicker=f"{view.name} · {finished} UTC · {seconds(sum(manifest.timings.values()))}",
        view=view,
        stats={"tags": None, "labels": None} | stats,
        file=Path(files[0].path).name if files else None,
        more_files=len(files) - 1,
        annotators=[_name(name) for name in manifest.annotators],
        facts=[_fact(_name(name), of, view.n) for name, of in manifest.annotators.items()],
        refused=_refused(stats["refused"]),
        rejected=[{"id": None, **one, "notes": [one["reason"]]} for one in stats["rejected"]["examples"]],
        vocabulary=manifest.annotators.get("tags", {}).get("vocabulary"),
        labels=[{**entry, "width": f"{100 * entry['rows'] / most:.1f}"} for entry in top],
        half=(len(top) + 1) // 2,
        figures=_figures(stats),
        speed=[
            (f"{_name(name)}: {one}" if one != name else _name(name), of)
            for name, facts in manifest.annotators.items()
            for one, of in facts["jobs"].items()
        ],
        samples=[_sample(one) for one in stats["samples"]],
        **reproduce(manifest),
    )


def _name(annotator: str) -> str:
    return NAMES.get(annotator, annotator)


def _fact(name: str, of: Mapping[str, Any], rows: int) -> tuple[str, str, str]:
    refused = sum(of["refused"].values())
    return name, count(of["annotated"]), f"of {count(rows)} rows" + (f"; {count(refused)} refused" if refused else "")


def _refused(refused: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows without a value, by annotator (named once) and reason, with examples."""
    rows = []
    for name, kinds in refused.items():
        for at, kind in enumerate(kinds):
            examples = [_example(one, kind["reason"]) for one in kind["examples"]]
            rows.append({**kind, "name": "" if at else _name(name), "examples": examples})
    return rows


def _example(one: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Its notes: what the reason has beyond its kind, and what the model wrote."""
    beyond = one["reason"].removeprefix(kind).lstrip(": ")
    wrote = one.get("wrote")
    return {**one, "notes": [*filter(None, [beyond]), *([] if wrote is None else [f"it wrote: {wrote}"])]}


def _sample(one: Mapping[str, Any]) -> dict[str, Any]:
    scores = {SCORES[name][0] if name in SCORES else name: value for name, value in one["scores"].items()}
    refused = {_name(name): reason for name, reason in one["refused"].items()}
    return {"wrote": None, **one, "scores": scores, "refused": refused}


def _figures(stats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tags a row, and each score."""
    figures = []
    tags = stats.get("tags")
    if tags:
        without = f"; {row_count(tags['counts'][0])} without any" if tags["counts"][0] else ""
        beyond = f"; {row_count(tags['above'])} with more than {len(tags['counts']) - 1}" if tags["above"] else ""
        chart = count_bars(tags["counts"], "Rows by their number of tags")
        figures.append(_figure("Tags a row", chart, f"{number(tags['mean'])} on average{without}{beyond}"))
    for name, (title, meaning) in SCORES.items():
        score = stats["scores"].get(name)
        if score:
            figures.append(_score(name, title, meaning, score))
    return figures


def _score(name: str, title: str, meaning: str, score: Mapping[str, Any]) -> dict[str, Any]:
    wrong = f"{row_count(score['not_finite'])} without a finite number" if score["not_finite"] else ""
    if not score["rows"]:
        return _figure(title, None, f"{meaning}; {wrong}")
    low, quarter, median, three, high = score["quartiles"]
    if low == high:
        return _figure(title, None, "; ".join(filter(None, (meaning, f"{number(low)} on every row", wrong))))
    middle = f"mean {number(score['mean'])}, median {number(median)}"
    parts = [meaning, middle, f"half of the rows from {number(quarter)} to {number(three)}"]
    if "above_one" in score:
        above = row_count(score["above_one"])
        parts.append(f"{above} ({share(score['above_one'], score['rows'])}) above the line at 1")
    parts += [
        f"{row_count(score[end])} {end} the chart, {word} {number(value)}"
        for end, word, value in (("below", "down to", low), ("above", "up to", high))
        if score[end]
    ]
    chart = histogram(
        score["edges"],
        f"{title}: rows in each bin",
        bars=score["counts"],
        logarithmic=name == "tokens",
        mark=1.0 if name == "ifd" else None,
    )
    return _figure(title, chart, "; ".join(filter(None, (*parts, wrong))))


def _figure(title: str, chart: Chart | None, caption: str) -> dict[str, Any]:
    return {"title": title, "chart": chart, "caption": caption}
