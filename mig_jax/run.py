"""``mig-jax select``: read, encode, embed, select, write; resumable from any crash to the same bytes."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import msgspec
import numpy as np

from mig_jax import __version__
from mig_jax.config import SelectConfig
from mig_jax.encode import Encoded
from mig_jax.engine.checkpoint import Checkpoint, from_bytes, to_bytes
from mig_jax.errors import UserError
from mig_jax.export import Claim, claim, claim_file, write_run
from mig_jax.export.out_folder import checked_out
from mig_jax.gain import make_phi
from mig_jax.graph import LabelGraph
from mig_jax.inputs import encoded_of, graph_of, mesh_of, pool_of
from mig_jax.pool import REASONS, Pool
from mig_jax.report import page
from mig_jax.run_facts import facts_of, remarks
from mig_jax.runtime import processes
from mig_jax.runtime.progress import Progress, silent
from mig_jax.samplers import Task, find_sampler
from mig_jax.solve import check_budgets, solve

FRESH, RESUME, DONE, REFUSED = range(4)


class Stopwatch:
    """Seconds by stage, in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


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
    watch = Stopwatch()
    out = Path(sample_file or config.out)
    if processes.is_main() and sample_file is None:
        checked_out(out)  # before reading gigabytes
    cache = Path(config.cache).expanduser() if config.cache else None
    with watch.stage("read pool"):
        pool = pool_of(config.pool, config.score, cache, progress)
    with watch.stage("encode"):
        encoded = encoded_of(pool, config.pool, config.score)
    check_budgets(config.budgets, encoded, len(pool))
    with watch.stage("label graph"):
        graph = graph_of(encoded.labels, config.graph, config.embedder, cache, progress)
    key = _run_key(config, pool, encoded, graph)
    sampler = find_sampler(config.sampler.name)
    task = _task(config, pool, encoded, graph, progress)
    claimed, snapshot = _claim(out, key, config.overwrite, file=sample_file is not None)
    if claimed == DONE:
        if processes.is_main():
            tell(f"{out} holds this very run already; overwrite=true would do it again")
            return Path(f"{out}.run") if sample_file else out
        return None
    notes = [*graph.warnings(), *(claimed.notes if isinstance(claimed, Claim) else ())]
    for note in notes:
        tell(note)
    try:
        checkpoint = Checkpoint(claimed.checkpoint, config.engine.checkpoint_every) if claimed else None
        if snapshot is not None:
            tell(f"resuming after {len(snapshot.rows)} picks")
        task = replace(task, resume=snapshot, on_snapshot=checkpoint)
        with watch.stage("select"):
            solved = solve(sampler, task, config.budgets, config.export.runners_up)
        if claimed is None:
            processes.wait("written")
            return None
        notes += remarks(
            solved, encoded, config.sampler.name, config.budgets[-1], config.sampler.compat, config.phi.kind
        )
        rejected = np.flatnonzero(pool.status == REASONS.index("malformed"))
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
            config.budgets,
            timings=watch.seconds,
            export_layout=config.export.layout,
            sample_file=claimed.sample,
            sample_target=claimed.sample_target,
            rejects=pool.read_rows(rejected) if len(rejected) else None,
            notes=tuple(notes),
        )
        progress("write", 0, None)
        write_run(claimed.files, facts, page)
        pool.check_unchanged()
        claimed.publish()
        processes.wait("written")
        return claimed.out
    finally:
        if claimed is not None:
            claimed.release()


def _run_key(config: SelectConfig, pool: Pool, encoded: Encoded, graph: LabelGraph) -> str:
    """sha256 of what decides the files: settings, contents of the inputs, version."""
    decides = {
        "version": __version__,
        "config": config.decides(),
        "files": [source.sha256 for source in pool.sources],
        "labels": hashlib.sha256("\0".join(encoded.labels).encode("utf-8", "surrogatepass")).hexdigest(),
        "graph": graph.digest(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def _claim(out: Path, key: str, overwrite: bool, file: bool):
    """(claim, snapshot) on the main process, (None, snapshot) on the others, (DONE, None) where nothing is to do."""
    claimed, code, data = None, FRESH, b""
    error: UserError | None = None
    if processes.is_main():
        try:
            claimed = (claim_file if file else claim)(out, key, overwrite)
            code = {"fresh": FRESH, "resume": RESUME, "done": DONE}[claimed.state]
            if code == RESUME:
                data = to_bytes(Checkpoint(claimed.checkpoint, 0).load())
        except UserError as refused:
            code, error = REFUSED, refused
    code = int(processes.share(np.int64(code)))
    if error is not None:
        raise error
    if code == REFUSED:
        raise UserError(f"{out}: refused by the main process, which says why")
    if code == DONE:
        if claimed is not None:
            claimed.release()
        return DONE, None
    return claimed, from_bytes(processes.share_bytes(data))


def _task(config: SelectConfig, pool: Pool, encoded: Encoded, graph: LabelGraph, progress: Progress) -> Task:
    phi = config.phi
    return Task(
        encoded,
        graph.propagation(config.graph.propagation),
        make_phi(phi.kind, exponent=phi.exponent, eps=phi.eps, alpha=phi.alpha, c=phi.c),
        pool.ifd[encoded.row],
        gain=config.sampler.gain,
        compat=config.sampler.compat,
        seed=config.seed,
        mesh=mesh_of(config.mesh),
        c1=config.engine.c1,
        c2=config.engine.c2,
        segment=config.engine.segment,
        progress=progress,
    )
