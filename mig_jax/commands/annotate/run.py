"""``mig-jax annotate``: rows in, annotated rows out; the same bytes after any crash, by any number of processes."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np

from mig_jax.batch import Running, Team, claim_together, done_already, plan_digest, team_of, too_late
from mig_jax.commands.annotate.annotator import Annotator, Prepared, Rows, Task
from mig_jax.commands.annotate.annotators import chosen, find_annotator
from mig_jax.commands.annotate.config import AnnotateConfig
from mig_jax.commands.annotate.estimate import estimate
from mig_jax.commands.annotate.files import Written, write_manifest, write_rows
from mig_jax.commands.annotate.summary import summary
from mig_jax.commands.call import Call
from mig_jax.core import processes
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.core.timing import Stopwatch
from mig_jax.core.version import VERSION
from mig_jax.labels.valid_tags import read_valid_tags
from mig_jax.models.configured import models_mesh
from mig_jax.pool import REASONS, Pool
from mig_jax.pool.configured import pool_of
from mig_jax.report.annotation_page import page
from mig_jax.runs.manifest import REPORT, read_plain
from mig_jax.runs.out_folder import checked_out, missing_above, remove_empty
from mig_jax.runs.staging import Claim

NO_DIALOG = REASONS.index("no dialog")


@dataclass(frozen=True)
class Annotated:
    """What a run says at its end.

    Args:
      folder: with the files; None on a process that leaves the end to another, and where nothing was to be written.
      text: for a person.
    """

    folder: Path | None
    text: str


class _Prepared(NamedTuple):
    """Everything that is known before the first model runs."""

    rows: Rows
    annotators: dict[str, tuple[Annotator, Prepared]]
    key: str


def run_annotate(
    config: AnnotateConfig,
    command: str,
    *,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda text: None,
) -> Annotated:
    """Annotate the rows of a configuration and write the files of ``files.py``; with ``plan`` only say what it takes.

    Args:
      config: checked.
      command: how to run it again, for the manifest.
      progress: told each pass with its share of the rows: rows weigh as much as their tokens.
      tell: told notes for a person.

    Raises:
      UserError: a mistake in the input; finished batches are kept.
    """
    watch, team = Stopwatch(), team_of(config.mesh)
    with watch.compiling():
        ready = processes.together(lambda: _prepare(config, watch, progress))
        if config.plan:
            return Annotated(
                None, estimate(ready.annotators, len(ready.rows), progress, tell).text() if team.is_main else ""
            )
        out, key, above = config.out, ready.key, missing_above(config.out)
        claimed = claim_together(team, out, key, config.overwrite)
        try:
            if claimed.state == "done":
                tell(done_already(team, out))
                return Annotated(claimed.out, summary(read_plain(claimed.out), out))
            for note in claimed.notes:
                tell(note)
            try:
                running = _passes(config, ready, claimed, team, watch, progress, tell)
            except FileNotFoundError:
                if team.is_main or claimed.checkpoint.is_dir():
                    raise
                return Annotated(None, too_late(claimed, key, out, team))
            manifest = processes.together(
                lambda: _finish(config, command, ready, claimed, running, watch, progress) if team.is_main else None
            )
            if manifest is None:
                return Annotated(None, _told(running, team) if processes.is_main() else "")
            return Annotated(claimed.out, summary(manifest, out))
        finally:
            claimed.release()
            remove_empty(above)


def _prepare(config: AnnotateConfig, watch: Stopwatch, progress: Progress) -> _Prepared:
    """The pool, the models, and the run's key; every mistake in the input is met here."""
    checked_out(config.out)  # before reading gigabytes
    names = chosen(config.annotators)
    if config.pool.valid_tags is not None:
        read_valid_tags(config.pool.valid_tags)  # it can be refused as early
    mesh = models_mesh(config.mesh, alone=False)
    cache = Path(config.cache).expanduser() if config.cache else None
    with watch.stage("read"):
        pool = pool_of(config.pool, (), cache, progress)
    check_places(config, pool)
    row = np.flatnonzero((pool.status == 0) | (pool.status == NO_DIALOG))[: config.rows].astype(np.int64)
    asked = config.annotate.batch_tokens
    task = Task(
        Rows(pool, row, config.rows is None),
        mesh,
        None if asked == "auto" else asked,
        config.embedder,
        config.pool.valid_tags,
        cache,
        progress,
    )
    annotators: dict[str, tuple[Annotator, Prepared]] = {}
    for name in names:
        options = getattr(config, name)
        annotator = find_annotator(name, getattr(options, "name", None))
        with watch.stage("find models"):
            annotators[name] = annotator, annotator.prepare(options, task)
    decides = {
        "version": VERSION,
        "files": [source.sha256 for source in pool.sources],
        "pool": [config.pool.layout, config.pool.fields, config.pool.on_error],
        "rows": config.rows,
        "batch_tokens": asked,
        # Other machines and meshes add up in other orders: their shards are not to be mixed.
        "on": [jax.default_backend(), None if mesh is None else dict(mesh.shape)],
        "annotators": [
            [name, prepared.key, [[one.name, one.key] for one in prepared.passes]]
            for name, (_, prepared) in annotators.items()
        ],
    }
    key = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
    return _Prepared(task.rows, annotators, key)


def check_places(config: AnnotateConfig, pool: Pool) -> None:
    """Raises UserError where the output would lie on or within what is read, or could not be read again."""
    out = Path(config.out).resolve()
    inside = [
        source.path for source in pool.sources if source.format != "hf" and out in Path(source.path).resolve().parents
    ]
    if inside:
        raise UserError(f"out={config.out}: holds {inside[0]}, which is read; name another folder")
    for path in config.pool.paths:
        if Path(path).is_dir() and Path(path).resolve() in out.parents:
            raise UserError(
                f"out={config.out}: lies in {path}, which is the pool: its rows would count twice the next time"
            )
    layouts = sorted({source.layout for source in pool.sources if source.layout})
    if len(layouts) > 1:
        raise UserError(
            f"pool.path: files of several layouts ({', '.join(layouts)}), and one pool.jsonl holds one; annotate those "
            "of each layout by themselves: mig-jax select takes several folders, as pool.path=[a,b]"
        )


def _passes(
    config: AnnotateConfig,
    ready: _Prepared,
    claimed: Claim,
    team: Team,
    watch: Stopwatch,
    progress: Progress,
    tell: Callable[[str], None],
) -> dict[str, list[Running]]:
    """This process's share of every pass, one model after the other; then see that the others' are there."""
    running: dict[str, list[Running]] = {}
    for name, (_, prepared) in ready.annotators.items():
        running[name] = []
        for one in prepared.passes:
            with watch.stage("tokenize"):
                job = one.prepare(progress)
            for note in job.notes:
                tell(note)
            # By the plan's digest: whatever the run's key leaves out, no shard is taken for one of another plan.
            folder = claimed.checkpoint / f"{name}-{one.name}-{plan_digest(job)[:12]}"
            if team.is_main or claimed.checkpoint.is_dir():  # gone: process 0 was done without us
                folder.mkdir(exist_ok=True)
            now = Running.begin(one.name, job, folder)
            told = in_rows(progress, len(ready.rows))
            with watch.stage(one.name):
                now.share(team, config.annotate.save_every, told, tell)
            now.let_go(lambda one=one: one.prepare(silent))  # before the next pass tokenises
            del job
            running[name].append(now)
    if team.is_main or jax.process_count() > 1:
        with watch.stage("wait"):
            for now in (now for several in running.values() for now in several):
                now.wait(team, progress, tell)
    return running


def in_rows(progress: Progress, rows: int) -> Progress:
    """Progress of tokens, told in rows: of a pass that is half done by its tokens, half the rows are."""

    def told(stage: str, done: int, total: int | None, unit: str = "", /) -> None:
        progress(stage, done * rows // total if total else rows, rows, "rows")

    return told


def _finish(
    config: AnnotateConfig,
    command: str,
    ready: _Prepared,
    claimed: Claim,
    running: dict[str, list[Running]],
    watch: Stopwatch,
    progress: Progress,
) -> dict[str, Any]:
    """Put the results together, write every row once, publish; the manifest."""
    results: dict[str, tuple[np.ndarray, ...]] = {}
    with watch.stage("write"):
        for name, several in running.items():
            found = []
            for now in several:
                file = now.shards.folder.with_suffix(".npy")
                now.assemble(file, progress)
                found.append(np.load(file, mmap_mode="r", allow_pickle=False))
            results[name] = tuple(found)
        said = {name: prepared.say(results[name]) for name, (_, prepared) in ready.annotators.items()}
        writes = {name: annotator.writes for name, (annotator, _) in ready.annotators.items()}
        written: Written = write_rows(claimed.files, ready.rows, said, writes, config.pool.on_error == "skip", progress)
        ready.rows.pool.check_unchanged()
    facts = {name: dict(prepared.facts()) for name, (_, prepared) in ready.annotators.items()}
    settings = msgspec.to_builtins(config)
    manifest = write_manifest(
        claimed.files, ready.key, command, settings, ready.rows, written, facts, running, watch.seconds
    )
    (claimed.files / REPORT).write_text(page(claimed.files), encoding="utf-8", newline="\n")
    claimed.publish()
    return manifest


def _told(running: dict[str, list[Running]], team: Team) -> str:
    shares = [
        f"{len(team.share(len(now.job.plan))):,} of {len(now.job.plan):,} batches of {now.name}"
        for several in running.values()
        for now in several
    ]
    return (
        f"process {team.process} of {team.processes}: its share is done ({', '.join(shares) or 'no model ran'}); "
        "process 0 puts all together"
    )


def run(config: AnnotateConfig, call: Call) -> str:
    """The command, for the registry: the text to print."""
    made = run_annotate(config, call.line, progress=call.progress, tell=call.notify)
    return made.text + "\n" if made.text else ""
