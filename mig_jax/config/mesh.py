"""``mesh.*``: devices and processes."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.struct import Positive, Struct


class MeshConfig(Struct, frozen=True):
    rows: Literal["all"] | Positive
    data: Literal["auto"] | Positive
    fsdp: Positive
    tensor: Positive
    coordinator: str | None
    processes: Positive | None
    process: Annotated[int, msgspec.Meta(ge=0)] | None
