"""The settings of ``mig-jax vocabulary``."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import NOT_IN_KEY, PathStr, Positive, Struct, TextStr
from mig_jax.models.config import EmbedderConfig
from mig_jax.pool.config import PoolConfig


class VocabularyOptions(Struct, frozen=True):
    min_count: Positive
    rules: Literal["stem", "spelling"] | None
    keep: TextStr
    stem_cosine: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None
    distance: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None
    min_samples: Positive
    support: Positive | None
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)]


class VocabularyConfig(Struct, frozen=True):
    """``mig-jax vocabulary``."""

    pool: PoolConfig
    embedder: EmbedderConfig
    out: Annotated[PathStr, NOT_IN_KEY]
    vocabulary: VocabularyOptions
    overwrite: Annotated[bool, NOT_IN_KEY]
    mesh: Annotated[MeshConfig, NOT_IN_KEY]
    cache: Annotated[PathStr | None, NOT_IN_KEY]
