"""Facility location over N unit vectors on a mesh: d(A) = sum_j max(0, max_{i in A} cos(x_i, x_j)).

Everything here is exact, so nothing depends on the order of a sum: not on blocks, the number of devices or the kind of
machine. The coordinates of the unit vectors are rounded to multiples of 2^-26 (float32 holds those), which moves
a cosine by about 1e-8. Products of two are multiples of 2^-52 and all their partial sums are at most 1, so float64 adds
them without rounding. A cosine is then rounded to the grid of ``unit`` steps (2^30, fewer above 2^23 points), on which
float64 holds the sum over all N points.

N x N cosines never exist: a block of rows at a time meets at most ``WIDEST`` columns.
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
from mig_jax.core.processes import whole
from mig_jax.core.progress import Progress, silent
from mig_jax.engine.full_pass import AXIS
from mig_jax.vectors.vectors import Vectors

GRID = 26  # binary digits of a coordinate
FINEST = 30  # of a cosine, where the sum over the pool leaves room for so many
WIDTHS = (7, 31, 127, 511)  # gains at once that a program is compiled for; with the pick, powers of two
WIDEST = 512
BLOCKS = {"cpu": 1024}  # rows at once: speed only
BLOCK = 8192


def steps(count: int) -> float:
    """Steps that make a cosine of 1 in a pool of so many points."""
    return 2.0 ** min(FINEST, 53 - count.bit_length())


class FacilityLocation:
    """The coverage m_j = max(0, max_{i in A} cos(x_i, x_j)) of N points, and gains d(A+u) - d(A) in steps, 1/``unit``.

    Args:
      vectors: read once, block by block.
      mesh: one axis, "pool"; may span processes, which then all make the same calls.
      block: rows that are looked at together; None: what suits the devices. Changes no number.

    Raises:
      UserError: the vectors do not fit into the devices' memory.
    """

    def __init__(self, vectors: Vectors, mesh: Mesh, block: int | None = None, progress: Progress = silent):
        self.count, self.mesh = len(vectors), mesh
        self.unit = steps(self.count)
        block = block or BLOCKS.get(mesh.devices.flat[0].platform, BLOCK)
        each = -(-self.count // mesh.size)
        self.block = min(block, 1 << (each - 1).bit_length())
        self.blocks = -(-each // self.block)  # on each device
        _check_room(self.blocks * self.block, vectors.dim, self.block, mesh)
        self.x = self._load(vectors, progress)
        self.restart()

    def restart(self) -> None:
        """A is empty."""
        shape, sharding = (self.mesh.size * self.blocks, self.block), NamedSharding(self.mesh, P(AXIS))
        with jax.enable_x64(True):
            self.covered = jax.make_array_from_callback(shape, sharding, lambda index: np.zeros(shape)[index])

    def look(self, picks: Int64[np.ndarray, " p"], asked: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
        """Add one pick to A, or none; then the gains of the points asked for, in steps. One pass over the vectors."""
        return self._pass(_pad(picks, 1), _pad(asked, width_of(len(asked))))[: len(asked)]

    def absorb(self, picks: Int64[np.ndarray, " p"]) -> None:
        """Add many to A."""
        for start in range(0, len(picks), WIDEST):
            self._pass(_pad(picks[start : start + WIDEST], WIDEST), np.zeros(0, np.int32))

    def _pass(self, picks: Int32[np.ndarray, " p"], asked: Int32[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
        with jax.enable_x64(True):
            self.covered, gains = _look(self.x, self.covered, picks, asked, unit=self.unit, mesh=self.mesh)
        return whole(gains)

    def _load(self, vectors: Vectors, progress: Progress) -> Float32[Array, "S_blocks B d"]:
        """Each process fills its own devices, a block at a time."""
        sharding = NamedSharding(self.mesh, P(AXIS))
        each, parts = self.blocks * self.block, []
        for number, device in enumerate(self.mesh.devices.flat):
            if device.process_index != jax.process_index():
                continue
            part = jnp.zeros((self.blocks, self.block, vectors.dim), jnp.float32, device=device)
            for i in range(self.blocks):
                start = number * each + i * self.block
                rows = np.zeros((self.block, vectors.dim), np.float32)
                found = vectors.take(np.arange(start, min(start + self.block, self.count)))
                rows[: len(found)] = np.rint(found * np.float32(2.0**GRID)) * np.float32(2.0**-GRID)
                part = _write(part, rows, np.int32(i))
                progress("load embeddings", min(start + self.block, self.count), self.count)
            parts.append(part)
        shape = (self.mesh.size * self.blocks, self.block, vectors.dim)
        return jax.make_array_from_single_device_arrays(shape, sharding, parts)


@partial(jax.jit, static_argnames=("unit", "mesh"), donate_argnames=("covered",))
def _look(
    x: Float32[Array, "A B d"],
    covered: Float64[Array, "A B"],
    picks: Int32[Array, " p"],
    asked: Int32[Array, " k"],
    *,
    unit: float,
    mesh: Mesh,
) -> tuple[Float64[Array, "A B"], Float64[Array, " k"]]:
    """The coverage with ``picks``, and with it the gains of ``asked``; -1 is nobody. A blocks of B rows."""

    def local(x, covered, picks, asked):
        v_Vxd = _fetch(x, jnp.concatenate([picks, asked]), unit)

        def block(total, part):
            x_Bxd, m_B = part
            s_BxV = _cosines(x_Bxd, v_Vxd)
            m_B = jnp.maximum(m_B, s_BxV[:, : len(picks)].max(axis=1))
            return total + jnp.maximum(s_BxV[:, len(picks) :] - m_B[:, None], 0.0).sum(axis=0), m_B

        total_k, covered = jax.lax.scan(block, jnp.zeros(len(asked)), (x, covered))
        return covered, jax.lax.psum(total_k, AXIS)  # exact, in whatever order

    row = P(AXIS)
    sharded = jax.shard_map(local, mesh=mesh, in_specs=(row, row, P(), P()), out_specs=(row, P()), check_vma=False)
    return sharded(x, covered, picks, asked)


def _cosines(a_AxD: Array, b_BxD: Array) -> Array:
    """Rounded to the grid; one side comes multiplied by ``unit``."""
    a_AxD, b_BxD = a_AxD.astype(jnp.float64), b_BxD.astype(jnp.float64)
    return jnp.rint(a_AxD @ b_BxD.T)


def _fetch(x: Array, points: Array, unit: float) -> Array:
    """The vectors of some points, times ``unit``, on every device; -1: zeros. One device has each: nothing is added."""
    rows = x.reshape(-1, x.shape[-1])
    place = points - jax.lax.axis_index(AXIS).astype(points.dtype) * len(rows)
    mine = (place >= 0) & (place < len(rows)) & (points >= 0)
    found = jnp.where(mine[:, None], rows[jnp.where(mine, place, 0)], 0.0)
    return jax.lax.psum(found, AXIS).astype(jnp.float64) * unit


@partial(jax.jit, donate_argnames=("part",))
def _write(part: Array, rows: Array, i: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(part, rows, i, 0)


def width_of(count: int) -> int:
    """Gains that are computed where so many are wanted."""
    return next((width for width in WIDTHS if width >= count), WIDTHS[-1])


def _pad(points: np.ndarray, width: int) -> Int32[np.ndarray, " k"]:
    return np.pad(points.astype(np.int32), (0, width - len(points)), constant_values=-1)


def _check_room(rows: int, dim: int, block: int, mesh: Mesh) -> None:
    """Raises UserError where the vectors do not fit, as far as the devices tell."""
    kept = rows * (dim * 4 + 16)
    working = 2 * block * dim * 8 + 3 * block * WIDEST * 8
    mine = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    need = kept + working
    if mine[0].platform == "cpu":
        need, room, whose = need * len(mine), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine"
    else:
        room, whose = int((mine[0].memory_stats() or {}).get("bytes_limit", 0)), "each device"
    if room and need > room:
        raise UserError(
            f"facility location keeps all embeddings in the devices' memory: {need / 2**30:,.1f} GiB are needed and"
            f" {whose} has {room / 2**30:,.1f} GiB; take more devices (mesh.rows), embeddings of fewer numbers"
            f" (here {dim:,}), or a smaller pool"
        )
