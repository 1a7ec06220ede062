"""What decides a model's results, from a checkpoint's files alone: a cached result needs no weights and no Flax."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.architectures import ARCHITECTURES
from mig_jax.models.checkpoints.checkpoint import Checkpoint, EmbedderSpec, ModelSpec, find_checkpoint
from mig_jax.models.tokenizers.digest import tokenizer_sha256

_NOT_AS_THEY_ARE = {
    *("name", "path", "wheel", "hub", "revision", "sha256", "architecture"),  # which weights: their digest counts
    *("prompt", "instruction", "max_length", "dtype"),  # are in a fingerprint in another form
    *("attention", "prefix"),  # do not change a result
}


class CheckedEmbedder(NamedTuple):
    """An embedder whose files were found and checked, its tokenizer and weights not yet read.

    Args:
      checkpoint: its files.
      config: of the network, as its architecture reads it.
      max_length: tokens of a text that count.
      fingerprint: sha256 over everything that decides an embedding: weights, config, tokenizer, pooling, length.
    """

    checkpoint: Checkpoint
    config: Any
    max_length: int
    fingerprint: str


def check_embedder(spec: EmbedderSpec, *, cache: Path | None = None) -> CheckedEmbedder:
    """Find an embedder's files and check them.

    Args:
      cache: see ``find_checkpoint``.

    Raises:
      UserError: see ``find_checkpoint``; the prompt is not one; max_length beyond the model's positions.
    """
    checkpoint = find_checkpoint(spec, cache=cache)
    architecture = ARCHITECTURES[checkpoint.config["model_type"]]
    config = architecture.read_config(checkpoint.config, str(checkpoint.config_file))
    max_length = max_length_of(spec, config.max_positions, checkpoint.tokenizer_source)
    prompt_of(spec)
    fingerprint = fingerprint_of(
        checkpoint,
        spec,
        tokenizer_sha256(checkpoint),
        **_deciding(spec),
        instruction=None if spec.instruction is None else [spec.prompt, spec.instruction],
        max_length=max_length,
    )
    return CheckedEmbedder(checkpoint, config, max_length, fingerprint)


def _deciding(spec: EmbedderSpec) -> dict[str, Any]:
    """The fields of a spec that decide an embedding as they are: all but ``_NOT_AS_THEY_ARE``."""
    return {field.name: getattr(spec, field.name) for field in fields(spec) if field.name not in _NOT_AS_THEY_ARE}


def prompt_of(spec: EmbedderSpec) -> Callable[[str], str] | None:
    """How a text is written with the spec's instruction; None where it has none.

    Raises:
      UserError: ``{instruction}`` or ``{text}`` is not in the prompt exactly once.
    """
    if spec.instruction is None:
        return None
    missing = [name for name in ("{instruction}", "{text}") if spec.prompt.count(name) != 1]
    if missing:
        raise UserError(f"must contain {' and '.join(missing)} exactly once", key="embedder.prompt", value=spec.prompt)
    before, after = spec.prompt.split("{text}")
    before, after = (part.replace("{instruction}", spec.instruction) for part in (before, after))
    return lambda text: f"{before}{text}{after}" if isinstance(text, str) else text


def max_length_of(spec: ModelSpec, positions: int, where: object) -> int:
    """Tokens of a text that count: the spec's number, else as many as the model has positions.

    Args:
      where: the checkpoint, for messages.

    Raises:
      UserError: the spec's number is larger than the number of positions.
    """
    max_length = positions if spec.max_length is None else spec.max_length
    if max_length > positions:
        message = f"{where} has {positions} positions"
        raise UserError(message, key=f"{spec.prefix}.max_length", value=max_length)
    return max_length


def fingerprint_of(checkpoint: Checkpoint, spec: ModelSpec, tokenizer_digest: str, **settings: Any) -> str:
    """sha256 over everything that decides a result, 64 hex digits.

    Args:
      tokenizer_digest: of ``tokenizer_sha256``.
      settings: everything that decides the result beside the model.
    """
    decides = {
        "weights": checkpoint.sha256,
        "config": checkpoint.config,
        "tokenizer": tokenizer_digest,
        "dtype": spec.dtype,
    }
    return hashlib.sha256(json.dumps(decides | settings, sort_keys=True, default=str).encode()).hexdigest()
