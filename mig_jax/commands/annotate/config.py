"""The settings of ``mig-jax annotate``."""

from typing import Annotated, Any, Self

import msgspec

from mig_jax.batch.config import BatchOptions
from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import NOT_IN_KEY, PathStr, Positive, Struct
from mig_jax.models.config import EmbedderConfig
from mig_jax.pool.config import PoolConfig


class AnnotateConfig(Struct, frozen=True):
    """``mig-jax annotate``. The settings of an annotator are beside its code, in mig_jax.commands.annotate."""

    pool: PoolConfig
    embedder: EmbedderConfig
    annotators: str | tuple[str, ...]
    out: Annotated[PathStr, NOT_IN_KEY]
    tags: Any
    deita: Any
    ifd: Any
    car: Any
    tokens: Any
    rows: Positive | None
    plan: Annotated[bool, NOT_IN_KEY]
    annotate: BatchOptions
    overwrite: Annotated[bool, NOT_IN_KEY]
    mesh: Annotated[MeshConfig, NOT_IN_KEY]
    cache: Annotated[PathStr | None, NOT_IN_KEY]

    @classmethod
    def for_settings(cls, settings: Any) -> type[Self]:
        """With the settings of the annotators; they are declared beside the code of each."""
        from mig_jax.commands.annotate.annotators import (  # PyArrow and JAX, and they need this file
            NAMES,
            find_annotator,
        )

        tags = settings.get("tags") if isinstance(settings, dict) else None
        tagger = tags.get("name") if isinstance(tags, dict) else None
        kinds = [(name, find_annotator(name, tagger).Options) for name in NAMES]
        made: Any = msgspec.defstruct(cls.__name__, kinds, bases=(cls,), frozen=True, kw_only=True)
        return made

    def check(self) -> None:
        """The annotators are known."""
        from mig_jax.commands.annotate.annotators import annotator_names  # as above

        annotator_names(self.annotators)
