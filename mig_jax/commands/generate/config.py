"""The settings of ``mig-jax generate``."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import PathStr, Positive, Struct, TextStr
from mig_jax.models.config import ModelConfig


class GenerateOptions(Struct, frozen=True):
    max_new_tokens: Positive = 256
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    top_k: Positive | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0)] | None = None
    stop: tuple[str, ...] = ()
    chat: Literal["auto"] | bool = "auto"
    system: TextStr | None = None


class GenerateConfig(Struct, frozen=True):
    """``mig-jax generate``."""

    model: ModelConfig
    prompt: TextStr | None = None
    prompts: PathStr | None = None
    out: PathStr | None = None
    overwrite: bool = False
    seed: Annotated[int, msgspec.Meta(ge=0)] = 42
    generate: GenerateOptions = GenerateOptions()
    mesh: MeshConfig = MeshConfig()
    cache: PathStr | None = None
