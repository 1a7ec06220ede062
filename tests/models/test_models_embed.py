"""Embeddings of whole texts: against torch, against NumPy, and what must not change them."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from test_models_bert import load_bert, numpy_states

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.inference.embed import _embed_batch, load_embedder
from mig_jax.models.networks.encoder import Encoder
from mig_jax.models.tokenizers.tokens import load_tokenizer

LETTERS = ["abc", "a", "", "zebra", "q" * 40, "the quick brown fox", "abc", "é日本\x00\t!"]
NUMBERS = Path(__file__).resolve().parents[1] / "golden" / "minilm_labels.npz"


def spec_of(tiny, **changes) -> EmbedderSpec:
    return replace(EmbedderSpec(name="tiny", path=tiny.folder, max_length=30), **changes)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_embeddings_are_numpy_s(tiny, pooling, normalize):
    embedder = load_embedder(spec_of(tiny, pooling=pooling, normalize=normalize))
    got = embedder.embed(LETTERS)
    assert got.dtype == np.float32
    for text, mine in zip(LETTERS, got, strict=True):
        ids = [2, *("[x]" if c not in "abcdefghijklmnopqrstuvwxyz" else ord(c) - 93 for c in plain(text)), 3]
        ids = [1 if i == "[x]" else i for i in ids]
        ids = ids if len(ids) <= 30 else [*ids[:29], 3]
        states = numpy_states(tiny.config, tiny.tensors, ids)
        expected = states.mean(0) if pooling == "mean" else states[0]
        if normalize:
            expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(mine, expected, atol=2e-5, err_msg=repr(text))


def plain(text: str) -> str:
    """What the letter tokenizer's normalizer leaves: no accents, no controls; blanks around CJK are words too."""
    return text.replace("é", "e").replace("\x00", "").replace("\t", " ").replace("日本", " 日  本 ")


def test_tiny_golden(golden):
    stored = np.load(golden / "tiny/bert/outputs.npz")
    graphdef, state = nnx.split(load_bert(golden / "tiny/bert"))  # the folder has no tokenizer
    ids, mask = stored["ids"].astype(np.int32), stored["mask"].astype(np.int32)
    for name, pooling, normalize in (("mean", "mean", False), ("mean_normalized", "mean", True), ("cls", "cls", False)):
        got = _embed_batch(graphdef, state, ids, mask, slots=1, pooling=pooling, normalize=normalize)[:, 0]
        # float32 rounding of states of size 1 to 4 through 3 layers; see test_models_bert.
        np.testing.assert_allclose(got, stored[name], atol=1e-5, err_msg=name)


def test_minilm_label_golden(golden, minilm):
    """The 1,711 labels of the pool through sentence-transformers; entries are below 0.3, float32 rounding 3e-7."""
    labels = json.loads((golden / "mig/labels.json").read_text())
    expected = np.load(golden / "mig/label_embeddings.npy")
    np.testing.assert_allclose(minilm.embed(labels), expected, atol=1e-5, rtol=0)


def test_minilm_text_golden(golden, minilm):
    """Whole rows, a tenth of them cut at 256 tokens: the same token ids, the same embeddings (of every third row)."""
    stored = np.load(golden / "minilm/minilm.npz")
    texts = golden_texts(golden, stored["rows"])
    tokens = minilm.tokenizer(texts)
    np.testing.assert_array_equal(tokens.ptr, stored["id_ptr"])
    np.testing.assert_array_equal(tokens.id, stored["ids"])
    np.testing.assert_allclose(minilm.embed(texts[::3]), stored["embedding"][::3], atol=1e-5, rtol=0)
    # Not normalised: the stored raw_mean is of norm 1 too (the reference's Normalize module ran), so the reference here
    # is the mean of the stored states. Their norm is 2 to 6, so their rounding is that much larger.
    raw = replace(minilm, spec=replace(minilm.spec, normalize=False)).embed([texts[n] for n in stored["three"]])
    for i in range(3):
        last_LxD = stored[f"hidden_{i}"][-1].reshape(-1, 384)
        np.testing.assert_allclose(raw[i], last_LxD.mean(0), atol=1e-5, rtol=0)


def golden_texts(golden: Path, rows: np.ndarray) -> list[str]:
    with gzip.open(golden / "pool.jsonl.gz", "rt") as stream:
        pool = [json.loads(line) for line in stream]
    return ["\n\n".join(turn["content"] for turn in pool[row]["dialogs"]) for row in rows]


def test_order_company_and_batch_size_do_not_matter(tiny):
    """A text's embedding is its own: alone, in another order, or in batches of other sizes, to float32 rounding."""
    rng = np.random.default_rng(3)
    texts = ["".join(rng.choice(list("abcdefgh"), rng.integers(0, 40))) for _ in range(120)]
    embedder = load_embedder(spec_of(tiny))
    all_at_once = embedder.embed(texts)
    order = rng.permutation(len(texts))
    np.testing.assert_allclose(embedder.embed([texts[i] for i in order]), all_at_once[order], atol=2e-6)
    np.testing.assert_allclose(replace(embedder, batch_tokens=64).embed(texts), all_at_once, atol=2e-6)
    alone = np.concatenate([embedder.embed([text]) for text in texts[:12]])
    np.testing.assert_allclose(alone, all_at_once[:12], atol=2e-6)


def test_same_texts_same_bytes(tiny):
    texts = ["abc" * i for i in range(30)]
    one, two = (load_embedder(spec_of(tiny)).embed(texts) for _ in range(2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_under_a_mesh(tiny, kind):
    """The entry may have set a mesh: weights load and texts embed under it, whichever came first."""
    plain = load_embedder(spec_of(tiny))
    expected = plain.embed(LETTERS)
    with jax.set_mesh(jax.make_mesh((1,), ("pool",), axis_types=(kind,))):
        np.testing.assert_array_equal(plain.embed(LETTERS), expected)
        inside = load_embedder(spec_of(tiny))
        np.testing.assert_array_equal(inside.embed(LETTERS), expected)
    np.testing.assert_array_equal(inside.embed(LETTERS), expected)


def test_one_trace_a_width_and_none_for_more_texts(tiny, monkeypatch):
    jax.clear_caches()  # another test may have had this model and these widths
    traces = []
    forward = Encoder.__call__
    monkeypatch.setattr(
        Encoder, "__call__", lambda self, ids, *rest: traces.append(ids.shape) or forward(self, ids, *rest)
    )
    embedder = load_embedder(spec_of(tiny, max_length=64), batch_tokens=96)
    embedder.embed(["ab"] * 500)
    assert traces == [(3, 32)]
    embedder.embed(["abc"] * 700 + ["abcdefgh"])
    load_embedder(spec_of(tiny, max_length=64), batch_tokens=96).embed(["ab"])
    assert traces == [(3, 32)]
    embedder.embed(["ab"] * 700 + ["x" * 60] * 40)
    assert traces == [(3, 32), (1, 64)]
    embedder.embed(["x" * n for n in range(60)] * 4)
    assert traces == [(3, 32), (1, 64)]


def test_no_text_and_no_token(tiny):
    embedder = load_embedder(spec_of(tiny))
    assert embedder.embed([]).shape == (0, 24)
    assert embedder.embed([]).dtype == np.float32
    file = tiny.folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    got = load_embedder(spec_of(tiny)).embed(["", "a"])  # a tokenizer without special tokens: nothing at all for ""
    assert (got[0] == 0).all()
    assert np.isclose(np.linalg.norm(got[1]), 1)


def test_progress_ends_at_the_number_of_texts(tiny):
    told = []
    load_embedder(spec_of(tiny), batch_tokens=64).embed(
        ["abc", "", "de"] * 40, progress=lambda *step: told.append(step)
    )
    assert [step for step in told if step[0] == "tokenize"] == [("tokenize", 120, 120, "texts")]
    done = [step[1] for step in told if step[0] == "embed"]
    assert done == sorted(done)
    assert len(done) > 3
    assert told[-1] == ("embed", 120, 120, "texts")


def test_fingerprint_names_what_decides_an_embedding(tiny):
    base = load_embedder(spec_of(tiny))
    assert base.fingerprint == load_embedder(spec_of(tiny, name="other"), batch_tokens=64).fingerprint
    prints = {base.fingerprint}
    for changes in ({"pooling": "cls"}, {"normalize": False}, {"max_length": 20}):
        prints.add(load_embedder(spec_of(tiny, **changes)).fingerprint)
    tiny.write(hidden_act="relu")
    prints.add(load_embedder(spec_of(tiny)).fingerprint)
    tiny.write({key: value * 1.5 for key, value in tiny.tensors.items()})
    prints.add(load_embedder(spec_of(tiny)).fingerprint)
    tiny.write()
    file = tiny.folder / "tokenizer.json"
    file.write_text(file.read_text() + " ")
    prints.add(load_embedder(spec_of(tiny)).fingerprint)
    assert len(prints) == 7


def test_what_cannot_work_is_said_before_or_instead_of_numbers(tiny):
    with pytest.raises(UserError, match=r"embedder\.max_length=65: .* has 64 positions"):
        load_embedder(spec_of(tiny, max_length=65))
    with pytest.raises(UserError, match="text 1 is not a string but NoneType"):
        load_embedder(spec_of(tiny)).embed(["a", None])  # type: ignore[list-item]
    with pytest.raises(UserError, match="a list of strings, not one string"):
        load_embedder(spec_of(tiny)).embed("abc")
    tiny.write(tiny.tensors | {"embeddings.LayerNorm.bias": np.full(24, np.nan, np.float32)})
    with pytest.raises(UserError, match="not finite"):
        load_embedder(spec_of(tiny)).embed(["a"])
    tiny.write(tiny.tensors | {"embeddings.word_embeddings.weight": np.ones((9, 24), np.float32)}, vocab_size=9)
    with pytest.raises(UserError, match="gives id 29, its model has 9 words"):
        load_embedder(spec_of(tiny)).embed(["z"])
    (tiny.folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="its tokenizer cannot be read"):
        load_embedder(spec_of(tiny))


def test_any_string_will_do(minilm):
    texts = ["", "a" * 100_000, "word " * 20_000, "\x00\x07\x1b[0m\u200b", "日本語のテキスト", "שלום עולם", "🙂" * 300,
             "\ud83d", "half \ud83d\ude42 pair \udc00", "\n\n"]  # fmt: skip
    got = minilm.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(minilm.tokenizer(texts).length[[0, 1, 2]], [2, 3, 256])
    np.testing.assert_allclose(minilm.embed(["half 🙂 pair \ufffd"])[0], got[8], atol=1e-6)


def test_a_folder_with_a_vocabulary_only(minilm, tmp_path):
    """Old checkpoints have no tokenizer.json; transformers then builds the same tokenizer of vocab.txt."""
    from mig_jax.models.checkpoints.checkpoint import find_checkpoint

    folder = find_checkpoint(minilm.spec).folder
    for name in ("vocab.txt", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    texts = ["Hello, World!", "", "naïve café", "word " * 400]
    old, new = load_tokenizer(tmp_path, 256)(texts), minilm.tokenizer(texts)
    np.testing.assert_array_equal(old.id, new.id)
    np.testing.assert_array_equal(old.ptr, new.ptr)


TRIPLES = [  # the first two mean more alike than the first and the third
    ("linear algebra", "matrix multiplication", "apple pie recipe"),
    ("translate a sentence into French", "French translation", "sort a list of numbers"),
    ("python programming", "debugging python code", "medieval poetry"),
    ("how to lose weight", "diet and exercise plan", "history of the Roman Empire"),
    ("stock market", "investing in shares", "photosynthesis in plants"),
    ("write a haiku", "poem about autumn", "SQL database query"),
    ("job interview questions", "preparing for an interview", "volcanic eruption"),
    ("climate change", "global warming", "chess opening"),
]


def test_minilm_knows_what_is_alike(minilm):
    a, b, c = minilm.embed([text for triple in TRIPLES for text in triple]).reshape(len(TRIPLES), 3, -1).swapaxes(0, 1)
    assert ((a * b).sum(1) > (a * c).sum(1) + 0.3).all()


STORED = [  # in the order of minilm_labels.npz, as tests/golden/make_minilm.py prints them
    "ai", "share", "anxiety", "blogging", "aesthetic", "scene set", "popularity", "geopolitics", "eco-friendly",
    "transparency", "news analysis", "essay analysis", "usability test", "italian cuisine", "variable update",
    "language inquiry", "answer validation", "public perception", "detail information", "vector subtraction",
    "professional advice", "research and writing", "functional programming", "transparency and accountability",
]  # fmt: skip


def test_minilm_is_sentence_transformers(minilm):
    """24 labels' embeddings as sentence-transformers computed them under torch, kept in the repository. Entries are
    below 0.3; float32 sums in another order through 6 layers differ by 2e-7 here; 1e-5 leaves room for other CPUs."""
    expected = np.load(NUMBERS)["embedding"]
    assert expected.dtype == np.float32 and expected.shape == (len(STORED), 384)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(minilm.embed(STORED), expected, atol=1e-5, rtol=0)
