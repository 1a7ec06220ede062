"""Annotators that score, run without the command: rows in, annotations out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import annotate_cases as cases
import numpy as np

from mig_jax.batch import BatchJob
from mig_jax.commands.annotate.annotator import Annotation, AnnotationInput, Annotator, PoolRows
from mig_jax.config.keys import read
from mig_jax.models.config import ModelConfig
from mig_jax.pool import REASONS, load_pool

UNANSWERED = {
    "a system's turn alone": "no user turn",
    "an assistant's turn alone": "no user turn",
    "no answer": "no answered turn",
    "turns of no dialog": "no dialog",
    "no turns at all": "no dialog",
}
"""Of ``cases.AWKWARD``, those that have no answer to judge, and the reason."""


class Ran(NamedTuple):
    """The annotations and facts, the jobs and their results."""

    annotations: list[Annotation]
    facts: dict[str, Any]
    jobs: list[BatchJob]
    results: list[np.ndarray]


def model_config(folder: Path, **changes: Any) -> ModelConfig:
    """A checkpoint of one's own."""
    return ModelConfig(**{**read("model/_base"), "name": "tiny", "path": str(folder)} | changes)


def inputs_of(
    folder: Path, rows: Sequence[dict[str, Any]], batch_tokens: int | None = 512, **changes: Any
) -> AnnotationInput:
    """Rows of a pool, written to ``folder``; those that are no JSON (half of a surrogate is none) are skipped."""
    pool = load_pool(cases.write(folder / "pool.jsonl", rows), on_error="skip", **changes)
    row = np.flatnonzero((pool.status == 0) | (pool.status == REASONS.index("no dialog"))).astype(np.int64)
    return AnnotationInput(PoolRows(pool, row), batch_tokens=batch_tokens)


def kinds() -> list[str]:
    """Of ``cases.AWKWARD``, those that an annotator reads."""
    return [kind for kind in cases.AWKWARD if kind != "half a surrogate"]


def run(kind: type[Annotator], options: Any, inputs: AnnotationInput) -> Ran:
    """As the command does it: every job, then every row."""
    annotator = kind(options, inputs)
    results = []
    for job in annotator.jobs:
        job.prepare()
        out = np.full((len(job.cost), job.width or 0), job.blank, job.dtype)
        for batch, values in job.results(iter(job.plan)):
            assert values.dtype == out.dtype
            out[batch.text] = values
        if job.plan:
            assert (job.flops(job.plan[0]) or 0) > 0
        job.release()
        results.append(out)
    annotations = list(annotator.annotate(tuple(results)))
    assert all(annotation.values.keys() <= set(kind.writes) for annotation in annotations)
    return Ran(annotations, dict(annotator.facts()), list(annotator.jobs), results)
