"""Annotations without models: they are given, and the files are those of ``mig-jax annotate``."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mig_jax.commands.annotate import car, deita, ifd, instag, nearest, tokens
from mig_jax.commands.annotate.annotator import Annotation, Annotator, PoolRows
from mig_jax.commands.annotate.files import write_manifest, write_rows
from mig_jax.core.json_files import write_json
from mig_jax.core.progress import silent
from mig_jax.pool import load_pool
from mig_jax.report.annotation_page import page
from mig_jax.runs.manifest import MANIFEST
from mig_jax.runs.run import Run

WRITES = {
    "tags": (nearest.TAGS, instag.RAW),
    "deita": (deita.COMPLEXITY, deita.QUALITY, deita.ROUNDS),
    "ifd": (ifd.VERSION, ifd.SCORE),
    "car": (car.SCORES,),
    "tokens": (tokens.COUNT,),
}


class NoModels(Annotator):
    """An annotator whose annotations are given."""

    def __init__(self, annotations: list[Annotation]):
        self.annotations = annotations

    def annotate(self, results: tuple) -> Iterator[Annotation]:
        return iter(self.annotations)


def row(at: int, question: str = "Why?", answer: str = "Because.", **more: Any) -> str:
    """A line of a pool."""
    turns = [{"role": "user", "content": f"{question} {at}"}, {"role": "assistant", "content": answer}]
    return json.dumps({"dialogs": turns, "_id": f"id{at}"} | more)


def tagged(*labels: str) -> Annotation:
    return Annotation({nearest.TAGS: list(labels)})


def judged(complexity: Sequence[float], quality: Sequence[float]) -> Annotation:
    return Annotation({deita.COMPLEXITY: list(complexity), deita.QUALITY: list(quality), deita.ROUNDS: len(quality)})


def helped(ratio: float) -> Annotation:
    return Annotation({ifd.VERSION: "cherry", ifd.SCORE: ratio})


def scored(*scores: float) -> Annotation:
    return Annotation({car.SCORES: list(scores)})


def counted(number: int) -> Annotation:
    return Annotation({tokens.COUNT: number})


def annotation(
    folder: Path, lines: Iterable[str], given: dict[str, list[Annotation]], most: int | None = None, **changes: Any
) -> Path:
    """The folder of a finished run, its pool beside it.

    Args:
      given: annotator -> its annotation of each row.
      most: only the first so many rows.
      changes: of the manifest.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    pool_file = folder.parent / f"{folder.name}.jsonl"
    pool_file.write_text("".join(f"{line}\n" for line in lines))
    pool = load_pool(pool_file, on_error="skip")
    rows = PoolRows(pool, (pool.status == 0).nonzero()[0][:most])
    with Run(folder, "mig-jax annotate p.jsonl", {"out": f"runs/{folder.name}"}) as run:
        run.claim("f" * 64)
        annotations = {name: iter(of) for name, of in given.items()}
        stats = write_rows(run.files, rows, annotations, {name: WRITES[name] for name in given}, True, silent)
        run.timings.seconds.update(read=0.5, write=0.25)
        annotators = {name: NoModels(given[name]) for name in given}
        write_manifest(run, rows, stats, annotators, dict.fromkeys(given, ()), None)
        manifest = json.loads((run.files / MANIFEST).read_bytes())
        write_json(run.files / MANIFEST, manifest | changes)
        run.write_report(page(run.files))
        run.publish()
    return folder
