"""The settings of ``mig-jax embed``."""

from typing import Literal

from mig_jax.batch.config import BatchOptions
from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import PathStr, Struct
from mig_jax.models.config import EmbedderConfig
from mig_jax.pool.config import PoolConfig


class EmbedOptions(BatchOptions, frozen=True):
    target: Literal["rows", "labels"] = "rows"


class EmbedConfig(Struct, frozen=True):
    """``mig-jax embed``."""

    pool: PoolConfig
    embedder: EmbedderConfig
    out: PathStr
    embed: EmbedOptions = EmbedOptions()
    overwrite: bool = False
    mesh: MeshConfig = MeshConfig()
    cache: PathStr | None = None
