"""``phi.*``."""

from mig_jax.config.struct import Struct


class PhiConfig(Struct, frozen=True):
    kind: str
    exponent: float = 0.8
    eps: float = 1e-6
    alpha: float = 1.0
    c: float = 1.0
