"""What the configuration leaves to the embedder's folder: pooling, length, end of text; and texts without a token."""

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from test_models_pooling import decoder  # noqa: F401  (a fixture)

from mig_jax.commands.embed.config import EmbedConfig
from mig_jax.commands.embed.run import run_embed
from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.configured import spec_of
from mig_jax.models.inference.embed import load_embedder

TEXTS = ["abc", "zebra", "the quick brown fox"]


def composed(folder: Path, tmp_path: Path, group: str = "bert", *more: str) -> EmbedConfig:
    from mig_jax.cli.arguments import quoted
    from mig_jax.commands.registry import compose

    file = tmp_path / "t.txt"
    file.write_text("\n".join(TEXTS) + "\n")
    chosen = [f"embedder={group}", f"embedder.path={quoted(str(folder))}", f"pool.path={quoted(str(file))}"]
    return compose("embed", [*chosen, f"out={quoted(str(tmp_path / 'out'))}", *more])


def says(folder: Path, pooling: str | None = None, longest: int | None = None) -> None:
    """As sentence-transformers writes it."""
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling/config.json").write_text(json.dumps({pooling: True}))
    if longest is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest}))


def test_a_folder_s_own_pooling_and_length_are_used_and_noted(tiny, tmp_path):
    says(tiny.folder, "pooling_mode_cls_token", 9)
    notes = []
    run_embed(composed(tiny.folder, tmp_path), "x", notify=notes.append)
    note = "embedder.pooling=cls, embedder.max_length=9, from the folder of the embedder"
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert notes[0] == manifest["notes"][0] == note
    assert (manifest["pooling"], manifest["max_length"], manifest["append_eos"]) == ("cls", 9, False)
    expected = load_embedder(EmbedderSpec(name="tiny", path=tiny.folder, pooling="cls", max_length=9)).embed(TEXTS)
    # Float32 rounding of unit vectors, packed otherwise.
    np.testing.assert_allclose(np.load(tmp_path / "out/embeddings.npy"), expected, atol=2e-6)


def test_what_is_given_wins(tiny, tmp_path):
    says(tiny.folder, "pooling_mode_cls_token", 9)
    more = ["embedder.pooling=mean", "embedder.max_length=25", "embedder.append_eos=false"]
    notes = []
    run_embed(composed(tiny.folder, tmp_path, "bert", *more), "x", notify=notes.append)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["pooling"], manifest["max_length"], notes) == ("mean", 25, [])


@pytest.mark.parametrize("group", ["bert", "decoder"])
def test_a_folder_that_says_nothing(tiny, decoder, tmp_path, group):  # noqa: F811
    """Its family decides, whichever group was named."""
    for folder, pooling in ((tiny.folder, "mean"), (decoder, "last")):
        spec = spec_of(composed(folder, tmp_path, group).embedder)
        assert (spec.pooling, spec.max_length, spec.append_eos) == (pooling, None, False)


def test_a_decoder_s_folder(decoder, tmp_path):  # noqa: F811
    says(decoder, "pooling_mode_mean_tokens")
    file = decoder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"add_eos_token": True}))
    spec = spec_of(composed(decoder, tmp_path, "decoder").embedder)
    assert (spec.pooling, spec.append_eos) == ("mean", True)
    spec = spec_of(composed(decoder, tmp_path, "decoder", "embedder.append_eos=false").embedder)
    assert (spec.pooling, spec.append_eos) == ("mean", False)


def test_a_gguf_file_is_a_decoder(tmp_path):
    """As a path, and as the only one of a folder."""
    (tmp_path / "gguf").mkdir()
    file = tmp_path / "gguf/x.gguf"
    file.touch()
    for path in (file, file.parent):
        assert spec_of(composed(path, tmp_path).embedder).pooling == "last"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"embedder\.path=.*gone: there is no such folder or \.gguf file"):
        spec_of(composed(tmp_path / "gone", tmp_path).embedder)


def test_texts_without_a_token_are_counted(tiny, tmp_path):
    file = tiny.folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))  # no special tokens
    plain = composed(tiny.folder, tmp_path)
    (tmp_path / "t.txt").write_text("abc\n\n\n")
    made = run_embed(plain, "x")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["notes"] == ["2 of 3 texts have no token: their vectors are zero"]
    assert (manifest["without_tokens"], manifest["without_text"]) == (2, 0)
    assert np.abs(np.load(tmp_path / "out/embeddings.npy")).sum(1).astype(bool).tolist() == [True, False, False]
    assert made.text.startswith("3 texts -> 24 numbers each; ")
    (tmp_path / "t.txt").write_text("abc\n")
    assert run_embed(replace(plain, out=str(tmp_path / "one")), "x").text.startswith("1 text -> 24 numbers each; ")


def test_more_texts_than_were_counted_are_not_embedded(tiny, tmp_path, monkeypatch):
    """A file that grows between the count and the reading."""
    from mig_jax.commands.embed import run

    known = run.texts_of

    def texts_of(*arguments):
        found = known(*arguments)
        (tmp_path / "t.txt").write_text("a\nb\nc\nd\n")
        return found

    monkeypatch.setattr(run, "texts_of", texts_of)
    with pytest.raises(UserError, match=r"t\.txt: changed since it was read"):
        run_embed(composed(tiny.folder, tmp_path), "x")
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()


def test_neither_an_instruction_nor_a_threshold_of_tags_decides_a_selection():
    from mig_jax.commands.registry import compose

    def decides(*overrides: str) -> dict:
        return compose("select", ["n=5", *overrides]).decides()

    assert decides("embedder.instruction=sort", "embedder.prompt='{text} {instruction}'") == decides()
    assert decides("embedder.tag_threshold=0.5") == decides() and "tag_threshold" not in decides()["embedder"]
    assert decides("embedder.pooling=cls") != decides()
