"""GGUF files written on the spot, and the decoder that is in them."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

METADATA = {
    "block_count": 2,
    "context_length": 64,
    "embedding_length": 32,
    "feed_forward_length": 64,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 10_000.0,
}
TOKENS = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "▁a", "ab", "bc", "▁ab", "abc"]
"""SentencePiece's kind: the later a token, the worse its score."""
SPM = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.scores": [0.0] * 3 + [-float(n) for n in range(len(TOKENS) - 3)],
    "tokenizer.ggml.token_type": [2, 3, 3] + [1] * (len(TOKENS) - 3),
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}


def write_gguf(
    file: Path,
    tensors: dict[str, np.ndarray | tuple[np.ndarray, Kind]],
    metadata: dict | None = None,
    architecture: str = "llama",
    more: dict | None = None,
) -> Path:
    """Write tensors, plain or (packed bytes, type); ``metadata`` goes under the architecture's name, not ``more``."""
    writer = gguf.GGUFWriter(file, architecture)
    said = {f"{architecture}.{key}": value for key, value in (METADATA if metadata is None else metadata).items()}
    for key, value in (said | (more or {})).items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](key, value)
    for name, value in tensors.items():
        if isinstance(value, tuple):
            writer.add_tensor(name, value[0], raw_dtype=value[1])
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def huggingface_tensors(
    *, layers=2, hidden=32, heads=4, kv=2, size=8, ffn=64, vocabulary=12, biases=(), qk_norm=False, tied=True
) -> dict[str, np.ndarray]:
    """Random weights of a small decoder under Hugging Face keys, larger than a trained model's."""
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    for n in range(layers):
        maps = {
            "self_attn.q_proj": (heads * size, hidden),
            "self_attn.k_proj": (kv * size, hidden),
            "self_attn.v_proj": (kv * size, hidden),
            "self_attn.o_proj": (hidden, heads * size),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "mlp.down_proj": (hidden, ffn),
        }
        for name, shape in maps.items():
            shapes[f"model.layers.{n}.{name}.weight"] = shape
            if name.split(".")[1][0] in biases:
                shapes[f"model.layers.{n}.{name}.bias"] = shape[:1]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{n}.{name}.weight"] = (hidden,)
        if qk_norm:
            shapes |= {f"model.layers.{n}.self_attn.{name}_norm.weight": (size,) for name in "qk"}
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    rng = np.random.default_rng(3)
    return {key: rng.normal("norm" in key, 0.3, shape).astype(np.float32) for key, shape in shapes.items()}


_WORDS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
          "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
          "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
          "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
          "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}  # fmt: skip


def gguf_tensors(tensors: dict[str, np.ndarray], *, heads: int | None = None, kv: int = 2) -> dict[str, np.ndarray]:
    """Hugging Face's tensors with GGUF's names; with ``heads``, q and k turned around as llama's converter does."""
    found = {}
    for key, value in tensors.items():
        name = key
        for long, short in _WORDS.items():
            name = name.replace(long, short)
        for part, count in (("q_proj", heads), ("k_proj", kv)):
            if heads is not None and part in key:
                # Row k of a head's first half, then row k of its second.
                rows = value.reshape(count, 2, -1, *value.shape[1:])
                value = np.stack([rows[:, 0], rows[:, 1]], axis=2).reshape(value.shape)
        found[name] = value
    return found


def tiny_file(file: Path, *, more: dict | None = None, **changed) -> Path:
    """A whole llama with SentencePiece's kind of tokenizer; ``changed`` metadata, None for none."""
    said = {key: value for key, value in (METADATA | changed).items() if value is not None}
    return write_gguf(file, gguf_tensors(huggingface_tensors(), heads=4), said, more=SPM | (more or {}))
