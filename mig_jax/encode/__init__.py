"""The border from strings to arrays."""

from mig_jax.encode.encode import encode, read_valid_tags, scores
from mig_jax.encode.encoded import Encoded

__all__ = ["Encoded", "encode", "read_valid_tags", "scores"]
