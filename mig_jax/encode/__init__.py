"""The border from strings to arrays."""

from mig_jax.encode.encode import Need, RankingSource, encode
from mig_jax.encode.encoded import Encoded
from mig_jax.encode.score import columns_read, factor_names, scores

__all__ = [
    "Encoded",
    "Need",
    "RankingSource",
    "columns_read",
    "encode",
    "factor_names",
    "scores",
]
