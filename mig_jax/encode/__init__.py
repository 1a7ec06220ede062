"""The border from strings to arrays."""

from mig_jax.encode.encode import encode
from mig_jax.encode.encoded import Encoded
from mig_jax.encode.score import columns_read, factor_names, scores
from mig_jax.encode.vocabulary import ValidTags, Vocabulary, labels_of, read_valid_tags

__all__ = [
    "Encoded",
    "ValidTags",
    "Vocabulary",
    "columns_read",
    "encode",
    "factor_names",
    "labels_of",
    "read_valid_tags",
    "scores",
]
