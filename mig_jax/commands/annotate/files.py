"""The files of ``mig-jax annotate``: pool.jsonl, refused.jsonl, rejects, annotation_stats.json, manifest.json."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jax.sharding import Mesh

from mig_jax.batch import BatchRun
from mig_jax.commands.annotate.annotator import Annotation, Annotator, JsonPath, PoolRows
from mig_jax.commands.annotate.stats import Stats
from mig_jax.commands.annotate.summary import POOL, REFUSED
from mig_jax.core.json_files import clean_text, jsonable, write_json
from mig_jax.core.lines import one_line, write_lines
from mig_jax.core.progress import Progress
from mig_jax.pool import PRESENT, Pool
from mig_jax.pool.decode import parse
from mig_jax.pool.layouts import get_path
from mig_jax.pool.splice import spliced
from mig_jax.report.annotation_page import STATS
from mig_jax.runs.manifest import AnnotateManifest, sources_of
from mig_jax.runs.rejects import write_rejects
from mig_jax.runs.run import Run

_EVERY = 1000  # rows between two calls of progress


def write_rows(
    folder: Path,
    rows: PoolRows,
    annotations: Mapping[str, Iterator[Annotation]],
    writes: Mapping[str, Sequence[JsonPath]],
    skipped: bool,
    progress: Progress,
) -> Stats:
    """Write every row once, in order: its own bytes with the annotations inserted.

    A row that an annotator refuses is written too, and a line of refused.jsonl has the reason. A value that it had
    before becomes null: else scores of two models, or of two forms of a score, would be ranked as one.

    Args:
      annotations: annotator -> its annotation of each row.
      writes: annotator -> the paths that it may write.
      skipped: rows that are no objects were skipped; they are written to rejects.jsonl.
    """
    stats, pool = Stats(rows, tuple(annotations)), rows.pool

    def lines() -> Iterator[bytes]:
        raws = pool.read_rows(rows.row)
        by_row = zip(*annotations.values(), strict=True)
        for number, (row, raw, annotated) in enumerate(zip(rows.row.tolist(), raws, by_row, strict=True), 1):
            values: dict[JsonPath, bytes] = {}
            for name, annotation in zip(annotations, annotated, strict=True):
                new = annotation.values
                assert new.keys() <= set(writes[name]), f"{name} writes {list(new)}"
                values |= {path: _json(value) for path, value in new.items()}
                if old := _old_values(raw, [path for path in writes[name] if path not in new]):
                    values |= dict.fromkeys(old, b"null")
                    stats.cleared[name] += 1
                if annotation.refused is not None:
                    line = _refused_line(pool, number, row, name, annotation.refused)
                    refused.write(msgspec.json.encode(line) + b"\n")
                stats.add(number, name, annotation)
            if number % _EVERY == 0:
                progress("write", number, len(rows), "rows")
            yield spliced(one_line(raw), values) if values else one_line(raw)

    with (folder / REFUSED).open("wb") as refused:
        count = write_lines(folder / POOL, lines())
    assert count == len(rows)
    if not (folder / REFUSED).stat().st_size:
        (folder / REFUSED).unlink()
    if skipped:
        stats.rejected = _write_rejects(folder, rows)
    write_json(folder / STATS, stats.facts())
    return stats


def _json(value: Any) -> bytes:
    """A value in the spacing of ``json.dumps``, which most pools have."""
    return json.dumps(jsonable(value), ensure_ascii=False).encode()


def _old_values(raw: bytes, paths: Sequence[JsonPath]) -> list[JsonPath]:
    """Those of the paths at which a row has a value."""
    if not paths:
        return []
    record = parse(raw)
    return [path for path in paths if get_path(record, path) is not None]


def _refused_line(pool: Pool, number: int, row: int, name: str, reason: str) -> dict[str, Any]:
    """A line of refused.jsonl. ``line``: of pool.jsonl; ``where``: file and line of the input."""
    return {
        "line": number, "where": clean_text(pool.where(row)), "id": pool.id(row), "annotator": name,
        "reason": clean_text(reason),
    }  # fmt: skip


def _write_rejects(folder: Path, rows: PoolRows) -> int:
    """Write the rejected rows before the last annotated one; all of them where every row is annotated."""
    pool, last = rows.pool, int(rows.row[-1]) if len(rows) else 0
    wrong = {row: why for row, why in pool.no_objects().items() if rows.whole or row < last}
    write_rejects(folder, pool, wrong)
    return len(wrong)


def write_manifest(
    run: Run,
    rows: PoolRows,
    stats: Stats,
    annotators: Mapping[str, Annotator],
    batch_runs: Mapping[str, Sequence[BatchRun]],
    mesh: Mesh | None,
) -> AnnotateManifest:
    """Write the manifest over the files of a run."""
    seconds = run.timings.seconds
    return run.write_manifest(
        AnnotateManifest,
        inputs=sources_of(rows.pool),
        mesh=mesh,
        n=len(rows),
        pool_rows=len(rows.pool),
        rejected=stats.rejected,
        select=select_with(rows.pool, tuple(annotators)),
        annotators={
            name: {
                **stats.counts(name),
                **annotator.facts(),
                "jobs": {one.job.name: speed(one, len(rows), seconds) for one in batch_runs[name]},
            }
            for name, annotator in annotators.items()
        },
    )


def select_with(pool: Pool, annotators: Sequence[str]) -> str:
    """The override with which ``mig-jax select`` reads the folder: the score that its rows have; "": the default."""
    if "deita" in annotators or (pool.quality_state == PRESENT).any():
        return ""
    return "score.from=ifd" if "ifd" in annotators or np.isfinite(pool.ifd).any() else "score.from=none"


def speed(run: BatchRun, rows: int, timings: Mapping[str, float]) -> dict[str, Any]:
    """What this process computed of a job in this attempt, and how fast; ``rows_per_s`` weighs rows by their tokens.

    Args:
      timings: stage -> seconds, without compilation.
    """
    job, total, seconds = run.job, run.job.tokens, timings.get(run.job.name, 0.0)
    facts: dict[str, Any] = {"texts": len(job.cost), "tokens": total, "batches": len(job.plan)}
    facts["computed"] = run.computed
    if run.computed and seconds:
        facts |= {"seconds": round(seconds, 2), "tokens_per_s": run.computed / seconds}
        facts["rows_per_s"] = rows * run.computed / total / seconds
        if run.flops is not None:
            from mig_jax.models.inference.flops import matmul_rate  # Flax

            flops = run.flops / seconds
            facts |= {"flops_per_s": flops, "share_of_matmul": flops / matmul_rate(job.flops_dtype)}
    return facts
