"""``graph.*``: the label graph."""

from typing import Annotated

import msgspec

from mig_jax.config.struct import PathStr, Struct


class GraphConfig(Struct, frozen=True):
    threshold: str | float = "auto"
    degree: Annotated[float, msgspec.Meta(ge=0)] = 4.0
    propagation: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    path: PathStr | None = None
