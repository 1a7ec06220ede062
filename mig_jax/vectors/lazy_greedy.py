"""The exact lazy greedy of coverage and quality: argmax_u (weight * gain(u) + bonus(u)) / cost(u), lowest of equals.

Gains only fall, so an earlier gain bounds the current one. If the bound of the first point is its current gain, it is
the pick; otherwise the first few points are evaluated again. How many at once changes the speed only: gains are exact
(``facility_location``), so no pick depends on it.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mig_jax.core.index import PointArray, as_points
from mig_jax.vectors.facility_location import FacilityLocation, width_of

LISTED = 4096  # points that are sorted by key; all other points follow them


class LazyGreedy:
    """Selects points one at a time, out of N.

    Args:
      coverage: its A holds the points picked before.
      weight: of a gain in steps; >= 0.
      bonus: the part of a point's value that does not depend on A; finite.
      cost: the divisor of a point's value; > 0; None: 1.
      bounds: at least the gain of each point, in steps; None: the largest possible gain.
      after_pass: called after every pass over the pool, that is, when ``bounds`` may have changed.
      listed: see ``LISTED``.
    """

    def __init__(
        self,
        coverage: FacilityLocation,
        weight: float,
        bonus: Float64[np.ndarray, " N"],
        cost: Float64[np.ndarray, " N"] | None = None,
        bounds: Float64[np.ndarray, " N"] | None = None,
        after_pass: Callable[[], None] = lambda: None,
        listed: int = LISTED,
    ):
        self.coverage, self.weight, self.bonus, self.cost = coverage, weight, bonus, cost
        self.after_pass, self.listed = after_pass, listed
        count = len(bonus)
        most = (
            count * coverage.unit * (1 + 2.0**-16) if weight else 0.0
        )  # rounding increases the length of a vector by less
        self.bounds = np.full(count, most) if bounds is None else bounds.copy()
        self.evaluated_at = np.full(count, -1)  # the version of the coverage at the last evaluation
        self.version = 0
        self.pending = as_points(np.zeros(0, np.int64))  # picked, but not yet added to the coverage
        self.last_evaluations = 1  # evaluations that the last pick needed
        self.counts = {"evaluations": 0, "passes": 0}
        self.restrict_to(np.ones(count, bool))

    def restrict_to(self, candidates: Bool[np.ndarray, " N"]) -> None:
        """Make ``candidates`` the only points that can be picked; they must not include picks."""
        self.is_open = candidates.copy()
        self.keys = np.where(self.is_open, self._key(slice(None)), -np.inf)
        self._relist()

    def exclude(self, points: Int64[PointArray, " k"]) -> None:
        """Exclude these points from the following picks."""
        self.is_open[points] = False
        self.keys[points] = -np.inf

    def gain(self, point: int) -> float:
        """weight * gain + bonus of a point, exact."""
        if not self._is_current(np.array([point]))[0]:
            self._evaluate(as_points(np.array([point])))
        return float(self.weight * self.bounds[point] + self.bonus[point])

    def pick(self, point: int) -> None:
        """Add a point to A, right after ``best`` or ``gain`` evaluated it."""
        self.exclude(as_points(np.array([point])))
        if self.bounds[point] > 0:  # else the coverage and all gains stay the same
            self.version += 1
            self.pending = as_points(np.append(self.pending, point))

    def best(self, allows: Callable[[int], bool] | None = None) -> int | None:
        """The point with the largest key, None where there is none. Points that ``allows`` rejects are excluded."""
        bounds, highest = np.zeros(0), -np.inf  # keys of the evaluated points before; their largest key after
        while True:
            order = self._order()
            if not len(order):
                return None
            if allows is not None and not allows(int(order[0])):
                self.exclude(as_points(order[[not allows(point) for point in order.tolist()]]))
                continue
            current = self._is_current(order)
            if current[0]:
                if len(bounds):
                    self.last_evaluations = int((bounds >= self.keys[order[0]]).sum())
                return int(order[0])
            outdated = order[~current]
            need = int((self.keys[outdated] >= highest).sum()) if len(bounds) else self.last_evaluations
            points = outdated[: width_of(need)]
            bounds = np.append(bounds, self.keys[points])
            self._evaluate(as_points(points))
            highest = max(highest, self.keys[points].max())

    def _key(self, points) -> Float64[np.ndarray, " k"]:
        key = self.weight * self.bounds[points] + self.bonus[points]
        return key if self.cost is None else key / self.cost[points]

    def _is_current(self, points: np.ndarray) -> Bool[np.ndarray, " k"]:
        """Whether the bounds are current gains; a bound of 0 always is."""
        return (self.evaluated_at[points] == self.version) | (self.bounds[points] == 0)

    def _order(self) -> np.ndarray:
        """The listed points by (key descending, point ascending). Their first is the first of all points."""
        for _ in range(2):
            order = self.list[np.argsort(-self.keys[self.list], kind="stable")]
            order = order[: int(self.is_open[order].sum())]
            if self.cut is None or (len(order) and self._rank_key(int(order[0])) <= self.cut):
                return order
            self._relist()
        return order

    def _relist(self) -> None:
        """List the first ``listed`` points by (key descending, point ascending), in ascending order of points."""
        open_points = np.flatnonzero(self.is_open)
        self.list, self.cut = open_points, None
        if len(open_points) > self.listed:
            keys = self.keys[open_points]
            least = np.partition(keys, len(keys) - self.listed)[len(keys) - self.listed]
            above, equal = open_points[keys > least], open_points[keys == least]
            equal = equal[: self.listed - len(above)]
            self.list = np.sort(np.concatenate([above, equal]))
            self.cut = (-float(least), int(equal[-1]))

    def _rank_key(self, point: int) -> tuple[float, int]:
        return -float(self.keys[point]), point

    def _evaluate(self, points: PointArray) -> None:
        self.bounds[points], self.evaluated_at[points] = self.coverage.gains_after(self.pending, points), self.version
        self.pending = as_points(self.pending[:0])
        self.counts["evaluations"] += len(points)
        self.counts["passes"] += 1
        open_points = points[self.is_open[points]]
        self.keys[open_points] = self._key(open_points)
        self.after_pass()
