"""The settings of ``mig-jax generate``."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import PathStr, Positive, Struct, TextStr
from mig_jax.models.config import ModelConfig


class GenerateOptions(Struct, frozen=True):
    max_new_tokens: Positive
    temperature: Annotated[float, msgspec.Meta(ge=0)]
    top_k: Positive | None
    top_p: Annotated[float, msgspec.Meta(ge=0)] | None
    stop: tuple[str, ...]
    chat: Literal["auto"] | bool
    system: TextStr | None


class GenerateConfig(Struct, frozen=True):
    """``mig-jax generate``."""

    model: ModelConfig
    prompt: TextStr | None
    prompts: PathStr | None
    out: PathStr | None
    overwrite: bool
    seed: Annotated[int, msgspec.Meta(ge=0)]
    generate: GenerateOptions
    mesh: MeshConfig
    cache: PathStr | None
