"""The greedy selection: full passes make a shortlist, a heap picks from it, and the host loops over both.

No pick depends on how the host divides the work into calls, or on when it writes a checkpoint: each pick is the first
point of the whole pool, by gain, at its state.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float64, Int64

from mig_jax.core.errors import UserError
from mig_jax.core.index import PointArray, as_points
from mig_jax.core.progress import Progress, silent
from mig_jax.engine.checkpoint import Snapshot
from mig_jax.engine.full_pass import AXIS
from mig_jax.engine.heap_device import cpu, float64_on, heap_device_of
from mig_jax.engine.kernels import KERNELS, State, label_gains
from mig_jax.engine.lazy_heap import make_heap, pick
from mig_jax.engine.pool_in_memory import PoolInMemory
from mig_jax.engine.pool_on_disk import PoolOnDisk
from mig_jax.engine.problem import Objective, Problem, pad_propagation, power_of_two
from mig_jax.engine.rules import Allowance, in_queue_order, pickable
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.phi import Phi

SHORTLIST = 16_384
SMALLEST_SHORTLIST = 2_048
PICKS_PER_CALL = 1_024  # at most, in one call of the heap; progress is reported after each call


@dataclass(frozen=True)
class Result:
    """``points`` and ``gains`` ``[n]`` in pick order; fewer than asked for where no further point gains anything.

    ``counts``: full passes, gain evaluations of the heap, and its calls. ``state``: of the labels, on the host.
    """

    points: Int64[PointArray, " n"]
    gains: Float64[np.ndarray, " n"]
    counts: dict[str, int]
    state: State


def greedy(
    problem: Problem,
    n: int,
    mesh: Mesh,
    *,
    shortlist_size: int = SHORTLIST,
    picks_per_call: int = PICKS_PER_CALL,
    heap_device: str = "auto",
    allowance: Allowance | None = None,
    progress: Progress = silent,
    resume: Snapshot | None = None,
    on_snapshot: Callable[[Snapshot], None] | None = None,
) -> Result:
    """Pick n points, each the first in (gain descending, point ascending) at its state: the picks of the naive greedy.

    Args:
      problem: laid out for as many shards as the mesh has devices. If it has a cost, each pick is the first in (gain /
        cost descending, point ascending); ``gains`` are still gains.
      n: picks; picking ends early when every remaining gain is 0.
      mesh: one axis, "pool"; may span processes, which then all call this with equal arguments.
      shortlist_size: candidates of a full pass, at most, and at most an eighth of a large pool: speed only.
      picks_per_call: picks between two calls of ``progress``: speed only.
      heap_device: where the heap is: "host" (the CPU), "device" (one of the mesh's), or "auto": the host. Its steps are
        small and each waits for the one before, which is slow on an accelerator. All that decides is computed there,
        so the picks of a machine with an accelerator are those of one without, bit for bit.
      allowance: the rules of one phase, and what remains of them after the picks of ``resume``; None: every point may
        be picked. A problem with a cost needs an allowance with the same cost.
      resume: the snapshot to continue from. Under an allowance its points may be any; they count to n.
      on_snapshot: called with a snapshot after every call of the heap.
    """
    if problem.shards != mesh.shape[AXIS]:
        raise ValueError(f"problem for {problem.shards} shards on a mesh of {mesh.shape[AXIS]} devices")
    device = heap_device_of(mesh, heap_device)
    eighth = int(power_of_two(problem.groups.num_groups // 8))

    def make_pool(picked: np.ndarray, state: Any) -> PoolInMemory:
        return PoolInMemory(problem, mesh, min(shortlist_size, max(SMALLEST_SHORTLIST, eighth)), picked, state, device)

    if allowance is None:
        return _select(
            problem.objective,
            make_pool,
            min(n, problem.num_points),
            device,
            picks_per_call,
            progress,
            resume,
            on_snapshot,
        )
    by_position = in_queue_order(allowance, problem.groups.point)
    return _select(problem.objective, make_pool, n, device, picks_per_call, progress, resume, on_snapshot, by_position)


def greedy_from_disk(
    folder: Path,
    p: Propagation,
    phi: Phi,
    n: int,
    *,
    shortlist_size: int = 4 * SHORTLIST,
    picks_per_call: int = PICKS_PER_CALL,
    progress: Progress = silent,
    resume: Snapshot | None = None,
    on_snapshot: Callable[[Snapshot], None] | None = None,
) -> Result:
    """The same picks, by the first-order gain, from blocks that BlockWriter wrote: memory does not grow with the pool.

    ``counts`` also has blocks_read and bytes_read.
    """
    objective = Objective("first_order", phi, pad_propagation(p), len(p.ptr) - 1)
    with closing(
        PoolOnDisk(folder, shortlist_size, np.empty(0, np.int32) if resume is None else resume.points)
    ) as pool:
        if pool.num_labels != objective.num_labels:
            raise UserError(f"blocks of {pool.num_labels} labels, a graph of {objective.num_labels}", where=folder)
        found = _select(objective, lambda picked, state: pool, n, cpu(), picks_per_call, progress, resume, on_snapshot)
        reads = {"blocks_read": pool.blocks_read, "bytes_read": pool.bytes_read}
        return replace(found, counts=found.counts | reads)


def _select(
    objective: Objective,
    make_pool: Callable[[np.ndarray, Any], Any],
    n: int,
    device: Any,
    picks_per_call: int,
    progress: Progress,
    resume: Snapshot | None,
    on_snapshot: Callable[[Snapshot], None] | None,
    allowance: Allowance | None = None,
) -> Result:
    kernel, native = KERNELS[objective.kind], device.platform == "cpu"
    no_rules: tuple[Any, Any] = None, None
    rules, remaining = no_rules if allowance is None else allowance
    state: Any = kernel.start(objective)
    points = [] if resume is None else [resume.points.astype(np.int32)]
    gains = [] if resume is None else [resume.gains]
    if resume is not None:
        if type(resume.state) is not type(state):
            raise ValueError(f"a snapshot of {type(resume.state).__name__} cannot resume {objective.kind}")
        state = resume.state
    done, counts = sum(map(len, points)), {"full_passes": 0, "gain_evaluations": 0, "calls": 0}
    if rules is not None and not pickable(rules, remaining).any():
        n = done  # nothing to lay out
    if done < n:
        # Picks are the front of their queue, unless rules passed over points of it; picks are ``out`` in the rules.
        front = [] if rules is not None else points
        pool = make_pool(np.concatenate([*front, np.empty(0, np.int32)]), state)
        with float64_on(device):
            p, rules_on_device = jax.device_put((objective.p, rules), device)
    while done < n:
        if rules is not None:
            pool.skip_unpickable(pickable(rules, remaining))
        with float64_on(device):
            y = np.asarray(label_gains(p, objective.phi.slope(np.asarray(state.x)), native=native))
        candidates = pool.shortlist(y)
        counts["full_passes"] += 1
        heap = make_heap(candidates.bound, candidates.point, candidates.head, candidates.end)
        before, exhausted = done, False
        with float64_on(device):
            listed, queues, state, heap, remaining = jax.device_put(
                (candidates.labels, candidates.queues, state, heap, remaining), device
            )
        while done < n and not exhausted:
            limit = np.int32(min(n - done, picks_per_call))
            with float64_on(device):
                state, heap, picks, exhausted, remaining = pick(
                    p, objective.phi, state, listed, queues, heap, candidates.cut, limit, rules_on_device, remaining,
                    kind=objective.kind, size=picks_per_call, native=native,
                )  # fmt: skip
            counts["calls"] += 1
            point = np.asarray(picks.point)
            count = int((point >= 0).sum())
            if count:
                points.append(point[:count])
                gains.append(np.asarray(picks.gain)[:count])
                done += count
                progress("select", done, n)
                if on_snapshot is not None:
                    on_snapshot(_snapshot(points, gains, state))
        state, heap, remaining = jax.tree.map(np.asarray, (state, heap, remaining))
        counts["gain_evaluations"] += int(heap.evaluations)
        pool.record_picks(candidates, heap)
        if done == before:
            if max(heap.top.key, candidates.cut) <= 0:
                break
            if (heap.head > candidates.head).any():
                continue  # the heap passed over points that may not be picked
            if pool.lists_all:
                raise RuntimeError(f"a point gains {heap.top.key}, and none was picked")
            pool.widen()  # more equal gains than the shortlist holds: no bound separates it from the groups outside
    picked = np.concatenate(points) if points else np.empty(0, np.int32)
    gain = np.concatenate(gains) if gains else np.empty(0)
    return Result(as_points(picked.astype(np.int64)), gain, counts, _on_host(state))


def pool_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices, or of ``devices``, along the one axis over which a pool is sharded."""
    chosen = np.array(devices if devices is not None else jax.devices())
    return Mesh(chosen, (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def _snapshot(points, gains, state) -> Snapshot:
    picked = as_points(np.concatenate(points).astype(np.int64))
    return Snapshot(picked, np.concatenate(gains), _on_host(state))


def _on_host(state: State) -> State:
    return jax.tree.map(np.asarray, state)
