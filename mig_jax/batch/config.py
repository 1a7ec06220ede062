"""Settings of a batch job."""

from typing import Annotated, Literal

import msgspec

from mig_jax.config.struct import NOT_IN_KEY, Positive, Struct


class BatchOptions(Struct, frozen=True):
    batch_tokens: Literal["auto"] | Positive
    save_every: Annotated[Annotated[float, msgspec.Meta(ge=0)], NOT_IN_KEY]
