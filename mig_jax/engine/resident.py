"""A pool in the memory of a mesh: where the shortlists of the greedy come from."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mig_jax.engine.full_pass import AXIS, Heads, News, first_bounds, full_pass
from mig_jax.engine.kernels import KERNELS, Rows
from mig_jax.engine.lazy_heap import Cut, Queues
from mig_jax.engine.problem import Problem, power_of_two


class Candidates(NamedTuple):
    """A shortlist with all that the heap needs of it, host arrays.

    ``group`` int32 ``[C]``, ``gain`` float32 ``[C]`` (-1: nothing left); ``row`` the rows of their heads, ``head``
    their places in the queues and ``end`` the ends of these; ``labels`` what each gains by; ``queues``
    holds theirs.
    """

    group: np.ndarray
    gain: np.ndarray
    row: np.ndarray
    head: np.ndarray
    end: np.ndarray
    labels: Rows
    cut: Cut
    queues: Queues


class Resident:
    """Keeps the heads of all queues, on the host and on the mesh.

    Args:
      problem: laid out for as many shards as the mesh has devices.
      taken: the rows picked before, if any.
      state: the labels' state with them.
      home: the heap's device.
    """

    def __init__(self, problem: Problem, mesh: Mesh, c1: int, taken: np.ndarray, state: Any, home: Any):
        self.problem, self.mesh = problem, mesh
        self.decides = KERNELS[problem.side.kind].decides
        self.most = problem.groups.many
        self.queues = jax.device_put(Queues(problem.groups.row, problem.groups.score), home)
        self.head = self._heads(taken)
        self.buckets, self.where = jax.tree.map(self._put, (problem.buckets, problem.where))
        self._shape(c1)
        bound = None
        if not self.decides:
            bound = first_bounds(
                problem.side.phi, np.asarray(state.x).astype(np.float32), self.buckets, self.where, mesh=mesh
            )
        score, row = self._of_heads(np.arange(self.most))
        missing = (0, len(problem.where) - self.most)
        self.heads = Heads(self._put(np.pad(score, missing)), self._put(np.pad(row, missing)), bound)

    def _heads(self, taken: np.ndarray) -> np.ndarray:
        """Where each queue stands once ``taken`` have left: always from its front."""
        groups = self.problem.groups
        gone = np.isin(groups.row, taken)
        before = np.concatenate([[0], np.cumsum(gone)])
        return (groups.queue[:-1] + before[groups.queue[1:]] - before[groups.queue[:-1]]).astype(np.int32)

    def _shape(self, c1: int) -> None:
        """Fix the list's length, and its room for labels at the widest groups': every list compiles to one program."""
        self.c1 = max(1, min(c1, self.most))
        width = np.diff(self.problem.groups.ptr)
        widest = np.partition(width, self.most - self.c1)[self.most - self.c1 :]
        self.room = int(power_of_two(widest.sum()))
        self.no_news()

    def no_news(self) -> None:
        """As if nothing had been picked since the last pass."""
        nothing = np.zeros(self.c1, np.float32)
        self.news = News(np.full(self.c1, -1, np.int32), nothing, nothing.astype(np.int32), nothing)

    def widen(self) -> None:
        """From now on the list holds every group."""
        self._shape(self.most)

    def shortlist(self, y: np.ndarray | None) -> Candidates:
        """The first groups, by y (the labels' gains) or, without it, by their bounds."""
        self.heads, found = full_pass(
            y, self.buckets, self.where, self.heads, self.news, c1=self.c1, whole=self.c1 == self.most, mesh=self.mesh
        )
        group, gain, cut_gain, cut_row = (np.asarray(a.addressable_data(0)) for a in found)
        self.no_news()
        _, row = self._of_heads(group)
        end = self.problem.groups.queue[group + 1]
        return Candidates(
            group, gain, row, self.head[group], end, self._labels(group), Cut(cut_gain, cut_row), self.queues
        )

    def taken(self, group: np.ndarray, head: np.ndarray, bound: np.ndarray) -> None:
        """The heads of the listed groups have moved there, and this was last seen of them."""
        self.head[group] = head
        self.news = News(group, *self._of_heads(group), bound)

    def _of_heads(self, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score (0 where the queue is empty) and row."""
        groups = self.problem.groups
        head = self.head[group]
        there = np.minimum(head, len(groups.row) - 1)
        score = np.where(head < groups.queue[group + 1], groups.score[there], np.float32(0))
        return score.astype(np.float32), groups.row[there]

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
        share = np.zeros(self.room, np.float32)
        share[: local[-1]] = part[source]
        return Rows(local, near, share)

    def _put(self, array: np.ndarray) -> jax.Array:
        """Shard along the last axis; each process uploads only what its devices hold."""
        spec = P(*[None] * (array.ndim - 1), AXIS)
        return jax.make_array_from_callback(array.shape, NamedSharding(self.mesh, spec), lambda index: array[index])
