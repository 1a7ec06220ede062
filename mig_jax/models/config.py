"""``embedder.*`` and ``model.*``: which checkpoint, and how it runs."""

from typing import Annotated, Literal

from mig_jax.config.struct import NOT_IN_KEY, PathStr, Positive, Struct, TextStr


class EmbedderConfig(Struct, frozen=True):
    name: str
    architecture: str | None
    path: Annotated[PathStr | None, NOT_IN_KEY]
    wheel: str | None
    hub: str | None
    revision: str | None
    sha256: str | None
    pooling: Literal["mean", "cls", "last"] | None
    normalize: bool
    max_length: Positive | None
    threshold: str | float
    tag_threshold: float | None
    append_eos: bool | None
    prompt: TextStr
    instruction: TextStr | None
    dtype: Literal["float32", "bfloat16"]
    attention: Literal["auto", "fused", "plain"]


class ModelConfig(Struct, frozen=True):
    name: str
    architecture: str | None
    path: PathStr | None
    wheel: str | None
    hub: str | None
    revision: str | None
    sha256: str | None
    dtype: Literal["float32", "bfloat16"]
    attention: Literal["auto", "fused", "plain"]
    max_length: Positive | None
