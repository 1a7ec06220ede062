"""``mig-jax embed``: texts in, a matrix out; resumable from any crash, by any number of processes to the same bytes."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from mig_jax.batch import claim_together, done_already, team_of, too_late
from mig_jax.commands.call import Call
from mig_jax.commands.embed.compute import embed
from mig_jax.commands.embed.config import EmbedConfig
from mig_jax.commands.embed.files import summary, write_manifest
from mig_jax.commands.embed.texts import Texts, texts_of
from mig_jax.core import processes
from mig_jax.core.progress import Progress, silent
from mig_jax.core.timing import Stopwatch
from mig_jax.core.version import VERSION
from mig_jax.models.configured import folder_settings, models_mesh, spec_of
from mig_jax.models.inference.embed import Embedder, find_embedder
from mig_jax.models.inference.packing import usual_batch_tokens
from mig_jax.pool import Pool
from mig_jax.runs.manifest import read_plain
from mig_jax.runs.out_folder import checked_out, missing_above, remove_empty


@dataclass(frozen=True)
class Embedded:
    """What a run says at its end.

    Args:
      folder: with the files; None on a process that leaves the end to another.
      text: one line for a person.
    """

    folder: Path | None
    text: str


def run_embed(
    config: EmbedConfig,
    command: str,
    *,
    pool: Pool | None = None,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda text: None,
) -> Embedded:
    """Embed the texts of a configuration and write the files of ``files.py``.

    Args:
      config: checked.
      command: how to run it again, for the manifest.
      pool: the pool of ``config.pool``, where the caller has read it already.
      progress: told "tokenize" with texts and "embed" with tokens, those of this process.
      tell: told notes for a person.

    Raises:
      UserError: a mistake in the input; finished batches are kept.
    """
    watch, team = Stopwatch(), team_of(config.mesh)
    texts, key, load = processes.together(lambda: _prepare(config, pool, watch, progress))
    above = missing_above(config.out)
    claimed = claim_together(team, config.out, key, config.overwrite)
    try:
        if claimed.state == "done":
            tell(done_already(team, config.out))
            return Embedded(claimed.out, summary(read_plain(claimed.out), config.out))
        left_to_folder = _taken(config)
        for note in (*claimed.notes, *left_to_folder):
            tell(note)
        try:
            with watch.compiling():
                made = embed(config.embed, texts, load, claimed.checkpoint, team, watch, progress, tell)
        except FileNotFoundError:
            if team.is_main or claimed.checkpoint.is_dir():
                raise
            return Embedded(None, too_late(claimed, key, config.out, team))  # as a rule, process 0 was done without it
        made.notes[:0] = left_to_folder

        def finish() -> dict[str, Any] | None:
            if not team.is_main:
                return None
            with watch.stage("write"):
                made.assemble(claimed.files, progress)
            texts.check()
            settings = msgspec.to_builtins(config)
            manifest = write_manifest(claimed.files, key, command, settings, texts, made, watch.seconds)
            claimed.publish()
            return manifest

        manifest = processes.together(finish)
        if manifest is None:
            return Embedded(None, made.told(team) if processes.is_main() else "")
        return Embedded(claimed.out, summary(manifest, config.out))
    finally:
        claimed.release()
        remove_empty(above)


def _prepare(
    config: EmbedConfig, pool: Pool | None, watch: Stopwatch, progress: Progress
) -> tuple[Texts, str, Callable[[], Embedder]]:
    """The texts, the run's key, and how to load the embedder; every mistake in the input is met here."""
    checked_out(config.out)  # before reading gigabytes
    mesh = models_mesh(config.mesh, alone=False)
    cache = Path(config.cache).expanduser() if config.cache else None
    with watch.stage("read"):
        texts = texts_of(config, cache, progress, pool)
    spec = spec_of(config.embedder)
    spec = replace(spec, instruction=None) if texts.of == "labels" else spec
    asked = config.embed.batch_tokens
    batch_tokens = usual_batch_tokens() if asked == "auto" else asked
    with watch.stage("find embedder"):
        fingerprint, load = find_embedder(spec, batch_tokens=batch_tokens, mesh=mesh)
    decides = {
        "version": VERSION,
        "texts": texts.decides,
        "embedder": fingerprint,
        "batch_tokens": batch_tokens,
    }
    return texts, hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(), load


def _taken(config: EmbedConfig) -> list[str]:
    """A note of what the configuration leaves to the embedder's folder and the folder decides."""
    said = folder_settings(config.embedder)
    shown = ", ".join(f"embedder.{key}={str(value).lower()}" for key, value in said.items())
    return [f"{shown}, as the folder of the embedder says"] if said else []


def run(config: EmbedConfig, call: Call) -> str:
    """The command, for the registry: the text to print."""
    made = run_embed(config, call.line, progress=call.progress, tell=call.notify)
    return made.text + "\n" if made.text else ""
