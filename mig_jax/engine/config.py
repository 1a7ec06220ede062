"""``engine.*``: these keys change the speed, never the picks."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.struct import Positive, Struct


class EngineConfig(Struct, frozen=True):
    shortlist: Positive = 16_384
    heap_device: Literal["auto", "device", "host"] = "auto"
    picks_per_call: Positive = 1_024
    checkpoint_every: Annotated[float, msgspec.Meta(ge=0)] = 10.0
