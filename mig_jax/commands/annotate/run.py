"""``mig-jax annotate``: rows in, annotated rows out; the same bytes after any crash, by any number of processes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import msgspec
import numpy as np

from mig_jax.batch import BatchRun, ProcessGroup, already_done, finished_without, partition_done, process_group
from mig_jax.commands.annotate.annotator import AnnotationInput, Annotator, PoolRows
from mig_jax.commands.annotate.annotators import NAMES, annotator_names, find_annotator
from mig_jax.commands.annotate.config import AnnotateConfig
from mig_jax.commands.annotate.estimate import estimate
from mig_jax.commands.annotate.files import write_manifest, write_rows
from mig_jax.commands.annotate.summary import summary
from mig_jax.commands.call import Call, ignore
from mig_jax.config.struct import key_of
from mig_jax.core import processes
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.core.version import VERSION
from mig_jax.labels.valid_tags import read_valid_tags
from mig_jax.models.configured import models_mesh
from mig_jax.pool import REASONS, Pool
from mig_jax.pool.configured import pool_of
from mig_jax.report.annotation_page import page
from mig_jax.runs.manifest import AnnotateManifest, read_manifest
from mig_jax.runs.result import Result
from mig_jax.runs.run import Run

NO_DIALOG = REASONS.index("no dialog")


class Prepared(NamedTuple):
    """Everything that is known before the first model runs."""

    inputs: AnnotationInput
    annotators: dict[str, Annotator]
    key: str

    @property
    def rows(self) -> PoolRows:
        """The rows that are annotated."""
        return self.inputs.rows


def run_annotate(
    config: AnnotateConfig,
    command: str,
    *,
    progress: Progress = silent,
    notify: Callable[[str], None] = ignore,
) -> Result:
    """Annotate the rows of a configuration and write the files of ``files.py``; with ``plan`` only estimate the time.

    Args:
      config: checked.
      command: the command line that repeats the run, for the manifest.
      progress: of each job in rows, weighed by their tokens; of this process's batches.
      notify: receives notes for the user.

    Raises:
      UserError: a mistake in the input; finished batches stay on disk.
    """
    group = process_group(config.mesh)
    with Run(config.out, command, msgspec.to_builtins(config), notify=notify) as run, run.timings.compiling():
        prepared = processes.together(lambda: _prepare(config, run, progress))
        if config.plan:
            planned = estimate(prepared.annotators, len(prepared.rows), progress, notify)
            return Result(None, planned.text() if group.is_main else "")
        state = run.join(prepared.key, config.overwrite, process=group.process, count=group.processes)
        if state == "done":
            manifest = read_manifest(run.out, AnnotateManifest)
            return Result(run.out, summary(manifest, config.out), already_done(run, group))
        batch_runs = _compute(config, prepared, run, group, progress)
        if batch_runs is None:
            return Result(None, finished_without(run, group))
        manifest = processes.together(
            lambda: _write(config, prepared, run, batch_runs, progress) if group.is_main else None
        )
        if manifest is None:
            every = (batch_run for several in batch_runs.values() for batch_run in several)
            return Result(None, partition_done(every, group) if processes.is_main() else "")
        return Result(run.out, summary(manifest, config.out))


def _prepare(config: AnnotateConfig, run: Run, progress: Progress) -> Prepared:
    """The pool, the models, and the run's key; every mistake in the input is found here."""
    names = annotator_names(config.annotators)
    if config.pool.valid_tags is not None:
        read_valid_tags(config.pool.valid_tags)  # before reading gigabytes
    mesh = models_mesh(config.mesh, alone=False)
    cache = Path(config.cache).expanduser() if config.cache else None
    with run.stage("read"):
        pool = pool_of(config.pool, (), cache, progress)
    check_out_and_pool(config, pool)
    row = np.flatnonzero((pool.status == 0) | (pool.status == NO_DIALOG))[: config.rows].astype(np.int64)
    batch_tokens = config.annotate.batch_tokens
    inputs = AnnotationInput(
        rows=PoolRows(pool, row, config.rows is None),
        mesh=mesh,
        batch_tokens=None if batch_tokens == "auto" else batch_tokens,
        embedder=config.embedder,
        valid_tags=config.pool.valid_tags,
        cache=cache,
        progress=progress,
    )
    annotators: dict[str, Annotator] = {}
    for name in names:
        options = getattr(config, name)
        with run.stage("find models"):
            annotators[name] = find_annotator(name, getattr(options, "name", None))(options, inputs)
    decides = {
        "version": VERSION,
        "files": [source.sha256 for source in pool.sources],
        "config": key_of(config, without=("pool.name", "embedder", "annotators", "annotate.batch_tokens", *NAMES)),
        "options": {
            name: key_of(getattr(config, name), without=("model", "complexity", "quality")) for name in annotators
        },
        "batch_tokens": batch_tokens,
        # Other machines and meshes add up in other orders: their shards must not be mixed.
        "on": [jax.default_backend(), None if mesh is None else dict(mesh.shape)],
        "annotators": [
            [name, annotator.key, [[job.name, job.key] for job in annotator.jobs]]
            for name, annotator in annotators.items()
        ],
    }
    key = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
    return Prepared(inputs, annotators, key)


def check_out_and_pool(config: AnnotateConfig, pool: Pool) -> None:
    """Raise UserError where the output would be inside the pool or hold it, or where pool.jsonl would mix layouts."""
    out = Path(config.out).resolve()
    inside = [
        source.path for source in pool.sources if source.format != "hf" and out in Path(source.path).resolve().parents
    ]
    if inside:
        raise UserError(f"holds {inside[0]}, which is read; name another folder", key="out", value=config.out)
    for path in config.pool.paths:
        if Path(path).is_dir() and Path(path).resolve() in out.parents:
            raise UserError(
                f"is inside {path}, which is the pool: its rows would count twice the next time",
                key="out",
                value=config.out,
            )
    layouts = sorted({source.layout for source in pool.sources if source.layout})
    if len(layouts) > 1:
        raise UserError(
            f"files of several layouts ({', '.join(layouts)}), and one pool.jsonl holds one; annotate the files of "
            "each layout in a run of their own: mig-jax select takes several folders, as pool.path=[a,b]",
            key="pool.path",
        )


def _compute(
    config: AnnotateConfig, prepared: Prepared, run: Run, group: ProcessGroup, progress: Progress
) -> dict[str, list[BatchRun]] | None:
    """Compute this process's batches of every job, one model after the other; wait for the others'.

    Returns:
      annotator -> the runs of its jobs; None where process 0 has published the results without this process.
    """
    batch_runs: dict[str, list[BatchRun]] = {}
    rows_progress = in_rows(progress, len(prepared.rows))
    for name, annotator in prepared.annotators.items():
        batch_runs[name] = []
        for job in annotator.jobs:
            with run.stage("tokenize"):
                job.prepare(progress)
            run.note(*job.notes)
            # Named by the plan's digest: a setting that is missing in the run's key cannot mix shards of two plans.
            batch_run = BatchRun(job, run.checkpoint / f"{name}-{job.name}-{job.plan_digest()[:12]}")
            with run.stage(job.name):
                there = batch_run.compute(group, config.annotate.save_every, rows_progress, run.notify)
            if not there:
                return None
            batch_runs[name].append(batch_run)
    if group.is_main or jax.process_count() > 1:
        with run.stage("wait"):
            for batch_run in (batch_run for several in batch_runs.values() for batch_run in several):
                batch_run.wait(group, progress, run.notify)
    return batch_runs


def in_rows(progress: Progress, rows: int) -> Progress:
    """A progress of tokens as one of rows: when half of the tokens are done, half of the rows are."""

    def tokens_to_rows(stage: str, done: int, total: int | None, unit: str = "", /) -> None:
        progress(stage, done * rows // total if total else rows, rows, "rows")

    return tokens_to_rows


def _write(
    config: AnnotateConfig,
    prepared: Prepared,
    run: Run,
    batch_runs: dict[str, list[BatchRun]],
    progress: Progress,
) -> AnnotateManifest:
    """Assemble the results, write every row once, publish; the manifest."""
    rows, annotators = prepared.rows, prepared.annotators
    with run.stage("write"):
        results = {name: tuple(_results(one, progress) for one in several) for name, several in batch_runs.items()}
        annotations = {name: annotator.annotate(results[name]) for name, annotator in annotators.items()}
        writes = {name: annotator.writes for name, annotator in annotators.items()}
        stats = write_rows(run.files, rows, annotations, writes, config.pool.on_error == "skip", progress)
        rows.pool.check_unchanged()
    manifest = write_manifest(run, rows, stats, annotators, batch_runs, prepared.inputs.mesh)
    run.write_report(page(run.files))
    run.publish()
    return manifest


def _results(batch_run: BatchRun, progress: Progress) -> np.ndarray:
    file = batch_run.shards.folder.with_suffix(".npy")
    batch_run.assemble(file, progress)
    return np.load(file, mmap_mode="r", allow_pickle=False)


def run(config: AnnotateConfig, call: Call) -> str:
    """The command, for the registry: the text to print."""
    result = run_annotate(config, call.line, progress=call.progress, notify=call.notify)
    if result.note is not None:
        call.notify(result.note)
    return result.text + "\n" if result.text else ""
