"""The BERT encoder against torch's outputs and against a forward pass written here in plain NumPy."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mig_jax.errors import UserError
from mig_jax.models.bert import Bert, BertConfig, weight_rules
from mig_jax.models.encoder import ACTIVATIONS, segment_positions
from mig_jax.models.packing import Batch, fill
from mig_jax.models.tokens import Tokens
from mig_jax.models.weights import load_model


def load_bert(folder: Path, *, pooler: bool = False) -> Bert:
    config = BertConfig.from_json(json.loads((folder / "config.json").read_text()))
    build = lambda: Bert(config, pooler=pooler, rngs=nnx.Rngs(0))  # noqa: E731
    return load_model(build, weight_rules(pooler=pooler), [folder / "model.safetensors"])


def numpy_states(config: dict, w: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """One text, float64, a loop over heads: the paper's formulas and nothing of the code under test; ``[L, D]``."""
    w = {key: value.astype(np.float64) for key, value in w.items()}
    heads, size = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]

    def norm(x, name):
        centred = x - x.mean(1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12) * w[name + ".weight"] + w[name + ".bias"]

    def dense(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    x = np.stack([w["embeddings.word_embeddings.weight"][i] for i in ids])
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)] + w["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        q, k, v = (dense(x, f"{at}attention.self.{name}") for name in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            score = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            mixed[:, part] = score / score.sum(1, keepdims=True) @ v[:, part]
        x = norm(x + dense(mixed, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        up = dense(x, at + "intermediate.dense")
        up = up * 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
        x = norm(x + dense(up, at + "output.dense"), at + "output.LayerNorm")
    return x


def test_forward_is_the_paper_s(tiny):
    ids = [2, 4, 9, 9, 17, 29, 3]
    got = load_bert(tiny.folder)(jnp.array([ids]), jnp.ones((1, len(ids)), int)).last_BxLxD[0]
    # float32 against float64 over two layers of states of size 1 to 5.
    np.testing.assert_allclose(got, numpy_states(tiny.config, tiny.tensors, ids), atol=2e-5)


def test_texts_packed_in_a_row_do_not_see_each_other(tiny):
    texts = [[2, 5, 6, 7, 3], [2, 8, 3], [2, 3], [2, 25, 24, 23, 22, 21, 3]]
    length = np.array([len(t) for t in texts])
    start = np.array([0, 5, 0, 3])  # rows: 5 + 3 tokens, 2 + (a gap of 1) + 7 tokens
    batch = Batch(2, 12, np.arange(4), np.array([0, 0, 1, 1]), start, np.array([0, 1, 0, 1]))
    tokens = Tokens(np.concatenate(texts).astype(np.int32), np.concatenate([[0], np.cumsum(length)]))
    got = load_bert(tiny.folder)(*fill(batch, tokens)).last_BxLxD
    for n, text in enumerate(texts):
        mine = got[batch.row[n], start[n] : start[n] + len(text)]
        np.testing.assert_allclose(mine, numpy_states(tiny.config, tiny.tensors, text), atol=2e-5, err_msg=str(n))


def test_positions_restart_with_every_segment():
    segment = jnp.array([[1, 1, 1, 2, 2, 0, 0, 3], [0, 0, 5, 5, 5, 5, 5, 5]])
    expected = [[0, 1, 2, 0, 1, 0, 1, 0], [0, 1, 0, 1, 2, 3, 4, 5]]
    np.testing.assert_array_equal(segment_positions(segment), expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torch_s(name):
    x = np.linspace(-6, 6, 401)
    erf = np.vectorize(math.erf)(x / math.sqrt(2))
    tanh = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    expected = {"gelu": x / 2 * (1 + erf), "relu": np.maximum(x, 0)}.get(name, x / 2 * (1 + tanh))
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x, jnp.float32)), expected, atol=2e-6)


def test_config_names_every_unusable_field(tiny):
    raw = tiny.config | {"hidden_act": "swish", "vocab_size": "30", "position_embedding_type": "relative_key"}
    del raw["intermediate_size"]
    with pytest.raises(UserError) as error:
        BertConfig.from_json(raw, "here/config.json")
    for part in ("here/config.json", "swish", "gelu_new", "vocab_size", "'30'", "intermediate_size", "relative_key"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="24 is no multiple of 5"):
        BertConfig.from_json(tiny.config | {"num_attention_heads": 5})


def test_tiny_golden_layer_by_layer(golden):
    """torch, float32. States are of size 1 to 4 and go through 3 layers of sums over 64 to 160 products, each rounded
    in another order than torch's: 2e-6 is seen, 1e-5 leaves room for another CPU's order of summation."""
    stored = np.load(golden / "tiny/bert/outputs.npz")
    model = load_bert(golden / "tiny/bert", pooler=True)
    got = jax.jit(lambda i, m: model(i, m, hidden_states=True))(stored["ids"], stored["mask"])
    mask = stored["mask"][:3, :, None]
    assert len(got.hidden) == len(stored["hidden_first3"]) == 4
    for layer, (mine, torchs) in enumerate(zip(got.hidden, stored["hidden_first3"], strict=True)):
        np.testing.assert_allclose(mine[:3] * mask, torchs * mask, atol=1e-5, err_msg=f"layer {layer}")
    np.testing.assert_allclose(got.last_BxLxD[:, 0], stored["cls"], atol=1e-5)
    np.testing.assert_allclose(got.pooled_BxD, stored["pooler"], atol=1e-5)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_minilm_golden_layer_by_layer(golden, minilm, which):
    """torch, float32. A few dimensions of MiniLM's states are of size 10 and more and its layer norms divide by small
    deviations, so float32 rounding in another order grows to 1e-5 in 6 layers; a wrong layer is off by 0.1 or more."""
    stored = np.load(golden / "minilm/minilm.npz")
    n = stored["three"][which]
    ids = stored["ids"][None, stored["id_ptr"][n] : stored["id_ptr"][n + 1]]
    model = nnx.merge(minilm.graphdef, minilm.state)
    got = jax.jit(lambda i, m: model(i, m, hidden_states=True))(ids, np.ones_like(ids)).hidden
    torchs = stored[f"hidden_{which}"]
    if torchs.ndim == 3:  # a long text: its last states only
        got, torchs = got[-1:], torchs[None]
    for layer, (mine, theirs) in enumerate(zip(got, torchs, strict=True)):
        np.testing.assert_allclose(mine, theirs, atol=1e-4, err_msg=f"layer {layer}")
