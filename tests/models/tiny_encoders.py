"""Tiny random checkpoints of the encoder families, and their forward pass in plain NumPy.

The arithmetic is the papers' and transformers', float64, one text and one head at a time; nothing of the code under
test is used in it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from mig_jax.models.checkpoints.architectures import ARCHITECTURES
from mig_jax.models.checkpoints.tensors import safetensors
from mig_jax.models.networks import bert, mpnet, xlm_roberta
from mig_jax.models.networks.encoder import Encoder, EncoderStates
from mig_jax.models.networks.layers import Build
from mig_jax.models.networks.weights import load_model

MODULES = {"bert": bert, "mpnet": mpnet, "roberta": xlm_roberta, "xlm-roberta": xlm_roberta}

ATTENTION = {
    "bert": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    "mpnet": ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
}


def names(config: dict) -> tuple[tuple[str, ...], str]:
    """What a layer calls its four maps, and the norm after them."""
    if config["model_type"] == "mpnet":
        return ATTENTION["mpnet"], "attention.LayerNorm"
    return ATTENTION["bert"], "attention.output.LayerNorm"


def tiny_config(kind: str, **fields) -> dict:
    """Two layers, 24 wide, 3 heads, 30 words."""
    config = {
        "model_type": kind,
        "vocab_size": 30,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 64 if kind == "bert" else 66,
        "layer_norm_eps": 1e-12 if kind in ("bert", "mpnet") else 1e-5,
        "hidden_act": "gelu",
    }
    if kind == "mpnet":
        config |= {"relative_attention_num_buckets": 32}
    else:
        config |= {"type_vocab_size": 2 if kind == "bert" else 1}
    if kind != "bert":
        config |= {"pad_token_id": 1}
    return config | fields


def tiny_weights(config: dict, seed: int) -> dict[str, np.ndarray]:
    """Random tensors under the family's names, far larger than a trained model's."""
    D, F = config["hidden_size"], config["intermediate_size"]
    attention, attention_norm = names(config)
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], D),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], D),
    }
    if "type_vocab_size" in config:
        shapes["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], D)
    shapes |= {"embeddings.LayerNorm.weight": (D,), "embeddings.LayerNorm.bias": (D,)}
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        for name in attention:
            shapes |= {f"{at}{name}.weight": (D, D), f"{at}{name}.bias": (D,)}
        shapes |= {at + "intermediate.dense.weight": (F, D), at + "intermediate.dense.bias": (F,)}
        shapes |= {at + "output.dense.weight": (D, F), at + "output.dense.bias": (D,)}
        for name in (attention_norm, "output.LayerNorm"):
            shapes |= {f"{at}{name}.weight": (D,), f"{at}{name}.bias": (D,)}
    if config["model_type"] == "mpnet":
        shapes["encoder.relative_attention_bias.weight"] = (32, config["num_attention_heads"])
    rng = np.random.default_rng(seed)
    tensors = {key: rng.normal(0, 0.3, shape).astype(np.float32) for key, shape in shapes.items()}
    for key in tensors:
        if "LayerNorm.weight" in key:
            tensors[key] += 1
        if "relative" in key:
            tensors[key] *= 5  # as large as the scores: a wrong bucket must show
    return tensors


def write(folder: Path, config: dict, tensors: dict[str, np.ndarray]) -> Path:
    """A checkpoint folder."""
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, *, pooler: bool = False, dtype: str = "float32") -> Encoder:
    """The model of a folder."""
    raw = json.loads((folder / "config.json").read_text())
    module, options = MODULES[raw["model_type"]], Build(dtype)
    config = ARCHITECTURES[raw["model_type"]].read_config(raw, "config.json")
    make = mpnet.build if module is mpnet else Encoder

    def build() -> Encoder:
        return make(config, options, pooler=pooler, rngs=nnx.Rngs(0))

    return load_model(build, module.weight_map(pooler=pooler), safetensors([folder / "model.safetensors"]))


def bucket(distance: int) -> int:
    """MPNet's bucket of (place looked at - place that looks), by the thresholds 8 sqrt(2)^k."""
    n, later = abs(distance), 16 if distance > 0 else 0
    wide = sum(n >= math.sqrt(64 * 2**k) for k in range(1, 8))
    return later + (n if n < 8 else 8 + wide)


def numpy_layers(config: dict, w: dict[str, np.ndarray], ids: list[int]) -> list[np.ndarray]:
    """The embeddings and each layer's states of one text, ``[L, D]`` each."""
    w = {key: value.astype(np.float64) for key, value in w.items()}
    heads, size = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]
    attention, attention_norm = names(config)
    first = 0 if config["model_type"] == "bert" else config["pad_token_id"] + 1

    def norm(x, name):
        centred = x - x.mean(1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(1, keepdims=True) + config["layer_norm_eps"])
        return centred / deviation * w[name + ".weight"] + w[name + ".bias"]

    def dense(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    x = np.stack([w["embeddings.word_embeddings.weight"][i] for i in ids])
    x = x + w["embeddings.position_embeddings.weight"][first : first + len(ids)]
    if "type_vocab_size" in config:
        x = x + w["embeddings.token_type_embeddings.weight"][0]
    layers = [norm(x, "embeddings.LayerNorm")]
    for layer in range(config["num_hidden_layers"]):
        at, x = f"encoder.layer.{layer}.", layers[-1]
        q, k, v = (dense(x, at + name) for name in attention[:3])
        mixed = np.zeros_like(x)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            score = q[:, part] @ k[:, part].T / math.sqrt(size)
            if config["model_type"] == "mpnet":
                table = w["encoder.relative_attention_bias.weight"]
                score += [[table[bucket(j - i), h] for j in range(len(ids))] for i in range(len(ids))]
            score = np.exp(score)
            mixed[:, part] = score / score.sum(1, keepdims=True) @ v[:, part]
        x = norm(x + dense(mixed, at + attention[3]), at + attention_norm)
        up = dense(x, at + "intermediate.dense")
        up = up * 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
        layers.append(norm(x + dense(up, at + "output.dense"), at + "output.LayerNorm"))
    return layers


def in_rows(rows: list[list[list[int]]], width: int, *, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Texts side by side in rows: ids (0 at padding) and segments 1, 2, ...; the padding right, or left."""
    ids, segments = np.zeros((2, len(rows), width), np.int32)
    for r, texts in enumerate(rows):
        flat = [(i, n + 1) for n, text in enumerate(texts) for i in text]
        start = width - len(flat) if left else 0
        ids[r, start : start + len(flat)] = [i for i, _ in flat]
        segments[r, start : start + len(flat)] = [n for _, n in flat]
    return ids, segments


def assert_rows_are(config: dict, tensors: dict, model: Encoder, rows: list[list[list[int]]], width: int) -> None:
    """Every layer's states of every text in these rows, with padding right and left, are those of the text alone.

    Tolerance: float32 against float64 over two layers of states of size 1 to 5.
    """
    run = jax.jit(lambda ids, segments: jnp.stack(model(ids, segments, hidden_states=True).hidden))
    for left in (False, True):
        ids, segments = in_rows(rows, width, left=left)
        got = np.asarray(run(ids, segments))
        for r, texts in enumerate(rows):
            for n, text in enumerate(texts):
                mine, alone = got[:, r, segments[r] == n + 1], np.stack(numpy_layers(config, tensors, text))
                np.testing.assert_allclose(mine, alone, atol=3e-5, err_msg=f"left={left}, row {r}, text {n}")


def assert_layers_are_torch_s(folder: Path) -> tuple[Mapping[str, np.ndarray], EncoderStates]:
    """The states of a golden's checkpoint, layer by layer, are those that torch gave in float32; both, for more.

    States are of size 1 to 4 and go through 3 layers of sums over 64 to 160 products, each rounded in another order
    than torch's: 2e-6 is seen, 1e-5 leaves room for another CPU's order of summation.
    """
    stored = np.load(folder / "outputs.npz")
    model = load(folder, pooler=True)
    got = jax.jit(lambda i, m: model(i, m, hidden_states=True))(stored["ids"], stored["mask"])
    mask = stored["mask"][:3, :, None]
    assert len(got.hidden) == len(stored["hidden_first3"]) == 4
    for layer, (mine, torchs) in enumerate(zip(got.hidden, stored["hidden_first3"], strict=True)):
        np.testing.assert_allclose(mine[:3] * mask, torchs * mask, atol=1e-5, err_msg=f"layer {layer}")
    np.testing.assert_allclose(got.last_BxLxD[:, 0], stored["cls"], atol=1e-5)
    np.testing.assert_allclose(got.pooled_BxD, stored["pooler"], atol=1e-5)
    return stored, got
