"""The greedy selection: full passes over all rows, inner passes over the candidates, and a host that counts.

The host decides nothing that the picks depend on: where it cuts the work into calls, and when it writes a checkpoint,
leaves every pick as it is, because each pick is the first row of the whole pool at its state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float32, Int64

from mig_jax.engine.full_pass import AXIS, full_pass
from mig_jax.engine.inner_pass import inner_pass
from mig_jax.engine.kernels import KERNELS, State
from mig_jax.engine.problem import Problem
from mig_jax.runtime.progress import Progress, silent

C1 = 16_384
C2 = 256
SEGMENT = 1_024  # picks a call at most: how often the host hears of progress


@dataclass(frozen=True)
class Snapshot:
    """All that a run needs to go on: the picks so far and the label state. What a checkpoint stores."""

    rows: Int64[np.ndarray, " n"]
    gains: Float32[np.ndarray, " n"]
    state: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Result:
    """``points`` int64 ``[n]`` and ``gains`` float32 ``[n]``, in order. Fewer than asked where no row gains any more.

    ``counts``: full passes, level-2 rounds and calls.
    """

    points: Int64[np.ndarray, " n"]
    gains: Float32[np.ndarray, " n"]
    counts: dict[str, int]


def greedy(
    problem: Problem,
    n: int,
    mesh: Mesh,
    *,
    c1: int = C1,
    c2: int = C2,
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
      c1, c2: candidates of the two levels: speed only.
      inner: where the inner passes run: "device" (one of the mesh's), "host" (the CPU beside it: small dependent steps
        are faster there than on an accelerator), or "auto": the host for the first-order gain on an accelerator. The
        full pass then only adds what the host computed, so the picks are those of a CPU run, bit for bit. The exact
        gain has functions that each backend rounds in its own way: it stays on one.
      resume: go on from here.
      on_snapshot: called after every inner pass; decides itself what to keep.
    """
    if problem.shards != mesh.shape[AXIS]:
        raise ValueError(f"problem for {problem.shards} shards on a mesh of {mesh.shape[AXIS]} devices")
    kernel = KERNELS[problem.kind]
    home = _home(mesh, inner, problem.kind)
    c1 = min(max(c1, 1), len(problem.where))
    labels = jax.device_put(problem.labels, home)
    rows = [] if resume is None else [resume.rows.astype(np.int32)]
    gains = [] if resume is None else [resume.gains]
    with jax.default_device(home):
        if resume is None:
            state = jax.jit(kernel.init, static_argnums=2)(labels, problem.phi, problem.num_labels)
        else:
            state = State(*(jax.device_put(a, home) for a in resume.state), *[None] * (3 - len(resume.state)))
    buckets, where = _place(problem, mesh)
    alive = _alive(problem, mesh, rows)
    done = sum(map(len, rows))
    counts = {"full_passes": 0, "rounds": 0, "calls": 0}
    pending = np.full(c1, -1, np.int32)  # picked since the last full pass, which is when the shards hear of them
    fresh_picks: list[np.ndarray] = []
    while done < n:
        pending[:] = -1
        taken = np.concatenate(fresh_picks) if fresh_picks else np.empty(0, np.int32)
        pending[: len(taken)] = taken
        fresh_picks = []
        replicated: Any = jax.tree.map(np.asarray, state)  # plain arrays are the same on every process
        alive, found = full_pass(
            problem.phi, replicated, buckets, where, alive, pending, kind=problem.kind, c1=c1, mesh=mesh
        )
        counts["full_passes"] += 1
        found = jax.tree.map(lambda a: jax.device_put(a.addressable_data(0), home), found)
        before, exhausted = done, False
        while done < n and not exhausted:
            out = inner_pass(
                labels,
                problem.phi,
                state,
                found,
                jnp.int32(min(n - done, segment)),
                kind=problem.kind,
                c2=c2,
                size=segment,
            )
            state, found = out.state, out.candidates
            exhausted, count = bool(out.exhausted), int(out.picks.count)
            counts["calls"] += 1
            counts["rounds"] += int(out.rounds)
            if count:
                rows.append(np.asarray(out.picks.row)[:count])
                gains.append(np.asarray(out.picks.gain)[:count])
                fresh_picks.append(rows[-1])
                done += count
                progress("select", done, n)
                if on_snapshot is not None:
                    on_snapshot(_snapshot(rows, gains, state))
        if done == before:  # the first row of a fresh list always passes, unless it gains nothing
            best = float(np.asarray(found.bound).max(initial=-1.0))
            if not best <= 0:  # NaN counts too
                raise RuntimeError(f"no candidate passed although one gains {best}: full and inner pass disagree")
            break
    picked = np.concatenate(rows) if rows else np.empty(0, np.int32)
    gain = np.concatenate(gains) if gains else np.empty(0, np.float32)
    return Result(problem.point[picked], gain, counts)


def pool_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices (or of those given) along the one axis that rows are sharded over."""
    chosen = np.array(devices if devices is not None else jax.devices())
    return Mesh(chosen, (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def _home(mesh: Mesh, inner: str, kind: str) -> Any:
    """The device of this process that runs the inner passes: every process repeats them, none waits for another."""
    mine = next(d for d in mesh.devices.flat if d.process_index == jax.process_index())
    if inner == "device" or mine.platform == "cpu" or (inner == "auto" and kind != "first_order"):
        return mine
    if kind != "first_order":
        raise ValueError("inner=host needs the first-order gain")
    return jax.local_devices(backend="cpu")[0]


def _snapshot(rows, gains, state: State) -> Snapshot:
    parts = tuple(np.asarray(a) for a in state if a is not None)
    return Snapshot(np.concatenate(rows).astype(np.int64), np.concatenate(gains), parts)


def _put(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Shard along the last axis; each process uploads only what its devices hold."""
    spec = P(*[None] * (array.ndim - 1), AXIS)
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])


def _place(problem: Problem, mesh: Mesh):
    return jax.tree.map(lambda a: _put(a, mesh), (problem.buckets, problem.where))


def _alive(problem: Problem, mesh: Mesh, picked: list[np.ndarray]) -> jax.Array:
    alive = np.zeros(len(problem.where), bool)
    alive[: len(problem.point)] = True
    for rows in picked:
        alive[rows] = False
    return _put(alive, mesh)
