"""The greedy selection: full passes over all groups, a heap over the candidates, and a host that counts.

The host decides nothing that the picks depend on: where it cuts the work into calls, and when it writes a checkpoint,
leaves every pick as it is, because each pick is the first row of the whole pool at its state.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float64, Int64

from mig_jax.engine.blocks import Blocks
from mig_jax.engine.full_pass import AXIS
from mig_jax.engine.kernels import KERNELS, label_gains
from mig_jax.engine.lazy_heap import make_heap, pick
from mig_jax.engine.problem import Problem, Side, make_labels, power_of_two
from mig_jax.engine.resident import Resident
from mig_jax.errors import UserError
from mig_jax.gain.phi import Phi
from mig_jax.graph.label_graph import Propagation
from mig_jax.runtime.progress import Progress, silent

C1 = 16_384
LEAST = 2_048  # a list of all of a small pool would take longer to make than to look through
SEGMENT = 1_024  # picks a call at most: how often the host hears of progress


@dataclass(frozen=True)
class Snapshot:
    """All that a run needs to go on: the picks so far and the label state. What a checkpoint stores."""

    rows: Int64[np.ndarray, " n"]
    gains: Float64[np.ndarray, " n"]
    state: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Result:
    """``points`` int64 ``[n]`` and ``gains`` float64 ``[n]``, in order. Fewer than asked where no row gains any more.

    ``counts``: full passes, looks (gains computed by the heap) and calls.
    """

    points: Int64[np.ndarray, " n"]
    gains: Float64[np.ndarray, " n"]
    counts: dict[str, int]


def greedy(
    problem: Problem,
    n: int,
    mesh: Mesh,
    *,
    c1: int = C1,
    segment: int = SEGMENT,
    inner: str = "auto",
    progress: Progress = silent,
    resume: Snapshot | None = None,
    on_snapshot: Callable[[Snapshot], None] | None = None,
) -> Result:
    """Pick n rows, each the first in (gain descending, row ascending) at its turn: the naive greedy's picks.

    Args:
      problem: laid out for as many shards as the mesh has devices.
      n: picks, at most the number of candidates; picking ends early when every gain left is 0.
      mesh: one axis, "pool"; may span processes, which then all call this with equal arguments.
      c1: candidates of a full pass, at most, and at most an eighth of a large pool: speed only.
      inner: where the heap lives: "host" (the CPU), "device" (one of the mesh's), or "auto": the host. Its steps are
        small and each waits for the one before, which no accelerator likes. All that decides is computed there, so the
        picks of a machine with an accelerator are those of one without, bit for bit.
      resume: go on from here.
      on_snapshot: called after every call of the heap; decides itself what to keep.
    """
    if problem.shards != mesh.shape[AXIS]:
        raise ValueError(f"problem for {problem.shards} shards on a mesh of {mesh.shape[AXIS]} devices")
    home = _home(mesh, inner)
    eighth = int(power_of_two(problem.groups.many // 8))

    def source(taken: np.ndarray, state: Any) -> Resident:
        return Resident(problem, mesh, min(c1, max(LEAST, eighth)), taken, state, home)

    return _select(problem.side, source, min(n, problem.rows), home, segment, progress, resume, on_snapshot)


def greedy_from_disk(
    folder: Path,
    p: Propagation,
    phi: Phi,
    n: int,
    *,
    c1: int = 4 * C1,
    segment: int = SEGMENT,
    progress: Progress = silent,
    resume: Snapshot | None = None,
    on_snapshot: Callable[[Snapshot], None] | None = None,
) -> Result:
    """The same picks, by the first-order gain, from what BlockWriter wrote: memory does not grow with the pool.

    ``counts`` has besides: blocks_read and bytes_read.
    """
    side = Side("first_order", phi, make_labels(p), len(p.ptr) - 1)
    with closing(Blocks(folder, c1, np.empty(0, np.int32) if resume is None else resume.rows)) as pool:
        if pool.num_labels != side.num_labels:
            raise UserError(f"{folder}: blocks of {pool.num_labels} labels, a graph of {side.num_labels}")
        found = _select(side, lambda taken, state: pool, n, _cpu(), segment, progress, resume, on_snapshot)
        reads = {"blocks_read": pool.blocks_read, "bytes_read": pool.bytes_read}
        return Result(found.points, found.gains, found.counts | reads)


def _select(side: Side, source, n: int, home: Any, segment: int, progress, resume, on_snapshot) -> Result:
    kernel, native = KERNELS[side.kind], home.platform == "cpu"
    state = kernel.start(side)
    rows = [] if resume is None else [resume.rows.astype(np.int32)]
    gains = [] if resume is None else [resume.gains]
    if resume is not None:
        state = type(state)(*resume.state)
    done, counts = sum(map(len, rows)), {"full_passes": 0, "looks": 0, "calls": 0}
    if done < n:
        pool = source(np.concatenate([*rows, np.empty(0, np.int32)]), state)
        with _exactly(home):
            labels = jax.device_put(side.labels, home)
    while done < n:
        with _exactly(home):
            y = np.asarray(label_gains(labels, side.phi.slope(np.asarray(state.x)), native=native))
        found = pool.shortlist(y)
        counts["full_passes"] += 1
        heap = make_heap(found.bound, found.row, found.head, found.end)
        before, exhausted = done, False
        with _exactly(home):
            listed, queues, state, heap = jax.device_put((found.labels, found.queues, state, heap), home)
        while done < n and not exhausted:
            limit = np.int32(min(n - done, segment))
            with _exactly(home):
                state, heap, picks, exhausted = pick(
                    labels, side.phi, state, listed, queues, heap, found.cut, limit,
                    kind=side.kind, size=segment, native=native,
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
        state, heap = jax.tree.map(np.asarray, (state, heap))
        counts["looks"] += int(heap.looks)
        pool.taken(found, heap)
        if done == before:
            if max(heap.top.key, found.cut) <= 0:
                break
            if pool.whole:
                raise RuntimeError(f"a row gains {heap.top.key}, and none was picked")
            pool.widen()  # so many equals that no bound tells those inside from those outside
    picked = np.concatenate(rows) if rows else np.empty(0, np.int32)
    gain = np.concatenate(gains) if gains else np.empty(0)
    return Result(picked.astype(np.int64), gain, counts)


def pool_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices (or of those given) along the one axis that rows are sharded over."""
    chosen = np.array(devices if devices is not None else jax.devices())
    return Mesh(chosen, (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def _home(mesh: Mesh, inner: str) -> Any:
    """The device of this process that holds the heap: every process repeats the picks, none waits for another."""
    mine = next(d for d in mesh.devices.flat if d.process_index == jax.process_index())
    return mine if inner == "device" or mine.platform == "cpu" else _cpu()


def _cpu() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError(
            f"JAX_PLATFORMS={jax.config.read('jax_platforms')}: picks are made on the CPU; add ,cpu"
        ) from error


@contextmanager
def _exactly(home: Any) -> Iterator[None]:
    """On this device, in float64."""
    with jax.enable_x64(True), jax.default_device(home):
        yield


def _snapshot(rows, gains, state) -> Snapshot:
    parts = tuple(np.asarray(a) for a in state)
    return Snapshot(np.concatenate(rows).astype(np.int64), np.concatenate(gains), parts)
