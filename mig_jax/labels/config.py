"""``graph.*``: the label graph."""

from typing import Annotated

import msgspec

from mig_jax.config.struct import NOT_IN_KEY, PathStr, Struct


class GraphConfig(Struct, frozen=True):
    threshold: str | float
    degree: Annotated[float, msgspec.Meta(ge=0)]
    propagation: Annotated[float, msgspec.Meta(ge=0)]
    path: Annotated[PathStr | None, NOT_IN_KEY]
