"""The settings of ``mig-jax annotate``."""

from typing import Any

from mig_jax.batch.config import BatchOptions
from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import Positive, Struct
from mig_jax.models.config import EmbedderConfig
from mig_jax.pool.config import PoolConfig


class AnnotateConfig(Struct, frozen=True):
    """``mig-jax annotate``. The settings of an annotator stand beside its code, in mig_jax.annotate."""

    pool: PoolConfig
    embedder: EmbedderConfig
    annotators: str | tuple[str, ...]
    out: str
    tags: Any
    deita: Any
    ifd: Any
    car: Any
    tokens: Any
    rows: Positive | None = None
    plan: bool = False
    annotate: BatchOptions = BatchOptions()
    overwrite: bool = False
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None
