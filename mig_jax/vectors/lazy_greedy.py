"""The exact lazy greedy of coverage and quality, argmax_u (weight * gain(u) + bonus(u)) / cost(u), lowest of equals.

Gains only fall, so one that was seen before bounds the one of now, and the point that is first by its bound is the one
to take if its bound is of now; else the first few are looked at again. How many at once is a matter of speed: gains are
exact (``facility_location``), so no pick depends on it.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mig_jax.vectors.facility_location import FacilityLocation, width_of

LISTED = 4096  # points that are kept in order; the others are only known to come after them


class LazyGreedy:
    """Finds one point after another; N points.

    Args:
      coverage: its A is what has been taken before.
      weight: >= 0, of a gain in steps.
      bonus: what a point brings whatever else is in; finite.
      cost: > 0, what gains are divided by; None: 1.
      bounds: no gain (in steps) is above its bound; None: nothing is known.
      after_look: called after every pass over the pool, whenever ``bounds`` may have changed.
    """

    def __init__(
        self,
        coverage: FacilityLocation,
        weight: float,
        bonus: Float64[np.ndarray, " N"],
        cost: Float64[np.ndarray, " N"] | None = None,
        bounds: Float64[np.ndarray, " N"] | None = None,
        after_look: Callable[[], None] = lambda: None,
        listed: int = LISTED,
    ):
        self.coverage, self.weight, self.bonus, self.cost = coverage, weight, bonus, cost
        self.after_look, self.listed = after_look, listed
        count = len(bonus)
        most = count * coverage.unit * (1 + 2.0**-16) if weight else 0.0  # rounding lengthens vectors by less
        self.bounds = np.full(count, most) if bounds is None else bounds.copy()
        self.seen = np.full(count, -1)  # the version of the coverage that a bound is the gain of
        self.version = 0
        self.pending = np.zeros(0, np.int64)  # taken, but not yet covered by
        self.needed = 1  # gains that the last pick took
        self.counts = {"evaluations": 0, "passes": 0}
        self.open(np.ones(count, bool))

    def open(self, candidates: Bool[np.ndarray, " N"]) -> None:
        """From now on only these may be found; those taken must not be among them."""
        self.alive = candidates.copy()
        self.keys = np.where(self.alive, self._key(slice(None)), -np.inf)
        self._relist()

    def close(self, points: Int64[np.ndarray, " k"]) -> None:
        """These may not be found any more."""
        self.alive[points] = False
        self.keys[points] = -np.inf

    def gain(self, point: int) -> float:
        """weight * gain + bonus of any point, exact."""
        if not self._fresh(np.array([point]))[0]:
            self._look(np.array([point]))
        return float(self.weight * self.bounds[point] + self.bonus[point])

    def take(self, point: int) -> None:
        """Into A, right after ``best`` or ``gain`` named it."""
        self.close(np.array([point]))
        if self.bounds[point] > 0:  # else it covers nothing better, and all gains stay
            self.version += 1
            self.pending = np.append(self.pending, point)

    def best(self, allows: Callable[[int], bool] | None = None) -> int | None:
        """The point to take next; None: there is none. Points that are not allowed are closed on the way."""
        bounds, highest = np.zeros(0), -np.inf  # of those looked at: what they had before, the best they have now
        while True:
            order = self._order()
            if not len(order):
                return None
            if allows is not None and not allows(int(order[0])):
                self.close(order[[not allows(point) for point in order.tolist()]])
                continue
            fresh = self._fresh(order)
            if fresh[0]:
                if len(bounds):
                    self.needed = int((bounds >= self.keys[order[0]]).sum())
                return int(order[0])
            stale = order[~fresh]
            need = int((self.keys[stale] >= highest).sum()) if len(bounds) else self.needed
            asked = stale[: width_of(need)]
            bounds = np.append(bounds, self.keys[asked])
            self._look(asked)
            highest = max(highest, self.keys[asked].max())

    def _key(self, points) -> Float64[np.ndarray, " k"]:
        key = self.weight * self.bounds[points] + self.bonus[points]
        return key if self.cost is None else key / self.cost[points]

    def _fresh(self, points: np.ndarray) -> Bool[np.ndarray, " k"]:
        """Whose bound is the gain of now; one of 0 can fall no further."""
        return (self.seen[points] == self.version) | (self.bounds[points] == 0)

    def _order(self) -> np.ndarray:
        """Listed points, the first to take first: by key, then by index. The first of them is the first of all."""
        for _ in range(2):
            order = self.list[np.argsort(-self.keys[self.list], kind="stable")]
            order = order[: int(self.alive[order].sum())]
            if self.cut is None or (len(order) and self._place(int(order[0])) <= self.cut):
                return order
            self._relist()
        return order

    def _relist(self) -> None:
        """The first ``listed`` of all by key, then by index, in the order of their index."""
        alive = np.flatnonzero(self.alive)
        self.list, self.cut = alive, None
        if len(alive) > self.listed:
            keys = self.keys[alive]
            least = np.partition(keys, len(keys) - self.listed)[len(keys) - self.listed]
            above, equal = alive[keys > least], alive[keys == least]
            equal = equal[: self.listed - len(above)]
            self.list = np.sort(np.concatenate([above, equal]))
            self.cut = (-float(least), int(equal[-1]))

    def _place(self, point: int) -> tuple[float, int]:
        return -float(self.keys[point]), point

    def _look(self, asked: np.ndarray) -> None:
        self.bounds[asked], self.seen[asked] = self.coverage.look(self.pending, asked), self.version
        self.pending = self.pending[:0]
        self.counts["evaluations"] += len(asked)
        self.counts["passes"] += 1
        alive = asked[self.alive[asked]]
        self.keys[alive] = self._key(alive)
        self.after_look()
