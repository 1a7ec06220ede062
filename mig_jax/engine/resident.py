"""A pool in the memory of a mesh: where the shortlists of the greedy come from."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mig_jax.core.errors import UserError
from mig_jax.core.processes import whole
from mig_jax.engine.full_pass import AXIS, Heads, News, first_bounds, full_pass
from mig_jax.engine.kernels import Rows
from mig_jax.engine.lazy_heap import Heap, Queues, last_seen
from mig_jax.engine.problem import Problem, power_of_two

SLACK = 2.0**-14  # above what float32 may lose in a rise
ULP = 2.0**-24  # what a float32 operation may lose


class Candidates(NamedTuple):
    """A shortlist with all that the heap needs of it, host arrays.

    ``group`` int32 ``[C]``, ``bound`` float64 ``[C]`` (-1: nothing left); ``row`` the rows of their heads, ``head``
    their places in the queues and ``end`` the ends of these; ``labels`` what each gains by. No group outside gains more
    than ``cut``. ``queues``: theirs, or everybody's.
    """

    group: np.ndarray
    bound: np.ndarray
    row: np.ndarray
    head: np.ndarray
    end: np.ndarray
    labels: Rows
    cut: float
    queues: Queues


def raised(bound: np.ndarray, slack: float, least: float) -> np.ndarray:
    """Float32 bounds raised above what they bound, in float64; -1 stays."""
    bound = bound.astype(np.float64)
    return np.where(bound < 0, bound, bound * slack + least)


def slacks(widest: int, score: float) -> tuple[float, float]:
    """What a first-order bound of ``widest`` labels may lack: a factor, and what is lost where float32 ends.

    y, the score, each addition and the product are rounded to float32; below 2^-126 that is to 0.
    """
    return 1 + (widest + 4) * ULP, (widest + 4) * 2.0**-126 * max(score, 1.0)


class Resident:
    """Keeps the heads of all queues, on the host and on the mesh.

    Args:
      problem: laid out for as many shards as the mesh has devices.
      taken: the rows picked before, if any.
      state: the labels' state with them.
      home: the heap's device.
    """

    def __init__(self, problem: Problem, mesh: Mesh, shortlist_size: int, taken: np.ndarray, state: Any, home: Any):
        self.problem, self.mesh = problem, mesh
        self.most = problem.groups.many
        with jax.enable_x64(True):
            ratio = None if problem.groups.cost is None else problem.groups.ratio
            self.queues = jax.device_put(Queues(problem.groups.row, problem.groups.score, ratio), home)
        self.head = self._heads(taken)
        self.buckets, self.where = jax.tree.map(self._put, (problem.buckets, problem.where))
        self._shape(shortlist_size)
        bound = None
        if problem.reach is not None:
            x, reach = np.asarray(state.x).astype(np.float32), jax.tree.map(self._put, problem.reach)
            wide = max(bucket.labels.shape[0] for bucket in problem.reach[0])
            bound = first_bounds(problem.side.phi, x, *reach, mesh=mesh) * np.float32(1 + SLACK + 2 * wide * ULP)
            if problem.groups.cost is not None:  # of one row each
                bound = bound * self._put(self._wide(1 / problem.groups.cost).astype(np.float32))
        self.heads = Heads(self._scores(), bound)
        widest = max(bucket.labels.shape[0] for bucket in problem.buckets)
        self.slack, self.least = slacks(widest, float(problem.groups.ratio.max()))

    def _heads(self, taken: np.ndarray) -> np.ndarray:
        """Where each queue stands once ``taken`` have left: always from its front."""
        groups = self.problem.groups
        gone = np.isin(groups.row, taken)
        before = np.concatenate([[0], np.cumsum(gone)])
        return (groups.queue[:-1] + before[groups.queue[1:]] - before[groups.queue[:-1]]).astype(np.int32)

    def _shape(self, shortlist_size: int) -> None:
        """Fix the list's length, and its room for labels at the widest groups': every list compiles to one program."""
        self.shortlist_size = max(1, min(shortlist_size, self.most))
        width = np.diff(self.problem.groups.ptr)
        widest = np.partition(width, self.most - self.shortlist_size)[self.most - self.shortlist_size :]
        self.room = int(power_of_two(widest.sum(dtype=np.int64)))
        if self.room >= 2**31:
            raise UserError(
                f"{self.shortlist_size} candidates with {self.room} labels in all: the engine counts them in 31 bits"
            )
        self.no_news()

    def no_news(self) -> None:
        """As if nothing had been picked since the last pass."""
        nothing = np.zeros(self.shortlist_size, np.float32)
        self.news = News(np.full(self.shortlist_size, -1, np.int32), nothing, nothing)

    def widen(self) -> None:
        """From now on the list holds four times as many groups."""
        self._shape(4 * self.shortlist_size)

    def shortlist(self, y: np.ndarray) -> Candidates:
        """The groups with the largest bounds, by y (the labels' gains) and what was last seen."""
        self.heads, found = full_pass(
            y.astype(np.float32),
            self.buckets,
            self.where,
            self.heads,
            self.news,
            shortlist_size=self.shortlist_size,
            mesh=self.mesh,
        )
        group, bound = map(whole, found)
        bound = raised(bound, self.slack, self.least)
        self.no_news()
        head, queue = self.head[group], self.problem.groups.queue
        row = self.problem.groups.row[np.minimum(head, self.problem.rows - 1)]
        cut = -1.0 if self.whole else float(bound[-1])
        return Candidates(group, bound, row, head, queue[group + 1], self._labels(group), cut, self.queues)

    @property
    def whole(self) -> bool:
        """Whether the list holds all there are."""
        return self.shortlist_size == self.most

    def taken(self, found: Candidates, heap: Heap) -> None:
        """The heads of the listed groups have moved; those looked at have a new bound."""
        self.head[found.group] = heap.head
        looked = heap.seen >= 0
        gain = last_seen(heap)
        above = np.where(gain > 0, gain * (1 + 4 * ULP), gain).astype(np.float32)
        self.news = News(np.where(looked, found.group, -1).astype(np.int32), self._score(found.group), above)

    def skip(self, is_open: np.ndarray) -> None:
        """Move every queue up to its first row that is open (bool ``[N]``, by place)."""
        place, end = np.arange(len(is_open) + 1), self.problem.groups.queue[1:]
        place[:-1][~is_open] = len(is_open)
        following = np.minimum.accumulate(place[::-1])[::-1]  # the first open place from here on
        head = np.minimum(following[self.head], end).astype(np.int32)
        if (head > self.head).any():
            self.head = head
            self.heads = self.heads._replace(score=self._scores())
            listed = self.news.group >= 0
            score = np.where(listed, self._score(np.where(listed, self.news.group, 0)), np.float32(0))
            self.news = self.news._replace(score=score)

    def _scores(self) -> jax.Array:
        return self._put(self._wide(self._score(np.arange(self.most))))

    def _wide(self, of_groups: np.ndarray) -> np.ndarray:
        """Padded to what the shards hold."""
        return np.pad(of_groups, (0, len(self.problem.where) - self.most))

    def _score(self, group: np.ndarray) -> np.ndarray:
        """Of the heads, or their score / cost; 0 where the queue is empty."""
        head = self.head[group]
        groups, at = self.problem.groups, np.minimum(head, self.problem.rows - 1)
        score = groups.score[at] if groups.cost is None else groups.score[at] / groups.cost[at]
        return np.where(head < groups.queue[group + 1], score, 0.0).astype(np.float32)

    def _labels(self, group: np.ndarray) -> Rows:
        """The listed groups' labels, side by side: the heap looks at them again and again."""
        ptr, idx, part = self.problem.groups.ptr, self.problem.groups.idx, self.problem.groups.part
        counts = ptr[group + 1] - ptr[group]
        local = np.zeros(len(group) + 1, np.int32)
        np.cumsum(counts, out=local[1:])
        source = np.arange(local[-1]) + np.repeat(ptr[group] - local[:-1], counts)
        near = np.zeros(self.room, np.int32)
        near[: local[-1]] = idx[source]
        if part is None:
            return Rows(local, near, None)
        share = np.zeros(self.room)
        share[: local[-1]] = part[source]
        return Rows(local, near, share)

    def _put(self, array: np.ndarray) -> jax.Array:
        """Shard along the last axis; each process uploads only what its devices hold."""
        spec = P(*[None] * (array.ndim - 1), AXIS)
        return jax.make_array_from_callback(array.shape, NamedSharding(self.mesh, spec), lambda index: array[index])
