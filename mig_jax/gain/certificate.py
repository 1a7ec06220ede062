"""How far from the best possible a selection can be at most.

E is monotone and submodular, so for every S of any origin and the best set O of n points

    E(O) <= E(S u O) <= E(S) + sum_{d in O} E(S + d) - E(S) <= E(S) + the sum of the n largest exact gains at S.

It holds at every prefix of S, and the least of these is the bound.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.encode.encoded import Encoded
from mig_jax.gain.objective import first_order_gains, label_rows, propagation_matrix, reached
from mig_jax.gain.phi import Phi
from mig_jax.graph.label_graph import Propagation

BLOCK = 100_000
ROUNDING = 1e-9  # a first-order gain may come out lower than the exact one by a few of its 2^-53


class Certificate(NamedTuple):
    """``objective`` = E(S); no set of n points has more than ``bound``; ``ratio`` = objective / bound, in [0, 1]."""

    objective: float
    bound: float
    ratio: float


def exact_gains(
    encoded: Encoded,
    p: Propagation,
    phi: Phi,
    x: Float64[np.ndarray, " L"],
    points: Int64[np.ndarray, " m"] | None = None,
) -> Float64[np.ndarray, " m"]:
    """E(S + d) - E(S) at mass x of every point, or of those asked, in float64, in blocks of rows."""
    matrix = propagation_matrix(p)
    points = np.arange(len(encoded)) if points is None else points
    out = np.zeros(len(points))
    for lo in range(0, len(points), BLOCK):
        block = points[lo : lo + BLOCK]
        reach = reached(label_rows(encoded, block), matrix)
        mass = reach.data * np.repeat(encoded.score[block], np.diff(reach.indptr))
        row = np.repeat(np.arange(len(block)), np.diff(reach.indptr))
        out[lo : lo + BLOCK] = np.bincount(row, weights=phi.rise(x[reach.indices], mass), minlength=len(block))
    return out


def _largest(encoded: Encoded, p: Propagation, phi: Phi, x: np.ndarray, points: np.ndarray, n: int) -> float:
    """The sum of the n largest exact gains of the points (of all, where there are fewer).

    A gain is never above the first-order one, a gather: the n highest of these have n gains, and whose first-order gain
    is below the least of those needs no more.
    """
    above = first_order_gains(encoded, p, phi, x)[points]
    if len(points) <= n:
        return float(exact_gains(encoded, p, phi, x, points).sum())
    highest = np.argpartition(above, len(above) - n)[len(above) - n :]
    gains = exact_gains(encoded, p, phi, x, np.sort(points[highest]))
    left = above >= gains.min() * (1 - ROUNDING)
    left[highest] = False
    gains = np.concatenate([gains, exact_gains(encoded, p, phi, x, points[left])])
    return float(np.partition(gains, len(gains) - n)[len(gains) - n :].sum())


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
        rest = np.ones(len(encoded), bool)
        rest[chosen] = False  # a picked row adds nothing to S: it is in it
        rest = np.flatnonzero(rest)
        bound = min(bound, (float(objective[length - 1]) if length else 0.0) + _largest(encoded, p, phi, x, rest, n))
    reached = float(objective[-1])
    bound = max(bound, reached)
    return Certificate(reached, bound, reached / bound if bound > 0 else 1.0)
