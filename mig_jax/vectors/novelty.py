"""The largest cosine of a point with the selected points: float32 in blocks on devices, float64 where that decides.

The float32 dot product of two unit vectors of d numbers lies within ``slack(d)`` of the true one, whatever the order of
its sum. Where a threshold or a rounding boundary is farther away than that, the float32 result decides. Where it is
nearer, the cosines that can be the largest are computed again, each by one float64 sum whose order depends on d alone.
Results are therefore independent of blocks, tiles and devices.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Float64, Int, Int64

from mig_jax.core.index import PointArray, as_points
from mig_jax.core.processes import replicated
from mig_jax.engine.full_pass import AXIS
from mig_jax.vectors.vectors import Vectors

BLOCK = 512  # points that are compared at once
TILE = 2048  # selected vectors of a chunk on a device: 32 MB at 4,096 numbers each
PIECE = 256  # float64 vectors in memory at once
NO_COSINE = -2.0  # the largest cosine with an empty set


def slack(dim: int) -> float:
    """The largest error of the float32 cosine of two float32 unit vectors of ``dim`` numbers.

    The error of a dot product of d terms is at most d u sum |a_i b_i| (u = 2^-24; any order, fused or not). The sum is
    at most 1 up to the rounding of the vectors. The 8 covers this rounding, and that of products which an accelerator
    computes in parts.
    """
    return (dim + 8) * 2.0**-24


def cosines(one: Float32[np.ndarray, " d"], others: Float32[np.ndarray, "m d"]) -> Float64[np.ndarray, " m"]:
    """The float64 cosine of a unit vector with each of ``others``, in [-1, 1].

    Products of float32 numbers are exact in float64, and NumPy sums a contiguous row pairwise, in an order that depends
    on its length only.
    """
    products = others.astype(np.float64, order="C") * one
    return products.sum(axis=1).clip(-1.0, 1.0)


def hundredths(cosine: float) -> int:
    """A cosine rounded to two decimals, times 100."""
    return math.floor(100.0 * cosine + 0.5)


class Block(NamedTuple):
    """Points with their unit vectors, on the host ``[m, d]`` and on every device ``[B, d]``, padded with zeros."""

    points: Int64[PointArray, " m"]
    host: Float32[np.ndarray, "m d"]
    rows_BxD: jax.Array


class SelectedVectors:
    """The vectors of the selected points, in chunks of one shape, each distributed over the devices of a mesh.

    The r-th vector of a chunk is on device r mod S, which balances the work.

    Args:
      threshold: in [-1, 1]; cosines are compared with it.
      block, tile: see ``BLOCK`` and ``TILE``; they change the speed only.
    """

    def __init__(self, vectors: Vectors, mesh: Mesh, threshold: float, block: int = BLOCK, tile: int = TILE):
        self.vectors, self.mesh, self.threshold, self.block = vectors, mesh, threshold, block
        self.slack = slack(vectors.dim)
        self.points: list[int] = []
        self.chunks: list[jax.Array] = []
        self.chunk_size = tile * mesh.size  # vectors of a chunk
        self.redecided = 0

    def read(self, points: Int64[PointArray, " m"]) -> Block:
        """Fetch at most ``block`` points."""
        host = self.vectors.take(points)
        padded = np.zeros((self.block, self.vectors.dim), np.float32)
        padded[: len(host)] = host
        everywhere = NamedSharding(self.mesh, P())
        return Block(points, host, jax.make_array_from_callback(padded.shape, everywhere, lambda index: padded[index]))

    def compare(self, block: Block) -> tuple[list[jax.Array], jax.Array]:
        """Start the comparison of a block: (its largest cosines with each chunk, the cosines among its rows).

        The results are computed asynchronously; ``BlockCosines`` waits for them.
        """
        per_chunk = [
            _nearest(chunk, len(self.points) - i * self.chunk_size, block.rows_BxD, mesh=self.mesh)
            for i, chunk in enumerate(self.chunks)
        ]
        return per_chunk, _among(block.rows_BxD)

    def add(self, block: Block, positions: list[int]) -> None:
        """Add the points at some positions of a block, in that order."""
        if not positions:
            return
        number, source = np.full(self.block, -1), np.zeros(self.block, np.int32)
        number[: len(positions)] = np.arange(len(self.points), len(self.points) + len(positions))
        source[: len(positions)] = positions
        self.points += block.points[positions].tolist()
        for i in range(int(number[0]) // self.chunk_size, int(number.max()) // self.chunk_size + 1):
            if i == len(self.chunks):
                shape, spread = (self.chunk_size, self.vectors.dim), NamedSharding(self.mesh, P(AXIS))
                self.chunks.append(jnp.zeros(shape, jnp.float32, device=spread))
            index = np.where(number < 0, -1, number - i * self.chunk_size).astype(np.int32)
            self.chunks[i] = _put(self.chunks[i], block.rows_BxD, source, index, mesh=self.mesh)

    def add_points(self, points: Int64[PointArray, " m"]) -> None:
        """Add points without comparing them."""
        for start in range(0, len(points), self.block):
            block = self.read(as_points(points[start : start + self.block]))
            self.add(block, [*range(len(block.points))])

    def points_above(self, block: Block, position: int, chunk: int, least: float) -> list[int]:
        """The selected points of a chunk whose float32 cosine with one point of a block is ``least`` or more."""
        cosine = replicated(_with(self.chunks[chunk], block.rows_BxD, position, mesh=self.mesh))
        start = chunk * self.chunk_size
        # In the order of devices; device s holds vectors s, s + S, s + 2 S, ...
        cosine = cosine.reshape(self.mesh.size, -1).T.reshape(-1)[: len(self.points) - start]
        return [self.points[start + i] for i in np.flatnonzero(cosine >= least).tolist()]


class BlockCosines:
    """The cosines of a block's points with the points selected before it, and with earlier points of the block that
    ``compare_with`` adds."""

    def __init__(self, selected: SelectedVectors, block: Block, per_chunk: list[jax.Array], among: jax.Array):
        m = len(block.points)
        self.selected, self.block = selected, block
        self.chunks_KxM = np.array([replicated(one)[:m] for one in per_chunk], np.float64).reshape(-1, m)
        self.among_MxM = replicated(among)[:m, :m].astype(np.float64)
        self.largest = self.chunks_KxM.max(axis=0, initial=NO_COSINE)
        self._compared: list[tuple[int, int]] = []

    def compare_with(self, position: int, end: int | None = None) -> None:
        """Also compare the points after ``position`` (and before ``end``) with the point at ``position``."""
        end = len(self.block.points) if end is None else end
        later = slice(position + 1, end)
        np.maximum(self.largest[later], self.among_MxM[position, later], out=self.largest[later])
        self._compared.append((position, end))

    def cosine(self, position: int) -> float:
        """The largest cosine of the point at ``position``; ``NO_COSINE`` where it is compared with no point.

        It is exact enough for a comparison with the threshold and, where it is not above, for rounding to two decimals.
        """
        about, slack, threshold = min(float(self.largest[position]), 1.0), self.selected.slack, self.selected.threshold
        low, high = about - slack, min(about + slack, 1.0)
        if low > threshold or (high <= threshold and hundredths(low) == hundredths(high)):
            return about
        self.selected.redecided += 1
        return self._exact(position, about - 2 * slack)

    def _exact(self, position: int, least: float) -> float:
        """The largest float64 cosine. Its point has a float32 cosine of at least ``least``: both this cosine and the
        largest float32 cosine have an error of at most the slack."""
        points = [
            int(self.block.points[other])
            for other, end in self._compared
            if other < position < end and self.among_MxM[other, position] >= least
        ]
        for chunk in np.flatnonzero(self.chunks_KxM[:, position] >= least).tolist():
            points += self.selected.points_above(self.block, position, chunk, least)
        pieces = (np.array(points[start : start + PIECE]) for start in range(0, len(points), PIECE))
        return max(
            float(cosines(self.block.host[position], self.selected.vectors.take(as_points(piece))).max())
            for piece in pieces
        )


def _dot(left, right):
    return jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="mesh")
def _nearest(chunk: Float[Array, "C d"], count: Int[Array, ""], rows_BxD: Float[Array, "B d"], *, mesh: Mesh) -> Array:
    """The largest cosine of each row with the first ``count`` vectors of a chunk; ``[B]``, on every device."""

    def local(chunk_TxD, count, rows_BxD):
        shards, shard = mesh.shape[AXIS], jax.lax.axis_index(AXIS)
        is_filled = jnp.arange(len(chunk_TxD)) * shards + shard < count
        near_TxB = jnp.where(is_filled[:, None], _dot(chunk_TxD, rows_BxD), NO_COSINE)
        return jax.lax.pmax(near_TxB.max(axis=0), AXIS)  # a maximum is exact in any order

    return jax.shard_map(local, mesh=mesh, in_specs=(P(AXIS), P(), P()), out_specs=P())(chunk, count, rows_BxD)


@jax.jit
def _among(rows_BxD: Float[Array, "B d"]) -> Float[Array, "B B"]:
    """The cosines of a block's rows with each other."""
    return _dot(rows_BxD, rows_BxD)


@partial(jax.jit, static_argnames="mesh")
def _with(chunk: Float[Array, "C d"], rows_BxD: Float[Array, "B d"], position: Int[Array, ""], *, mesh: Mesh) -> Array:
    """The cosines of one row with all of a chunk; ``[C]``, on every device."""

    def local(chunk_TxD, rows_BxD, position):
        return jax.lax.all_gather(_dot(chunk_TxD, rows_BxD[position][None])[:, 0], AXIS, tiled=True)

    return jax.shard_map(local, mesh=mesh, in_specs=(P(AXIS), P(), P()), out_specs=P(), check_vma=False)(
        chunk, rows_BxD, position
    )  # check_vma: the checker does not know that all_gather makes the result equal everywhere


@partial(jax.jit, static_argnames="mesh", donate_argnames="chunk")
def _put(
    chunk: Float[Array, "C d"], rows_BxD: Float[Array, "B d"], source: Int[Array, " B"], index: Int[Array, " B"],
    *, mesh: Mesh,
) -> Array:  # fmt: skip
    """The chunk with ``rows[source]`` at ``index``; an index outside the chunk is ignored."""

    def local(chunk_TxD, rows_BxD, source, index):
        shards, here = mesh.shape[AXIS], len(chunk_TxD)
        is_local = (index >= 0) & (index < here * shards) & (index % shards == jax.lax.axis_index(AXIS))
        return chunk_TxD.at[jnp.where(is_local, index // shards, here)].set(rows_BxD[source], mode="drop")

    specs = P(AXIS), P(), P(), P()
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(AXIS))(chunk, rows_BxD, source, index)
