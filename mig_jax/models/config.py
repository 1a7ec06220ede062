"""``embedder.*`` and ``model.*``: which checkpoint, and how it runs."""

from typing import Literal

from mig_jax.config.struct import PathStr, Positive, Struct, TextStr


class EmbedderConfig(Struct, frozen=True):
    name: str
    architecture: str | None
    path: PathStr | None
    wheel: str | None
    hub: str | None
    revision: str | None
    sha256: str | None
    pooling: Literal["mean", "cls", "last"] | None
    normalize: bool
    max_length: Positive | None
    threshold: str | float
    tag_threshold: float | None = None
    append_eos: bool | None = False
    prompt: TextStr = "Instruct: {instruction}\nQuery: {text}"
    instruction: TextStr | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "fused", "plain"] = "auto"


class ModelConfig(Struct, frozen=True):
    name: str
    architecture: str | None
    path: PathStr | None
    wheel: str | None
    hub: str | None
    revision: str | None
    sha256: str | None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "fused", "plain"] = "auto"
    max_length: Positive | None = None
