"""``mig-jax vocabulary``: a pool in; vocabulary.json, the steps and a manifest out, all at once or not at all."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mig_jax.commands.call import Call, ignore
from mig_jax.commands.vocabulary.config import VocabularyConfig
from mig_jax.commands.vocabulary.show import STEPS, VOCABULARY, text
from mig_jax.commands.vocabulary.steps import Normalised, Step, check_packages, embeds, normalise
from mig_jax.commands.vocabulary.tags import Tags, tags_of
from mig_jax.config.struct import key_of
from mig_jax.core.errors import UserError
from mig_jax.core.json_files import write_json
from mig_jax.core.progress import Progress, silent
from mig_jax.core.version import VERSION
from mig_jax.labels.configured import embed_labels
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.configured import models_mesh, spec_of
from mig_jax.models.inference.fingerprint import check_embedder
from mig_jax.pool import Pool
from mig_jax.pool.configured import pool_of
from mig_jax.runs.manifest import Source, VocabularyManifest, read_manifest, sources_of
from mig_jax.runs.result import Result
from mig_jax.runs.run import Run

_PACKAGES = ("scikit-learn", "snowballstemmer")
_HALVES = re.compile("[\ud800-\udfff]")


def run_vocabulary(
    config: VocabularyConfig,
    command: str,
    *,
    progress: Progress = silent,
    notify: Callable[[str], None] = ignore,
) -> Result:
    """Make the vocabulary of a pool and write it.

    Args:
      config: checked.
      command: the command line that repeats the run, for the manifest.
      progress: of "embed" in texts, "neighbours" in tiles.
      notify: receives notes for the user.

    Raises:
      UserError: a mistake in the input; nothing has been written then.
    """
    cache = Path(config.cache).expanduser() if config.cache else None
    with Run(config.out, command, msgspec.to_builtins(config), notify=notify) as run, run.timings.compiling():
        _check(config)
        with run.stage("read pool"):
            pool = pool_of(config.pool, (), cache, progress)
        mesh = models_mesh(config.mesh, alone=True)
        spec = _spec(config, run) if embeds(config.vocabulary) else None
        fingerprint = None if spec is None else _fingerprint(spec, run)
        if run.claim(_run_key(config, pool, fingerprint), config.overwrite) == "done":
            steps = json.loads((run.out / STEPS).read_text(encoding="utf-8"))
            manifest = read_manifest(run.out, VocabularyManifest)
            return Result(run.out, text(manifest, steps, config.out), run.done_already)

        def embed(names: Sequence[str]) -> np.ndarray:
            assert spec is not None
            return embed_labels(names, spec, cache, progress, mesh)[0]

        tags = tags_of(pool)
        vocabulary = normalise(tags, config.vocabulary, embed, progress, run.stage, config.embedder.name)
        run.note(*vocabulary.notes)
        steps = [_plain(step) for step in vocabulary.steps]
        _write_vocabulary(run.files / VOCABULARY, vocabulary)
        write_json(run.files / STEPS, steps)
        manifest = _write_manifest(run, tags, vocabulary, sources_of(pool), fingerprint)
        run.publish()
        return Result(run.out, text(manifest, steps, config.out))


def _check(config: VocabularyConfig) -> None:
    """What can be refused before gigabytes are read."""
    check_packages(config.vocabulary)
    if config.pool.valid_tags is not None:
        raise UserError(
            "a vocabulary is made of all tags of a pool; leave it out",
            key="pool.valid_tags",
            value=config.pool.valid_tags,
        )
    for name in ("coordinator", "processes", "process"):
        value = getattr(config.mesh, name)
        if value is not None:
            raise UserError("mig-jax vocabulary is one process; leave it out", key=f"mesh.{name}", value=value)


def _spec(config: VocabularyConfig, run: Run) -> EmbedderSpec:
    """The embedder; tags go in as they are."""
    if not config.embedder.normalize:
        raise UserError("distances of tags need unit embeddings", key="embedder.normalize", value=False, allowed="true")
    with run.stage("find embedder"):
        return replace(spec_of(config.embedder), instruction=None)


def _fingerprint(spec: EmbedderSpec, run: Run) -> str:
    with run.stage("find embedder"):
        return check_embedder(spec).fingerprint


def _run_key(config: VocabularyConfig, pool: Pool, fingerprint: str | None) -> str:
    """sha256 of what decides the files."""
    decides = {
        "version": VERSION,
        "files": [source.sha256 for source in pool.sources],
        "config": key_of(config, without=("pool.name", "embedder")),
        "embedder": fingerprint,
    }
    return hashlib.sha256(json.dumps(["vocabulary", decides], sort_keys=True).encode()).hexdigest()


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


def _write_vocabulary(path: Path, vocabulary: Normalised) -> None:
    """The file that pool.valid_tags takes. Tags stay what they are: halves of surrogate pairs, too, as JSON escapes."""
    whole = {"labels": vocabulary.labels, "aliases": vocabulary.aliases}
    plain = json.dumps(whole, ensure_ascii=False, indent=1)
    plain = _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", plain)
    path.write_bytes(plain.encode() + b"\n")


def _write_manifest(
    run: Run, tags: Tags, vocabulary: Normalised, inputs: tuple[Source, ...], embedder: str | None
) -> VocabularyManifest:
    return run.write_manifest(
        VocabularyManifest,
        inputs=inputs,
        packages=_PACKAGES,
        rows=tags.rows,
        tags=len(tags),
        labels=len(vocabulary.labels),
        aliases=len(vocabulary.aliases),
        embedder=embedder,
        steps=[
            {"step": step.name, "before": step.before, "after": step.after, "merged": step.merged}
            for step in vocabulary.steps
        ],
    )


def run(config: VocabularyConfig, call: Call) -> str:
    """The command, for the registry: the text to print."""
    result = run_vocabulary(config, call.line, progress=call.progress, notify=call.notify)
    if result.note is not None:
        call.notify(result.note)
    return result.text
