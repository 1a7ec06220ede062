"""A new setting is part of the key of every run and cache entry that it may change: nothing stale is reused."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

import mig_jax.labels.configured
from mig_jax.commands.registry import COMMANDS, compose
from mig_jax.commands.select.inputs import run_key
from mig_jax.commands.vocabulary.run import _run_key
from mig_jax.config.struct import Struct, key_of
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.configured import spec_of
from mig_jax.models.inference.fingerprint import _deciding
from mig_jax.pool.configured import pool_of

SPEED = {"mesh", "engine"}  # groups that never change a result


def with_key(part: Struct, value: int) -> Any:
    """The settings as if somebody had added a key to their struct."""
    kind = msgspec.defstruct("More", [("added", int)], bases=(type(part),), frozen=True, kw_only=True)
    return kind(**{field.name: getattr(part, field.name) for field in msgspec.structs.fields(part)}, added=value)


def variants(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(group, the settings with the new key = 1, with = 2), for every group of keys."""
    yield prefix, with_key(config, 1), with_key(config, 2)
    for field in msgspec.structs.fields(config):
        inner = getattr(config, field.name)
        if isinstance(inner, Struct):
            for name, one, two in variants(inner, f"{prefix}{field.encode_name}."):
                pair = (msgspec.structs.replace(config, **{field.name: value}) for value in (one, two))
                yield name, *pair


@pytest.mark.parametrize("command", [name for name, entry in COMMANDS.items() if not entry.flags])
def test_a_new_key_decides(command: str):
    found = {name.rstrip("."): key_of(one) != key_of(two) for name, one, two in variants(compose(command))}
    assert {name for name, decides in found.items() if not decides} <= SPEED
    assert found[""]


def test_the_key_of_a_selection():
    inputs: Any = SimpleNamespace(
        pool=SimpleNamespace(sources=()),
        encoded=SimpleNamespace(labels_digest=lambda: ""),
        graph=SimpleNamespace(digest=lambda: ""),
        task=SimpleNamespace(limit=SimpleNamespace(digest=lambda: "")),
        embeddings_sha256=None,
    )
    config = compose("select")
    for name, one, two in variants(config):
        assert (run_key(one, inputs) != run_key(two, inputs)) == (name.rstrip(".") not in SPEED), name
    moved = msgspec.structs.replace(config, out="elsewhere", overwrite=True, cache=None)
    assert run_key(moved, inputs) == run_key(config, inputs)


def test_the_key_of_a_vocabulary():
    pool = pool_of(compose("vocabulary").pool, (), None)
    for name, one, two in variants(compose("vocabulary")):
        differ = _run_key(one, pool, "f") != _run_key(two, pool, "f")
        assert differ == (name.rstrip(".") not in {*SPEED, "embedder"}), name


def test_the_key_of_the_pool_cache(tmp_path: Path):
    pool = compose("select").pool
    for value, entries in ((1, 1), (1, 1), (2, 2)):
        pool_of(with_key(pool, value), (), tmp_path)
        assert len([path for path in (tmp_path / "pools").iterdir() if path.is_dir()]) == entries


def test_the_key_of_the_label_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built = []

    def label_graph(*args: Any, **settings: Any) -> Any:
        built.append(settings)
        return mig_jax.labels.configured.no_graph()

    monkeypatch.setattr(mig_jax.labels.configured, "label_graph", label_graph)
    monkeypatch.setattr(mig_jax.labels.configured, "embed_labels", lambda *args: (np.eye(2, dtype=np.float32), ["k"]))
    config = compose("select")
    for value, count in ((1, 1), (1, 1), (2, 2)):
        mig_jax.labels.configured.graph_of(("a", "b"), with_key(config.graph, value), config.embedder, tmp_path)
        assert len(built) == count


def test_the_fingerprint_of_an_embedder():
    @dataclass(frozen=True, kw_only=True)
    class More(EmbedderSpec):
        added: int

    one, two = More(name="x", added=1), More(name="x", added=2)
    assert _deciding(one) != _deciding(two)
    with pytest.raises(TypeError, match="added"):  # a key of embedder.* that the spec does not know is an error
        spec_of(with_key(compose("select").embedder, 1))
