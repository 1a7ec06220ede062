"""``score.*``: the score of a row."""

from typing import Literal

import msgspec

from mig_jax.config.struct import Struct


class ScoreConfig(Struct, frozen=True):
    source: str = msgspec.field(default="deita", name="from")
    turns: Literal["mean", "sum"] = "mean"
    normalize: bool = False
