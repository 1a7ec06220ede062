"""The BERT encoder against torch's outputs and against a forward pass written here in plain NumPy."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_encoders import assert_layers_are_torch_s, assert_rows_are, in_rows, load, numpy_layers

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.encoder_config import bert_config
from mig_jax.models.networks.encoder import Encoder
from mig_jax.models.networks.layers import ACTIVATIONS, attend, segment_positions


def load_bert(folder: Path, *, pooler: bool = False) -> Encoder:
    return load(folder, pooler=pooler)


def numpy_states(config: dict, w: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The last states of one text, ``[L, D]``, by plain NumPy."""
    return numpy_layers(config, w, ids)[-1]


def test_forward_is_the_paper_s_and_texts_packed_in_a_row_do_not_see_each_other(tiny):
    rows = [[[2, 4, 9, 9, 17, 29, 3]], [[2, 5, 6, 7, 3], [2, 8, 3]], [[2, 3], [2, 25, 24, 23, 22, 21, 3]]]
    assert_rows_are(tiny.config, tiny.tensors, load_bert(tiny.folder), rows, 12)


def test_the_pooler_takes_the_first_token_wherever_the_padding_stands(tiny):
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(0, 0.3, (24, 24)), rng.normal(0, 0.3, 24)
    pooler = {"pooler.dense.weight": weight, "pooler.dense.bias": bias}
    tiny.write(tiny.tensors | {key: value.astype(np.float32) for key, value in pooler.items()})
    text = [2, 5, 6, 7, 3]
    expected = np.tanh(weight @ numpy_states(tiny.config, tiny.tensors, text)[0] + bias)
    run = jax.jit(load_bert(tiny.folder, pooler=True))
    for left in (False, True):
        got = run(*in_rows([[text]], 8, left=left)).pooled_BxD[0]
        np.testing.assert_allclose(got, expected, atol=2e-5)  # as in assert_rows_are


def test_bfloat16_is_near(tiny):
    """8 bits of a number: 0.4 % of states of size 1 to 5, in each of some twenty roundings, which partly cancel."""
    text = [2, 4, 9, 9, 17, 29, 3]
    model = load(tiny.folder, dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(model))} == {"bfloat16"}
    got = jax.jit(model)(*in_rows([[text]], 8)).last_BxLxD
    assert got.dtype == jnp.bfloat16
    error = np.abs(np.asarray(got, np.float32)[0, : len(text)] - numpy_states(tiny.config, tiny.tensors, text))
    assert 0 < error.mean() < 0.03
    assert error.max() < 0.15


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("biased", [False, True])
def test_attention_is_softmax_in_each_head_and_a_mean_where_nothing_is_seen(heads, groups, biased):
    rng = np.random.default_rng(heads)
    q, k, v = (rng.normal(size=(2, n, h, 8)) for n, h in ((5, heads), (7, groups), (7, groups)))
    mask = rng.random((2, 5, 7)) < 0.6
    mask[1, 3] = False
    bias = rng.normal(size=(heads, 5, 7)) * biased
    expected = np.zeros_like(q)
    for b, i, h in np.ndindex(2, 5, heads):
        seen = mask[b, i] if mask[b, i].any() else np.ones(7, bool)
        score = k[b, :, h * groups // heads] @ q[b, i, h] / np.sqrt(8) + bias[h, i]
        score = np.exp(np.where(seen, score, -np.inf)) if mask[b, i].any() else np.ones(7)
        expected[b, i, h] = score / score.sum() @ v[b, :, h * groups // heads]
    given = [jnp.asarray(a, jnp.float32) for a in (q, k, v)]
    for how in ("plain", "auto"):
        got = attend(*given, jnp.asarray(mask), bias_HxLxS=jnp.asarray(bias, jnp.float32) if biased else None, how=how)
        np.testing.assert_allclose(got, expected, atol=2e-6)  # float32 sums of 7 products of size 1


def test_positions_restart_with_every_segment():
    segment = jnp.array([[1, 1, 1, 2, 2, 0, 0, 3], [0, 0, 5, 5, 5, 5, 5, 5]])
    expected = [[0, 1, 2, 0, 1, 0, 1, 0], [0, 1, 0, 1, 2, 3, 4, 5]]
    np.testing.assert_array_equal(segment_positions(segment), expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torch_s(name):
    x = np.linspace(-6, 6, 401)
    tanh = x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    expected = {
        "gelu": x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
        "gelu_new": tanh,
        "gelu_pytorch_tanh": tanh,
        "relu": np.maximum(x, 0),
        "silu": x / (1 + np.exp(-x)),
        "tanh": np.tanh(x),
    }
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x, jnp.float32)), expected[name], atol=2e-6)


def test_config_names_every_unusable_field(tiny):
    raw = tiny.config | {"hidden_act": "swish", "vocab_size": "30", "position_embedding_type": "relative_key"}
    raw |= {"is_decoder": True, "layer_norm_eps": None}
    del raw["intermediate_size"]
    with pytest.raises(UserError) as error:
        bert_config(raw, "here/config.json")
    for part in ("here/config.json", "swish", "gelu_new", "vocab_size", "'30'", "intermediate_size", "relative_key",
                 "is_decoder is True", "layer_norm_eps must be a number in [0, 1), not None"):  # fmt: skip
        assert part in str(error.value)
    with pytest.raises(UserError, match="24 is no multiple of 5"):
        bert_config(tiny.config | {"num_attention_heads": 5}, "config.json")


def test_tiny_golden_layer_by_layer(golden):
    assert_layers_are_torch_s(golden / "tiny/bert")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_minilm_golden_layer_by_layer(golden, minilm, which):
    """torch, float32. A few dimensions of MiniLM's states are of size 10 and more and its layer norms divide by small
    deviations, so float32 rounding in another order grows to 1e-5 in 6 layers; a wrong layer is off by 0.1 or more."""
    stored = np.load(golden / "minilm/minilm.npz")
    n = stored["three"][which]
    ids = stored["ids"][None, stored["id_ptr"][n] : stored["id_ptr"][n + 1]]
    model = nnx.merge(minilm.loaded.graphdef, minilm.loaded.state)
    got = jax.jit(lambda i, m: model(i, m, hidden_states=True))(ids, np.ones_like(ids)).hidden
    torchs = stored[f"hidden_{which}"]
    if torchs.ndim == 3:  # a long text: its last states only
        got, torchs = got[-1:], torchs[None]
    for layer, (mine, theirs) in enumerate(zip(got, torchs, strict=True)):
        np.testing.assert_allclose(mine, theirs, atol=1e-4, err_msg=f"layer {layer}")
