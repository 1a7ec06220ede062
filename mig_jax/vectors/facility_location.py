"""Facility location over N unit vectors on a mesh: d(A) = sum_j max(0, max_{i in A} cos(x_i, x_j)).

The arithmetic is exact, so results do not depend on the order of sums, on blocks, the number of devices or the machine.
The coordinates of the unit vectors are rounded to multiples of 2^-26 (float32 represents those), which moves a cosine
by about 1e-8. Products of two coordinates are multiples of 2^-52 and all their partial sums are at most 1, so float64
adds them without rounding. A cosine is then rounded to a grid of ``unit`` steps (2^30, fewer above 2^23 points), on
which float64 represents the sum over all N points.

The N x N cosines are never stored: one step multiplies a block of rows with at most ``WIDEST`` columns.
"""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float32, Float64, Int32, Int64

from mig_jax.core.errors import UserError
from mig_jax.core.index import PointArray, as_points
from mig_jax.core.processes import replicated
from mig_jax.core.progress import Progress, silent
from mig_jax.engine.full_pass import AXIS
from mig_jax.vectors.vectors import Vectors

GRID = 26  # binary digits of a coordinate
FINEST = 30  # of a cosine, where the sum over the pool leaves room for so many
WIDTHS = (7, 31, 127, 511)  # numbers of gains for which a program is compiled; with the pick, powers of two
WIDEST = 512
BLOCKS = {"cpu": 1024}  # rows of a block by platform: speed only
BLOCK = 8192


def grid_steps(count: int) -> float:
    """The number of grid steps of a cosine of 1, in a pool of ``count`` points."""
    return 2.0 ** min(FINEST, 53 - count.bit_length())


class FacilityLocation:
    """The coverage m_j = max(0, max_{i in A} cos(x_i, x_j)) of N points, and gains d(A+u) - d(A) in steps, 1/``unit``.

    Args:
      vectors: read once, block by block.
      mesh: one axis, "pool"; may span processes, which then all make the same calls.
      block: rows that are processed together; None: the default of the platform. It does not change results.

    Raises:
      UserError: the vectors do not fit into the devices' memory.
    """

    def __init__(self, vectors: Vectors, mesh: Mesh, block: int | None = None, progress: Progress = silent):
        self.count, self.mesh = len(vectors), mesh
        self.unit = grid_steps(self.count)
        block = block or BLOCKS.get(mesh.devices.flat[0].platform, BLOCK)
        each = -(-self.count // mesh.size)
        self.block = min(block, 1 << (each - 1).bit_length())
        self.blocks = -(-each // self.block)  # on each device
        _check_memory(self.blocks * self.block, vectors.dim, self.block, mesh)
        self.x = self._load(vectors, progress)
        self.restart()

    def restart(self) -> None:
        """Make A empty."""
        shape, sharding = (self.mesh.size * self.blocks, self.block), NamedSharding(self.mesh, P(AXIS))
        with jax.enable_x64(True):
            self.covered = jax.make_array_from_callback(shape, sharding, lambda index: np.zeros(shape)[index])

    def gains_after(self, picks: Int64[PointArray, " p"], points: Int64[PointArray, " k"]) -> Float64[np.ndarray, " k"]:
        """Add at most one point to A, then compute the gains of ``points``, in steps. One pass over the vectors."""
        return self._pass(_pad(picks, 1), _pad(points, width_of(len(points))))[: len(points)]

    def add(self, picks: Int64[PointArray, " p"]) -> None:
        """Add many points to A."""
        for start in range(0, len(picks), WIDEST):
            self._pass(_pad(picks[start : start + WIDEST], WIDEST), np.zeros(0, np.int32))

    def _pass(self, picks: Int32[np.ndarray, " p"], points: Int32[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
        with jax.enable_x64(True):
            self.covered, gains = _add_and_gain(self.x, self.covered, picks, points, unit=self.unit, mesh=self.mesh)
        return replicated(gains)

    def _load(self, vectors: Vectors, progress: Progress) -> Float32[Array, "S_blocks B d"]:
        """The vectors on the mesh; each process loads those of its own devices, a block at a time."""
        sharding = NamedSharding(self.mesh, P(AXIS))
        each, parts = self.blocks * self.block, []
        for number, device in enumerate(self.mesh.devices.flat):
            if device.process_index != jax.process_index():
                continue
            part = jnp.zeros((self.blocks, self.block, vectors.dim), jnp.float32, device=device)
            for i in range(self.blocks):
                start = number * each + i * self.block
                rows = np.zeros((self.block, vectors.dim), np.float32)
                unit = vectors.take(as_points(np.arange(start, min(start + self.block, self.count))))
                rows[: len(unit)] = np.rint(unit * np.float32(2.0**GRID)) * np.float32(2.0**-GRID)
                part = _write(part, rows, np.int32(i))
                progress("load embeddings", min(start + self.block, self.count), self.count)
            parts.append(part)
        shape = (self.mesh.size * self.blocks, self.block, vectors.dim)
        return jax.make_array_from_single_device_arrays(shape, sharding, parts)


@partial(jax.jit, static_argnames=("unit", "mesh"), donate_argnames=("covered",))
def _add_and_gain(
    x: Float32[Array, "A B d"],
    covered: Float64[Array, "A B"],
    picks: Int32[Array, " p"],
    points: Int32[Array, " k"],
    *,
    unit: float,
    mesh: Mesh,
) -> tuple[Float64[Array, "A B"], Float64[Array, " k"]]:
    """The coverage after adding ``picks``, and then the gains of ``points``; -1 is padding. A blocks of B rows."""

    def local(x, covered, picks, points):
        v_Vxd = _gather(x, jnp.concatenate([picks, points]), unit)

        def block(total, part):
            x_Bxd, m_B = part
            s_BxV = _cosines(x_Bxd, v_Vxd)
            m_B = jnp.maximum(m_B, s_BxV[:, : len(picks)].max(axis=1))
            return total + jnp.maximum(s_BxV[:, len(picks) :] - m_B[:, None], 0.0).sum(axis=0), m_B

        total_k, covered = jax.lax.scan(block, jnp.zeros(len(points)), (x, covered))
        return covered, jax.lax.psum(total_k, AXIS)  # exact in any order

    row = P(AXIS)
    sharded = jax.shard_map(local, mesh=mesh, in_specs=(row, row, P(), P()), out_specs=(row, P()), check_vma=False)
    return sharded(x, covered, picks, points)


def _cosines(a_AxD: Array, b_BxD: Array) -> Array:
    """Cosines rounded to the grid; one of the two is multiplied by ``unit``."""
    a_AxD, b_BxD = a_AxD.astype(jnp.float64), b_BxD.astype(jnp.float64)
    return jnp.rint(a_AxD @ b_BxD.T)


def _gather(x: Array, points: Array, unit: float) -> Array:
    """The vectors of some points times ``unit``, on every device; zeros for -1. One device holds each."""
    rows = x.reshape(-1, x.shape[-1])
    index = points - jax.lax.axis_index(AXIS).astype(points.dtype) * len(rows)
    is_local = (index >= 0) & (index < len(rows)) & (points >= 0)
    local = jnp.where(is_local[:, None], rows[jnp.where(is_local, index, 0)], 0.0)
    return jax.lax.psum(local, AXIS).astype(jnp.float64) * unit


@partial(jax.jit, donate_argnames=("part",))
def _write(part: Array, rows: Array, i: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(part, rows, i, 0)


def width_of(count: int) -> int:
    """The number of gains computed in one pass when ``count`` are needed."""
    return next((width for width in WIDTHS if width >= count), WIDTHS[-1])


def _pad(points: np.ndarray, width: int) -> Int32[np.ndarray, " k"]:
    return np.pad(points.astype(np.int32), (0, width - len(points)), constant_values=-1)


def _check_memory(rows: int, dim: int, block: int, mesh: Mesh) -> None:
    """Raise UserError where the vectors do not fit into the memory that the devices report."""
    stored = rows * (dim * 4 + 16)
    working = 2 * block * dim * 8 + 3 * block * WIDEST * 8
    mine = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    need = stored + working
    if mine[0].platform == "cpu":
        need, room, owner = need * len(mine), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine"
    else:
        room, owner = int((mine[0].memory_stats() or {}).get("bytes_limit", 0)), "each device"
    if room and need > room:
        raise UserError(
            f"facility location stores all embeddings on the devices: {need / 2**30:,.1f} GiB are needed and"
            f" {owner} has {room / 2**30:,.1f} GiB; take more devices (mesh.rows), embeddings of fewer dimensions"
            f" (here {dim:,}), or a smaller pool"
        )
