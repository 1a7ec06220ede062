"""A helper that process 0 does not wait for: the run is published, or its folder gone, before the helper is done."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from test_embed_texts import config

from mig_jax.commands.embed import run
from mig_jax.commands.embed.config import EmbedConfig
from mig_jax.commands.embed.run import run_embed
from mig_jax.config.check import part
from mig_jax.config.mesh import MeshConfig


@pytest.fixture
def alone(tiny, tmp_path) -> EmbedConfig:
    """A run of one process, of three batches at least."""
    (tmp_path / "t.txt").write_text("\n".join("abcdefgh" * 3 for _ in range(20)))
    plain = config(tmp_path / "t.txt", batch_tokens=64, save_every=0)
    own = replace(plain.embedder, path=str(tiny.folder), name="tiny", architecture=None, max_length=None, pooling=None)
    return replace(plain, embedder=own, out=str(tmp_path / "out"), cache=None)


def helper(alone: EmbedConfig, processes: int = 2) -> EmbedConfig:
    return replace(alone, mesh=part("base", "mesh", MeshConfig, processes=processes, process=processes - 1))


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("moment", ["load", "write", "sync"])
@pytest.mark.parametrize("processes", [2, 99])  # of 99 it has no batches of its own
def test_published_meanwhile(alone, tmp_path, monkeypatch, moment, processes):
    from mig_jax.batch import shards
    from mig_jax.core import files

    happened = []

    def publish() -> None:
        if not happened:
            happened.append(moment)
            assert run_embed(alone, "alone").folder == tmp_path / "out"

    if moment == "load":
        find = run.find_embedder

        def found(*arguments, **options):
            fingerprint, load = find(*arguments, **options)
            return fingerprint, lambda: (None if happened else publish(), load())[1]

        monkeypatch.setattr(run, "find_embedder", found)
    else:
        owner, name = (shards.Shards, "write") if moment == "write" else (files, "sync")
        known = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *arguments: (publish(), known(*arguments))[1])
    made = run_embed(helper(alone, processes), "helper")
    assert made.folder is None
    if happened:
        assert made.text.endswith("out is finished without the rest of its batches")
        assert listing(tmp_path) == ["out", "t.txt", "tiny"]
    else:
        assert processes == 99 and "its batches are done (0 of " in made.text


def test_the_folder_is_gone(alone, tmp_path, monkeypatch):
    find = run.find_embedder

    def found(*arguments, **options):
        fingerprint, load = find(*arguments, **options)
        return fingerprint, lambda: (shutil.rmtree(tmp_path / ".out.partial"), load())[1]

    monkeypatch.setattr(run, "find_embedder", found)
    made = run_embed(helper(alone), "helper")
    assert made.text.startswith("process 1 of 2: no process works on ") and made.text.endswith("checkpoint is gone")
    assert listing(tmp_path) == ["t.txt", "tiny"]


def test_a_finished_run_is_not_begun_by_a_helper(alone, tmp_path):
    run_embed(alone, "alone")
    made = run_embed(replace(helper(alone), overwrite=True), "helper")
    assert made.folder == tmp_path / "out" and "only process 0 can do it again" in (made.note or "")
    assert listing(tmp_path) == ["out", "t.txt", "tiny"]


def test_overwrite_lets_a_helper_replace_another_run(alone, tmp_path):
    run_embed(alone, "alone")
    other = replace(alone, embedder=replace(alone.embedder, pooling="cls"), overwrite=True)
    assert "its batches are done" in run_embed(helper(other), "helper").text
    assert ".out.partial" in listing(tmp_path)
    assert run_embed(other, "main").folder == tmp_path / "out"
    assert listing(tmp_path) == ["out", "t.txt", "tiny"]
