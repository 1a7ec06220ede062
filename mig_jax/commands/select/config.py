"""The settings of ``mig-jax select``."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self

import msgspec

from mig_jax.config.check import checked
from mig_jax.config.keys import read
from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import PathStr, Positive, Struct, wrapped
from mig_jax.core.errors import UserError
from mig_jax.encode.config import ScoreConfig
from mig_jax.engine.config import EngineConfig
from mig_jax.labels.config import GraphConfig
from mig_jax.models.config import EmbedderConfig
from mig_jax.objective.config import PhiConfig
from mig_jax.pool.config import PoolConfig

Rows = PathStr | tuple[int | str, ...] | None  # a file of rows, or the rows


class LimitsConfig(Struct, frozen=True):
    warm_start: Rows = None
    include: Rows = None
    exclude: Rows = None
    sources: dict[str, Any] | str = {}  # noqa: RUF012
    labels: dict[str, Any] | str = {}  # noqa: RUF012
    tokens: Positive | None = None
    cost: str = "tokens"


class EmbeddingsConfig(Struct, frozen=True):
    path: PathStr | None = None


class ExportConfig(Struct, frozen=True):
    layout: Literal["mig", "sharegpt", "openai", "alpaca"] | None = None
    runners_up: Annotated[int, msgspec.Meta(ge=0)] = 50


_BUDGETS = msgspec.Meta(description="a whole number >= 1, or a list of such numbers")


class SelectConfig(Struct, frozen=True):
    """``mig-jax select``, one budget or several (ascending, distinct)."""

    pool: PoolConfig
    embedder: EmbedderConfig
    phi: PhiConfig
    sampler: Any  # the SamplerOptions of the sampler that it names, see for_settings
    n: Annotated[Positive | Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)] | None, _BUDGETS]
    out: PathStr
    seed: int = 42
    overwrite: bool = False
    score: ScoreConfig = ScoreConfig()
    graph: GraphConfig = GraphConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    limits: LimitsConfig = LimitsConfig()
    export: ExportConfig = ExportConfig()
    engine: EngineConfig = EngineConfig()
    mesh: MeshConfig = MeshConfig()
    cache: PathStr | None = None

    @classmethod
    def for_settings(cls, settings: Any) -> type[Self]:
        """With the settings of the sampler that is chosen; they are declared beside its code."""
        from mig_jax.samplers import find_sampler  # JAX, which the settings of other commands need not wait for
        from mig_jax.samplers.config import SamplerOptions

        sampler = settings.get("sampler") if isinstance(settings, dict) else None
        name = sampler.get("name") if isinstance(sampler, dict) else None
        return _with(cls, find_sampler(name).options if isinstance(name, str) else SamplerOptions)

    def check(self) -> None:
        """A budget is given, and scores can be read."""
        from mig_jax.encode import factor_names  # PyArrow, which the settings of other commands need not wait for

        if self.n is None and self.limits.tokens is None:
            raise UserError("must be given, as n=..., or a budget of tokens, as limits.tokens=...", key="n")
        factor_names(self.score.source, "score.from")
        own = getattr(self.sampler, "score", None)
        if own is not None:
            factor_names(own, "sampler.score")

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


@cache
def _with(struct: Any, options: Any) -> Any:
    return msgspec.defstruct(struct.__name__, [("sampler", options)], bases=(struct,), frozen=True, kw_only=True)


def limits_config(settings: Mapping[str, Any]) -> LimitsConfig:
    """What ``limits.key=value ...`` sets: the defaults of conf/select.yaml, then ``settings``.

    Raises:
      UserError: there is no such limit, or a value is out of its range.
    """
    return checked(
        {"limits": {**read("select")["limits"], **settings}}, wrapped("limits", LimitsConfig), "select"
    ).limits
