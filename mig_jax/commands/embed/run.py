"""``mig-jax embed``: texts in, a matrix out; the same bytes after any crash, by any number of processes."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import msgspec

from mig_jax.batch import (
    BatchRun,
    EmbeddingJob,
    ProcessGroup,
    already_done,
    finished_without,
    partition_done,
    process_group,
)
from mig_jax.commands.call import Call, ignore
from mig_jax.commands.embed.config import EmbedConfig
from mig_jax.commands.embed.files import EMBEDDINGS, summary, texts_without_tokens, write_manifest
from mig_jax.commands.embed.texts import Texts, texts_of
from mig_jax.config.struct import key_of
from mig_jax.core import processes
from mig_jax.core.progress import Progress, silent
from mig_jax.core.version import VERSION
from mig_jax.models.configured import folder_settings, models_mesh, spec_of
from mig_jax.models.inference.embed import find_embedder
from mig_jax.models.inference.packing import usual_batch_tokens
from mig_jax.pool import Pool
from mig_jax.runs.manifest import EmbedManifest, read_manifest
from mig_jax.runs.result import Result
from mig_jax.runs.run import Run


class Prepared(NamedTuple):
    """Everything that is known before the model runs."""

    texts: Texts
    job: EmbeddingJob
    key: str


def run_embed(
    config: EmbedConfig,
    command: str,
    *,
    pool: Pool | None = None,
    progress: Progress = silent,
    notify: Callable[[str], None] = ignore,
) -> Result:
    """Embed the texts of a configuration and write the files of ``files.py``.

    Args:
      config: checked.
      command: the command line that repeats the run, for the manifest.
      pool: the pool of ``config.pool``, where the caller has read it already.
      progress: of "tokenize" in texts and "embed" in tokens, of this process's batches.
      notify: receives notes for the user.

    Raises:
      UserError: a mistake in the input; finished batches stay on disk.
    """
    group = process_group(config.mesh)
    with Run(config.out, command, msgspec.to_builtins(config), notify=notify) as run, run.timings.compiling():
        prepared = processes.together(lambda: _prepare(config, pool, run, progress))
        state = run.join(prepared.key, config.overwrite, process=group.process, count=group.processes)
        if state == "done":
            return Result(run.out, summary(read_manifest(run.out, EmbedManifest), config.out), already_done(run, group))
        batch_run = _compute(config, prepared, run, group, progress)
        if batch_run is None:
            return Result(None, finished_without(run, group))
        manifest = processes.together(lambda: _write(prepared, run, batch_run, progress) if group.is_main else None)
        if manifest is None:
            return Result(None, partition_done([batch_run], group) if processes.is_main() else "")
        return Result(run.out, summary(manifest, config.out))


def _prepare(config: EmbedConfig, pool: Pool | None, run: Run, progress: Progress) -> Prepared:
    """The texts, the embedder, and the run's key; every mistake in the input is found here."""
    mesh = models_mesh(config.mesh, alone=False)
    cache = Path(config.cache).expanduser() if config.cache else None
    with run.stage("read"):
        texts = texts_of(config, cache, progress, pool)
    spec = spec_of(config.embedder)
    spec = replace(spec, instruction=None) if texts.target == "labels" else spec
    batch_tokens = config.embed.batch_tokens
    batch_tokens = usual_batch_tokens() if batch_tokens == "auto" else batch_tokens
    with run.stage("find embedder"):
        fingerprint, load = find_embedder(spec, batch_tokens=batch_tokens, mesh=mesh)
    decides = {
        "version": VERSION,
        "texts": texts.decides,
        "embedder": fingerprint,
        "batch_tokens": batch_tokens,
        # The texts and the fingerprint have the rest.
        "config": key_of(config, without=("pool", "embedder", "embed.target", "embed.batch_tokens")),
    }
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    job = EmbeddingJob("embed", fingerprint, load, texts.each, lambda: texts.without, texts.check)
    return Prepared(texts, job, key)


def _compute(
    config: EmbedConfig, prepared: Prepared, run: Run, group: ProcessGroup, progress: Progress
) -> BatchRun | None:
    """Compute this process's batches; wait for the others'.

    Returns:
      None where process 0 has published the results without this process.
    """
    job = prepared.job
    run.note(*_folder_notes(config))
    with run.stage("load embedder"):
        job.model()
    with run.stage("tokenize"):
        job.prepare(progress)
    run.note(*_text_notes(prepared.texts, job))
    batch_run = BatchRun(job, run.checkpoint)
    with run.stage("embed"):
        there = batch_run.compute(group, config.embed.save_every, progress, run.notify)
    if not there:
        return None
    if group.is_main or jax.process_count() > 1:  # those of jax.distributed end together
        with run.stage("wait"):
            batch_run.wait(group, progress, run.notify)
    return batch_run


def _write(prepared: Prepared, run: Run, batch_run: BatchRun, progress: Progress) -> EmbedManifest:
    """Assemble the matrix, publish; the manifest."""
    with run.stage("write"):
        batch_run.assemble(run.files / EMBEDDINGS, progress)
    prepared.texts.check()
    manifest = write_manifest(run, prepared.texts, prepared.job, batch_run)
    run.publish()
    return manifest


def _text_notes(texts: Texts, job: EmbeddingJob) -> list[str]:
    """Notes about texts that were cut or are empty."""
    notes, missing, empty = list(job.notes), int(texts.without.sum()), texts_without_tokens(job)
    if missing:
        notes.append(f"{missing:,} of {texts.count:,} rows have no dialog: their vectors are zero")
    if empty:
        notes.append(f"{empty:,} of {texts.count:,} texts have no token: their vectors are zero")
    return notes


def _folder_notes(config: EmbedConfig) -> list[str]:
    """A note of the settings that are null and that the embedder's folder decides."""
    settings = folder_settings(config.embedder)
    shown = ", ".join(f"embedder.{key}={str(value).lower()}" for key, value in settings.items())
    return [f"{shown}, from the folder of the embedder"] if settings else []


def run(config: EmbedConfig, call: Call) -> str:
    """The command, for the registry: the text to print."""
    result = run_embed(config, call.line, progress=call.progress, notify=call.notify)
    if result.note is not None:
        call.notify(result.note)
    return result.text + "\n" if result.text else ""
