"""``mig-jax select``: read, encode, embed, select, write; resumable from any crash to the same bytes."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.facts import facts_of, remarks
from mig_jax.commands.select.files import write_run
from mig_jax.commands.select.inputs import columns_of, encoded_of, mesh_of, ranking_of
from mig_jax.commands.select.limits import check_refused, limits_of
from mig_jax.commands.select.row_embeddings import row_embeddings, vectors_of
from mig_jax.commands.select.solve import budgets_of, solve
from mig_jax.core import processes
from mig_jax.core.memory import PeakMemory
from mig_jax.core.progress import Progress, silent
from mig_jax.core.timing import Stopwatch
from mig_jax.core.version import VERSION
from mig_jax.encode import Encoded, factor_names
from mig_jax.encode.score import NONE
from mig_jax.engine.checkpoint import Checkpoint, from_bytes, to_bytes
from mig_jax.labels import LabelGraph
from mig_jax.labels.configured import graph_of
from mig_jax.objective import Phi, make_phi
from mig_jax.objective.config import PhiConfig
from mig_jax.pool import Pool
from mig_jax.pool.configured import pool_of
from mig_jax.report import page
from mig_jax.runs.out_folder import checked_out, missing_above, remove_empty
from mig_jax.runs.staging import Claim, claim, claim_file
from mig_jax.samplers import Limits, Sampler, Task, find_sampler
from mig_jax.samplers.task import rows_of


def run_select(
    config: SelectConfig,
    command: str,
    *,
    sample_file: str | None = None,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda text: None,
) -> Path | None:
    """Run one selection; the folder with its files, on the process that wrote it.

    Args:
      config: checked.
      command: how to run it again, for the manifest.
      sample_file: write the selection here, and the rest into ``FILE.run/`` (``mig-jax sample``).
      tell: told notes for a person.

    Raises:
      UserError: a mistake in the input; nothing has been written then.
    """
    watch, peak = Stopwatch(), PeakMemory()
    out = Path(sample_file or config.out)
    sampler = find_sampler(config.sampler.name)
    inputs = processes.together(lambda: _prepare(config, sampler, sample_file, watch, progress))
    pool, encoded, graph, task = inputs.pool, inputs.encoded, inputs.graph, inputs.task
    stored = None
    if "vectors" in sampler.needs:
        with watch.stage("row embeddings"):
            stored = row_embeddings(config, pool, progress, tell)
            task = replace(task, vectors=processes.together(lambda: vectors_of(stored.array, pool, encoded, progress)))
    key = _run_key(config, pool, encoded, graph, task.limit, None if stored is None else stored.sha256)
    above = missing_above(out)
    claimed = processes.together(lambda: _claim(out, key, config.overwrite, sample_file is not None))
    try:
        if processes.share(np.int64(claimed is not None and claimed.state == "done")):
            if claimed is None:
                return None
            tell(f"{sample_file or config.out} holds this very run already; overwrite=true would do it again")
            return claimed.out
        hint = [config.pool.note] if config.pool.note and config.pool.valid_tags is None else []
        of_score = [*_bare(encoded, config.score.source), *_misaligned(pool, encoded, config.score.source)]
        notes = [*hint, *of_score, *graph.warnings(), *(claimed.notes if claimed else ())]
        rejected = _rejected(pool, encoded)
        if rejected:
            rows = "1 faulty row was" if len(rejected) == 1 else f"{len(rejected):,} faulty rows were"
            notes.append(f"{rows} passed over; rejects.jsonl has them, rejects.txt says why")
        for note in notes:
            tell(note)
        checkpoint = Checkpoint(claimed.checkpoint, config.engine.checkpoint_every) if claimed else None
        snapshot = from_bytes(processes.share_bytes(to_bytes(checkpoint.load() if checkpoint else None)))
        if snapshot is not None:
            tell(f"resuming after {len(snapshot.rows):,} picks")
        task = replace(task, resume=snapshot, on_snapshot=checkpoint)
        with watch.compiling():
            solved = solve(sampler, task, inputs.budgets, config.export.runners_up, watch.stage)
        for note in solved.order.notes:
            tell(note)

        def write() -> None:
            if claimed is None:
                return
            more = remarks(solved, task, config.sampler.name, inputs.budgets[-1], config.phi.kind)
            facts = facts_of(
                key,
                command,
                msgspec.to_builtins(config),
                config.pool.name,
                pool,
                task,
                graph,
                sampler,
                solved,
                inputs.budgets,
                timings=watch.seconds,
                memory=peak.facts,
                export_layout=config.export.layout,
                sample_file=claimed.sample,
                sample_target=claimed.sample_target,
                rejects=pool.read_rows(np.array([*rejected], np.int64)) if rejected else None,
                reject_reasons=tuple(f"{pool.where(row)}: {reason}" for row, reason in rejected.items()),
                notes=(*notes, *more),
            )
            progress("write", 0, None)
            write_run(claimed.files, facts, page)
            pool.check_unchanged()
            claimed.publish()

        processes.together(write)
        return claimed.out if claimed else None
    finally:
        if claimed is not None:
            claimed.release()
            remove_empty(above)


class _Inputs(NamedTuple):
    """What a selection starts from."""

    pool: Pool
    encoded: Encoded
    graph: LabelGraph
    task: Task
    budgets: tuple[int, ...]


def _prepare(
    config: SelectConfig, sampler: Sampler, sample_file: str | None, watch: Stopwatch, progress: Progress
) -> _Inputs:
    """The inputs of a selection, and the task; every mistake in them is met here."""
    if processes.is_main():  # before reading gigabytes
        checked_out(f"{sample_file}.run" if sample_file else config.out, "--out FILE.run" if sample_file else "out")
    mesh, phi = mesh_of(config.mesh), _phi(config.phi)
    cache = Path(config.cache).expanduser() if config.cache else None
    with watch.stage("read pool"):
        pool = pool_of(config.pool, columns_of(config), cache, progress)
    with watch.stage("encode"):
        encoded = encoded_of(pool, config.pool, config.score, bare="labels" not in sampler.needs)
    budgets = budgets_of(sampler, config.budgets, encoded, len(pool))
    limits = limits_of(config.limits, pool, encoded, budgets if config.budgets and not sampler.whole else ())
    check_refused(sampler, config.sampler.name, limits)
    ranking = ranking_of(config.sampler, config.score.source, config.score.turns, pool, encoded)
    with watch.stage("label graph"):
        graph = graph_of(encoded.labels, config.graph, config.embedder, cache, progress, config.mesh)
    task = Task(
        encoded,
        graph.propagation(config.graph.propagation),
        phi,
        config.sampler,
        ranking=ranking,
        rows=rows_of(pool, encoded) if "rows" in sampler.needs else None,
        limits=limits,
        seed=config.seed,
        mesh=mesh,
        shortlist_size=config.engine.shortlist,
        picks_per_call=config.engine.picks_per_call,
        heap_device=config.engine.heap_device,
        progress=progress,
    )
    return _Inputs(pool, encoded, graph, task, budgets)


def _bare(encoded: Encoded, score: str) -> list[str]:
    """That a pool has no labels or no scores, where it has none; ``score``: what was asked for."""
    lacking = []
    if not encoded.labels:
        lacking.append("the pool has no tags: labels, E(D) and what follows from it are not known")
    if not encoded.scored:
        none = "every row counts 1" if score == NONE else "no row has a score"
        lacking.append(f"score.from={score}: {none}, and none is better than another")
    return lacking


def _misaligned(pool: Pool, encoded: Encoded, score: str) -> list[str]:
    """That an IFD above 1 is no merit, where the score makes one of it."""
    above = int((pool.ifd[encoded.row] > 1).sum()) if "ifd" in factor_names(score) else 0
    told = f"{above:,} of {len(encoded):,} rows have an IFD above 1: their instruction does not help with the answer"
    return [f"{told}. IFD's own selection leaves such rows out; this score ranks them high"] if above else []


def _rejected(pool: Pool, encoded: Encoded) -> dict[int, str]:
    """The rows that would have stopped the run without pool.on_error=skip, and why."""
    faulty = {int(row): "its score is negative or not a usable number" for row in encoded.faulty}
    return dict(sorted((faulty | pool.no_objects()).items()))


def _run_key(
    config: SelectConfig, pool: Pool, encoded: Encoded, graph: LabelGraph, limits: Limits, vectors: str | None
) -> str:
    """sha256 of what decides the files: settings, contents of the inputs, version."""
    decides = {
        "version": VERSION,
        "config": config.decides(),
        "files": [source.sha256 for source in pool.sources],
        "labels": encoded.labels_digest(),  # what pool.valid_tags and its aliases made of the rows' tags
        "graph": graph.digest(),
        "limits": limits.digest(),
        "embeddings": vectors,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def _claim(out: Path, key: str, overwrite: bool, file: bool) -> Claim | None:
    """The claim, on the main process; None on the others, which write nothing."""
    if not processes.is_main():
        return None
    return (claim_file if file else claim)(out, key, overwrite)


def _phi(config: PhiConfig) -> Phi:
    return make_phi(config.kind, exponent=config.exponent, eps=config.eps, alpha=config.alpha, c=config.c)
