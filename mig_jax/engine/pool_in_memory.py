"""A pool in the memory of a mesh: it makes the shortlists of the greedy by full passes over all groups."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mig_jax.core.errors import UserError
from mig_jax.core.index import PointArray, as_points
from mig_jax.core.processes import replicated
from mig_jax.engine.full_pass import AXIS, Changes, Heads, exact_bounds, full_pass
from mig_jax.engine.kernels import RowLabels
from mig_jax.engine.lazy_heap import Heap, Queues, keys_by_slot
from mig_jax.engine.problem import Problem, power_of_two

SLACK = 2.0**-14  # more than the relative error of a rise of phi in float32
ULP = 2.0**-24  # the relative error of a float32 operation


class Candidates(NamedTuple):
    """A shortlist with all that the heap needs; host arrays, by slot.

    ``group`` int32 ``[C]``, ``bound`` float64 ``[C]`` (-1: the queue is empty); ``point`` of their heads, ``head`` the
    heads' queue positions and ``end`` the ends of their queues; ``labels``: the labels of each group (for the exact
    gain those that it reaches). No group outside gains more than ``cut``. ``queues``: of these groups, or of all.
    """

    group: np.ndarray
    bound: np.ndarray
    point: PointArray
    head: np.ndarray
    end: np.ndarray
    labels: RowLabels
    cut: float
    queues: Queues


def raise_bounds(bound: np.ndarray, slack: float, least: float) -> np.ndarray:
    """Float32 bounds, in float64 and raised by their rounding error; -1 stays."""
    bound = bound.astype(np.float64)
    return np.where(bound < 0, bound, bound * slack + least)


def rounding_slack(widest: int, score: float) -> tuple[float, float]:
    """(factor, addend) by which the float32 first-order gain of at most ``widest`` labels is raised to be a bound.

    y, the score, each addition and the product are rounded to float32; numbers below 2^-126 are rounded to 0.
    """
    return 1 + (widest + 4) * ULP, (widest + 4) * 2.0**-126 * max(score, 1.0)


class PoolInMemory:
    """The groups on the mesh, and the heads of their queues on the host and on the mesh.

    Args:
      problem: laid out for as many shards as the mesh has devices.
      shortlist_size: candidates of a full pass.
      picked: the points picked before, if any.
      state: the labels' state after them.
      heap_device: the device of the heap.
    """

    def __init__(
        self, problem: Problem, mesh: Mesh, shortlist_size: int, picked: np.ndarray, state: Any, heap_device: Any
    ):
        self.problem, self.mesh = problem, mesh
        self.num_groups = problem.groups.num_groups
        with jax.enable_x64(True):
            ratio = None if problem.groups.cost is None else problem.groups.ratio
            self.queues = jax.device_put(Queues(problem.groups.point, problem.groups.score, ratio), heap_device)
        self.head = self._heads(picked)
        self.buckets, self.column = jax.tree.map(self._put, (problem.buckets, problem.column))
        self._set_shape(shortlist_size)
        bound = None
        if problem.reach is not None:
            x, reach = np.asarray(state.x).astype(np.float32), jax.tree.map(self._put, problem.reach)
            wide = max(bucket.labels.shape[0] for bucket in problem.reach[0])
            bound = exact_bounds(problem.objective.phi, x, *reach, mesh=mesh) * np.float32(1 + SLACK + 2 * wide * ULP)
            if problem.groups.cost is not None:  # each group is one point
                bound = bound * self._put(self._wide(1 / problem.groups.cost).astype(np.float32))
        self.heads = Heads(self._scores(), bound)
        widest = max(bucket.labels.shape[0] for bucket in problem.buckets)
        self.slack, self.least = rounding_slack(widest, float(problem.groups.ratio.max()))

    def _heads(self, picked: np.ndarray) -> np.ndarray:
        """The head of each queue after the ``picked`` points, which are always at its front."""
        groups = self.problem.groups
        is_picked = np.isin(groups.point, picked)
        before = np.concatenate([[0], np.cumsum(is_picked)])
        return (groups.queue[:-1] + before[groups.queue[1:]] - before[groups.queue[:-1]]).astype(np.int32)

    def _set_shape(self, shortlist_size: int) -> None:
        """Fix the length of the shortlist, and its label entries at those of the widest groups: one program for all."""
        self.shortlist_size = max(1, min(shortlist_size, self.num_groups))
        width = np.diff(self.problem.groups.ptr)
        widest = np.partition(width, self.num_groups - self.shortlist_size)[self.num_groups - self.shortlist_size :]
        self.label_entries = int(power_of_two(widest.sum(dtype=np.int64)))
        if self.label_entries >= 2**31:
            raise UserError(
                f"{self.shortlist_size} candidates with {self.label_entries} labels: the engine counts them in 31 bits"
            )
        self.forget_changes()

    def forget_changes(self) -> None:
        """No group has changed since the last pass."""
        zeros = np.zeros(self.shortlist_size, np.float32)
        self.changes = Changes(np.full(self.shortlist_size, -1, np.int32), zeros, zeros)

    def widen(self) -> None:
        """Make the following shortlists four times as long."""
        self._set_shape(4 * self.shortlist_size)

    def shortlist(self, y: np.ndarray) -> Candidates:
        """The groups with the largest bounds, from y (the labels' gains, float64 ``[L+1]``) and last evaluations."""
        self.heads, top = full_pass(
            y.astype(np.float32),
            self.buckets,
            self.column,
            self.heads,
            self.changes,
            shortlist_size=self.shortlist_size,
            mesh=self.mesh,
        )
        group, bound = map(replicated, top)
        bound = raise_bounds(bound, self.slack, self.least)
        self.forget_changes()
        head, queue = self.head[group], self.problem.groups.queue
        point = self.problem.groups.point[np.minimum(head, self.problem.num_points - 1)]
        cut = -1.0 if self.lists_all else float(bound[-1])
        return Candidates(group, bound, as_points(point), head, queue[group + 1], self._labels(group), cut, self.queues)

    @property
    def lists_all(self) -> bool:
        """Whether the shortlist holds all groups."""
        return self.shortlist_size == self.num_groups

    def record_picks(self, candidates: Candidates, heap: Heap) -> None:
        """Record the heads of the listed groups after picks, and the new bounds of those that the heap evaluated."""
        self.head[candidates.group] = heap.head
        evaluated = heap.evaluated_at >= 0
        gain = keys_by_slot(heap)
        above = np.where(gain > 0, gain * (1 + 4 * ULP), gain).astype(np.float32)
        self.changes = Changes(
            np.where(evaluated, candidates.group, -1).astype(np.int32), self._score(candidates.group), above
        )

    def skip_unpickable(self, is_pickable: np.ndarray) -> None:
        """Advance every queue to its first pickable point (bool ``[N]``, by queue position)."""
        position, end = np.arange(len(is_pickable) + 1), self.problem.groups.queue[1:]
        position[:-1][~is_pickable] = len(is_pickable)
        following = np.minimum.accumulate(position[::-1])[::-1]  # the first pickable position from here on
        head = np.minimum(following[self.head], end).astype(np.int32)
        if (head > self.head).any():
            self.head = head
            self.heads = self.heads._replace(score=self._scores())
            listed = self.changes.group >= 0
            score = np.where(listed, self._score(np.where(listed, self.changes.group, 0)), np.float32(0))
            self.changes = self.changes._replace(score=score)

    def _scores(self) -> jax.Array:
        return self._put(self._wide(self._score(np.arange(self.num_groups))))

    def _wide(self, per_group: np.ndarray) -> np.ndarray:
        """Padded to the length of all shards."""
        return np.pad(per_group, (0, len(self.problem.column) - self.num_groups))

    def _score(self, group: np.ndarray) -> np.ndarray:
        """Score of the heads, or score / cost; 0 where the queue is empty."""
        head = self.head[group]
        groups, at = self.problem.groups, np.minimum(head, self.problem.num_points - 1)
        score = groups.score[at] if groups.cost is None else groups.score[at] / groups.cost[at]
        return np.where(head < groups.queue[group + 1], score, 0.0).astype(np.float32)

    def _labels(self, group: np.ndarray) -> RowLabels:
        """The labels of the listed groups, contiguous: the heap reads them often."""
        ptr, idx, unit_mass = self.problem.groups.ptr, self.problem.groups.idx, self.problem.groups.unit_mass
        counts = ptr[group + 1] - ptr[group]
        local = np.zeros(len(group) + 1, np.int32)
        np.cumsum(counts, out=local[1:])
        source = np.arange(local[-1]) + np.repeat(ptr[group] - local[:-1], counts)
        listed_idx = np.zeros(self.label_entries, np.int32)
        listed_idx[: local[-1]] = idx[source]
        if unit_mass is None:
            return RowLabels(local, listed_idx, None)
        listed_mass = np.zeros(self.label_entries)
        listed_mass[: local[-1]] = unit_mass[source]
        return RowLabels(local, listed_idx, listed_mass)

    def _put(self, array: np.ndarray) -> jax.Array:
        """Shard along the last axis; each process uploads the parts of its own devices only."""
        spec = P(*[None] * (array.ndim - 1), AXIS)
        return jax.make_array_from_callback(array.shape, NamedSharding(self.mesh, spec), lambda index: array[index])
