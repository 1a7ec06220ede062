"""From tokens' states to a text's vector: by hand, against torch on decoders, and the same on eight devices."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.architectures import ARCHITECTURES
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.checkpoints.tensors import safetensors
from mig_jax.models.inference.embed import _embed_batch, load_embedder
from mig_jax.models.inference.pooling import pool_segments
from mig_jax.models.networks.families import FAMILIES
from mig_jax.models.networks.layers import Build
from mig_jax.models.networks.sharding import model_mesh
from mig_jax.models.networks.weights import load_model, save_model
from mig_jax.models.tokenizers.tokens import load_tokenizer

DECODERS = ("mistral", "llama", "qwen2")


def test_by_hand():
    x = np.arange(12, dtype=np.float32).reshape(1, 6, 2)
    segment = np.array([[1, 1, 2, 2, 2, 0]], np.int32)
    for pooling, expected in {
        "mean": [[[1, 2], [6, 7], [0, 0]]],
        "cls": [[[0, 1], [4, 5], [0, 0]]],
        "last": [[[2, 3], [8, 9], [0, 0]]],
    }.items():
        np.testing.assert_allclose(pool_segments(x, segment, slots=3, pooling=pooling), expected, err_msg=pooling)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_padding_may_stand_anywhere_and_hold_anything(pooling):
    x = np.random.default_rng(0).normal(size=(1, 5, 3)).astype(np.float32)
    tokens = x[:, :3]
    plain = pool_segments(tokens, np.ones((1, 3), np.int32), slots=1, pooling=pooling)
    for segment in ([0, 1, 1, 1, 0], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1]):
        row = np.full((1, 5, 3), 1e9, np.float32)
        row[:, np.array(segment) == 1] = tokens
        got = pool_segments(row, np.array([segment], np.int32), slots=2, pooling=pooling)
        np.testing.assert_allclose(got[:, 0], plain[:, 0], atol=1e-6)
        assert (got[:, 1] == 0).all()


def test_half_precision_is_added_up_in_float32():
    """The mean of 1 and the next bfloat16 lies between two bfloat16."""
    x = jnp.tile(jnp.array([1.0, 1.0 + 2**-7], jnp.bfloat16), 500)[None, :, None]
    got = pool_segments(x, np.ones((1, 1000), np.int32), slots=1, pooling="mean")
    assert got.dtype == jnp.float32 and float(got[0, 0, 0]) == 1.0 + 2**-8


def _decoder(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    family = FAMILIES[config["model_type"]]
    read = ARCHITECTURES[config["model_type"]].read_config(config, "config.json")

    def build() -> nnx.Module:
        return family.build(read, Build(), False)

    return nnx.split(load_model(build, family.weights(read, False), safetensors([folder / "model.safetensors"])))


@pytest.mark.parametrize("name", DECODERS)
def test_last_token_of_a_decoder_is_torch_s_with_either_padding(golden, name):
    """States are of size 1 to 4 and a float32's rounding grows to 2e-6 in 3 layers; the stored masks are 0 or 1."""
    stored = np.load(golden / "tiny" / name / "outputs.npz")
    graphdef, state = _decoder(golden / "tiny" / name)
    rest = {"slots": 1, "pooling": "last"}
    got = {}
    for side in ("right", "left"):
        ids, mask = stored[f"{side}_ids"].astype(np.int32), stored[f"{side}_mask"].astype(np.int32)
        got[side] = np.asarray(_embed_batch(graphdef, state, ids, mask, normalize=True, **rest)[:, 0])
        np.testing.assert_allclose(got[side], stored[f"{side}_embedding"], atol=1e-5, err_msg=side)
        plain = _embed_batch(graphdef, state, ids, mask, normalize=False, **rest)[:, 0]
        np.testing.assert_allclose(plain, stored["nopad_last_hidden"], atol=1e-5, err_msg=side)
    np.testing.assert_allclose(got["left"], got["right"], atol=1e-6)


@pytest.fixture
def decoder(tiny, tmp_path) -> Path:
    """A random Mistral of the letters, written by our own reverse map, with the letters' tokenizer."""
    config = {
        "model_type": "mistral", "vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64, "sliding_window": 24,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "eos_token_id": 3,
    }  # fmt: skip
    folder = tmp_path / "decoder"
    folder.mkdir()
    family = FAMILIES["mistral"]
    read = ARCHITECTURES[config["model_type"]].read_config(config, "config.json")
    save_model(family.build(read, Build(), True), family.weights(read, True), folder)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((tiny.folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "[SEP]", "bos_token": "[CLS]"}))
    return folder


def spec(folder: Path, **changes) -> EmbedderSpec:
    plain = EmbedderSpec(name="tiny", path=folder, pooling="last", append_eos=True, max_length=20)
    return replace(plain, **changes)


def test_every_text_ends_with_the_end_of_text_token(decoder):
    tokenizer = load_embedder(spec(decoder)).tokenizer
    tokens = tokenizer(["ab", "", "a" * 50, "a" * 18, "a" * 19, "ab[SEP]"])
    texts = [tokens.id[a:b].tolist() for a, b in zip(tokens.ptr[:-1], tokens.ptr[1:], strict=True)]
    assert texts[0] == [2, 4, 5, 3] and texts[1] == [2, 3]
    assert texts[2] == [2, *[4] * 18, 3] == texts[3] == texts[4]  # 20 tokens, the end among them
    assert texts[5] == [2, 4, 5, 3]  # no second one
    assert tokens.cut == 2
    without = load_embedder(spec(decoder, append_eos=False)).tokenizer(["ab", "a" * 50])
    assert without.id.tolist() == [2, 4, 5, 2, *[4] * 19] and without.cut == 1


def test_texts_that_are_cut_are_counted_without_a_tokenizer_json_too(minilm, tmp_path):
    from mig_jax.models.checkpoints.checkpoint import find_checkpoint

    folder = find_checkpoint(minilm.spec).folder
    for name in ("vocab.txt", "tokenizer_config.json", "config.json"):
        shutil.copy(folder / name, tmp_path / name)
    texts = ["word " * 6, "word " * 7, "", "word " * 300]
    assert load_tokenizer(tmp_path, 8)(texts).cut == load_tokenizer(folder, 8)(texts).cut == 2


def test_no_end_of_text_token_is_told(decoder):
    (decoder / "tokenizer_config.json").write_text("{}")
    config = json.loads((decoder / "config.json").read_text())
    del config["eos_token_id"]
    (decoder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"embedder\.append_eos: .*names no end-of-text token"):
        load_embedder(spec(decoder))


def test_an_instruction_is_for_queries_and_written_by_the_prompt(decoder):
    asked = spec(decoder, instruction="sort", prompt="{instruction} of {text}", max_length=40)
    plain, with_it = load_embedder(spec(decoder, max_length=40)), load_embedder(asked)
    texts = ["abc", "{instruction}", ""]
    written = [f"sort of {text}" for text in texts]
    np.testing.assert_array_equal(with_it.embed(texts, query=True), plain.embed(written))
    np.testing.assert_array_equal(with_it.embed(texts), plain.embed(texts))
    np.testing.assert_array_equal(plain.embed(texts, query=True), plain.embed(texts))
    assert with_it.fingerprint != plain.fingerprint
    with pytest.raises(UserError, match=r"\{instruction\} and \{text\}"):
        load_embedder(replace(asked, prompt="text"))


def test_company_does_not_matter_to_a_decoder(decoder):
    """Texts packed side by side see each other no more than alone, in whatever batches."""
    rng = np.random.default_rng(3)
    texts = ["".join(rng.choice(list("abcdefgh"), rng.integers(0, 18))) for _ in range(60)]
    embedder = load_embedder(spec(decoder))
    together = embedder.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([embedder.embed([text]) for text in texts[:10]])
    np.testing.assert_allclose(alone, together[:10], atol=2e-6)


def test_part_of_the_plan_gives_its_part(decoder):
    embedder = replace(load_embedder(spec(decoder)), batch_tokens=64)
    texts = ["abc" * (n % 7) for n in range(50)]
    tokens = embedder.tokenize(texts)
    plan, whole = embedder.plan(tokens), embedder.embed(texts)
    assert len(plan) > 3
    seen = []
    for batch, vectors in embedder.run(tokens, [plan[2], plan[0]]):
        np.testing.assert_array_equal(vectors, whole[batch.text])
        seen.append(batch)
    assert seen[0] is plan[2] and seen[1] is plan[0] and len(seen) == 2
    skipped = embedder.plan(tokens, without=np.arange(50) < 25)
    assert sorted(np.concatenate([batch.text for batch in skipped])) == list(range(25, 50))


@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_eight_devices_give_what_one_gives(tiny, decoder, axes, which):
    asked = spec(decoder) if which == "decoder" else EmbedderSpec(name="tiny", path=tiny.folder, max_length=20)
    texts = ["abc" * (n % 7) + "xyz"[: n % 3] for n in range(77)]
    mesh = model_mesh(*axes)
    one, eight = load_embedder(asked, batch_tokens=96), load_embedder(asked, batch_tokens=96, mesh=mesh)
    # Sums over the hidden size are cut at other places: float32's rounding, on numbers below 1.
    np.testing.assert_allclose(eight.embed(texts), one.embed(texts), atol=1e-5)
    sizes = [leaf.get_value() for _, leaf in nnx.to_flat_state(eight.loaded.state)]
    whole = sum(value.nbytes for value in sizes)
    held = sum(value.addressable_shards[0].data.nbytes for value in sizes)
    if axes == (8, 1, 1):
        assert held == whole
    else:  # the tables of an encoder's positions and all norms stay whole along what does not cut them
        assert held < whole * (0.45 if which == "encoder" else 0.35)
        assert any("fsdp" in str(value.sharding.spec) for value in sizes)
    tokens = eight.tokenize(texts)
    sent = eight._send(eight.plan(tokens)[0], tokens)
    assert len(sent.sharding.device_set) == 8 and sent.shape[0] % (axes[0] * axes[1]) == 0
    assert jax.sharding.get_abstract_mesh().empty  # the mesh is set for the model's call alone


def test_bfloat16_gives_float32_close_to_it(decoder):
    texts = ["abc", "zebra", "quick brown"]
    full, half = load_embedder(spec(decoder)).embed(texts), load_embedder(spec(decoder, dtype="bfloat16")).embed(texts)
    assert half.dtype == np.float32
    # 8 bits of mantissa: 2^-9 a rounding, some dozens of them add up in the cosine of unit vectors.
    assert ((full * half).sum(1) > 0.99).all() and not np.array_equal(full, half)
