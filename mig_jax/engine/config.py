"""``engine.*``: speed only."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.struct import Positive, Struct


class EngineConfig(Struct, frozen=True):
    c1: Positive = 16_384
    c2: Positive = 256
    inner: Literal["auto", "device", "host"] = "auto"
    segment: Positive = 1_024
    checkpoint_every: Annotated[float, msgspec.Meta(ge=0)] = 10.0
