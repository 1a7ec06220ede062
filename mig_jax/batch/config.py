"""Settings of a batch job."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.struct import Positive, Struct


class BatchOptions(Struct, frozen=True):
    batch_tokens: Literal["auto"] | Positive = "auto"
    save_every: Annotated[float, msgspec.Meta(ge=0)] = 10.0
