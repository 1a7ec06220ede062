"""Tiny random decoders, and a tokenizer whose words are letters, for the tests that run them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mig_jax.models.checkpoints.decoder_config import DecoderConfig
from mig_jax.models.checkpoints.tensors import safetensors
from mig_jax.models.inference.language_model import LanguageModel
from mig_jax.models.inference.loaded import LoadedModel
from mig_jax.models.networks.decoder import Decoder, weight_map
from mig_jax.models.networks.layers import Build
from mig_jax.models.networks.sharding import place, shardings
from mig_jax.models.networks.weights import load_model

WORDS = ["<pad>", "<bos>", "<eos>", *"abcdefghijklmnopqrstuvwxyz", " ", "ab", "cde", "fghi"]
BASE = {
    "model_type": "llama",
    "vocab_size": len(WORDS),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}


def read(**changes) -> DecoderConfig:
    """The tiny config with other fields."""
    return DecoderConfig.from_json(BASE | changes)


def random_decoder(config: DecoderConfig, seed: int = 0, dtype: str = "float32", mesh: Mesh | None = None) -> Decoder:
    """Random weights, the same for every type and mesh, large enough that tokens differ.

    Norms' scales and biases are random too, so that a forgotten one shows.
    """
    rng = np.random.default_rng(seed)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: Decoder(config, Build(dtype), rngs=nnx.Rngs(0))))
    goals = {} if mesh is None else dict(nnx.to_flat_state(shardings(abstract, mesh)))
    filled = {}
    for path, leaf in nnx.to_flat_state(abstract):
        shape, kind = leaf.get_value().shape, path[-1]
        inputs = shape[0] * (shape[1] if path[-2] == "output" and kind == "kernel" else 1)
        spread = {"scale": 0.2, "bias": 0.2, "embedding": 0.5}.get(str(kind), inputs**-0.5)
        value = rng.normal(0, spread, shape) + (kind == "scale")
        filled[path] = leaf.replace(place(value.astype(leaf.get_value().dtype), goals.get(path)))
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def load_decoder(folder: Path) -> Decoder:
    """A golden's float16 weights as float32."""
    config = DecoderConfig.from_json(json.loads((folder / "config.json").read_text()))
    weights = safetensors([folder / "model.safetensors"])
    return load_model(lambda: Decoder(config, Build(), rngs=nnx.Rngs(0)), weight_map(config), weights)


class Letters:
    """One letter or a few a token, and no rule for which: decoding says what the tokens are."""

    bos_id: int | None = 1
    eos_ids: frozenset[int] = frozenset([2])

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[WORDS.index(letter) for letter in text] for text in texts]

    def decode(self, ids: list[int]) -> str:
        return "".join(WORDS[i] for i in ids)


def language_model(
    decoder: Decoder, tokenizer: Letters | None = None, mesh: Mesh | None = None, max_length: int | None = None
) -> LanguageModel:
    """The decoder as ``generate`` takes it."""
    config = decoder.config
    words = Letters() if tokenizer is None else tokenizer
    return LanguageModel(
        "tiny", LoadedModel(*nnx.split(decoder), mesh), words, config, max_length or config.max_positions, ""
    )


def draw_ids(seed: int, lengths: Sequence[int]) -> list[list[int]]:
    """Texts of random letters."""
    rng = np.random.default_rng(seed)
    return [rng.integers(3, len(WORDS), length).tolist() for length in lengths]
