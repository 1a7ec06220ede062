"""The settings of ``mig-jax vocabulary``."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import PathStr, Positive, Struct, TextStr
from mig_jax.models.config import EmbedderConfig
from mig_jax.pool.config import PoolConfig


class VocabularyOptions(Struct, frozen=True):
    min_count: Positive = 2
    rules: Literal["stem", "spelling"] | None = "stem"
    keep: TextStr = "+#"
    stem_cosine: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None = 0.7
    distance: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = 0.05
    min_samples: Positive = 2
    support: Positive | None = 40
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.99


class VocabularyConfig(Struct, frozen=True):
    """``mig-jax vocabulary``."""

    pool: PoolConfig
    embedder: EmbedderConfig
    out: PathStr
    vocabulary: VocabularyOptions = VocabularyOptions()
    overwrite: bool = False
    mesh: MeshConfig = MeshConfig()
    cache: PathStr | None = None
