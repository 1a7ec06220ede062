"""Rows annotated by nobody: what the annotators would say is given, the files are those of ``mig-jax annotate``."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mig_jax.commands.annotate import car, deita, ifd, instag, nearest, tokens
from mig_jax.commands.annotate.annotator import Rows, Said
from mig_jax.commands.annotate.files import write_manifest, write_rows
from mig_jax.core.json_files import write_json
from mig_jax.core.progress import silent
from mig_jax.pool import load_pool
from mig_jax.report.annotation_page import page

WRITES = {
    "tags": (nearest.TAGS, instag.RAW),
    "deita": (deita.COMPLEXITY, deita.QUALITY, deita.ROUNDS),
    "ifd": (ifd.VERSION, ifd.SCORE),
    "car": (car.SCORES,),
    "tokens": (tokens.COUNT,),
}


def row(at: int, question: str = "Why?", answer: str = "Because.", **more: Any) -> str:
    """A line of a pool."""
    turns = [{"role": "user", "content": f"{question} {at}"}, {"role": "assistant", "content": answer}]
    return json.dumps({"dialogs": turns, "_id": f"id{at}"} | more)


def tagged(*labels: str) -> Said:
    return Said({nearest.TAGS: list(labels)})


def judged(complexity: Sequence[float], quality: Sequence[float]) -> Said:
    return Said({deita.COMPLEXITY: list(complexity), deita.QUALITY: list(quality), deita.ROUNDS: len(quality)})


def helped(ratio: float) -> Said:
    return Said({ifd.VERSION: "cherry", ifd.SCORE: ratio})


def scored(*scores: float) -> Said:
    return Said({car.SCORES: list(scores)})


def counted(number: int) -> Said:
    return Said({tokens.COUNT: number})


def annotation(
    folder: Path, lines: Iterable[str], said: dict[str, list[Said]], most: int | None = None, **changes: Any
) -> Path:
    """The folder of a finished run, its pool beside it.

    Args:
      said: annotator -> what it says of each row.
      most: only the first so many rows.
      changes: of the manifest.
    """
    folder.mkdir(parents=True)
    pool_file = folder.parent / f"{folder.name}.jsonl"
    pool_file.write_text("".join(f"{line}\n" for line in lines))
    pool = load_pool(pool_file, on_error="skip")
    rows = Rows(pool, (pool.status == 0).nonzero()[0][:most])
    each = {name: iter(of) for name, of in said.items()}
    written = write_rows(folder, rows, each, {name: WRITES[name] for name in said}, True, silent)
    config = {"out": f"runs/{folder.name}"}
    facts, running = {name: {} for name in said}, dict.fromkeys(said, ())
    timings, command = {"read": 0.5, "write": 0.25}, "mig-jax annotate p.jsonl"
    manifest = write_manifest(folder, "f" * 64, command, config, rows, written, facts, running, timings)
    write_json(folder / "manifest.json", manifest | changes)
    (folder / "report.html").write_text(page(folder))
    return folder
