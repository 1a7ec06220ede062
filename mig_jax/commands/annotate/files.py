"""The files of ``mig-jax annotate``: pool.jsonl, refused.jsonl, rejects, annotation_stats.json, manifest.json."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np

from mig_jax.batch import Running
from mig_jax.commands.annotate.annotator import Place, Rows, Said
from mig_jax.commands.annotate.stats import Stats, kind_of
from mig_jax.commands.annotate.summary import KIND, POOL, REFUSED
from mig_jax.core.json_files import clean_text, jsonable, write_json
from mig_jax.core.lines import one_line, write_lines
from mig_jax.core.progress import Progress
from mig_jax.pool import PRESENT, Pool
from mig_jax.pool.decode import parse
from mig_jax.pool.layouts import walk
from mig_jax.pool.splice import spliced
from mig_jax.report.annotation_page import STATS
from mig_jax.runs.manifest import MANIFEST, SCHEMA, file_facts, sources_of, versions
from mig_jax.runs.rejects import REJECT_REASONS, REJECTS

_EVERY = 1000  # rows between two words of progress


@dataclass
class Written:
    """What became of the rows.

    Args:
      annotated: annotator -> rows that got all of its values.
      refused: annotator -> reason -> rows.
      cleared: annotator -> rows that came with a value which it did not renew, and have null there now.
      rejected: rows that are no JSON objects, and stand in rejects.jsonl.
    """

    annotated: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Counter[str]] = field(default_factory=dict)
    cleared: Counter[str] = field(default_factory=Counter)
    rejected: int = 0


def write_rows(
    folder: Path,
    rows: Rows,
    said: Mapping[str, Iterator[Said]],
    writes: Mapping[str, Sequence[Place]],
    skipped: bool,
    progress: Progress,
) -> Written:
    """Write every row once, in order: its own bytes, with what the annotators say put in.

    A row that an annotator refuses stays, and one line of refused.jsonl says why. A value that it came with becomes
    null: else those of two models, or of two forms of a score, would stand side by side and be ranked as one. What a
    page shows of the rows is gathered meanwhile.

    Args:
      writes: the places that each annotator may write.
      skipped: rows that are no objects were passed over; they go to rejects.jsonl.
    """
    written, stats = Written(refused={name: Counter() for name in said}), Stats(rows, tuple(said))
    pool = rows.pool

    def lines() -> Iterator[bytes]:
        raws = pool.read_rows(rows.row)
        columns = zip(*said.values(), strict=True)
        for number, (row, raw, each) in enumerate(zip(rows.row.tolist(), raws, columns, strict=True), 1):
            values: dict[Place, bytes] = {}
            for name, one in zip(said, each, strict=True):
                assert one.values.keys() <= set(writes[name]), f"{name} writes {list(one.values)}"
                values |= {place: _json(value) for place, value in one.values.items()}
                if stale := _stale(raw, [place for place in writes[name] if place not in one.values]):
                    values |= dict.fromkeys(stale, b"null")
                    written.cleared[name] += 1
                if one.refused is None:
                    written.annotated[name] += 1
                else:
                    written.refused[name][kind_of(one.refused)] += 1
                    refused.write(msgspec.json.encode(_line(pool, number, row, name, one.refused)) + b"\n")
                stats.add(number, name, one)
            if number % _EVERY == 0:
                progress("write", number, len(rows), "rows")
            yield spliced(one_line(raw), values) if values else one_line(raw)

    with (folder / REFUSED).open("wb") as refused:
        count = write_lines(folder / POOL, lines())
    assert count == len(rows)
    if not (folder / REFUSED).stat().st_size:
        (folder / REFUSED).unlink()
    if skipped:
        written.rejected = _write_rejects(folder, rows)
    write_json(folder / STATS, stats.facts(written.rejected))
    return written


def _json(value: Any) -> bytes:
    """In the spacing of ``json.dumps``, which most pools are written in."""
    return json.dumps(jsonable(value), ensure_ascii=False).encode()


def _stale(raw: bytes, places: Sequence[Place]) -> list[Place]:
    """Those of the places at which a row has a value already."""
    if not places:
        return []
    record = parse(raw)
    return [place for place in places if walk(record, place) is not None]


def _line(pool: Pool, number: int, row: int, name: str, reason: str) -> dict[str, Any]:
    """Of refused.jsonl. ``line``: of pool.jsonl; ``where``: of the input."""
    return {
        "line": number, "where": clean_text(pool.where(row)), "id": pool.id(row), "annotator": name,
        "reason": clean_text(reason),
    }  # fmt: skip


def _write_rejects(folder: Path, rows: Rows) -> int:
    """Those before the last row that is annotated; all where every row is."""
    pool, last = rows.pool, int(rows.row[-1]) if len(rows) else 0
    wrong = {row: why for row, why in pool.no_objects().items() if rows.whole or row < last}
    if wrong:
        write_lines(folder / REJECTS, map(one_line, pool.read_rows(list(wrong))))
        reasons = (clean_text(f"{pool.where(row)}: {why}").encode() for row, why in wrong.items())
        write_lines(folder / REJECT_REASONS, map(one_line, reasons))
    return len(wrong)


def write_manifest(
    folder: Path,
    run_key: str,
    command: str,
    config: Mapping[str, Any],
    rows: Rows,
    written: Written,
    facts: Mapping[str, Mapping[str, Any]],
    running: Mapping[str, Sequence[Running]],
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """Write the manifest, which comes last."""
    pool = rows.pool
    manifest = {
        "schema": SCHEMA,
        "kind": KIND,
        "run_key": run_key,
        "command": command,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "n": len(rows),
        "pool_rows": len(pool),
        "inputs": sources_of(pool),
        "rejected": written.rejected,
        "select": select_with(rows.pool, tuple(running)),
        "annotators": {
            name: {
                "annotated": written.annotated[name],
                "refused": dict(sorted(written.refused[name].items())),
                "cleared": written.cleared[name],
                **facts[name],
                "passes": {now.name: speed(now, len(rows), timings.get(now.name, 0.0)) for now in running[name]},
            }
            for name in running
        },
        "config": config,
        "versions": versions(),
        "devices": {
            "count": jax.local_device_count(),
            "kind": jax.devices()[0].device_kind,
            "platform": jax.devices()[0].platform,
            "processes": jax.process_count(),
        },
        "timings": dict(timings),
        "notes": [note for several in running.values() for now in several for note in now.job.notes],
        "files": {path.name: file_facts(path) for path in sorted(folder.iterdir())},
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def select_with(pool: Pool, annotators: Sequence[str]) -> str:
    """What ``mig-jax select`` needs beside the folder: the score that the rows have now, if it is not the usual one."""
    if "deita" in annotators or (pool.quality_state == PRESENT).any():
        return ""
    return "score.from=ifd" if "ifd" in annotators or np.isfinite(pool.ifd).any() else "score.from=none"


def speed(now: Running, rows: int, seconds: float) -> dict[str, Any]:
    """What this process ran of a pass in this life, and how fast; ``rows_per_s`` weighs rows by their tokens.

    Args:
      seconds: that it took, without compilation.
    """
    job = now.job
    total = job.tokens(range(len(job.plan)))
    facts: dict[str, Any] = {"texts": len(job.cost), "tokens": total, "batches": len(job.plan)}
    facts["computed"] = now.computed
    if now.computed and seconds:
        facts |= {"seconds": round(seconds, 2), "tokens_per_s": now.computed / seconds}
        facts["rows_per_s"] = rows * now.computed / total / seconds
        if now.flops is not None:
            from mig_jax.models.inference.flops import matmul_rate

            flops = now.flops / seconds
            facts |= {"flops_per_s": flops, "share_of_matmul": flops / matmul_rate(job.flops_dtype)}
    return facts
