"""``mesh.*``: devices and processes."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.struct import Positive, Struct


class MeshConfig(Struct, frozen=True):
    rows: Literal["all"] | Positive = "all"
    data: Literal["auto"] | Positive = "auto"
    fsdp: Positive = 1
    tensor: Positive = 1
    coordinator: str | None = None
    processes: Positive | None = None
    process: Annotated[int, msgspec.Meta(ge=0)] | None = None
