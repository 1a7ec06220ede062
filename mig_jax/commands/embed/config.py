"""The settings of ``mig-jax embed``."""

from typing import Annotated, Literal

from mig_jax.batch.config import BatchOptions
from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import NOT_IN_KEY, PathStr, Struct
from mig_jax.models.config import EmbedderConfig
from mig_jax.pool.config import PoolConfig


class EmbedOptions(BatchOptions, frozen=True):
    target: Literal["rows", "labels"]


class EmbedConfig(Struct, frozen=True):
    """``mig-jax embed``."""

    pool: PoolConfig
    embedder: EmbedderConfig
    out: Annotated[PathStr, NOT_IN_KEY]
    embed: EmbedOptions
    overwrite: Annotated[bool, NOT_IN_KEY]
    mesh: Annotated[MeshConfig, NOT_IN_KEY]
    cache: Annotated[PathStr | None, NOT_IN_KEY]
