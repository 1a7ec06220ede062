"""``engine.*``: these keys change the speed, never the picks."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.struct import Positive, Struct


class EngineConfig(Struct, frozen=True):
    shortlist: Positive
    heap_device: Literal["auto", "device", "host"]
    picks_per_call: Positive
    checkpoint_every: Annotated[float, msgspec.Meta(ge=0)]
