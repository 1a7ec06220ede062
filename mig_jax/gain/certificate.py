"""How far from the best possible a selection can be at most.

E is monotone and submodular, so for every S of any origin and the best set O of n points

    E(O) <= E(S u O) <= E(S) + sum_{d in O} E(S + d) - E(S) <= E(S) + the sum of the n largest exact gains at S.

It holds at every prefix of S, and the least of these is the bound.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.encode.encoded import Encoded
from mig_jax.gain.objective import label_rows, propagation_matrix, reached
from mig_jax.gain.phi import Phi
from mig_jax.graph.label_graph import Propagation

BLOCK = 100_000


class Certificate(NamedTuple):
    """``objective`` = E(S); no set of n points has more than ``bound``; ``ratio`` = objective / bound, in [0, 1]."""

    objective: float
    bound: float
    ratio: float


def exact_gains(encoded: Encoded, p: Propagation, phi: Phi, x: Float64[np.ndarray, " L"]) -> Float64[np.ndarray, " M"]:
    """E(S + d) - E(S) of every point at mass x, in float64, in blocks of rows."""
    matrix = propagation_matrix(p)
    out = np.zeros(len(encoded))
    for lo in range(0, len(encoded), BLOCK):
        points = np.arange(lo, min(lo + BLOCK, len(encoded)))
        reach = reached(label_rows(encoded, points), matrix)
        mass = reach.data * np.repeat(encoded.score[points], np.diff(reach.indptr))
        row = np.repeat(np.arange(len(points)), np.diff(reach.indptr))
        out[points] = np.bincount(row, weights=phi.rise(x[reach.indices], mass), minlength=len(points))
    return out


def certify(
    encoded: Encoded,
    p: Propagation,
    phi: Phi,
    points: Int64[np.ndarray, " n"],
    objective: Float64[np.ndarray, " n"],
    prefixes: tuple[int, ...] | None = None,
) -> Certificate:
    """Bound the best E of any n = len(points) rows, for a selection made by any system.

    Args:
      points: the selection, in order.
      objective: E after each of them (``curve(...).objective``).
      prefixes: the lengths at which the bound is tried (0 = the empty set); default: n/8, n/4, n/2, n.
    """
    n = len(points)
    if n == 0:
        return Certificate(0.0, 0.0, 1.0)
    matrix = propagation_matrix(p)
    bound = np.inf
    for length in prefixes or sorted({n // 8, n // 4, n // 2, n}):
        chosen = points[:length]
        x = matrix.T @ (label_rows(encoded, chosen).T @ encoded.score[chosen])
        gains = exact_gains(encoded, p, phi, x)
        gains[chosen] = 0.0  # a picked row adds nothing to S: it is in it
        top = np.partition(gains, len(gains) - n)[len(gains) - n :]
        bound = min(bound, (float(objective[length - 1]) if length else 0.0) + float(top.sum()))
    reached = float(objective[-1])
    bound = max(bound, reached)
    return Certificate(reached, bound, reached / bound if bound > 0 else 1.0)
