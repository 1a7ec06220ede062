"""The pool: rows read once into arrays; the text stays in the files. The only package that handles file formats.

``load_pool`` (in ``load``) reads files, folders, globs or Hugging Face data sets into a ``Pool`` (``table``);
``Pool.read_rows`` reads the bytes of rows again and verifies them. Modules, in the order of the data flow:

- input files: ``sources``. Their bytes: ``stream`` (text, compressed or not), ``tabular`` (parquet, ``hf:``).
- bytes -> records: ``records`` (lines, elements of an array). Records -> values: ``fields`` (paths), ``layouts``
  (mig, sharegpt, openai, alpaca), ``decode``, ``exchanges``.
- values -> columns: ``builder``; in several processes: ``parallel``, ``worker``. The columns on disk: ``cache``.
- output: ``fetch`` (bytes as read), ``splice`` (rows with annotations), ``convert`` (another layout), ``dataset_info``
  (for LLaMA-Factory).
- ``config``, ``configured``: the settings ``pool.*``. ``view``: the part of a pool that writing a run needs.
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
