"""What may be picked: rows that are in already, rows that are out, quotas, a budget of tokens.

Picks only ever use up what is allowed: a quota that is full stays full, a row that no longer fits into the budget never
fits again. So a row that may not be taken at its turn can be forgotten, and a greedy stays a greedy of what is left.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mig_jax.core.index import as_points
from mig_jax.engine.problem import csr_rows
from mig_jax.engine.rules import Allowance, Remaining, Rules, pickable
from mig_jax.objective.certificate import Feasible

NO_MOST = np.int64(2**62)
Kind = Literal["first", "exclude", "caps", "minima", "tokens"]


@dataclass(frozen=True)
class Limits:
    """Limits of one selection over M points; Q quotas.

    Args:
      first: points that are in before anything is chosen, in order: those of an earlier selection (the first
        ``started``), then those that must be in; they count towards n, quotas and tokens; int64 ``[f]``, distinct.
      started: how many of ``first`` an earlier selection gave.
      banned: points that may not be picked; never one of ``first``; bool ``[M]``.
      quota_ptr, quota_idx: CSR of the quotas that each point counts towards; int64 ``[M+1]`` and ``[Z]``.
      quota_names: for messages, "source gsm8k" or "label algebra"; Q of them.
      most: rows that a quota takes at most, ``NO_MOST`` where it has no cap; int64 ``[Q]``.
      least: rows that are picked of a quota before all others, 0 where it has no minimum; int64 ``[Q]``.
      cost: what a point costs, > 0; float64 ``[M]``; None: no budget.
      budget: the sum of costs that a selection may have; None: no budget.
      notes: messages about them for the user.
    """

    first: Int64[np.ndarray, " f"]
    started: int
    banned: Bool[np.ndarray, " M"]
    quota_ptr: Int64[np.ndarray, " M1"]
    quota_idx: Int64[np.ndarray, " Z"]
    quota_names: tuple[str, ...] = ()
    most: Int64[np.ndarray, " Q"] | None = None
    least: Int64[np.ndarray, " Q"] | None = None
    cost: Float64[np.ndarray, " M"] | None = None
    budget: float | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def none(cls, points: int) -> "Limits":
        """Nothing is limited."""
        empty = np.zeros(0, np.int64)
        return cls(empty, 0, np.zeros(points, bool), np.zeros(points + 1, np.int64), empty)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Which limits there are."""
        there: dict[Kind, bool] = {
            "first": len(self.first) > 0,
            "exclude": bool(self.banned.any()),
            "caps": self.most is not None and bool((self.most < NO_MOST).any()),
            "minima": self.least is not None and bool((self.least > 0).any()),
            "tokens": self.budget is not None,
        }
        return tuple(kind for kind, is_there in there.items() if is_there)

    def digest(self) -> str:
        """sha256 of all of it, hex."""
        found = hashlib.sha256(repr((self.started, self.quota_names, self.budget)).encode("utf-8", "surrogatepass"))
        for array in (self.first, self.banned, self.quota_ptr, self.quota_idx, self.most, self.least, self.cost):
            found.update(b"-" if array is None else array.dtype.str.encode() + array.tobytes())
        return found.hexdigest()

    def why(self, picks: int, rest: str) -> list[str]:
        """Why each pick was taken: those of ``first`` because they had to be in, all others for one reason."""
        forced = ["earlier selection"] * self.started + ["must include"] * (len(self.first) - self.started)
        return (forced + [rest] * max(picks - len(forced), 0))[:picks]

    def reasons(self, points: np.ndarray, rest: str) -> list[str]:
        """Like ``why`` of a selection that took minima first: of those picks it names the quota that lacked rows."""
        why = self.why(len(points), rest)
        if self.least is None:
            return why
        gate, forced = Gate(self), len(self.first)
        for rank, point in enumerate(points[forced:].tolist(), forced):
            mine = gate.quotas(point)
            lacking = mine[gate.counts[mine] < self.least[mine]]
            if not len(lacking):
                break
            why[rank] = f"minimum of {self.quota_names[lacking[0]]}"
            gate.take(point)
        return why

    def unmet(self, points: np.ndarray) -> tuple[str, ...]:
        """A message for each minimum that a selection has not reached."""
        if self.least is None:
            return ()
        counts = Gate(self, points).counts
        return tuple(
            f"{self.quota_names[q]}: {counts[q]:,} rows, although at least {self.least[q]:,} were asked for"
            for q in np.flatnonzero(counts < self.least)
        )

    def feasible(self, n: int) -> Feasible | None:
        """These limits as the certificate takes them; None where there are none.

        Each point counts to one capped quota there, that with the fewest rows left: where quotas overlap, more is
        feasible than is allowed. So it is without minima, which are left out.
        """
        if not self.kinds:
            return None
        room = np.append(np.full(len(self.quota_names), NO_MOST), NO_MOST)  # the last: no quota at all
        if self.most is not None:
            room[:-1] = np.maximum(self.most - Gate(self).counts, 0)
            room[:-1][self.most >= NO_MOST] = NO_MOST
        quota = np.full(len(self.banned), len(room) - 1)
        owner, entry = np.repeat(np.arange(len(quota)), np.diff(self.quota_ptr)), self.quota_idx
        capped = np.flatnonzero(room[entry] < NO_MOST)
        capped = capped[np.argsort(-room[entry[capped]], kind="stable")]  # the fewest left are written last
        quota[owner[capped]] = entry[capped]
        budget = None if self.budget is None else float(self.budget)
        return Feasible(
            n, as_points(self.first), self.banned, quota, room, self.cost if budget is not None else None, budget
        )


class Gate:
    """Says of one point after another whether it may be taken, given those that were.

    ``minima``: only points of a quota that has not reached its minimum may be taken.
    """

    def __init__(self, limits: Limits, taken: np.ndarray | None = None):
        self.limits = limits
        taken = limits.first if taken is None else taken.astype(np.int64)
        self.counts = np.bincount(
            csr_rows(limits.quota_ptr, limits.quota_idx, taken)[1], minlength=len(limits.quota_names)
        )
        self.out = limits.banned.copy()
        self.out[taken] = True
        # A running sum, added up as ``take`` does: what fits does not depend on when a run was interrupted.
        self.spent = 0.0 if limits.cost is None else float(np.cumsum(np.append(0.0, limits.cost[taken]))[-1])
        self.minima = False

    def quotas(self, point: int) -> np.ndarray:
        """The quotas that a point counts towards."""
        return self.limits.quota_idx[self.limits.quota_ptr[point] : self.limits.quota_ptr[point + 1]]

    def allows(self, point: int) -> bool:
        """Whether it may be taken now; once it may not, it never may again (until ``minima`` changes)."""
        limits = self.limits
        if self.out[point]:
            return False
        if limits.budget is not None and limits.cost is not None and self.spent + limits.cost[point] > limits.budget:
            return False
        mine = self.quotas(point) if len(limits.quota_names) else ()
        if len(mine) and limits.most is not None and (self.counts[mine] >= limits.most[mine]).any():
            return False
        return not self.minima or (limits.least is not None and bool((self.counts[mine] < limits.least[mine]).any()))

    def take(self, point: int) -> None:
        """Count a point that was picked."""
        self.out[point] = True
        if len(self.limits.quota_names):
            self.counts[self.quotas(point)] += 1
        if self.limits.cost is not None:
            self.spent += float(self.limits.cost[point])

    def allowance(self) -> Allowance:
        """The same for the engine: what may be picked until ``minima`` changes."""
        limits, none = self.limits, np.zeros_like(self.counts)
        most = none + NO_MOST if limits.most is None else limits.most - self.counts
        least = none if limits.least is None else limits.least - self.counts
        cost, budget = (None, None) if limits.budget is None else (limits.cost, np.float64(limits.budget))
        rules = Rules(self.out, limits.quota_ptr, limits.quota_idx, cost, budget, np.bool_(self.minima))
        return Allowance(rules, Remaining(most, least, np.float64(self.spent)))

    def open(self) -> Bool[np.ndarray, " M"]:
        """``allows`` of all points."""
        return pickable(*self.allowance())

    def first_open(self, ranked: np.ndarray, most: int) -> Int64[np.ndarray, " k"]:
        """Of points in an order the first that may be taken, one after the other, at most so many; they are taken."""
        picked: list[int] = []
        for point in ranked[self.open()[ranked]].tolist():
            if len(picked) >= most:
                break
            if self.allows(point):
                self.take(point)
                picked.append(point)
        return np.array(picked, np.int64)

    @property
    def phases(self) -> tuple[bool, ...]:
        """The values that ``minima`` takes one after the other."""
        return (True, False) if "minima" in self.limits.kinds else (False,)


def first_allowed(ranked: np.ndarray, n: int, limits: Limits) -> np.ndarray:
    """The first n points that limits allow: those that are in already, minima, then the rest as ``ranked`` has them.

    int64 ``[<= n]``.
    """
    if not limits.kinds:
        return ranked[:n].astype(np.int64)
    gate, picked = Gate(limits), limits.first.tolist()
    for minima in gate.phases:
        gate.minima = minima
        picked += gate.first_open(ranked, n - len(picked)).tolist()
    return np.array(picked[:n], np.int64)
