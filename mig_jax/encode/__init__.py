"""The border from strings to arrays."""

from mig_jax.encode.encoded import Encoded

__all__ = ["Encoded"]
