"""A selection that begins with points chosen elsewhere: an earlier selection, or rows that must be included."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int64

from mig_jax.core.index import PointArray
from mig_jax.engine.checkpoint import Snapshot
from mig_jax.engine.heap_device import float64_on, heap_device_of
from mig_jax.engine.kernels import KERNELS, RowLabels, absorb_all
from mig_jax.engine.problem import Problem, csr_rows, power_of_two


def warm_start(problem: Problem, points: Int64[PointArray, " f"], mesh: Mesh, heap_device: str = "auto") -> Snapshot:
    """The snapshot after picking these points in order, from which ``greedy`` resumes.

    Its bits are those that the greedy leaves when it picks these points itself. ``gains`` are the gains at each pick; a
    point without labels or with score 0 gains 0.
    """
    device, objective, groups = heap_device_of(mesh, heap_device), problem.objective, problem.groups
    state: Any = KERNELS[objective.kind].start(objective)
    gains = np.zeros(len(points))
    position = np.full(max(points.max(initial=-1), groups.point.max(initial=-1)) + 1, -1)
    position[groups.point] = np.arange(problem.num_points)
    gaining = np.flatnonzero(position[points] >= 0)
    position = position[points[gaining]]
    if len(position):
        group = np.searchsorted(groups.queue, position, "right") - 1
        ptr, idx = csr_rows(groups.ptr, groups.idx, group)
        unit_mass = None if groups.unit_mass is None else _padded(csr_rows(groups.ptr, groups.unit_mass, group)[1])
        missing = int(power_of_two(len(position))) - len(position)
        rows = RowLabels(np.pad(ptr, (0, missing), mode="edge").astype(np.int32), _padded(idx), unit_mass)
        with float64_on(device):
            state, absorbed = absorb_all(
                *jax.device_put((objective.p, objective.phi, state, rows, _padded(groups.score[position])), device),
                np.int32(len(position)),
                kind=objective.kind,
                native=device.platform == "cpu",
            )
        gains[gaining] = np.asarray(absorbed)[: len(position)]
    return Snapshot(points, gains, jax.tree.map(np.asarray, state))


def _padded(values: np.ndarray) -> np.ndarray:
    """Padded to a power of two: each length is compiled, so there must be few."""
    return np.pad(values, (0, int(power_of_two(len(values))) - len(values)))
