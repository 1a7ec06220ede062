"""The settings of ``mig-jax select``."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self

import msgspec

from mig_jax.config.check import part
from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import NOT_IN_KEY, PathStr, Positive, Struct, key_of
from mig_jax.core.errors import UserError
from mig_jax.encode.config import ScoreConfig
from mig_jax.engine.config import EngineConfig
from mig_jax.labels.config import GraphConfig
from mig_jax.models.config import EmbedderConfig
from mig_jax.objective.config import phi_struct
from mig_jax.pool.config import PoolConfig

Rows = PathStr | tuple[int | str, ...] | None  # a file of rows, or the rows


class LimitsConfig(Struct, frozen=True):
    """What they make of the pool's rows is in the key of a run by its hash."""

    warm_start: Annotated[Rows, NOT_IN_KEY]
    include: Annotated[Rows, NOT_IN_KEY]
    exclude: Annotated[Rows, NOT_IN_KEY]
    sources: Annotated[dict[str, Any] | str, NOT_IN_KEY]
    labels: Annotated[dict[str, Any] | str, NOT_IN_KEY]
    tokens: Annotated[Positive | None, NOT_IN_KEY]
    cost: Annotated[str, NOT_IN_KEY]


class EmbeddingsConfig(Struct, frozen=True):
    path: Annotated[PathStr | None, NOT_IN_KEY]  # their hash is in the key


class ExportConfig(Struct, frozen=True):
    layout: Literal["mig", "sharegpt", "openai", "alpaca"] | None
    runners_up: Annotated[int, msgspec.Meta(ge=0)]


_BUDGETS = msgspec.Meta(description="a whole number >= 1, or a list of such numbers")


class SelectConfig(Struct, frozen=True):
    """``mig-jax select``, one budget or several (ascending, distinct)."""

    pool: PoolConfig
    embedder: EmbedderConfig
    phi: Any  # the PhiConfig of its kind
    sampler: Any  # the SamplerOptions of the sampler that it names, see for_settings
    n: Annotated[Positive | Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)] | None, _BUDGETS]
    out: Annotated[PathStr, NOT_IN_KEY]
    seed: int
    overwrite: Annotated[bool, NOT_IN_KEY]
    score: ScoreConfig
    graph: GraphConfig
    embeddings: EmbeddingsConfig
    limits: LimitsConfig
    export: ExportConfig
    engine: Annotated[EngineConfig, NOT_IN_KEY]
    mesh: Annotated[MeshConfig, NOT_IN_KEY]
    cache: Annotated[PathStr | None, NOT_IN_KEY]

    @classmethod
    def for_settings(cls, settings: Any) -> type[Self]:
        """With the settings of the sampler that is chosen; they are declared beside its code."""
        from mig_jax.samplers import find_sampler  # JAX, which the settings of other commands need not wait for
        from mig_jax.samplers.config import SamplerOptions

        sampler = settings.get("sampler") if isinstance(settings, dict) else None
        name = sampler.get("name") if isinstance(sampler, dict) else None
        options = find_sampler(name).options if isinstance(name, str) else SamplerOptions
        return _with(cls, options, phi_struct(settings.get("phi") if isinstance(settings, dict) else None))

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

    def decides(self) -> dict[str, Any]:
        """What the selected rows depend on. Labels are embedded as they are, so an instruction does not matter."""
        return key_of(self, without=("embedder.instruction", "embedder.prompt", "embedder.tag_threshold"))


@cache
def _with(struct: Any, options: Any, phi: Any) -> Any:
    fields = [("sampler", options), ("phi", phi)]
    return msgspec.defstruct(struct.__name__, fields, bases=(struct,), frozen=True, kw_only=True)


def limits_config(settings: Mapping[str, Any]) -> LimitsConfig:
    """What ``limits.key=value ...`` sets."""
    return part("select", "limits", LimitsConfig, **settings)
