"""The settings ``pool.*``: the files of the pool, and how they are read."""

from typing import Annotated, Literal

from mig_jax.config.struct import NOT_IN_KEY, PathStr, Positive, Struct


class PoolConfig(Struct, frozen=True):
    path: Annotated[PathStr | tuple[PathStr, ...], NOT_IN_KEY]
    name: str
    layout: Literal["auto", "mig", "sharegpt", "openai", "alpaca"]
    fields: dict[str, str]
    valid_tags: Annotated[PathStr | None, NOT_IN_KEY]
    on_error: Literal["raise", "skip"]
    n: Annotated[Positive | None, NOT_IN_KEY]
    note: Annotated[str | None, NOT_IN_KEY]

    @property
    def paths(self) -> tuple[str, ...]:
        """The pool's paths, one or several."""
        return (self.path,) if isinstance(self.path, str) else self.path
