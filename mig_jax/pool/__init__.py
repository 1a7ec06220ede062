"""The pool: where the rows lie, read once into arrays. The only package that knows file formats.

``load_pool`` reads files, folders, globs or Hugging Face data sets into a ``Pool`` of columns; the text stays in the
files, and ``Pool.read_rows`` gives back the very bytes that were read, checked.
"""

from mig_jax.pool.exchanges import Exchange
from mig_jax.pool.fields import FIELDS
from mig_jax.pool.layouts import LAYOUTS
from mig_jax.pool.load import load_pool
from mig_jax.pool.table import ABSENT, BAD_VALUE, PRESENT, REASONS, Pool, Reject, SourceInfo

__all__ = [
    "ABSENT",
    "BAD_VALUE",
    "FIELDS",
    "LAYOUTS",
    "PRESENT",
    "REASONS",
    "Exchange",
    "Pool",
    "Reject",
    "SourceInfo",
    "load_pool",
]
