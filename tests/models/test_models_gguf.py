"""GGUF: numbers, names, turned rows, config; the model equals the one from Hugging Face's layout."""

import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from flax import nnx
from gguf import GGMLQuantizationType as Kind
from tiny_gguf import METADATA, SPM, gguf_tensors, huggingface_tensors, tiny_file, write_gguf

from mig_jax.models.checkpoints.decoder_config import DecoderConfig
from mig_jax.models.checkpoints.gguf import Gguf, open_gguf, unpermuted
from mig_jax.models.checkpoints.gguf_header import read_metadata
from mig_jax.models.checkpoints.tensors import Tensor
from mig_jax.models.networks.decoder import Decoder, weight_map
from mig_jax.models.networks.weights import load_model

SIZES = {
    "vocab_size": 12,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
"""``METADATA`` in Hugging Face's words."""


def half(packed: np.ndarray) -> float:
    """Two bytes as a float of 16 bits."""
    return float(packed[:2].copy().view(np.float16)[0])


def q8_0(block: np.ndarray) -> list[float]:
    """34 bytes, 32 numbers: ``d q``."""
    return [half(block) * int(q) for q in block[2:].view(np.int8)]


def q4_1(block: np.ndarray) -> list[float]:
    """20 bytes, 32 numbers: ``d q + m``, the low halves of the bytes first."""
    d, m = half(block), half(block[2:])
    return [d * int(q & 15) + m for q in block[4:]] + [d * int(q >> 4) + m for q in block[4:]]


def q4_k(block: np.ndarray) -> list[float]:
    """144 bytes, 256 numbers in 8 groups: ``d s q - d' m``; the 6 bits of s and m lie in 12 bytes."""
    d, d_min, bits, packed = half(block), half(block[2:]), [int(b) for b in block[4:16]], block[16:]
    numbers = []
    for group in range(8):
        if group < 4:
            scale, low = bits[group] & 63, bits[group + 4] & 63
        else:
            scale = (bits[group + 4] & 15) | ((bits[group - 4] >> 6) << 4)
            low = (bits[group + 4] >> 4) | ((bits[group] >> 6) << 4)
        half_bytes = packed[group // 2 * 32 : group // 2 * 32 + 32]
        numbers += [d * scale * int((q >> 4) if group % 2 else (q & 15)) - d_min * low for q in half_bytes]
    return numbers


def q6_k(block: np.ndarray) -> list[float]:
    """210 bytes, 256 numbers in 16 groups: ``d s (q - 32)``; q has its 4 low bits in one place, 2 high in another."""
    low, high, scales, d = block[:128], block[128:192], block[192:208].view(np.int8), half(block[208:])
    numbers = []
    for n in range(256):
        part, at = divmod(n, 128)
        quarter, k = divmod(at, 32)
        byte = int(low[part * 64 + (quarter % 2) * 32 + k])
        top = (int(high[part * 32 + k]) >> (2 * quarter)) & 3
        q = (byte >> 4 if quarter >= 2 else byte & 15) | (top << 4)
        numbers.append(d * int(scales[n // 16]) * (q - 32))
    return numbers


def random_blocks(rows: int, blocks: int, size: int, halves: list[int]) -> np.ndarray:
    """Any bytes are a block, but the floats of 16 bits at ``halves`` must not be NaN or infinite."""
    rng = np.random.default_rng(5)
    packed = rng.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    for at in halves:
        packed[..., at : at + 2] = rng.normal(0, 0.1, (rows, blocks, 1)).astype(np.float16).view(np.uint8)
    return packed.reshape(rows, blocks * size)


@pytest.mark.parametrize(
    ("kind", "formula", "size", "halves"),
    [
        (Kind.Q4_1, q4_1, 20, [0, 2]),
        (Kind.Q8_0, q8_0, 34, [0]),
        (Kind.Q4_K, q4_k, 144, [0, 2]),
        (Kind.Q6_K, q6_k, 210, [208]),
    ],
)
def test_unpacks_by_the_formats_definition(tmp_path, kind, formula, size, halves):
    packed = random_blocks(33, 2, size, halves)
    hidden = packed.shape[1] // size * gguf.GGML_QUANT_SIZES[kind][0]
    tensors = gguf_tensors(huggingface_tensors(layers=0, hidden=hidden)) | {"token_embd.weight": (packed, kind)}
    found = read_all(open_gguf(write_gguf(tmp_path / "x.gguf", tensors)))["model.embed_tokens.weight"]
    wanted = [[x for block in row.reshape(-1, size) for x in formula(block)] for row in packed]
    assert found.dtype == np.float32 and found.shape == (33, hidden)
    # The formulas run in float64; two products and a difference in float32 lose a few units in the last place.
    np.testing.assert_allclose(found, np.array(wanted), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16])
def test_unpacks_floats(tmp_path, kind):
    plain = np.random.default_rng(1).normal(size=(6, 32)).astype(np.float32)
    packed = gguf.quants.quantize(plain, kind)
    tensors = gguf_tensors(huggingface_tensors(layers=0)) | {"token_embd.weight": (packed, kind)}
    found = read_all(open_gguf(write_gguf(tmp_path / "x.gguf", tensors)))["model.embed_tokens.weight"]
    bits = {Kind.F32: 24, Kind.F16: 11, Kind.BF16: 8}[kind]  # of the mantissa, the hidden one included
    np.testing.assert_allclose(found, plain, rtol=2.0**-bits)
    assert (found == plain).all() == (kind == Kind.F32)


def test_names_and_config(tmp_path):
    tensors = huggingface_tensors(tied=False, biases="qkvogud")
    found = open_gguf(write_gguf(tmp_path / "x.gguf", gguf_tensors(tensors, heads=4), more=SPM))
    assert {t.key: t.shape for t in found.tensors} == {key: value.shape for key, value in tensors.items()}
    assert {t.dtype for t in found.tensors} == {"F32"}
    for key, value in read_all(found).items():
        np.testing.assert_array_equal(value, tensors[key], err_msg=key)
    assert found.config == {
        "model_type": "llama",
        **SIZES,
        "rms_norm_eps": pytest.approx(1e-5),  # stored as float32
        "hidden_act": "silu",
        "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"},
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    DecoderConfig.from_json(found.config)


def read_all(file: Gguf) -> dict[str, np.ndarray]:
    return {tensor.key: tensor.read() for tensor in file.tensors}


def decoder(config: dict, tensors: list[Tensor]) -> Decoder:
    read = DecoderConfig.from_json(config)
    return load_model(lambda: Decoder(read, rngs=nnx.Rngs(0)), weight_map(read), tensors)


def logits(model: Decoder) -> np.ndarray:
    ids = np.random.default_rng(2).integers(0, 12, (2, 9), dtype=np.int32)
    return np.asarray(model.logits(model(ids, np.ones_like(ids)).last_BxLxD))


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama", {}),
        ("llama", {"biases": "qkvo", "tied": False}),
        ("qwen2", {"biases": "qkv"}),
        ("qwen3", {"qk_norm": True}),
    ],
)
def test_the_decoder_equals_that_of_huggingface_layout(tmp_path, architecture, options):
    """The rows of q and k are turned back for llama, and only there; the rest is the same numbers."""
    tensors = huggingface_tensors(**options)
    stored = gguf_tensors(tensors, heads=4 if architecture == "llama" else None)
    file = open_gguf(write_gguf(tmp_path / "x.gguf", stored, architecture=architecture))
    config = {
        "model_type": architecture,
        **SIZES,
        "rms_norm_eps": 1e-5,
        "attention_bias": "biases" in options,
        "tie_word_embeddings": options.get("tied", True),
    }
    plain = [Tensor(key, value.shape, "F32", Path("x"), lambda value=value: value) for key, value in tensors.items()]
    # Not equal bit for bit: epsilon is a float32 in the file, 1e-5 in the config.
    np.testing.assert_allclose(logits(decoder(file.config, file.tensors)), logits(decoder(config, plain)), atol=1e-5)


def test_turning_back_by_hand():
    """Two heads of four rows: the file has rows 0, 2, 1, 3 of each."""
    rows = np.array([0, 2, 1, 3, 10, 12, 11, 13], np.float32)
    assert unpermuted(rows, 2).tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert unpermuted(rows[:, None] * [[1, 2]], 2)[:, 1].tolist() == [0, 2, 4, 6, 20, 22, 24, 26]


def test_rope_factors_are_llama3s_scaling(tmp_path):
    """The tensor that converters write for Llama 3.1: 1 for short waves, the factor for long ones, a ramp between."""
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    wave = 2 * np.pi * 10_000 ** (np.arange(0, 8, 2) / 8)
    smooth = np.clip((32 / wave - 1.0) / (4.0 - 1.0), 0, 1)
    factors = (1 / ((1 - smooth) / 8.0 + smooth)).astype(np.float32)
    assert factors[0] < 2 and factors[-1] == 8 and 1 < factors.min() * 8 < 64
    tensors = huggingface_tensors()
    stored = gguf_tensors(tensors, heads=4) | {"rope_freqs.weight": factors}
    file = open_gguf(write_gguf(tmp_path / "x.gguf", stored))
    assert "rope_freqs.weight" not in read_all(file)
    rope = {"rope_type": "llama3", "rope_theta": 10_000.0, **scaling}
    mine = logits(decoder(file.config, file.tensors))
    # Frequencies to a unit in the last place of float32, through two layers.
    np.testing.assert_allclose(mine, logits(decoder(file.config | {"rope_parameters": rope}, file.tensors)), atol=1e-4)
    plain = logits(decoder(file.config | {"rope_parameters": {"rope_theta": 10_000.0}}, file.tensors))
    assert np.abs(mine - plain).max() > 0.01


@pytest.mark.parametrize(
    ("said", "rope"),
    [
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),  # files of 2023
        ({"rope.scaling.type": "none", "rope.freq_base": 5e5}, {"rope_type": "default", "rope_theta": 5e5}),
        ({"rope.freq_base": None}, {"rope_type": "default"}),
    ],
)
def test_rope_metadata(tmp_path, said, rope):
    found = open_gguf(tiny_file(tmp_path / "x.gguf", **said)).config
    assert found["rope_parameters"] == {"rope_theta": 10_000.0} | rope
    DecoderConfig.from_json(found)


def test_a_window_makes_it_a_mistral(tmp_path):
    found = open_gguf(tiny_file(tmp_path / "x.gguf", **{"attention.sliding_window": 4})).config
    assert found["model_type"] == "mistral" and DecoderConfig.from_json(found).windows == (4, 4)


def test_head_size_and_missing_key_heads(tmp_path):
    said = {key: value for key, value in METADATA.items() if key != "attention.head_count_kv"}
    said |= {"attention.key_length": 16, "attention.value_length": 16, "rope.dimension_count": 16}
    tensors = gguf_tensors(huggingface_tensors(size=16, kv=4), heads=4, kv=4)
    found = open_gguf(write_gguf(tmp_path / "x.gguf", tensors, said))
    assert found.config["head_dim"] == 16 and found.config["num_key_value_heads"] == 4
    decoder(found.config, found.tensors)


def test_a_split_file_is_opened_by_any_part(tmp_path):
    tensors = huggingface_tensors()
    stored = list(gguf_tensors(tensors, heads=4).items())
    parts = [tmp_path / f"x-0000{n}-of-00002.gguf" for n in (1, 2)]
    write_gguf(parts[0], dict(stored[:9]))
    write_gguf(parts[1], dict(stored[9:]), {})
    for part in parts:
        found = open_gguf(part)
        assert found.files == tuple(parts)
        assert found.metadata == read_metadata(part) and found.metadata["llama.block_count"] == 2
        assert {key: value.sum() for key, value in read_all(found).items()} == {
            key: pytest.approx(value.sum(), abs=1e-4) for key, value in tensors.items()
        }


def test_memory_stays_near_one_tensor(tmp_path):
    """A file of 12 MB: opening it takes none of it, reading a tensor of 1 MB two to three of its size."""
    tensors = huggingface_tensors(layers=11, hidden=512, heads=4, kv=4, size=8, ffn=512, vocabulary=512)
    stored = gguf_tensors(tensors, heads=4, kv=4)
    said = METADATA | {"block_count": 11, "attention.key_length": 8, "attention.head_count_kv": 4}
    file = write_gguf(tmp_path / "x.gguf", stored, said)
    assert file.stat().st_size > 12e6
    tracemalloc.start()
    try:
        opened = open_gguf(file)
        assert tracemalloc.get_traced_memory()[1] < 1e6
        for tensor in opened.tensors:
            tensor.read()
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def test_smollm2(smollm_file):
    """The real file: every variable of the model has its tensor and no tensor is left over."""
    file = open_gguf(smollm_file)
    config = DecoderConfig.from_json(file.config)
    assert (config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim) == (30, 9, 3, 64)
    assert config.tied and config.rope.theta == 1e5
    assert sum(int(np.prod(tensor.shape)) for tensor in file.tensors) == 134_515_008
    # Only whether all fits: numbers of the right shapes, without unpacking 30 layers.
    blank = [tensor._replace(read=lambda shape=tensor.shape: np.zeros(shape, np.float32)) for tensor in file.tensors]
    load_model(lambda: Decoder(config, rngs=nnx.Rngs(0)), weight_map(config), blank)
    query = next(tensor for tensor in file.tensors if tensor.key == "model.layers.7.self_attn.q_proj.weight").read()
    assert query.shape == (576, 576) and 0.01 < query.std() < 1
