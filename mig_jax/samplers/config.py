"""The base of every sampler's settings."""

from mig_jax.config.struct import Struct


class SamplerOptions(Struct, frozen=True):
    """Settings of a sampler; each has its own, beside its code in mig_jax.samplers."""

    name: str
