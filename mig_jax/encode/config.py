"""``score.*``: the score of a row."""

from typing import Literal

import msgspec

from mig_jax.config.struct import Struct


class ScoreConfig(Struct, frozen=True):
    source: str = msgspec.field(name="from")
    turns: Literal["mean", "sum"]
    normalize: bool
