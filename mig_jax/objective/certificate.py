"""An upper bound on E of the best selection of n points, from any selection S.

E is monotone and submodular, so for every S and the best set O of n points

    E(O) <= E(S u O) <= E(S) + sum_{d in O} E(S + d) - E(S) <= E(S) + the sum of the n largest exact gains at S.

It holds for every prefix of S; the bound is the least of these.

Under limits, O is the best set that they allow, and the sum is the largest that such a set may have: the gains of the
points in ``first`` that are not in S, and the largest gains of other points, at most n with ``first`` and at most the
maximum of each quota (each point counts towards one); or, with a budget, the fractional knapsack (the last point may be
cut); the smaller of the two. Omitting a limit only raises the bound.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.core.html import Described
from mig_jax.core.index import PointArray, as_points
from mig_jax.encode.encoded import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.matrices import label_matrix, propagation_matrix
from mig_jax.objective.phi import Phi
from mig_jax.objective.pool_gains import exact_gains, first_order_gains

ROUNDING = 1e-9  # float64 rounding may place a first-order gain below the exact one, by a few 2^-53 of it


class Certificate(NamedTuple):
    """``objective`` = E(S); no set of n points has more than ``bound``; ``ratio`` = objective / bound, in [0, 1]."""

    objective: float
    bound: float
    ratio: float

    def _facts(self) -> dict[str, str]:
        floor = math.floor(1000 * self.ratio + 1e-10) / 10  # never rounded up
        return {"objective": f"{self.objective:,.4g}", "bound": f"{self.bound:,.4g}", "ratio": f"{floor:.1f} %"}

    __repr__, _repr_html_ = Described.__repr__, Described._repr_html_


class Feasible(NamedTuple):
    """The set of feasible selections of M points; Q quotas.

    Args:
      n: the largest number of points.
      first: points in every selection; int64 ``[f]``.
      banned: points in no selection; bool ``[M]``.
      quota: the quota of each point; int64 ``[M]``, in 0..Q-1.
      most: the largest number of points of each quota, without ``first``; int64 ``[Q]``.
      cost: of each point, > 0; float64 ``[M]``; None: no budget.
      budget: the largest sum of costs.
    """

    n: int
    first: PointArray
    banned: np.ndarray
    quota: np.ndarray
    most: np.ndarray
    cost: np.ndarray | None = None
    budget: float | None = None


def _largest(encoded: Encoded, p: Propagation, phi: Phi, x: np.ndarray, points: PointArray, n: int) -> float:
    """The sum of the n largest exact gains of the points (of all, where there are fewer).

    The first-order gain bounds the exact gain and costs less. The exact gains of the n points with the highest
    first-order gains are computed first; a point whose first-order gain is below the least of these cannot be among the
    n largest.
    """
    above = first_order_gains(encoded, p, phi, x)[points]
    if len(points) <= n:
        return float(exact_gains(encoded, p, phi, x, points).sum())
    highest = np.argpartition(above, len(above) - n)[len(above) - n :]
    gains = exact_gains(encoded, p, phi, x, as_points(np.sort(points[highest])))
    left = above >= gains.min() * (1 - ROUNDING)
    left[highest] = False
    gains = np.concatenate([gains, exact_gains(encoded, p, phi, x, as_points(points[left]))])
    return float(np.partition(gains, len(gains) - n)[len(gains) - n :].sum())


def _largest_within(
    encoded: Encoded, p: Propagation, phi: Phi, x: np.ndarray, rest: np.ndarray, limits: Feasible
) -> float:
    """The largest sum of exact gains at x that a feasible selection may have of the points in ``rest`` (bool ``[M]``).

    Exact gains are computed only where they matter: the best choice by upper bounds (first-order gains, replaced by
    exact gains once computed) is repeated until the exact gain of every chosen point is computed.
    """
    others = rest & ~limits.banned
    others[limits.first] = False
    cost, room = limits.cost, np.inf
    if cost is not None and limits.budget is not None:
        room = limits.budget - cost[limits.first].sum()
        others &= cost <= room
    points = np.flatnonzero(others)
    cost = np.ones(len(points)) if cost is None else cost[points]
    gain, known = first_order_gains(encoded, p, phi, x)[points] * (1 + ROUNDING), np.zeros(len(points), bool)
    n = max(limits.n - len(limits.first), 0)

    def best_by_quota() -> tuple[float, np.ndarray]:
        order = np.argsort(-gain, kind="stable")
        quota = limits.quota[points[order]]
        by_quota = np.argsort(quota, kind="stable")
        size = np.bincount(quota, minlength=len(limits.most))
        rank = np.empty(len(order), np.int64)
        rank[by_quota] = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
        chosen = order[rank < limits.most[quota]][:n]
        return gain[chosen].sum(), chosen

    def knapsack() -> tuple[float, np.ndarray]:
        order = np.argsort(-gain / cost, kind="stable")
        before = np.concatenate([[0.0], np.cumsum(cost[order])])
        whole = int(np.searchsorted(before, room, "right")) - 1  # points that fit
        chosen = order[: max(whole, 0) + 1]
        fraction = np.minimum(1.0, np.maximum(room - before[: len(chosen)], 0.0) / cost[chosen])
        return (gain[chosen] * fraction).sum(), chosen

    def least(best) -> float:
        while True:
            value, chosen = best()
            new = np.sort(chosen[~known[chosen]])
            if not len(new):
                return float(value)
            gain[new], known[new] = exact_gains(encoded, p, phi, x, as_points(points[new])), True

    forced = float(exact_gains(encoded, p, phi, x, as_points(limits.first[rest[limits.first]])).sum())
    return forced + min(map(least, (best_by_quota,) if room == np.inf else (best_by_quota, knapsack)))


def certify(
    encoded: Encoded,
    p: Propagation,
    phi: Phi,
    points: Int64[PointArray, " n"],
    objective: Float64[np.ndarray, " n"],
    prefixes: tuple[int, ...] | None = None,
    limits: Feasible | None = None,
) -> Certificate:
    """Bound the best E of any n = len(points) points, from a selection made by any sampler.

    Args:
      points: the selection, in order.
      objective: E after each of them (``curve(...).objective``).
      prefixes: the lengths of the prefixes that give a bound (0 = the empty set); default: n/8, n/4, n/2, n.
      limits: bound the best E of any feasible selection instead, independent of len(points).
    """
    n = len(points)
    if n == 0 and limits is None:
        return Certificate(0.0, 0.0, 1.0)
    matrix = propagation_matrix(p)
    bound = np.inf
    for length in prefixes or sorted({n // 8, n // 4, n // 2, n}):
        chosen = as_points(points[:length])
        x = matrix.T @ (label_matrix(encoded, chosen).T @ encoded.score[chosen])
        rest = np.ones(len(encoded), bool)
        rest[chosen] = False  # a picked point is in S and adds nothing
        if limits is None:
            more = _largest(encoded, p, phi, x, as_points(np.flatnonzero(rest)), n)
        else:
            more = _largest_within(encoded, p, phi, x, rest, limits)
        bound = min(bound, (float(objective[length - 1]) if length else 0.0) + more)
    value = float(objective[-1]) if n else 0.0
    bound = max(bound, value)
    return Certificate(value, bound, value / bound if bound > 0 else 1.0)
