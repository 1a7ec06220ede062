"""The decoder against torch's stored outputs, and against arithmetic written here."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_cases import BASE, draw_ids, load_decoder, random_decoder, read
from flax import nnx
from safetensors.numpy import load_file, save_file

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.decoder_config import DecoderConfig, Rope
from mig_jax.models.checkpoints.tensors import safetensors
from mig_jax.models.networks.decoder import Decoder, frequencies, weight_map
from mig_jax.models.networks.weights import load_model, save_model

# float32 sums of 60 to 160 products in another order than torch's: 2e-6 is measured, of numbers up to 4.
CLOSE = 1e-5
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip


@nnx.jit
def run(model: Decoder, id_BxL, segment_BxL):
    states = model(id_BxL, segment_BxL, hidden_states=True)
    return states.last_BxLxD, states.hidden, model.logits(states.last_BxLxD)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_each_layer_equals_torch_s(golden, family, side):
    """llama: rope scaled as Llama 3.1; mistral: a window of 24 of 62 tokens; qwen2: biases, tied."""
    stored = np.load(golden / "tiny" / family / "outputs.npz")
    mask_BxL = stored[f"{side}_mask"].astype(np.int32)
    last, hidden, logits = run(load_decoder(golden / "tiny" / family), stored[f"{side}_ids"].astype(np.int32), mask_BxL)
    real = mask_BxL[:3, :, None]
    for layer, expected in enumerate(stored[f"{side}_hidden_first3"]):
        np.testing.assert_allclose(hidden[layer][:3] * real, expected, atol=CLOSE, err_msg=f"layer {layer}")
    row = np.arange(len(mask_BxL))
    at = mask_BxL.sum(1) - 1 if side == "right" else np.full(len(row), mask_BxL.shape[1] - 1)
    vector = np.asarray(last)[row, at]
    np.testing.assert_allclose(vector, stored[f"{side}_last_hidden"], atol=CLOSE)
    np.testing.assert_allclose(vector, stored["nopad_last_hidden"], atol=CLOSE)
    unit = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, stored[f"{side}_embedding"], atol=CLOSE)
    # Logits reach 47, and float32 has seven digits.
    np.testing.assert_allclose(np.asarray(logits)[row[:3], at[:3]], stored[f"{side}_last_logits"], atol=1e-4)


def test_the_scorer_of_deita_s_golden_has_torch_s_logits(golden):
    """Heads of 6, tied; prompts of 100 tokens and more in one padded batch."""
    folder = golden / "deita_scorer"
    with gzip.open(folder / "scores.json.gz") as file:
        records = json.load(file)
    prompts = [record[f"{kind}_ids"] for record in records for kind in ("complexity", "quality")]
    length = np.array([len(ids) for ids in prompts])
    id_BxL, segment_BxL = np.zeros((2, len(prompts), length.max()), np.int32)
    for row, ids in enumerate(prompts):
        id_BxL[row, : len(ids)], segment_BxL[row, : len(ids)] = ids, 1
    model = load_decoder(folder)

    @jax.jit
    def last_logits(id_BxL, segment_BxL, at_B):
        last = model(id_BxL, segment_BxL).last_BxLxD
        return model.logits(last[jnp.arange(len(at_B)), at_B])

    found = np.asarray(last_logits(id_BxL, segment_BxL, length - 1))
    np.testing.assert_allclose(found[:4], np.load(folder / "first_logits.npz")["logits"], atol=1e-4)
    digits = [29896, 29906, 29941, 29946, 29945, 29953]
    expected = [record[f"{kind}_digit_logits"] for record in records for kind in ("complexity", "quality")]
    np.testing.assert_allclose(found[:, digits], expected, atol=1e-4)


SHAPES = {
    "llama": {"rope_parameters": LLAMA3, "mlp_bias": True, "attention_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": 5, "head_dim": 10},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
}


@pytest.fixture(params=SHAPES, scope="module")
def model(request) -> Decoder:
    return random_decoder(read(**SHAPES[request.param]))


def rows_of(texts, places):
    """[2, 24] ids and segments, the one shape that is compiled; places: (row, start, segment) of each text."""
    id_BxL, segment_BxL = np.zeros((2, 2, 24), np.int32)
    for ids, (row, start, segment) in zip(texts, places, strict=True):
        id_BxL[row, start : start + len(ids)] = ids
        segment_BxL[row, start : start + len(ids)] = segment
    return id_BxL, segment_BxL


def test_a_later_token_changes_nothing_before_it(model):
    """Both rows hold one text but for its token 11."""
    [ids] = draw_ids(0, [24])
    other = [*ids[:11], 3 if ids[11] != 3 else 4, *ids[12:]]
    before, after = run(model, *rows_of([ids, other], [(0, 0, 1), (1, 0, 1)]))[0]
    np.testing.assert_array_equal(before[:11], after[:11])
    assert (np.abs(before[11] - after[11]) > 1e-3).any()


def test_texts_side_by_side_are_as_alone(model):
    """Three texts in a row, one more in the next, padding left, right and between."""
    texts = draw_ids(1, [9, 4, 7, 13])
    places = [(0, 0, 1), (0, 10, 3), (0, 14, 2), (1, 6, 1)]
    packed = run(model, *rows_of(texts, places))[0]
    for ids, (row, start, _) in zip(texts, places, strict=True):
        alone = run(model, *rows_of([ids], [(0, 0, 1)]))[0]
        # Other sums of the same numbers; the rotations' angles are equal, as positions start anew in each text.
        np.testing.assert_allclose(packed[row, start : start + len(ids)], alone[0, : len(ids)], atol=CLOSE)


def test_a_window_ends_where_it_should():
    """Two layers that see 3 tokens back, themselves included, reach 4 back together; a full layer reaches all."""
    window = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 3}
    id_1xL = np.array(draw_ids(2, [12]), np.int32)
    id_2xL = np.repeat(id_1xL, 2, axis=0)
    id_2xL[1, 2] = 3 if id_2xL[1, 2] != 3 else 4

    def changed(**fields):
        model = random_decoder(read(**window, **fields))
        one, two = run(model, id_2xL, np.ones_like(id_2xL))[0]
        return np.flatnonzero(np.abs(one - two).max(-1) > 0).tolist()

    assert changed(max_window_layers=0) == [2, 3, 4, 5, 6]
    assert changed(max_window_layers=1) == list(range(2, 12))
    assert changed(max_window_layers=0, num_hidden_layers=1) == [2, 3, 4]


def test_llama3_s_frequencies_are_the_formula_s():
    rope = Rope(theta=5e5, kind="llama3", factor=8.0, low=1.0, high=4.0, original=8192)
    found = frequencies(rope, 128)
    for k in range(64):
        plain = 500_000.0 ** (-2 * k / 128)
        wavelength = 2 * np.pi / plain
        if wavelength < 8192 / 4:
            expected = plain
        elif wavelength > 8192 / 1:
            expected = plain / 8
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            expected = (1 - smooth) * plain / 8 + smooth * plain
        np.testing.assert_allclose(found[k], expected, rtol=1e-6)  # float32 has 7 digits
    assert len({round(float(a / b), 3) for a, b in zip(found, frequencies(Rope(theta=5e5), 128), strict=True)}) > 3
    np.testing.assert_allclose(frequencies(Rope(kind="linear", factor=4.0), 8) * 4, frequencies(Rope(), 8), rtol=1e-6)
    factors = (1.0, 2.0, 3.0, 4.0)
    np.testing.assert_allclose(
        frequencies(Rope(kind="factors", factors=factors), 8) * factors, frequencies(Rope(), 8), rtol=1e-6
    )


def test_qwen3_in_numpy():
    """The whole model written out in float64, one text; q and k are normed over each head before they turn."""
    config = read(model_type="qwen3", head_dim=8)
    model = random_decoder(config)
    w = {
        ".".join(map(str, path)): np.asarray(leaf.get_value(), float)
        for path, leaf in nnx.to_flat_state(nnx.state(model))
    }
    [ids] = draw_ids(3, [11])

    def norm(x, scale):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    angle = np.arange(len(ids))[:, None] / 10_000.0 ** (np.arange(4) / 4)

    def turn(x):
        first, second = x[..., :4], x[..., 4:]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    x = w["embed.embedding"][ids]
    for n in range(2):
        at = f"layers.{n}."
        y = norm(x, w[at + "attention_norm.scale"])
        q, k, v = (np.einsum("ld,dhk->lhk", y, w[f"{at}attention.{part}.kernel"]) for part in ("query", "key", "value"))
        q = turn(norm(q, w[at + "attention.query_norm.scale"]))
        k = turn(norm(k, w[at + "attention.key_norm.scale"]))
        mixed = np.zeros_like(q)
        for h in range(4):
            score = q[:, h] @ k[:, h // 2].T / np.sqrt(8)
            score[np.triu_indices(len(ids), 1)] = -np.inf
            p = np.exp(score - score.max(-1, keepdims=True))
            mixed[:, h] = p / p.sum(-1, keepdims=True) @ v[:, h // 2]
        x = x + np.einsum("lhk,hkd->ld", mixed, w[at + "attention.output.kernel"])
        y = norm(x, w[at + "mlp_norm.scale"])
        gate = y @ w[at + "mlp.gate.kernel"]
        x = x + gate / (1 + np.exp(-gate)) * (y @ w[at + "mlp.up.kernel"]) @ w[at + "mlp.down.kernel"]
    expected = norm(x, w["norm.scale"]) @ w["head.kernel"]
    found = run(model, np.array([ids], np.int32), np.ones((1, len(ids)), np.int32))[2]
    np.testing.assert_allclose(found[0], expected, atol=CLOSE)


def test_remat_gives_the_same_gradients():
    model = random_decoder(read(**SHAPES["mistral"], num_hidden_layers=1))
    id_BxL = np.array(draw_ids(4, [16, 16]), np.int32)

    def gradient(remat):
        def loss(model):
            last = model(id_BxL, np.ones_like(id_BxL), remat=remat).last_BxLxD
            return jax.nn.logsumexp(model.logits(last), axis=-1).mean()

        return nnx.to_flat_state(nnx.jit(nnx.grad(loss))(model))

    plain, again = gradient(False), gradient(True)
    assert any(np.abs(np.asarray(leaf.get_value())).max() > 1e-3 for _, leaf in plain)
    for (path, one), (_, two) in zip(plain, again, strict=True):
        # The same numbers computed again, fused otherwise.
        np.testing.assert_allclose(one.get_value(), two.get_value(), atol=1e-6, err_msg=str(path))


def test_bfloat16_is_near_float32(model):
    half = random_decoder(model.config, dtype="bfloat16")
    rows = rows_of(draw_ids(5, [24, 24]), [(0, 0, 1), (1, 0, 1)])
    one, two = run(model, *rows), run(half, *rows)
    assert two[0].dtype == jnp.bfloat16
    assert two[2].dtype == jnp.float32
    # 8 bits: each of some twenty roundings is up to 0.4 % of numbers up to 3; half as much again was measured.
    assert np.abs(np.asarray(one[0]) - np.asarray(two[0], np.float32)).max() < 0.15
    assert np.abs(np.asarray(one[2]) - np.asarray(two[2])).max() < 0.25


@pytest.mark.parametrize(
    ("kind", "heads", "size", "windows", "positions"),
    [
        ("llama", 32, 2, None, 2048),
        ("mistral", 8, 2, 4096, 131_072),
        ("qwen2", 32, 2, None, 32_768),
        ("qwen3", 32, 128, None, 32_768),
    ],
)
def test_what_is_absent_is_what_transformers_takes(kind, heads, size, windows, positions):
    """Old config.json files leave defaults out; null is said and is another thing (the classes' defaults of 5.23)."""
    raw = {key: value for key, value in BASE.items() if key in (
        "vocab_size", "num_hidden_layers", "intermediate_size")}  # fmt: skip
    raw |= {"model_type": kind, "num_attention_heads": 32, "hidden_size": 64}
    config = DecoderConfig.from_json(raw)
    assert (config.num_kv_heads, config.head_dim, set(config.windows)) == (heads, size, {windows})
    assert (config.max_positions, config.eps, config.activation, config.rope) == (positions, 1e-6, "silu", Rope())
    nulls = DecoderConfig.from_json(raw | {"sliding_window": None, "num_key_value_heads": None, "head_dim": None})
    assert (nulls.num_kv_heads, nulls.head_dim, set(nulls.windows)) == (32, 2, {None})


def test_a_qwen_slides_in_its_last_layers():
    raw = BASE | {"model_type": "qwen2", "num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 16}
    assert DecoderConfig.from_json(raw | {"max_window_layers": 3}).windows == (None, None, None, 16)
    assert DecoderConfig.from_json(raw).windows == (None,) * 4  # 28 where it is absent


def test_all_that_is_wrong_with_a_config_is_said_at_once():
    raw = BASE | {
        "model_type": "mistral",
        "vocab_size": 0,
        "hidden_size": None,
        "rms_norm_eps": -1,
        "hidden_act": "swish2",
        "max_position_embeddings": None,
        "sliding_window": "all",
        "layer_types": 3,
        "rope_parameters": {"rope_type": "yarn"},
    }
    with pytest.raises(UserError) as error:
        DecoderConfig.from_json(raw, "there/config.json")
    for part in (
        "there/config.json",
        "vocab_size",
        "hidden_size",
        "rms_norm_eps",
        "hidden_act",
        "max_position_embeddings",
        "sliding_window",
        "layer_types",
        "yarn",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"num_key_value_heads": 3}, "4 heads are no multiple of 3"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        ({"rope_parameters": LLAMA3 | {"factor": None}}, "factor=None"),
        ({"rope_parameters": LLAMA3 | {"high_freq_factor": 1.0}}, "not above low_freq_factor"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 of 2"),
        ({"layer_types": ["full_attention", "chunked"]}, "chunked"),
        ({"layer_types": 7}, "layer_types must be a list or null, not 7"),
        ({"layer_types": "full_attention"}, "layer_types must be a list or null"),
        ({"model_type": "qwen2", "max_window_layers": None}, "max_window_layers must be a whole number >= 0, not None"),
        ({"rope_parameters": [1]}, "must be an object"),
        ({"rope_parameters": {"rope_type": ["linear"]}}, r"rope type is \['linear'\]"),
        ({"rope_parameters": {"rope_type": "factors", "factors": None}}, "factors must be a list of numbers > 0"),
        ({"rope_parameters": {"rope_type": "factors", "factors": [1.0, "a", 1.0]}}, "factors must be a list"),
        ({"rope_parameters": {"rope_type": "factors", "factors": [1.0]}}, "1 factors for a head of 6"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        read(**changes)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_of_a_checkpoint_is_left_out(tmp_path, prefix):
    """An old buffer, with or without the prefix, and a classifier's map; a model that writes has no use for that."""
    model = random_decoder(read())
    save_model(model, weight_map(model.config), tmp_path)
    file = tmp_path / "model.safetensors"
    more = {f"{prefix}layers.1.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)}
    save_file(load_file(file) | more, file)
    load_decoder_of(tmp_path, model.config, head=True)
    classifier = {"score.weight": np.ones((2, 24), np.float32), "score.bias": np.ones(2, np.float32)}
    save_file(load_file(file) | classifier, file)
    load_decoder_of(tmp_path, model.config, head=False)
    with pytest.raises(UserError, match=r"unexpected tensor score\.bias .*\n.*unexpected tensor score\.weight"):
        load_decoder_of(tmp_path, model.config, head=True)


def load_decoder_of(folder, config, *, head: bool) -> Decoder:
    weights = weight_map(config, head=head)
    return load_model(
        lambda: Decoder(config, head=head, rngs=nnx.Rngs(0)), weights, safetensors([folder / "model.safetensors"])
    )
