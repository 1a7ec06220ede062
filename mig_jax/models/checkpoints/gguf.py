"""A GGUF file as a Hugging Face checkpoint: config.json from its metadata, tensors under Hugging Face keys.

One tensor at a time is in memory: mapped, unpacked to float32 by the ``gguf`` package, then dropped.
Names: gguf/tensor_mapping.py; metadata: ggml-org/ggml docs/gguf.md.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.gguf_header import Stored, read_header, split_parts, unpack
from mig_jax.models.checkpoints.tensors import Tensor

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Values of ``general.architecture``; GGUF files of Mistral, SmolLM2, InsTagger and the DEITA scorers have llama."""

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.{n}.attn_norm.weight": "model.layers.{n}.input_layernorm.weight",
    "blk.{n}.ffn_norm.weight": "model.layers.{n}.post_attention_layernorm.weight",
    "blk.{n}.attn_q_norm.weight": "model.layers.{n}.self_attn.q_norm.weight",
    "blk.{n}.attn_k_norm.weight": "model.layers.{n}.self_attn.k_norm.weight",
} | {
    f"blk.{{n}}.{short}.{part}": f"model.layers.{{n}}.{long}.{part}"
    for part in ("weight", "bias")
    for short, long in (
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    )
}
_FACTORS = "rope_freqs.weight"  # Llama 3.1's scaling, as numbers; no variable of the model

# Field of config.json -> key of the metadata, after the architecture's name.
_REQUIRED = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_OPTIONAL = {"num_key_value_heads": "attention.head_count_kv", "sliding_window": "attention.sliding_window"}
_TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}


@dataclass(frozen=True)
class Gguf:
    """An open GGUF file.

    Args:
      files: the file, or all parts of a split file.
      config: the fields of the equivalent config.json.
      tensors: under Hugging Face keys; ``read()`` unpacks one to float32.
      metadata: of the header, the tokenizer's included.
    """

    files: tuple[Path, ...]
    config: dict[str, Any]
    tensors: list[Tensor]
    metadata: dict[str, Any]


def open_gguf(file: Path) -> Gguf:
    """Read the headers and check them; any part of a split file opens all of it.

    Raises:
      UserError: with all errors: not GGUF, truncated, another byte order or version, an unknown architecture, missing
        metadata, tensors with unknown names or of types that cannot be unpacked.
    """
    files = split_parts(file)
    headers = [read_header(part) for part in files]
    metadata = headers[0].metadata
    wrong = [line for header in headers for line in header.wrong]
    stored = [tensor for header in headers for tensor in header.tensors]
    wrong += _unreadable(stored)
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        wrong.append(f"general.architecture is {architecture!r}; must be one of {', '.join(ARCHITECTURES)}")
        raise _refused(file, wrong)
    wrong += _unknown(stored)
    config = _config(architecture, metadata, stored, wrong)
    rope = _rope(architecture, metadata, wrong)
    factors = [tensor for tensor in stored if tensor.name == _FACTORS]
    if factors and rope["rope_type"] != "default":
        wrong.append(f"{_FACTORS} and {architecture}.rope.scaling.type scale the rotations twice")
    if wrong:
        raise _refused(file, wrong)
    if factors:
        rope |= {"rope_type": "factors", "factors": _numbers(factors[0]).tolist()}
    heads: dict[str, int] = {}
    if architecture == "llama":  # its converter permutes the rows of q and k; Qwen's converter does not
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    tensors = [_tensor(entry, heads) for entry in stored if entry.name != _FACTORS]
    return Gguf(files, config | {"rope_parameters": rope}, tensors, metadata)


def _refused(file: Path, wrong: list[str], most: int = 40) -> UserError:
    more = [f"... and {len(wrong) - most} more"] if len(wrong) > most else []
    return UserError(f"{file}: this GGUF file cannot be used:\n  " + "\n  ".join([*wrong[:most], *more]))


def _unreadable(stored: list[Stored]) -> list[str]:
    """A line for each type that the gguf package cannot unpack, with the names of its tensors."""
    wrong = []
    for kind in sorted({tensor.kind for tensor in stored}):
        if unpack(kind) is None:
            names = [tensor.name for tensor in stored if tensor.kind == kind]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            wrong.append(f"{', '.join(names[:3])}{more}: of type {kind.name}, which cannot be unpacked")
    return wrong


def _unknown(stored: list[Stored]) -> list[str]:
    """A line for each name that a decoder does not have; all layers of a name in one line."""
    layers: dict[str, int] = {}
    for tensor in stored:
        if _key(tensor.name) is None and tensor.name != _FACTORS:
            name = re.sub(r"^blk\.\d+\.", "blk.N.", tensor.name)
            layers[name] = layers.get(name, 0) + 1
    return [f"unexpected tensor {name}{f' ({n} layers)' if n > 1 else ''}" for name, n in layers.items()]


def _key(name: str) -> str | None:
    """GGUF's name -> Hugging Face's."""
    match = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    if match is None:
        return _NAMES.get(name)
    key = _NAMES.get("blk.{n}." + match.group(2))
    return None if key is None else key.replace("{n}", match.group(1))


def _config(architecture: str, metadata: Mapping[str, Any], stored: list[Stored], wrong: list[str]) -> dict[str, Any]:
    """config.json without ``rope_parameters``; a line for each error is added to ``wrong``."""
    shapes = {tensor.name: tensor.shape for tensor in stored}

    def get(key: str) -> Any:
        return metadata.get(f"{architecture}.{key}")

    wrong += [f"metadata {architecture}.{key} is missing" for key in _REQUIRED.values() if get(key) is None]
    wrong += [] if "token_embd.weight" in shapes else ["tensor token_embd.weight is missing"]
    if (experts := get("expert_count")) not in (None, 0):
        wrong.append(f"{architecture}.expert_count is {experts}: mixtures of experts are not supported")
    fields = {field: get(key) for field, key in (_REQUIRED | _OPTIONAL).items()}
    fields = {field: _single(value) for field, value in fields.items() if value is not None}
    if wrong:
        return fields
    window, heads, hidden = fields.get("sliding_window"), fields["num_attention_heads"], fields["hidden_size"]
    fields.setdefault("num_key_value_heads", heads)
    # transformers' Llama has no window; a llama file that has one is a Mistral.
    kind = "mistral" if architecture == "llama" and window else architecture
    whole = type(heads) is int and type(hidden) is int and heads > 0
    size = get("attention.key_length") or get("rope.dimension_count") or (hidden // heads if whole else None)
    for key in ("attention.value_length", "rope.dimension_count"):
        if get(key) not in (None, size):
            wrong.append(f"{architecture}.{key} is {get(key)}; only {size}, the size of a head, can be run")
    if type(fields["num_key_value_heads"]) is not int or fields["num_key_value_heads"] < 1 or not whole:
        wrong.append(f"{architecture}.attention.head_count and head_count_kv must be one whole number >= 1 each")
    fields |= {field: metadata[f"tokenizer.ggml.{key}"] for field, key in _TOKENS.items()
              if f"tokenizer.ggml.{key}" in metadata}  # fmt: skip
    return fields | {
        "model_type": kind,
        "vocab_size": shapes["token_embd.weight"][0],
        "head_dim": size,
        "hidden_act": "silu",
        "attention_bias": any(re.fullmatch(r"blk\.\d+\.attn_q\.bias", name) for name in shapes),
        "mlp_bias": any(re.fullmatch(r"blk\.\d+\.ffn_gate\.bias", name) for name in shapes),
        "tie_word_embeddings": "output.weight" not in shapes,
    }


def _single(value: Any) -> Any:
    """The number, where a file repeats one for each layer."""
    return value[0] if isinstance(value, list) and len(set(value)) == 1 else value


def _rope(architecture: str, metadata: Mapping[str, Any], wrong: list[str]) -> dict[str, Any]:
    """config.json's ``rope_parameters`` from the metadata."""

    def get(key: str, default: Any) -> Any:
        return metadata.get(f"{architecture}.rope.{key}", default)

    legacy = get("scale_linear", None)
    kind = get("scaling.type", "linear" if legacy not in (None, 1.0) else "none")
    if kind not in ("none", "linear"):
        wrong.append(f"{architecture}.rope.scaling.type is {kind!r}; must be one of none, linear")
    rope = {"rope_theta": get("freq_base", 10_000.0), "rope_type": "linear" if kind == "linear" else "default"}
    return rope | ({"factor": get("scaling.factor", legacy)} if kind == "linear" else {})


def _numbers(stored: Stored) -> np.ndarray:
    """A tensor's numbers, float32."""
    unpack_rows = unpack(stored.kind)
    assert unpack_rows is not None  # open_gguf has refused other kinds
    rows = int(np.prod(stored.shape[:-1]))
    packed = np.memmap(stored.file, np.uint8, "r", stored.start, (rows, stored.size // rows))
    # A float32 tensor would be a view of the file, which may be closed before the array is dropped.
    return np.array(unpack_rows(packed), np.float32).reshape(stored.shape)


def _tensor(stored: Stored, heads: Mapping[str, int]) -> Tensor:
    key = _key(stored.name)
    assert key is not None  # open_gguf has refused other names
    count = next((n for name, n in heads.items() if f".{name}." in key), None)
    return Tensor(key, stored.shape, "F32", stored.file, _reader(stored, count))


def _reader(stored: Stored, heads: int | None) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        numbers = _numbers(stored)
        return numbers if heads is None else unpermuted(numbers, heads)

    return read


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key map in the order of Hugging Face.

    llama.cpp rotates the pairs (2k, 2k+1) of a head, Hugging Face the pairs (k, k + K/2): in GGUF, row k of the first
    half of a head and row k of its second half are neighbours.

    Args:
      rows: ``[H*K, D]``, or a bias ``[H*K]``.
      heads: H.
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)
