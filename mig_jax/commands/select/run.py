"""``mig-jax select``: read, encode, embed, select, write; resumable from any crash to the same bytes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import RenderableType

from mig_jax.commands.call import Call
from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.facts import facts_of, remarks
from mig_jax.commands.select.files import write_run
from mig_jax.commands.select.inputs import Inputs, notes_of, prepare, rejected_rows, run_key
from mig_jax.commands.select.solve import Solved, solve
from mig_jax.core import processes
from mig_jax.core.progress import Progress, silent
from mig_jax.engine.checkpoint import Checkpoint, from_bytes, to_bytes
from mig_jax.report import page, summary
from mig_jax.runs.manifest import SelectManifest, read_manifest
from mig_jax.runs.run import Run


def run_select(
    config: SelectConfig,
    command: str,
    *,
    sample_file: str | None = None,
    progress: Progress = silent,
    notify: Callable[[str], None] = lambda text: None,
) -> Path | None:
    """Run one selection; the folder with its files, on the process that wrote it.

    Args:
      config: checked.
      command: the command line, ready to run again, for the manifest.
      sample_file: write the selection here, and the rest into ``FILE.run/`` (``mig-jax sample``).
      notify: receives each note as it is made.

    Raises:
      UserError: a mistake in the input; nothing has been written then.
    """
    settings = msgspec.to_builtins(config)
    with Run(config.out, command, settings, name=config.pool.name, sample_file=sample_file, notify=notify) as run:
        inputs = prepare(config, watch=run.timings, progress=progress, notify=notify)
        if run.claim(run_key(config, inputs), config.overwrite) == "done":
            if run.writes:
                notify(run.done_already)
            return run.out if run.writes else None
        run.note(*notes_of(config, inputs))
        checkpoint = Checkpoint(run.checkpoint, config.engine.checkpoint_every) if run.writes else None
        stored = checkpoint.load(inputs.sampler.state) if checkpoint else None
        snapshot = from_bytes(processes.broadcast_bytes(to_bytes(stored)), inputs.sampler.state)
        if snapshot is not None:
            notify(f"resuming after {len(snapshot.points):,} picks")
        task = replace(inputs.task, resume=snapshot, on_snapshot=checkpoint)
        with run.timings.compiling():
            solved = solve(inputs.sampler, task, inputs.budgets, config.export.runners_up, run.stage)
        for note in solved.order.notes:
            notify(note)
        processes.together(lambda: write_selection(run, config, inputs, solved, progress))
        return run.out if run.writes else None


def write_selection(
    run: Run, config: SelectConfig, inputs: Inputs, solved: Solved, progress: Progress = silent
) -> None:
    """Write and publish all files of a claimed run; nothing on a process that does not write."""
    if not run.writes:
        return
    pool = inputs.pool
    run.notes += remarks(solved, inputs.task, config.sampler.name, inputs.budgets[-1], config.phi.kind)
    facts = facts_of(
        pool,
        inputs.task,
        inputs.graph,
        inputs.sampler,
        solved,
        inputs.budgets,
        export_layout=config.export.layout,
        rejected=rejected_rows(inputs),
    )
    progress("write", 0, None)
    write_run(run, facts)
    run.write_report(page(run.files))
    pool.check_unchanged()
    run.publish()


def run(config: SelectConfig, call: Call) -> RenderableType:
    """The command, for the registry: the summary to print."""
    folder = run_select(config, call.line, sample_file=call.sample_file, progress=call.progress, notify=call.notify)
    if folder is None:  # another process has written the files
        return ""
    stats = json.loads((folder / "pool_stats.json").read_text(encoding="utf-8"))
    return summary(read_manifest(folder, SelectManifest), stats, folder)
