"""How far from the best possible a selection can be at most.

E is monotone and submodular, so for every S of any origin and the best set O of n points

    E(O) <= E(S u O) <= E(S) + sum_{d in O} E(S + d) - E(S) <= E(S) + the sum of the n largest exact gains at S.

It holds at every prefix of S, and the least of these is the bound.

Under limits O is the best set that they allow, and the sum is the largest that any such set may have: over the rows
that must be in and are not in S, and over others: at most n with those, and of each quota what it takes at most (each
row counts towards one); or, with a budget, what fits into it where the last row may be cut (the fractional knapsack);
the smaller of the two. A limit that is left out only raises the bound.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.core.html import Described
from mig_jax.encode.encoded import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.information import first_order_gains, label_rows, propagation_matrix, reached
from mig_jax.objective.phi import Phi

BLOCK = 100_000
ROUNDING = 1e-9  # a first-order gain may come out lower than the exact one by a few of its 2^-53


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
    """The selections of M points that a bound speaks of; Q quotas.

    Args:
      n: points in one, at most.
      first: points that are in every one; int64 ``[f]``.
      banned: points that are in none; bool ``[M]``.
      quota: the one that a point counts towards; int64 ``[M]``, in 0..Q-1.
      most: points of a quota beside ``first``, at most; int64 ``[Q]``.
      cost: of each point, > 0; float64 ``[M]``; None: no budget.
      budget: the sum of costs of a selection, at most.
    """

    n: int
    first: np.ndarray
    banned: np.ndarray
    quota: np.ndarray
    most: np.ndarray
    cost: np.ndarray | None = None
    budget: float | None = None


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


def _largest_within(
    encoded: Encoded, p: Propagation, phi: Phi, x: np.ndarray, rest: np.ndarray, limits: Feasible
) -> float:
    """The largest sum of exact gains at x that a feasible selection may have of the points in ``rest`` (bool ``[M]``).

    A gain is computed where it counts: as long as the best choice by first-order gains, which are above, holds a point
    whose exact gain is not known, those become known.
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

    def fullest() -> tuple[float, np.ndarray]:
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
        whole = int(np.searchsorted(before, room, "right")) - 1  # rows that fit
        chosen = order[: max(whole, 0) + 1]
        share = np.minimum(1.0, np.maximum(room - before[: len(chosen)], 0.0) / cost[chosen])
        return (gain[chosen] * share).sum(), chosen

    def least(best) -> float:
        while True:
            value, chosen = best()
            new = np.sort(chosen[~known[chosen]])
            if not len(new):
                return float(value)
            gain[new], known[new] = exact_gains(encoded, p, phi, x, points[new]), True

    forced = float(exact_gains(encoded, p, phi, x, limits.first[rest[limits.first]]).sum())
    return forced + min(map(least, (fullest,) if room == np.inf else (fullest, knapsack)))


def certify(
    encoded: Encoded,
    p: Propagation,
    phi: Phi,
    points: Int64[np.ndarray, " n"],
    objective: Float64[np.ndarray, " n"],
    prefixes: tuple[int, ...] | None = None,
    limits: Feasible | None = None,
) -> Certificate:
    """Bound the best E of any n = len(points) rows, for a selection made by any system.

    Args:
      points: the selection, in order.
      objective: E after each of them (``curve(...).objective``).
      prefixes: the lengths at which the bound is tried (0 = the empty set); default: n/8, n/4, n/2, n.
      limits: bound the best E of any selection within these instead, whatever len(points) is.
    """
    n = len(points)
    if n == 0 and limits is None:
        return Certificate(0.0, 0.0, 1.0)
    matrix = propagation_matrix(p)
    bound = np.inf
    for length in prefixes or sorted({n // 8, n // 4, n // 2, n}):
        chosen = points[:length]
        x = matrix.T @ (label_rows(encoded, chosen).T @ encoded.score[chosen])
        rest = np.ones(len(encoded), bool)
        rest[chosen] = False  # a picked row adds nothing to S: it is in it
        if limits is None:
            more = _largest(encoded, p, phi, x, np.flatnonzero(rest), n)
        else:
            more = _largest_within(encoded, p, phi, x, rest, limits)
        bound = min(bound, (float(objective[length - 1]) if length else 0.0) + more)
    reached = float(objective[-1]) if n else 0.0
    bound = max(bound, reached)
    return Certificate(reached, bound, reached / bound if bound > 0 else 1.0)
