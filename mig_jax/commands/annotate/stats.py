"""annotation_stats.json: what a page needs of the annotated rows, so that it never opens them again.

Collected while the rows are written. The same rows give the same bytes, in one attempt or several.
"""

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
from jaxtyping import Float64

from mig_jax.commands.annotate import car, deita, ifd, instag, nearest, tokens
from mig_jax.commands.annotate.annotator import Annotation, JsonPath, PoolRows
from mig_jax.core.bins import log_edges
from mig_jax.core.json_files import clean_text
from mig_jax.pool import Pool
from mig_jax.report.scales import nice_ticks

SCHEMA = 1
SCORES: Mapping[JsonPath, str] = {
    deita.COMPLEXITY: "complexity",
    deita.QUALITY: "quality",
    ifd.SCORE: "ifd",
    car.SCORES: "car",
    tokens.COUNT: "tokens",
}
"""Path of a number in a row -> its name. Of a list with one number a turn, the mean counts."""
TOP_LABELS = 30
SAMPLES = 12
SNIPPET = 300  # characters
EXAMPLES = 3  # of each reason
MOST_TAGS = 20
LARGEST = 1e300  # the sum of a few larger numbers is no float
BINS = 40  # about so many at most


@dataclass
class Refusals:
    """The rows that an annotator refused for one reason, and the first of them."""

    rows: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


class Stats:
    """Counts, scores and labels of rows that are added one after the other.

    It holds 8 bytes a row and score, and each distinct label.

    Args:
      rows: all that will be added.
      annotators: their names.

    Attributes:
      annotated: annotator -> rows that have all of its values.
      cleared: annotator -> rows that had a value which it did not replace, and have null there instead.
      refused: annotator -> reason -> rows.
      rejected: rows that are no JSON objects, and are in rejects.jsonl; set at the end.
    """

    def __init__(self, rows: PoolRows, annotators: Sequence[str]):
        self.rows, self.rejected = rows, 0
        self.annotated: Counter[str] = Counter()
        self.cleared: Counter[str] = Counter()
        self.refused: dict[str, dict[str, Refusals]] = {name: {} for name in annotators}
        self.scores = {name: array("d") for name in SCORES.values()}
        self.labels: Counter[str] = Counter()
        self.tags: Counter[int] = Counter()  # number of tags -> rows that have so many
        self.samples: dict[int, dict[str, Annotation]] = {number: {} for number in spread(len(rows), SAMPLES)}

    def add(self, number: int, annotator: str, annotation: Annotation) -> None:
        """Add an annotation of the row with this number, from 1."""
        for path, value in annotation.values.items():
            if path in SCORES:
                self.scores[SCORES[path]].append(_number(value))
            elif path == nearest.TAGS:
                self.tags[len(value)] += 1
                self.labels.update(set(value))
        if annotation.refused is None:
            self.annotated[annotator] += 1
        else:
            refusals = self.refused[annotator].setdefault(reason_of(annotation.refused), Refusals())
            refusals.rows += 1
            if len(refusals.examples) < EXAMPLES:
                refusals.examples.append(self._example(number, annotation))
        if number in self.samples:
            self.samples[number][annotator] = annotation

    def counts(self, annotator: str) -> dict[str, Any]:
        """Of one annotator, for the manifest."""
        refused = {reason: refusals.rows for reason, refusals in sorted(self.refused[annotator].items())}
        return {"annotated": self.annotated[annotator], "refused": refused, "cleared": self.cleared[annotator]}

    def _example(self, number: int, annotation: Annotation) -> dict[str, Any]:
        reason = {"reason": clean_text(annotation.refused or ""), "wrote": _raw_answer(annotation.values)}
        return {"line": number} | _of_row(self.rows.pool, int(self.rows.row[number - 1])) | reason

    def facts(self) -> dict[str, Any]:
        """The content of the file."""
        return {
            "schema": SCHEMA,
            "rows": len(self.rows),
            "refused": {
                name: [
                    {"reason": clean_text(reason), "rows": refusals.rows, "examples": refusals.examples}
                    for reason, refusals in sorted(reasons.items(), key=lambda item: (-item[1].rows, item[0]))
                ]
                for name, reasons in self.refused.items()
            },
            "rejected": {"rows": self.rejected, "examples": _rejects(self.rows.pool) if self.rejected else []},
            "labels": self._labels() if self.tags else None,
            "tags": tags_histogram(self.tags),
            "scores": {name: histogram(name, np.frombuffer(values)) for name, values in self.scores.items() if values},
            "samples": self._samples(),
        }

    def _labels(self) -> dict[str, Any]:
        top = sorted(self.labels.items(), key=lambda item: (-item[1], item[0]))[:TOP_LABELS]
        return {
            "total": len(self.labels),
            "once": sum(count == 1 for count in self.labels.values()),
            "top": [{"name": clean_text(name), "rows": count} for name, count in top],
        }

    def _samples(self) -> list[dict[str, Any]]:
        pool, numbers = self.rows.pool, list(self.samples)
        asked = self.rows.row[np.array(numbers, int) - 1]
        samples = []
        for number, exchanges in zip(numbers, pool.each_exchanges(asked), strict=True):
            annotations = self.samples[number]
            values = dict(chain.from_iterable(annotation.values.items() for annotation in annotations.values()))
            tags = values.get(nearest.TAGS)
            first = exchanges[0] if exchanges else None
            samples.append(
                {"line": number}
                | _of_row(pool, int(self.rows.row[number - 1]))
                | {
                    "exchanges": len(exchanges),
                    "asked": "" if first is None else _cut("\n".join(filter(None, first[:2]))),
                    "answered": "" if first is None else _cut(first.output or ""),
                    "tags": None if tags is None else [clean_text(tag) for tag in tags[:MOST_TAGS]],
                    "wrote": _raw_answer(values),
                    "scores": {name: _number(values[path]) for path, name in SCORES.items() if path in values},
                    "refused": {
                        name: clean_text(annotation.refused)
                        for name, annotation in annotations.items()
                        if annotation.refused is not None
                    },
                }
            )
        return samples


def reason_of(refused: str) -> str:
    """The reason that rows share: the text before the first colon; what follows is about one row."""
    return refused.partition(":")[0]


def spread(rows: int, most: int) -> list[int]:
    """Numbers from 1, one in the middle of each of ``most`` equal parts of the rows; all rows where they are fewer."""
    parts = min(rows, most)
    return [(2 * at + 1) * rows // (2 * parts) + 1 for at in range(parts)]


def histogram(name: str, value_n: Float64[np.ndarray, " n"]) -> dict[str, Any]:
    """Rows in each bin of a score, and its mean and quartiles.

    ``[edges[i], edges[i + 1])`` holds ``counts[i]`` rows, the last bin its upper edge too. A few far outliers, at most
    one in two hundred at each end, are counted in ``below`` and ``above`` instead, so that the rest stays legible.

    Args:
      name: of ``SCORES``; "tokens" are whole numbers over decades, and have edges that grow by a factor.
      value_n: in any order; values that are not finite, or beyond ``LARGEST``, are only counted.
    """
    known = np.sort(value_n[np.abs(value_n) < LARGEST])  # no NaN either
    facts: dict[str, Any] = {"rows": len(known), "not_finite": len(value_n) - len(known)}
    if not len(known):
        return facts
    edges = log_edges(known) if name == "tokens" else _edges(known, (1.0,) if name == "ifd" else ())
    counts, _ = np.histogram(known, edges)
    if name == "ifd":
        facts["above_one"] = int((known > 1).sum())
    return facts | {
        "mean": _mean(known.tolist()),
        "quartiles": [float(known[min(len(known) - 1, len(known) * part // 4)]) for part in range(5)],
        "edges": np.asarray(edges, float).tolist(),
        "counts": counts.tolist(),
        "below": int((known < edges[0]).sum()),
        "above": int((known > edges[-1]).sum()),
    }


def tags_histogram(tags: Counter[int]) -> dict[str, Any] | None:
    """Rows by their number of tags: ``counts[i]`` rows have i, ``above`` rows have more than ``MOST_TAGS``."""
    if not tags:
        return None
    rows, longest = tags.total(), min(max(tags), MOST_TAGS)
    return {
        "rows": rows,
        "mean": sum(number * count for number, count in tags.items()) / rows,
        "counts": [tags[number] for number in range(longest + 1)],
        "above": sum(count for number, count in tags.items() if number > longest),
    }


def _edges(known: np.ndarray, within: Sequence[float]) -> list[float]:
    """Round numbers from below the smallest to above the largest of sorted numbers, far outliers left out.

    An outlier is far where it is outside the middle 99 % by more than their range.

    Args:
      within: numbers that must be between the edges.
    """
    few = len(known) // 200
    middle = known[-1 - few] - known[few]
    low, high = float(known[0]), float(known[-1])
    if middle > 0:  # else nearly all are one value
        low = float(known[np.searchsorted(known, known[few] - middle)])
        high = float(known[np.searchsorted(known, known[-1 - few] + middle, side="right") - 1])
    low, high = min((low, *within)), max((high, *within))
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        half = max(0.5, 1e-3 * abs(high))
        return [low - half, high + half]  # one value
    step = nice_ticks(high - low, int(min(BINS, 10 + len(known) ** 0.5)))[1]
    first, last = math.floor(low / step), math.ceil(high / step)
    digits = max(0, 1 - math.floor(math.log10(step)))
    edges = [round(at * step, digits) for at in range(first - 1, last + 2)]
    # A quotient may be rounded across a whole number: use the bins that are needed, and one at least.
    start = max(at for at, edge in enumerate(edges[:-1]) if edge <= low)
    end = min(at for at, edge in enumerate(edges) if edge >= high and at > start)
    return edges[start : end + 1]


def _number(value: Any) -> float:
    """A score as one number: the mean of a list; NaN where there is none."""
    if isinstance(value, Sequence):
        return _mean(value)
    return math.nan if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    """Exactly rounded, so that it is the same on every machine; NaN of none, and where no float holds the sum."""
    try:
        return math.fsum(values) / len(values)
    except (ZeroDivisionError, OverflowError, ValueError):  # ValueError: inf - inf
        return math.nan


def _raw_answer(values: Mapping[JsonPath, Any]) -> str | None:
    """A tagger's answer that is no list of tags."""
    raw = values.get(instag.RAW)
    return None if raw is None else _cut(raw)


def _of_row(pool: Pool, row: int) -> dict[str, Any]:
    name = pool.id(row)
    return {"where": clean_text(pool.where(row)), "id": None if name is None else clean_text(name)}


def _rejects(pool: Pool) -> list[dict[str, Any]]:
    """The first rows that are no objects."""
    rejects = (reject for reject in pool.rejects if reject.reason in ("malformed", "not an object"))
    return [
        {"where": clean_text(f"{reject.file}:{reject.line}"), "reason": clean_text(reject.detail or reject.reason)}
        for reject in islice(rejects, EXAMPLES)
    ]


def _cut(text: str) -> str:
    text = clean_text(text)
    return text if len(text) <= SNIPPET else text[:SNIPPET].rstrip() + " …"
