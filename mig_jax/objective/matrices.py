"""The sparse matrices of the objective: V (points x labels), P (labels x labels) and U = V P."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int64

from mig_jax.core.index import PointArray
from mig_jax.encode.encoded import Encoded
from mig_jax.labels.label_graph import Propagation


def propagation_matrix(p: Propagation) -> sp.csr_array:
    """P; float64 ``[L, L]``."""
    count = len(p.ptr) - 1
    return sp.csr_array((p.val, p.idx, p.ptr), shape=(count, count))


def unit_masses(v: sp.csr_array, matrix: sp.csr_array) -> sp.csr_array:
    """U = V P: the mass that each row brings to each label that it reaches, per unit of score; float64 ``[n, L]``."""
    return sp.csr_array(v @ matrix)


def label_matrix(encoded: Encoded, points: Int64[PointArray, " n"] | None = None) -> sp.csr_array:
    """V: a row for each point, with a 1 at each of its labels; float64 ``[n, L]``. None: of all points."""
    count = len(encoded.labels)
    all_rows = sp.csr_array(
        (np.ones(len(encoded.label_idx)), encoded.label_idx, encoded.label_ptr), shape=(len(encoded), count)
    )
    return all_rows if points is None else all_rows[points]
