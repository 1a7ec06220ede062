"""Annotators that score, run without the command: rows in, what is said of each out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import annotate_cases as cases
import numpy as np

from mig_jax.batch import Job
from mig_jax.commands.annotate.annotator import Annotator, Rows, Said, Task
from mig_jax.config.keys import read
from mig_jax.core.progress import silent
from mig_jax.models.config import ModelConfig
from mig_jax.pool import REASONS, load_pool

UNANSWERED = {
    "a system's turn alone": "no user turn",
    "an assistant's turn alone": "no user turn",
    "no answer": "no answered turn",
    "turns of no dialog": "no dialog",
    "no turns at all": "no dialog",
}
"""Of ``cases.AWKWARD``, those that have no answer to judge, and what is said of them."""


class Ran(NamedTuple):
    """What came of it, the jobs of its passes and their results."""

    said: list[Said]
    facts: dict[str, Any]
    jobs: list[Job]
    results: list[np.ndarray]


def model_config(folder: Path, **changes: Any) -> ModelConfig:
    """A checkpoint of one's own."""
    return ModelConfig(**{**read("model/_base"), "name": "tiny", "path": str(folder)} | changes)


def task_of(folder: Path, rows: Sequence[dict[str, Any]], batch_tokens: int | None = 512, **changes: Any) -> Task:
    """Rows of a pool, written to ``folder``; those that are no JSON (half of a surrogate is none) are passed over."""
    pool = load_pool(cases.write(folder / "pool.jsonl", rows), on_error="skip", **changes)
    row = np.flatnonzero((pool.status == 0) | (pool.status == REASONS.index("no dialog"))).astype(np.int64)
    return Task(Rows(pool, row), batch_tokens=batch_tokens)


def kinds() -> list[str]:
    """Of ``cases.AWKWARD``, those that reach an annotator."""
    return [kind for kind in cases.AWKWARD if kind != "half a surrogate"]


def run(annotator: Annotator, options: Any, task: Task) -> Ran:
    """As the command does it: every pass, then every row."""
    prepared = annotator.prepare(options, task)
    jobs, results = [], []
    for one in prepared.passes:
        job = one.prepare(silent)
        out = np.full((len(job.cost), job.width or 0), job.blank, job.dtype)
        for batch, found in job.run(iter(job.plan)):
            assert found.dtype == out.dtype
            out[batch.text] = found
        if job.plan:
            assert job.flops is not None and job.flops(job.plan[0]) > 0
        job.release()
        jobs.append(job)
        results.append(out)
    said = list(prepared.say(tuple(results)))
    assert all(one.values.keys() <= set(annotator.writes) for one in said)
    return Ran(said, dict(prepared.facts()), jobs, results)
