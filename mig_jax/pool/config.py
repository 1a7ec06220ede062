"""``pool.*``: which pool, and how it is read."""

from typing import Literal

from mig_jax.config.struct import PathStr, Positive, Struct


class PoolConfig(Struct, frozen=True):
    path: PathStr | tuple[PathStr, ...]
    name: str
    layout: Literal["auto", "mig", "sharegpt", "openai", "alpaca"] = "auto"
    fields: dict[str, str] = {}  # noqa: RUF012
    valid_tags: PathStr | None = None
    on_error: Literal["raise", "skip"] = "raise"
    n: Positive | None = None
    note: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The pool's paths, one or several."""
        return (self.path,) if isinstance(self.path, str) else self.path
