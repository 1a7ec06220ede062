"""CaR's scorer: its own code's outputs, and the head against plain NumPy."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from tiny_encoders import in_rows, numpy_layers, tiny_config, tiny_weights, write

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.tensors import safetensors
from mig_jax.models.networks.car_scorer import CarConfig, CarScorer, weight_map
from mig_jax.models.networks.layers import Build
from mig_jax.models.networks.weights import load_model, save_model

TEXTS = [[6, 9, 9, 17, 29, 2], [6, 5, 2], [6, 7, 8, 9, 10, 11, 12, 13, 2]]


def load_scorer(raw: dict, files: list[Path], dtype: str = "float32") -> CarScorer:
    config = CarConfig.from_json(raw)

    def build() -> CarScorer:
        return CarScorer(config, Build(dtype), rngs=nnx.Rngs(0))

    return load_model(build, weight_map(config), safetensors(files))


def tiny_head(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {f"layerwise_attention.scalar_parameters.{n}": (1,) for n in range(3)}
    shapes |= {"layerwise_attention.gamma": (1,)}
    for n, (i, o) in zip((0, 3, 6), ((24, 10), (10, 6), (6, 1)), strict=True):
        shapes |= {f"estimator.ff.{n}.weight": (o, i), f"estimator.ff.{n}.bias": (o,)}
    return {key: rng.normal(0, 0.7, shape).astype(np.float32) for key, shape in shapes.items()}


@pytest.fixture
def tiny_scorer(tmp_path):
    """config.json, the encoder's tensors, the head's, and a folder with them in two files."""
    config = tiny_config("xlm-roberta", hidden_sizes=[10, 6])
    tensors, head = tiny_weights(config, seed=14), tiny_head(seed=15)
    folder = write(tmp_path / "scorer", config, tensors)
    save_file(head, folder / "head.safetensors")
    return config, tensors, head, [folder / "model.safetensors", folder / "head.safetensors"]


def numpy_score(config: dict, tensors: dict, head: dict, ids: list[int]) -> float:
    head = {key: value.astype(np.float64) for key, value in head.items()}
    states = numpy_layers(config, tensors, ids)
    share = np.exp([head[f"layerwise_attention.scalar_parameters.{n}"][0] for n in range(len(states))])
    normed = [(x - x.mean()) / x.std() for x in states]
    mixed = sum(w * x for w, x in zip(share / share.sum(), normed, strict=True))
    x = (head["layerwise_attention.gamma"] * mixed).mean(0)
    for n in (0, 3, 6):
        x = head[f"estimator.ff.{n}.weight"] @ x + head[f"estimator.ff.{n}.bias"]
        x = np.tanh(x) if n < 6 else x
    return float(x[0])


def test_scores_are_the_formula_s_whatever_the_padding_and_the_neighbours(tiny_scorer):
    config, tensors, head, files = tiny_scorer
    expected = [numpy_score(config, tensors, head, text) for text in TEXTS]
    run = jax.jit(load_scorer(config, files))
    for left in (False, True):
        got = run(*in_rows([[text] for text in TEXTS], 12, left=left))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, atol=1e-5)  # float32; scores of size 1


def test_golden(golden):
    """CaR's own modules on torch, float32. The scores are of size 1 and rounding differs by 1e-6 in the states."""
    folder = golden / "tiny/xlm-roberta"
    stored = np.load(folder / "outputs.npz")
    raw = json.loads((folder / "config.json").read_text()) | {"hidden_sizes": [48, 24]}
    model = load_scorer(raw, [folder / "model.safetensors", folder / "iqs_head.safetensors"])
    ids, mask = stored["ids"], stored["mask"]
    hidden = jax.jit(lambda i, m: jnp.stack(model.encoder(i, m, hidden_states=True).hidden))(ids[:3], mask[:3])
    mixed = jax.jit(model.mix)(hidden, mask[:3].astype(np.float32)) * mask[:3, :, None]
    np.testing.assert_allclose(mixed, stored["iqs_mix_first3"] * mask[:3, :, None], atol=1e-5)
    np.testing.assert_allclose(jax.jit(CarScorer.embed)(model, ids, mask), stored["iqs_sentence_embedding"], atol=1e-5)
    np.testing.assert_allclose(jax.jit(model)(ids, mask), stored["iqs_score"], atol=1e-5)


def test_a_row_of_padding_gives_a_number(tiny_scorer):
    config, _, _, files = tiny_scorer
    ids, segments = in_rows([[TEXTS[0]], []], 8)
    got = jax.jit(load_scorer(config, files))(ids, segments)
    assert np.isfinite(got).all()


def test_bfloat16_is_near(tiny_scorer):
    """8 bits of a number; scores of size 1 after some forty roundings that partly cancel."""
    config, tensors, head, files = tiny_scorer
    got = jax.jit(load_scorer(config, files, "bfloat16"))(*in_rows([[text] for text in TEXTS], 12))
    error = np.abs(got - np.array([numpy_score(config, tensors, head, text) for text in TEXTS]))
    assert 0 < error.max() < 0.1


def test_checkpoints_of_comet_and_back(tiny_scorer, tmp_path):
    config, tensors, head, files = tiny_scorer
    whole = {"encoder.model." + key: value for key, value in tensors.items()} | head
    pooler = {"encoder.model.pooler.dense.bias": np.zeros(24, np.float32)}
    buffer = {"encoder.model.embeddings.position_ids": np.arange(66)[None]}
    save_file(whole | pooler | buffer, tmp_path / "comet.safetensors")
    model = load_scorer(config, [tmp_path / "comet.safetensors"])
    [file] = save_model(model, weight_map(CarConfig.from_json(config)), tmp_path)
    saved = load_file(file)
    assert saved.keys() == whole.keys()
    for key, value in saved.items():
        np.testing.assert_array_equal(value, whole[key], err_msg=key)
    given = in_rows([[TEXTS[0]]], 8)
    np.testing.assert_array_equal(*(jax.jit(m)(*given) for m in (model, load_scorer(config, files))))


def test_a_head_that_does_not_fit_is_named(tiny_scorer):
    config, _, head, files = tiny_scorer
    del head["layerwise_attention.scalar_parameters.2"], head["layerwise_attention.gamma"]
    head["estimator.ff.9.bias"] = np.zeros(1, np.float32)
    save_file(head, files[1])
    with pytest.raises(UserError) as error:
        load_scorer(config, files)
    for part in ("layerwise_attention.scalar_parameters.2 is missing", "layerwise_attention.gamma is missing",
                 "unexpected tensor estimator.ff.9.bias [1]"):  # fmt: skip
        assert part in str(error.value)


def test_config():
    assert CarConfig.from_json(tiny_config("xlm-roberta")).hidden_sizes == (2048, 1024)
    with pytest.raises(UserError) as error:
        CarConfig.from_json(tiny_config("xlm-roberta", hidden_sizes=[10, 0], vocab_size=None), "here/config.json")
    for part in ("here/config.json", "vocab_size", "hidden_sizes must be a list of whole numbers >= 1, not [10, 0]"):
        assert part in str(error.value)
