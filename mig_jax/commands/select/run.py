"""``mig-jax select``: read, encode, embed, select, write; resumable from any crash to the same bytes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.facts import facts_of, remarks
from mig_jax.commands.select.files import write_run
from mig_jax.commands.select.inputs import notes_of, prepare, rejected_rows, run_key
from mig_jax.commands.select.solve import solve
from mig_jax.core import processes
from mig_jax.core.memory import PeakMemory
from mig_jax.core.progress import Progress, silent
from mig_jax.core.timing import Stopwatch
from mig_jax.engine.checkpoint import Checkpoint, from_bytes, to_bytes
from mig_jax.report import page
from mig_jax.runs.out_folder import checked_out, missing_above, remove_empty
from mig_jax.runs.staging import Claim, claim, claim_file


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
    processes.together(lambda: _check_out(config, sample_file))
    inputs = prepare(config, watch=watch, progress=progress, notify=tell)
    pool, graph, task = inputs.pool, inputs.graph, inputs.task
    key = run_key(config, inputs)
    above = missing_above(out)
    claimed = processes.together(lambda: _claim(out, key, config.overwrite, sample_file is not None))
    try:
        if processes.share(np.int64(claimed is not None and claimed.state == "done")):
            if claimed is None:
                return None
            tell(f"{sample_file or config.out} holds this very run already; overwrite=true would do it again")
            return claimed.out
        notes = [*notes_of(config, inputs), *(claimed.notes if claimed else ())]
        rejected = rejected_rows(inputs)
        if rejected:
            rows = "1 faulty row was" if len(rejected) == 1 else f"{len(rejected):,} faulty rows were"
            notes.append(f"{rows} passed over; rejects.jsonl has them, rejects.txt says why")
        for note in notes:
            tell(note)
        checkpoint = Checkpoint(claimed.checkpoint, config.engine.checkpoint_every) if claimed else None
        stored = checkpoint.load(inputs.sampler.state) if checkpoint else None
        snapshot = from_bytes(processes.share_bytes(to_bytes(stored)), inputs.sampler.state)
        if snapshot is not None:
            tell(f"resuming after {len(snapshot.points):,} picks")
        task = replace(task, resume=snapshot, on_snapshot=checkpoint)
        with watch.compiling():
            solved = solve(inputs.sampler, task, inputs.budgets, config.export.runners_up, watch.stage)
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
                inputs.sampler,
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


def _check_out(config: SelectConfig, sample_file: str | None) -> None:
    """Refuse an output path that cannot be written, before gigabytes are read."""
    if processes.is_main():
        checked_out(f"{sample_file}.run" if sample_file else config.out, "--out FILE.run" if sample_file else "out")


def _claim(out: Path, key: str, overwrite: bool, file: bool) -> Claim | None:
    """The claim, on the main process; None on the others, which write nothing."""
    if not processes.is_main():
        return None
    return (claim_file if file else claim)(out, key, overwrite)
