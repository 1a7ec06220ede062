"""The settings of ``mig-jax select``."""

from typing import Annotated, Any, Literal

import msgspec

from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import Positive, Struct
from mig_jax.encode.config import ScoreConfig
from mig_jax.engine.config import EngineConfig
from mig_jax.labels.config import GraphConfig
from mig_jax.models.config import EmbedderConfig
from mig_jax.objective.config import PhiConfig
from mig_jax.pool.config import PoolConfig


class LimitsConfig(Struct, frozen=True):
    warm_start: str | tuple[int | str, ...] | None = None
    include: str | tuple[int | str, ...] | None = None
    exclude: str | tuple[int | str, ...] | None = None
    sources: dict[str, Any] | str = {}  # noqa: RUF012
    labels: dict[str, Any] | str = {}  # noqa: RUF012
    tokens: Positive | None = None
    cost: str = "tokens"


class EmbeddingsConfig(Struct, frozen=True):
    path: str | None = None


class ExportConfig(Struct, frozen=True):
    layout: Literal["mig", "sharegpt", "openai", "alpaca"] | None = None
    runners_up: Annotated[int, msgspec.Meta(ge=0)] = 50


class SelectConfig(Struct, frozen=True):
    """``mig-jax select``, one budget or several (ascending, distinct)."""

    pool: PoolConfig
    embedder: EmbedderConfig
    phi: PhiConfig
    sampler: Any  # the SamplerOptions of the sampler that it names
    n: Positive | tuple[Positive, ...] | None
    out: str
    seed: int = 42
    overwrite: bool = False
    score: ScoreConfig = ScoreConfig()
    graph: GraphConfig = GraphConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    limits: LimitsConfig = LimitsConfig()
    export: ExportConfig = ExportConfig()
    engine: EngineConfig = EngineConfig()
    mesh: MeshConfig = MeshConfig()
    cache: str | None = None

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets in rows, ascending; none where tokens alone are the budget."""
        return () if self.n is None else tuple(sorted({self.n} if isinstance(self.n, int) else set(self.n)))

    def decides(self) -> dict:
        """What the selected rows depend on: all but where they go, how fast, and on which devices."""
        plain = msgspec.to_builtins(self)
        for key in ("out", "overwrite", "mesh", "engine", "cache", "limits"):
            plain.pop(key)
        # Contents count, not where they lie: files, labels, limits and graph are in the run's key by their hashes.
        for part, key in (
            ("pool", "path"),
            ("pool", "valid_tags"),
            ("pool", "n"),
            ("pool", "note"),
            ("graph", "path"),
            ("embeddings", "path"),
            ("embedder", "path"),
            ("embedder", "instruction"),  # labels go in as they are
            ("embedder", "prompt"),
            ("embedder", "tag_threshold"),  # of mig-jax annotate
        ):
            plain[part].pop(key)
        plain["sampler"].pop("workers", None)
        return plain
