"""The greedy selection: full passes over all groups, a heap over the candidates, and a host that counts.

The host decides nothing that the picks depend on: where it cuts the work into calls, and when it writes a checkpoint,
leaves every pick as it is, because each pick is the first row of the whole pool at its state.
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
from mig_jax.engine.blocks import Blocks
from mig_jax.engine.checkpoint import Snapshot
from mig_jax.engine.full_pass import AXIS
from mig_jax.engine.home import cpu, exactly, home_of
from mig_jax.engine.kernels import KERNELS, State, label_gains
from mig_jax.engine.lazy_heap import make_heap, pick
from mig_jax.engine.problem import Problem, Side, make_labels, power_of_two
from mig_jax.engine.resident import Resident
from mig_jax.engine.rules import Allowance, laid_out, open_rows
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective.phi import Phi

SHORTLIST = 16_384
LEAST = 2_048  # a list of all of a small pool would take longer to make than to look through
PICKS_PER_CALL = 1_024  # picks a call at most: how often the host hears of progress


@dataclass(frozen=True)
class Result:
    """``points`` int64 ``[n]`` and ``gains`` float64 ``[n]``, in order. Fewer than asked where no row gains any more.

    ``counts``: full passes, looks (gains computed by the heap) and calls. ``state``: of the labels, on the host.
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
    """Pick n rows, each the first in (gain descending, row ascending) at its turn: the naive greedy's picks.

    Args:
      problem: laid out for as many shards as the mesh has devices. Laid out with a cost: the first in (gain / cost
        descending, row ascending); ``gains`` are gains all the same.
      n: picks, at most the number of candidates; picking ends early when every gain left is 0.
      mesh: one axis, "pool"; may span processes, which then all call this with equal arguments.
      shortlist_size: candidates of a full pass, at most, and at most an eighth of a large pool: speed only.
      heap_device: where the heap is: "host" (the CPU), "device" (one of the mesh's), or "auto": the host. Its steps are
        small and each waits for the one before, which is slow on an accelerator. All that decides is computed there,
        so the picks of a machine with an accelerator are those of one without, bit for bit.
      allowance: what may be picked, in one phase, and what is left of that with the rows of ``resume`` in; rows that
        may not are passed over. None: everything may. A problem with a cost needs one with the same.
      resume: go on from here. Under an allowance its rows may be any; n counts them.
      on_snapshot: called after every call of the heap; decides itself what to keep.
    """
    if problem.shards != mesh.shape[AXIS]:
        raise ValueError(f"problem for {problem.shards} shards on a mesh of {mesh.shape[AXIS]} devices")
    home = home_of(mesh, heap_device)
    eighth = int(power_of_two(problem.groups.many // 8))

    def source(taken: np.ndarray, state: Any) -> Resident:
        return Resident(problem, mesh, min(shortlist_size, max(LEAST, eighth)), taken, state, home)

    if allowance is None:
        return _select(problem.side, source, min(n, problem.rows), home, picks_per_call, progress, resume, on_snapshot)
    by_place = laid_out(allowance, problem.groups.row)
    return _select(problem.side, source, n, home, picks_per_call, progress, resume, on_snapshot, by_place)


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
    """The same picks, by the first-order gain, from what BlockWriter wrote: memory does not grow with the pool.

    ``counts`` has besides: blocks_read and bytes_read.
    """
    side = Side("first_order", phi, make_labels(p), len(p.ptr) - 1)
    with closing(Blocks(folder, shortlist_size, np.empty(0, np.int32) if resume is None else resume.points)) as pool:
        if pool.num_labels != side.num_labels:
            raise UserError(f"{folder}: blocks of {pool.num_labels} labels, a graph of {side.num_labels}")
        found = _select(side, lambda taken, state: pool, n, cpu(), picks_per_call, progress, resume, on_snapshot)
        reads = {"blocks_read": pool.blocks_read, "bytes_read": pool.bytes_read}
        return replace(found, counts=found.counts | reads)


def _select(
    side: Side, source, n: int, home: Any, picks_per_call: int, progress, resume, on_snapshot, allowance: Any = None
) -> Result:
    kernel, native = KERNELS[side.kind], home.platform == "cpu"
    no_rules: tuple[Any, Any] = None, None
    rules, left = no_rules if allowance is None else allowance
    state: Any = kernel.start(side)
    rows = [] if resume is None else [resume.points.astype(np.int32)]
    gains = [] if resume is None else [resume.gains]
    if resume is not None:
        if type(resume.state) is not type(state):
            raise ValueError(f"a snapshot of {type(resume.state).__name__} cannot resume {side.kind}")
        state = resume.state
    done, counts = sum(map(len, rows)), {"full_passes": 0, "looks": 0, "calls": 0}
    if rules is not None and not open_rows(rules, left).any():
        n = done  # nothing to lay out
    if done < n:
        # Picks leave a queue from its front, but not where rows of it were passed over: the rules know those as out.
        gone = [] if rules is not None else rows
        pool = source(np.concatenate([*gone, np.empty(0, np.int32)]), state)
        with exactly(home):
            labels, rules_there = jax.device_put((side.labels, rules), home)
    while done < n:
        if rules is not None:
            pool.skip(open_rows(rules, left))
        with exactly(home):
            y = np.asarray(label_gains(labels, side.phi.slope(np.asarray(state.x)), native=native))
        found = pool.shortlist(y)
        counts["full_passes"] += 1
        heap = make_heap(found.bound, found.row, found.head, found.end)
        before, exhausted = done, False
        with exactly(home):
            listed, queues, state, heap, left = jax.device_put((found.labels, found.queues, state, heap, left), home)
        while done < n and not exhausted:
            limit = np.int32(min(n - done, picks_per_call))
            with exactly(home):
                state, heap, picks, exhausted, left = pick(
                    labels, side.phi, state, listed, queues, heap, found.cut, limit, rules_there, left,
                    kind=side.kind, size=picks_per_call, native=native,
                )  # fmt: skip
            counts["calls"] += 1
            row = np.asarray(picks.row)
            count = int((row >= 0).sum())
            if count:
                rows.append(row[:count])
                gains.append(np.asarray(picks.gain)[:count])
                done += count
                progress("select", done, n)
                if on_snapshot is not None:
                    on_snapshot(_snapshot(rows, gains, state))
        state, heap, left = jax.tree.map(np.asarray, (state, heap, left))
        counts["looks"] += int(heap.looks)
        pool.taken(found, heap)
        if done == before:
            if max(heap.top.key, found.cut) <= 0:
                break
            if (heap.head > found.head).any():
                continue  # all that came first was passed over
            if pool.whole:
                raise RuntimeError(f"a row gains {heap.top.key}, and none was picked")
            pool.widen()  # so many equals that no bound tells those inside from those outside
    picked = np.concatenate(rows) if rows else np.empty(0, np.int32)
    gain = np.concatenate(gains) if gains else np.empty(0)
    return Result(as_points(picked.astype(np.int64)), gain, counts, _on_host(state))


def pool_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices (or of those given) along the one axis that rows are sharded over."""
    chosen = np.array(devices if devices is not None else jax.devices())
    return Mesh(chosen, (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def _snapshot(rows, gains, state) -> Snapshot:
    points = as_points(np.concatenate(rows).astype(np.int64))
    return Snapshot(points, np.concatenate(gains), _on_host(state))


def _on_host(state: State) -> State:
    return jax.tree.map(np.asarray, state)
