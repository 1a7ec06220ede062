"""The largest cosine of a point to what is kept so far: in blocks on the devices, and exactly where that decides.

Float32 finds the few that matter, float64 says what is so. The float32 dot product of two unit vectors of d numbers
lies within ``slack(d)`` of the true one, in whatever order it was summed. So where a threshold or a rounding lies
farther away than that, the float32 number is as good as the true one; where it lies nearer, the cosines that can be the
largest are computed again, each by one float64 sum whose order depends on d alone. What comes out is therefore
independent of blocks, tiles and devices.
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

from mig_jax.core.processes import whole
from mig_jax.engine.full_pass import AXIS
from mig_jax.vectors.vectors import Vectors

BLOCK = 512  # points that are compared at once
TILE = 2048  # kept vectors of a chunk on a device: 32 MB where they have 4,096 numbers
PIECE = 256  # float64 vectors in memory at once
NOBODY = -2.0  # the largest cosine to nothing


def slack(dim: int) -> float:
    """How far the float32 cosine of two float32 unit vectors may be off.

    A dot product of d terms is off by d u sum |a_i b_i| at most (u = 2^-24; any order, fused or not), and the sum is 1
    but for the rounding of the vectors, which the 8 are for; so are the products that an accelerator makes of parts.
    """
    return (dim + 8) * 2.0**-24


def cosines(one: Float32[np.ndarray, " d"], others: Float32[np.ndarray, "m d"]) -> Float64[np.ndarray, " m"]:
    """The canonical cosine of a unit vector with each of others, in [-1, 1].

    Products of float32 numbers are exact in float64, and NumPy sums a contiguous row pairwise: in an order that depends
    on its length only.
    """
    products = others.astype(np.float64, order="C") * one
    return products.sum(axis=1).clip(-1.0, 1.0)


def hundredths(cosine: float) -> int:
    """A cosine to two decimals."""
    return math.floor(100.0 * cosine + 0.5)


class Block(NamedTuple):
    """Points with their unit vectors, on the host ``[m, d]`` and on every device ``[B, d]``, padded with zeros."""

    points: Int64[np.ndarray, " m"]
    host: Float32[np.ndarray, "m d"]
    rows_BxD: jax.Array


class Kept:
    """The points that are kept: their vectors in chunks of one shape, each spread over the devices of a mesh.

    The r-th vector of a chunk is on device r mod S, so that all have equally much to do.

    Args:
      threshold: in [-1, 1]; what cosines will be compared with.
      block, tile: see ``BLOCK`` and ``TILE``; they decide how fast it is and nothing else.
    """

    def __init__(self, vectors: Vectors, mesh: Mesh, threshold: float, block: int = BLOCK, tile: int = TILE):
        self.vectors, self.mesh, self.threshold, self.block = vectors, mesh, threshold, block
        self.slack = slack(vectors.dim)
        self.points: list[int] = []
        self.chunks: list[jax.Array] = []
        self.room = tile * mesh.size  # vectors of a chunk
        self.redecided = 0

    def read(self, points: Int64[np.ndarray, " m"]) -> Block:
        """Fetch at most ``block`` points."""
        host = self.vectors.take(points)
        padded = np.zeros((self.block, self.vectors.dim), np.float32)
        padded[: len(host)] = host
        everywhere = NamedSharding(self.mesh, P())
        return Block(points, host, jax.make_array_from_callback(padded.shape, everywhere, lambda index: padded[index]))

    def compare(self, block: Block) -> tuple[list[jax.Array], jax.Array]:
        """Set the devices to work on a block: its largest cosines with each chunk, and those of its rows among
        themselves. ``Near`` waits for them."""
        found = [
            _nearest(chunk, len(self.points) - i * self.room, block.rows_BxD, mesh=self.mesh)
            for i, chunk in enumerate(self.chunks)
        ]
        return found, _among(block.rows_BxD)

    def add(self, block: Block, places: list[int]) -> None:
        """Keep those at some places of a block, in that order."""
        if not places:
            return
        number, source = np.full(self.block, -1), np.zeros(self.block, np.int32)
        number[: len(places)] = np.arange(len(self.points), len(self.points) + len(places))
        source[: len(places)] = places
        self.points += block.points[places].tolist()
        for i in range(int(number[0]) // self.room, int(number.max()) // self.room + 1):
            if i == len(self.chunks):
                shape, spread = (self.room, self.vectors.dim), NamedSharding(self.mesh, P(AXIS))
                self.chunks.append(jnp.zeros(shape, jnp.float32, device=spread))
            slot = np.where(number < 0, -1, number - i * self.room).astype(np.int32)
            self.chunks[i] = _put(self.chunks[i], block.rows_BxD, source, slot, mesh=self.mesh)

    def add_points(self, points: Int64[np.ndarray, " m"]) -> None:
        """Keep points as they are, without comparing them."""
        for start in range(0, len(points), self.block):
            block = self.read(points[start : start + self.block])
            self.add(block, [*range(len(block.points))])

    def near(self, block: Block, place: int, chunk: int, least: float) -> list[int]:
        """The kept points of a chunk whose float32 cosine with one of a block is ``least`` or more."""
        found = whole(_with(self.chunks[chunk], block.rows_BxD, place, mesh=self.mesh))
        start = chunk * self.room
        # Device after device, each with every S-th vector.
        found = found.reshape(self.mesh.size, -1).T.reshape(-1)[: len(self.points) - start]
        return [self.points[start + i] for i in np.flatnonzero(found >= least).tolist()]


class Near:
    """How near the points of a block come to what was kept before it, and to the earlier ones that ``beside`` names."""

    def __init__(self, kept: Kept, block: Block, found: list[jax.Array], among: jax.Array):
        m = len(block.points)
        self.kept, self.block = kept, block
        self.found_KxM = np.array([whole(one)[:m] for one in found], np.float64).reshape(-1, m)
        self.among_MxM = whole(among)[:m, :m].astype(np.float64)
        self.largest = self.found_KxM.max(axis=0, initial=NOBODY)
        self._beside: list[tuple[int, int]] = []

    def beside(self, place: int, end: int | None = None) -> None:
        """From now on those after ``place`` (and before ``end``) are compared with it too."""
        end = len(self.block.points) if end is None else end
        later = slice(place + 1, end)
        np.maximum(self.largest[later], self.among_MxM[place, later], out=self.largest[later])
        self._beside.append((place, end))

    def cosine(self, place: int) -> float:
        """The largest cosine of the point at ``place``, ``NOBODY`` where there is nothing to compare it with.

        On the right side of the threshold always; and where it is not above, right in two decimals.
        """
        about, slack, threshold = min(float(self.largest[place]), 1.0), self.kept.slack, self.kept.threshold
        low, high = about - slack, min(about + slack, 1.0)
        if low > threshold or (high <= threshold and hundredths(low) == hundredths(high)):
            return about
        self.kept.redecided += 1
        return self._exact(place, about - 2 * slack)

    def _exact(self, place: int, least: float) -> float:
        """The largest canonical cosine. In float32 what has it is among those of ``least`` or more: it may be off by
        the slack, and so may the largest in float32."""
        points = [
            int(self.block.points[other])
            for other, end in self._beside
            if other < place < end and self.among_MxM[other, place] >= least
        ]
        for chunk in np.flatnonzero(self.found_KxM[:, place] >= least).tolist():
            points += self.kept.near(self.block, place, chunk, least)
        pieces = (np.array(points[start : start + PIECE]) for start in range(0, len(points), PIECE))
        return max(float(cosines(self.block.host[place], self.kept.vectors.take(piece)).max()) for piece in pieces)


def _dot(left, right):
    return jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="mesh")
def _nearest(chunk: Float[Array, "C d"], held: Int[Array, ""], rows_BxD: Float[Array, "B d"], *, mesh: Mesh) -> Array:
    """The largest cosine of each row with the first ``held`` vectors of a chunk; ``[B]``, on every device."""

    def local(chunk_TxD, held, rows_BxD):
        shards, shard = mesh.shape[AXIS], jax.lax.axis_index(AXIS)
        is_held = jnp.arange(len(chunk_TxD)) * shards + shard < held
        near_TxB = jnp.where(is_held[:, None], _dot(chunk_TxD, rows_BxD), NOBODY)
        return jax.lax.pmax(near_TxB.max(axis=0), AXIS)  # a maximum is exact, whatever it is a maximum of

    return jax.shard_map(local, mesh=mesh, in_specs=(P(AXIS), P(), P()), out_specs=P())(chunk, held, rows_BxD)


@jax.jit
def _among(rows_BxD: Float[Array, "B d"]) -> Float[Array, "B B"]:
    """The cosines of a block's rows with each other."""
    return _dot(rows_BxD, rows_BxD)


@partial(jax.jit, static_argnames="mesh")
def _with(chunk: Float[Array, "C d"], rows_BxD: Float[Array, "B d"], place: Int[Array, ""], *, mesh: Mesh) -> Array:
    """The cosines of one row with all of a chunk; ``[C]``, on every device."""

    def local(chunk_TxD, rows_BxD, place):
        return jax.lax.all_gather(_dot(chunk_TxD, rows_BxD[place][None])[:, 0], AXIS, tiled=True)

    return jax.shard_map(local, mesh=mesh, in_specs=(P(AXIS), P(), P()), out_specs=P(), check_vma=False)(
        chunk, rows_BxD, place
    )  # equal everywhere after the all_gather, which the checker cannot see


@partial(jax.jit, static_argnames="mesh", donate_argnames="chunk")
def _put(
    chunk: Float[Array, "C d"], rows_BxD: Float[Array, "B d"], source: Int[Array, " B"], slot: Int[Array, " B"],
    *, mesh: Mesh,
) -> Array:  # fmt: skip
    """The chunk with ``rows[source]`` in its slots; a slot that is not one of the chunk's is passed over."""

    def local(chunk_TxD, rows_BxD, source, slot):
        shards, here = mesh.shape[AXIS], len(chunk_TxD)
        mine = (slot >= 0) & (slot < here * shards) & (slot % shards == jax.lax.axis_index(AXIS))
        return chunk_TxD.at[jnp.where(mine, slot // shards, here)].set(rows_BxD[source], mode="drop")

    specs = P(AXIS), P(), P(), P()
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(AXIS))(chunk, rows_BxD, source, slot)
