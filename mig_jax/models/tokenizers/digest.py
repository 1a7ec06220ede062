"""sha256 of everything that a tokenizer is made from; the tokenizer itself is not read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mig_jax.models.checkpoints.checkpoint import Checkpoint
from mig_jax.models.checkpoints.digests import sha256_file

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
         "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model",
         "chat_template.jinja", "chat_template.json", "generation_config.json")  # fmt: skip
"""Files of a checkpoint's folder that decide its tokenizer."""


def tokenizer_sha256(checkpoint: Checkpoint) -> str:
    """The digest of a checkpoint's tokenizer, 64 hex digits."""
    return folder_sha256(checkpoint.folder) if checkpoint.gguf is None else metadata_sha256(checkpoint.gguf.metadata)


def folder_sha256(folder: Path) -> str:
    """Over the names and contents of those of ``FILES`` that a folder has."""
    lines = [f"{name} {sha256_file(folder / name)}" for name in FILES if (folder / name).is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def metadata_sha256(metadata: Mapping[str, Any]) -> str:
    """Over the tokenizer's part of a GGUF file's metadata."""
    part = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
