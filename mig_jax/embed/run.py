"""``mig-jax embed``: texts in, a matrix out; resumable from any crash, by any number of processes to the same bytes."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import msgspec

from mig_jax import __version__
from mig_jax.config import EmbedConfig, MeshConfig
from mig_jax.embed.compute import Team, embed
from mig_jax.embed.files import summary, write_manifest
from mig_jax.embed.texts import Texts, texts_of
from mig_jax.errors import UserError
from mig_jax.export import Claim, claim
from mig_jax.export.lock import Busy
from mig_jax.export.manifest import read_manifest
from mig_jax.export.out_folder import checked_out
from mig_jax.export.staging import join
from mig_jax.inputs import folder_decides, models_mesh, spec_of
from mig_jax.models.embed import Embedder, find_embedder
from mig_jax.models.packing import usual_batch_tokens
from mig_jax.runtime import processes
from mig_jax.runtime.progress import Progress, silent
from mig_jax.runtime.stopwatch import Stopwatch

_PATIENCE = 20.0  # seconds until a folder that another process is just making counts as taken


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
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda text: None,
) -> Embedded:
    """Embed the texts of a configuration and write the files of ``files.py``.

    Args:
      config: checked.
      command: how to run it again, for the manifest.
      progress: told "tokenize" with texts and "embed" with tokens, those of this process.
      tell: told notes for a person.

    Raises:
      UserError: a mistake in the input; finished batches are kept.
    """
    watch, team = Stopwatch(), team_of(config.mesh)
    texts, key, load = processes.together(lambda: _prepare(config, watch, progress))
    above = [folder for folder in Path(config.out).absolute().parents if not folder.exists()]
    claimed = processes.together(lambda: _claim(config, key, team) if team.is_main else None)
    claimed = processes.together(lambda: claimed or _claim(config, key, team))
    try:
        if claimed.state == "done":
            again = "overwrite=true would do it again" if team.is_main else "only process 0 can do it again"
            tell(f"{config.out} holds this very run already; {again}")
            return Embedded(claimed.out, summary(read_manifest(claimed.out), config.out))
        left_to_folder = _taken(config)
        for note in (*claimed.notes, *left_to_folder):
            tell(note)
        try:
            with watch.compiling():
                made = embed(config.embed, texts, load, claimed.checkpoint, team, watch, progress, tell)
        except FileNotFoundError:
            if team.is_main or claimed.checkpoint.is_dir():
                raise
            return Embedded(None, _late(claimed, key, config.out, team))  # as a rule, process 0 was done without it
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
        for folder in above:  # the nearest first; one with something in it stays
            with suppress(OSError):
                folder.rmdir()


def team_of(mesh: MeshConfig) -> Team:
    """The processes that share the batches: those of jax.distributed, or independent ones that share a disk.

    Raises:
      UserError: only one of mesh.processes and mesh.process is given, or they do not fit.
    """
    if jax.process_count() > 1:
        return Team(jax.process_index(), jax.process_count())
    if (mesh.processes is None) != (mesh.process is None):
        raise UserError("mesh.processes and mesh.process belong together: give both, or neither")
    if mesh.processes is None or mesh.process is None:
        return Team(0, 1)
    if mesh.process >= mesh.processes:
        raise UserError(f"mesh.process={mesh.process}: must be less than mesh.processes={mesh.processes}")
    return Team(mesh.process, mesh.processes)


def _prepare(config: EmbedConfig, watch: Stopwatch, progress: Progress) -> tuple[Texts, str, Callable[[], Embedder]]:
    """The texts, the run's key, and how to load the embedder; every mistake in the input is met here."""
    checked_out(config.out)  # before reading gigabytes
    mesh = models_mesh(config.mesh, alone=False)
    cache = Path(config.cache).expanduser() if config.cache else None
    with watch.stage("read"):
        texts = texts_of(config, cache, progress)
    spec = spec_of(config.embedder)
    spec = replace(spec, instruction=None) if texts.of == "labels" else spec
    asked = config.embed.batch_tokens
    batch_tokens = usual_batch_tokens() if asked == "auto" else asked
    with watch.stage("find embedder"):
        fingerprint, load = find_embedder(spec, batch_tokens=batch_tokens, mesh=mesh)
    decides = {
        "version": __version__,
        "texts": texts.decides,
        "embedder": fingerprint,
        "batch_tokens": batch_tokens,
    }
    return texts, hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(), load


def _taken(config: EmbedConfig) -> list[str]:
    """A note of what the configuration leaves to the embedder's folder and the folder decides."""
    said = folder_decides(config.embedder)
    shown = ", ".join(f"embedder.{key}={str(value).lower()}" for key, value in said.items())
    return [f"{shown}, as the folder of the embedder says"] if said else []


def _late(claimed: Claim, key: str, out: str, team: Team) -> str:
    """What a process says whose folder of shards is gone."""
    with suppress(UserError, OSError):
        if read_manifest(claimed.out)["run_key"] == key:
            return f"process {team.process} of {team.processes}: {out} is finished without the rest of its batches"
    return f"process {team.process} of {team.processes}: nobody works on {out} any more; {claimed.checkpoint} is gone"


def _claim(config: EmbedConfig, key: str, team: Team) -> Claim:
    """The right to write ``out``, or, beside the main process, to add shards; several may begin at one moment."""
    end = time.monotonic() + _PATIENCE * (team.processes > 1)
    while True:
        try:
            if team.is_main:
                return claim(config.out, key, config.overwrite, spare=True)
            return join(config.out, key, config.overwrite)
        except Busy:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
