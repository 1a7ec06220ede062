"""``mig-jax vocabulary``: a pool in; vocabulary.json, the steps and a manifest out, all at once or not at all."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mig_jax.commands.call import Call
from mig_jax.commands.vocabulary.config import VocabularyConfig
from mig_jax.commands.vocabulary.show import KIND, STEPS, VOCABULARY, text
from mig_jax.commands.vocabulary.steps import Normalised, Step, check_packages, embeds, normalise
from mig_jax.commands.vocabulary.tags import Tags, tags_of
from mig_jax.core.errors import UserError
from mig_jax.core.json_files import write_json
from mig_jax.core.progress import Progress, silent
from mig_jax.core.timing import Stopwatch
from mig_jax.core.version import VERSION
from mig_jax.labels.configured import embed_labels
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.configured import models_mesh, spec_of
from mig_jax.models.inference.fingerprint import check_embedder
from mig_jax.pool import Pool
from mig_jax.pool.configured import pool_of
from mig_jax.runs.manifest import MANIFEST, SCHEMA, file_facts, read_plain, versions
from mig_jax.runs.out_folder import checked_out, missing_above, remove_empty
from mig_jax.runs.staging import claim

_PACKAGES = ("scikit-learn", "snowballstemmer")
_HALVES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Made:
    """What a run says at its end.

    Args:
      folder: with the files.
      text: for a person, many lines.
    """

    folder: Path
    text: str


def run_vocabulary(
    config: VocabularyConfig,
    command: str,
    *,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda text: None,
) -> Made:
    """Make the vocabulary of a pool and write it.

    Args:
      config: checked.
      command: how to run it again, for the manifest.
      progress: told "embed" with tokens, "neighbours" with tiles.
      tell: told notes for a person.

    Raises:
      UserError: a mistake in the input; nothing has been written then.
    """
    watch = Stopwatch()
    cache = Path(config.cache).expanduser() if config.cache else None
    _check(config)
    with watch.stage("read pool"):
        pool = pool_of(config.pool, (), cache, progress)
    mesh = models_mesh(config.mesh, alone=True)
    spec = _spec(config, watch) if embeds(config.vocabulary) else None
    fingerprint = None if spec is None else _fingerprint(spec, watch)
    key, decides = _run_key(config, pool, fingerprint)
    above = missing_above(config.out)
    claimed = claim(config.out, key, config.overwrite)
    try:
        if claimed.state == "done":
            tell(f"{config.out} holds this very run already; overwrite=true would do it again")
            steps = json.loads((claimed.out / STEPS).read_text(encoding="utf-8"))
            return Made(claimed.out, text(read_plain(claimed.out), steps, config.out))
        for note in claimed.notes:
            tell(note)

        def embed(names: Sequence[str]) -> np.ndarray:
            assert spec is not None
            return embed_labels(names, spec, cache, progress, mesh)[0]

        with watch.compiling():
            tags = tags_of(pool)
            made = normalise(tags, config.vocabulary, embed, progress, watch.stage, config.embedder.name)
        for note in made.notes:
            tell(note)
        steps = [_plain(step) for step in made.steps]
        _write_vocabulary(claimed.files / VOCABULARY, made)
        write_json(claimed.files / STEPS, steps)
        facts = _facts(key, command, config, decides, tags, made, watch.seconds)
        facts["files"] = {path.name: file_facts(path) for path in sorted(claimed.files.iterdir())}
        write_json(claimed.files / MANIFEST, facts)
        claimed.publish()
        return Made(claimed.out, text(facts, steps, config.out))
    finally:
        claimed.release()
        remove_empty(above)


def _check(config: VocabularyConfig) -> None:
    """What can be refused before gigabytes are read."""
    checked_out(config.out)
    check_packages(config.vocabulary)
    if config.pool.valid_tags is not None:
        raise UserError(
            f"pool.valid_tags={config.pool.valid_tags}: a vocabulary is made of all tags of a pool; leave it out"
        )
    for name in ("coordinator", "processes", "process"):
        value = getattr(config.mesh, name)
        if value is not None:
            raise UserError(f"mesh.{name}={value}: mig-jax vocabulary works as one process; leave it out")


def _spec(config: VocabularyConfig, watch: Stopwatch) -> EmbedderSpec:
    """The embedder; tags go in as they are."""
    if not config.embedder.normalize:
        raise UserError("embedder.normalize=false: distances of tags need unit embeddings; it must be true")
    with watch.stage("find embedder"):
        return replace(spec_of(config.embedder), instruction=None)


def _fingerprint(spec: EmbedderSpec, watch: Stopwatch) -> str:
    with watch.stage("find embedder"):
        return check_embedder(spec).fingerprint


def _run_key(config: VocabularyConfig, pool: Pool, fingerprint: str | None) -> tuple[str, dict[str, Any]]:
    """sha256 of what decides the files, and what that is."""
    decides = {
        "version": VERSION,
        "files": [source.sha256 for source in pool.sources],
        "layout": config.pool.layout,
        "fields": config.pool.fields,
        "vocabulary": msgspec.to_builtins(config.vocabulary),
        "embedder": fingerprint,
    }
    return hashlib.sha256(json.dumps([KIND, decides], sort_keys=True).encode()).hexdigest(), decides


def _plain(step: Step) -> dict[str, Any]:
    return {
        "step": step.name,
        "settings": step.settings,
        "before": step.before,
        "after": step.after,
        "merged": step.merged,
        "dropped": step.dropped,
        "merges": step.merges,
    }


def _write_vocabulary(path: Path, made: Normalised) -> None:
    """The file that pool.valid_tags takes. Tags stay what they are: halves of surrogate pairs, too, as JSON escapes."""
    whole = {"labels": made.labels, "aliases": made.aliases}
    plain = json.dumps(whole, ensure_ascii=False, indent=1)
    plain = _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", plain)
    path.write_bytes(plain.encode() + b"\n")


def _facts(
    key: str,
    command: str,
    config: VocabularyConfig,
    decides: dict[str, Any],
    tags: Tags,
    made: Normalised,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The manifest but for the files."""
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "run_key": key,
        "command": command,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": tags.rows,
        "tags": len(tags),
        "labels": len(made.labels),
        "aliases": len(made.aliases),
        "steps": [
            {"step": step.name, "before": step.before, "after": step.after, "merged": step.merged}
            for step in made.steps
        ],
        "inputs": decides,
        "config": msgspec.to_builtins(config),
        "versions": versions() | _versions(),
        "timings": dict(seconds),
        "notes": list(made.notes),
    }


def _versions() -> dict[str, str]:
    """Of the packages that only this command needs."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def run(config: VocabularyConfig, call: Call) -> str:
    """The command, for the registry: the text to print."""
    made = run_vocabulary(config, call.line, progress=call.progress, tell=call.notify)
    return made.text
