"""``mig-jax select``: read, encode, embed, select, write; resumable from any crash to the same bytes."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import msgspec
import numpy as np

from mig_jax import __version__
from mig_jax.config import SelectConfig
from mig_jax.encode import Encoded
from mig_jax.engine.checkpoint import Checkpoint, from_bytes, to_bytes
from mig_jax.errors import UserError
from mig_jax.export import Claim, RunFacts, RunnersUp, claim, claim_file, write_run
from mig_jax.export.out_folder import checked_out
from mig_jax.gain import make_phi
from mig_jax.graph import LabelGraph
from mig_jax.inputs import encoded_of, graph_of, mesh_of, pool_of
from mig_jax.pool import Pool
from mig_jax.report.html import page
from mig_jax.runtime import processes
from mig_jax.runtime.progress import Progress, silent
from mig_jax.samplers import Task, find_sampler
from mig_jax.solve import Solved, check_budgets, named_shares, solve

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
    find_sampler(config.sampler.name)
    cache = Path(config.cache).expanduser() if config.cache else None
    with watch.stage("read pool"):
        pool = pool_of(config.pool, config.score, cache, progress)
    with watch.stage("encode"):
        encoded = encoded_of(pool, config.pool, config.score)
    check_budgets(config.budgets, encoded, len(pool))
    with watch.stage("label graph"):
        graph = graph_of(encoded.labels, config.graph, config.embedder, cache, progress)
    key = _run_key(config, pool, encoded, graph)
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
        task = _task(config, pool, encoded, graph, progress, snapshot, checkpoint)
        with watch.stage("select"):
            solved = solve(find_sampler(config.sampler.name), task, config.budgets, config.export.runners_up)
        if claimed is None:
            processes.wait("written")
            return None
        notes += _remarks(solved, encoded, config)
        with watch.stage("check pool"):
            pool.check_unchanged()
        facts = _facts(config, command, key, pool, encoded, graph, solved, watch, claimed, notes)
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


def _task(config: SelectConfig, pool, encoded, graph, progress, snapshot, checkpoint) -> Task:
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
        resume=snapshot,
        on_snapshot=checkpoint,
    )


def _remarks(solved: Solved, encoded: Encoded, config: SelectConfig) -> list[str]:
    """What the selection itself gives reason to say."""
    notes = []
    n, asked = len(solved.order), config.budgets[-1]
    if n < asked:
        notes.append(f"{config.sampler.name} found only {n} rows for n={asked}: its own rules leave no more")
    empty = solved.order.rounds.get("picked_without_gain", 0)
    if empty:
        how = "in file order" if config.sampler.compat else "by score"
        why = " (phi=exp underflows where a label has much mass)" if config.phi.kind == "exp" else ""
        notes.append(f"from pick {n - empty + 1} on no row gains anything{why}: the last {empty} were taken {how}")
    if encoded.dropped:
        total = sum(encoded.dropped.values())
        notes.append(f"{total} rows cannot be used: " + ", ".join(f"{c} {r}" for r, c in encoded.dropped.items()))
    return notes


def _facts(config, command, key, pool: Pool, encoded, graph, solved: Solved, watch, claimed, notes) -> RunFacts:
    c, (near, near_gains, near_labels) = solved.curve, solved.runners_up
    explained = find_sampler(config.sampler.name).by_labels
    rejected = np.flatnonzero(pool.status == 1)
    order = solved.order
    if explained:  # the gains of the trace in float64, of the same formula: equal on every backend
        gains = c.first_order if config.sampler.gain == "first_order" else c.exact
        order = type(order)(order.points, gains, order.reason, order.rounds)
    devices = jax.devices()
    return RunFacts(
        run_key=key,
        command=command,
        config=msgspec.to_builtins(config),
        name=config.pool.name,
        pool=pool,
        encoded=encoded,
        selection=order,
        budgets=config.budgets,
        objective=c.objective,
        random_objective=solved.random_objective,
        certificate={n: {"bound": x.bound, "ratio": x.ratio} for n, x in solved.certificate.items()},
        labels_earned=named_shares(encoded, c.share_ptr, c.share_label, c.share) if explained else (),
        runners_up=RunnersUp(near, near_gains, near_labels) if explained else RunnersUp.none(),
        graph=graph.facts() | {"propagation": config.graph.propagation},
        timings=watch.seconds,
        devices={
            "count": len(devices),
            "kind": devices[0].device_kind,
            "platform": devices[0].platform,
            "processes": jax.process_count(),
        },
        export_layout=config.export.layout,
        sample_file=claimed.sample,
        sample_target=claimed.sample_target,
        rejects=pool.read_rows(rejected) if config.pool.on_error == "skip" and len(rejected) else None,
        notes=tuple(notes),
        orders=solved.orders,
        order_objective={n: float(x.objective[-1]) for n, x in solved.order_curves.items()},
    )
