"""A selection that begins with rows that somebody else chose."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int64

from mig_jax.core.index import PointArray
from mig_jax.engine.checkpoint import Snapshot
from mig_jax.engine.home import exactly, home_of
from mig_jax.engine.kernels import KERNELS, Rows, absorb_all
from mig_jax.engine.problem import Problem, power_of_two, rows_of


def warm_start(problem: Problem, points: Int64[PointArray, " f"], mesh: Mesh, heap_device: str = "auto") -> Snapshot:
    """These points are picked, one after the other: what ``greedy`` goes on from. ``gains`` is what each gained then.

    Had the greedy picked them, there would be the same bits. A point without labels or of score 0 is in, and gains 0.
    """
    home, side, groups = home_of(mesh, heap_device), problem.side, problem.groups
    state: Any = KERNELS[side.kind].start(side)
    gains = np.zeros(len(points))
    place = np.full(max(points.max(initial=-1), groups.row.max(initial=-1)) + 1, -1)
    place[groups.row] = np.arange(problem.rows)
    gaining = np.flatnonzero(place[points] >= 0)
    place = place[points[gaining]]
    if len(place):
        group = np.searchsorted(groups.queue, place, "right") - 1
        ptr, idx = rows_of(groups.ptr, groups.idx, group)
        part = None if groups.part is None else _padded(rows_of(groups.ptr, groups.part, group)[1])
        missing = int(power_of_two(len(place))) - len(place)
        rows = Rows(np.pad(ptr, (0, missing), mode="edge").astype(np.int32), _padded(idx), part)
        with exactly(home):
            state, found = absorb_all(
                *jax.device_put((side.labels, side.phi, state, rows, _padded(groups.score[place])), home),
                np.int32(len(place)),
                kind=side.kind,
                native=home.platform == "cpu",
            )
        gains[gaining] = np.asarray(found)[: len(place)]
    return Snapshot(points, gains, jax.tree.map(np.asarray, state))


def _padded(values: np.ndarray) -> np.ndarray:
    """Up to a power of two: few lengths, each is compiled for."""
    return np.pad(values, (0, int(power_of_two(len(values))) - len(values)))
