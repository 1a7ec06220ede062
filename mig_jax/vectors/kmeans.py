"""k-means: seeds by greedy k-means++, then Lloyd's iterations, over points sharded on the devices of a mesh.

No bit depends on the number of devices or on the tile. Seeds are drawn by distances between points that are rounded to
a grid on which every sum of products is an integer that float32 represents: exact in any order. Labels are those of the
nearest centre in float64: the devices find it in float32 and mark the points where rounding could have chosen another
centre; the host recomputes those. Centres are float64 sums in the order of the points.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float32, Float64, Int32

from mig_jax.core.errors import UserError
from mig_jax.core.processes import replicated
from mig_jax.engine.full_pass import AXIS

TILE = 1 << 12  # rows whose distances to all centres are in the memory of a device at once
BLOCK = 1 << 13  # the same on the host
LONGEST = 2.0**12  # length of the longest vector on the grid: products of two fit into the 24 bits of a float32
LOW = 16  # bits of the lower part of a squared distance (27 bits), so that int32 can sum a tile of either part


class Clusters(NamedTuple):
    """The nearest centre of each point.

    ``labels`` int32 ``[M]``; ``centres`` float64 ``[k, c]``; ``inertia``: the sum of squared distances to them;
    ``iterations`` of Lloyd's.
    """

    labels: Int32[np.ndarray, " M"]
    centres: Float64[np.ndarray, "k c"]
    inertia: float
    iterations: int


class ShardedPoints:
    """M points of c numbers, on the host and, in tiles of rows, on the devices.

    Args:
      x: float32 ``[M, c]``, finite; a mean of 0 gives the finest grid.
    """

    def __init__(self, x: Float32[np.ndarray, "M c"], mesh: Mesh):
        self.x, self.mesh = x, mesh
        count, dim = x.shape
        self.squared = np.concatenate([np.einsum("mc,mc->m", b, b, dtype=np.float64) for _, b in _blocks(x)])
        longest = float(np.sqrt(self.squared.max()))
        room = (
            LONGEST - np.sqrt(dim) / 2 - 1
        )  # rounding increases the length by at most half a grid step in each coordinate
        self.scale = 2.0 ** np.floor(np.log2(room / longest)) if longest > 0 else 1.0
        self.tile = min(TILE, 1 << (-(-count // mesh.size) - 1).bit_length())
        self.rows = -(-count // (mesh.size * self.tile)) * mesh.size * self.tile

        def padded(rows: np.ndarray) -> np.ndarray:
            block = x[rows[0] : rows[-1] + 1]
            return np.pad(block, ((0, len(rows) - len(block)), (0, 0)))

        self.on_devices = self.shard(padded)

    def shard(self, of: Callable[[np.ndarray], np.ndarray]) -> Array:
        """The sharded array ``of(range(rows))``; ``of`` maps consecutive row numbers, padding included, to an array."""
        sharding, tail = NamedSharding(self.mesh, P(AXIS)), of(np.arange(1)).shape[1:]

        def part(index: Any) -> np.ndarray:
            return of(np.arange(*index[0].indices(self.rows)))

        return jax.make_array_from_callback((self.rows, *tail), sharding, part)

    def __len__(self) -> int:
        return len(self.x)


def kmeans(
    points: ShardedPoints, k: int, seed: tuple[int, ...], progress: Callable[[int], None] = lambda i: None
) -> Clusters:
    """One run: k seeds, then Lloyd's iterations; ``progress`` is called with the number of each iteration."""
    rng = np.random.default_rng(seed)
    return lloyd(points, points.x[draw_seeds(points, k, rng)].astype(np.float64), progress=progress)


def draw_seeds(points: ShardedPoints, k: int, rng: np.random.Generator) -> np.ndarray:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007, the variant of scikit-learn): k distinct points; int64 ``[k]``.

    The first seed is drawn uniformly. Then 2 + log k candidates are drawn with probability proportional to the squared
    distance to the nearest seed, and the candidate that minimises the sum of these distances is the next seed. Where
    every point coincides with a seed, the remaining seeds are the lowest points.

    Raises:
      UserError: fewer points than k.
    """
    if k > len(points):
        raise UserError(key="clusters", value=k, allowed=f"at most {len(points)}, the points")
    num_candidates, scale = 2 + int(np.log(k)), np.float32(points.scale)
    nearest = points.shard(lambda rows: np.where(rows < len(points), np.iinfo(np.int32).max, 0).astype(np.int32))
    candidates = np.full(num_candidates, rng.integers(len(points)))
    seeds: list[int] = []
    while True:
        drawn = _grid(points.x[candidates], scale, np)
        trial, sums = _try_seeds(points.on_devices, nearest, drawn, scale, tile=points.tile, mesh=points.mesh)
        high, low = replicated(sums).sum(axis=0, dtype=np.int64)
        best = int(np.argmin((high << LOW) + low))
        seeds.append(int(candidates[best]))
        nearest, chosen = _add_seed(trial, np.int32(best), mesh=points.mesh)
        cumulative = np.cumsum(replicated(chosen)[: len(points)], dtype=np.int64)
        if len(seeds) == k or cumulative[-1] == 0:
            rest = np.setdiff1d(np.arange(len(points)), seeds)[: k - len(seeds)]
            return np.array([*seeds, *rest], np.int64)
        candidates = np.searchsorted(cumulative, rng.integers(cumulative[-1], size=num_candidates), side="right")


def lloyd(
    points: ShardedPoints,
    centres: Float64[np.ndarray, "k c"],
    max_iterations: int = 300,
    tol: float = 1e-4,
    progress: Callable[[int], None] = lambda i: None,
) -> Clusters:
    """Lloyd's iterations from ``centres``, by the rules of scikit-learn.

    They end when no label changes, when the sum of the squared moves of the centres is at most ``tol`` times the mean
    variance of a coordinate, or after ``max_iterations``. A centre without points moves to the point that is farthest
    from its own centre.
    """
    count, dim = points.x.shape
    mean = sum(block.sum(axis=0, dtype=np.float64) for _, block in _blocks(points.x)) / count
    tolerance = tol * float(points.squared.mean() - mean @ mean) / dim
    labels = np.full(count, -1, np.int32)
    for done in range(1, max_iterations + 1):
        before, labels = labels, _assign(points, centres)
        moved = _means(points, labels, centres)
        shift, centres = float(((moved - centres) ** 2).sum()), moved
        progress(done)
        if (labels == before).all():
            break
        if shift <= tolerance or done == max_iterations:
            labels = _assign(points, centres)
            break
    return Clusters(labels, centres, float(_distances(points, labels, centres).sum()), done)


def _assign(points: ShardedPoints, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of each point, argmin_c |c|^2 / 2 - x . c, the first of equals; int32 ``[M]``."""
    half = np.einsum("kc,kc->k", centres, centres) / 2
    longest, widest = np.sqrt(points.squared.max()), np.sqrt(2 * half.max())
    # The error of two values, each at most (c + 2) u |x||c| + u |c|^2 with u = 2^-24, and a margin for this sum.
    doubt = (centres.shape[1] + 8) * 2.0**-23 * (longest * widest + widest**2)
    found = _nearest(
        points.on_devices, centres.astype(np.float32), half.astype(np.float32), np.float32(doubt),
        tile=points.tile, mesh=points.mesh,
    )  # fmt: skip
    labels, unsure = (replicated(part)[: len(points)] for part in found)
    labels, unsure = labels.copy(), np.flatnonzero(unsure)
    step = max(1, (1 << 22) // len(centres))
    for start in range(0, len(unsure), step):
        some = unsure[start : start + step]
        # Not a BLAS product: its sums may round differently at its edges, and equal centres must stay equal.
        labels[some] = (half - np.einsum("mc,kc->mk", points.x[some].astype(np.float64), centres)).argmin(axis=1)
    return labels


def _means(points: ShardedPoints, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The mean of the points of each label; float64 ``[k, c]``."""
    k = len(centres)
    sums, sizes = np.zeros_like(centres), np.bincount(labels, minlength=k)
    for start, block in _blocks(points.x):
        mine = labels[start : start + len(block)]
        members = sp.csr_array((np.ones(len(block)), (mine, np.arange(len(block)))), shape=(k, len(block)))
        sums += members @ block.astype(np.float64)
    empty = np.flatnonzero(sizes == 0)
    away = _distances(points, labels, centres) if len(empty) else np.zeros(1)
    if away.max() > 0:  # otherwise there are fewer distinct points than centres
        for cluster, point in zip(empty, np.argsort(-away, kind="stable"), strict=False):
            sums[labels[point]] -= points.x[point]
            sizes[labels[point]] -= 1
            sums[cluster], sizes[cluster] = points.x[point], 1
    return np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)


def _distances(points: ShardedPoints, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The squared distance of each point to the centre of its label; float64 ``[M]``."""
    found = np.empty(len(points))
    for start, block in _blocks(points.x):
        away = block - centres[labels[start : start + len(block)]]
        found[start : start + len(block)] = np.einsum("mc,mc->m", away, away)
    return found


def _blocks(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(x), BLOCK):
        yield start, x[start : start + BLOCK]


@partial(jax.jit, static_argnames=("tile", "mesh"))
def _nearest(x: Array, centres: Array, half: Array, doubt: Array, *, tile: int, mesh: Mesh) -> tuple[Array, Array]:
    """(the nearest centre of each point, whether another centre is within ``doubt`` of it)."""

    def one(tile_TxC: Array) -> tuple[Array, Array]:
        value_TxK = half - jnp.matmul(tile_TxC, centres.T, precision=jax.lax.Precision.HIGHEST)
        least_T = value_TxK.min(axis=1)
        close_TxK = value_TxK <= (least_T + doubt)[:, None]
        number_K = jnp.arange(len(half), dtype=jnp.int32)
        first_T = jnp.where(value_TxK == least_T[:, None], number_K, len(half)).min(axis=1)
        return first_T, close_TxK.sum(axis=1) > 1

    def local(x: Array, centres: Array, half: Array, doubt: Array) -> tuple[Array, Array]:
        found = jax.lax.map(one, x.reshape(-1, tile, x.shape[1]))
        return tuple(jax.lax.all_gather(part.reshape(-1), AXIS, tiled=True) for part in found)

    everywhere = P()
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P(AXIS), everywhere, everywhere, everywhere),
        out_specs=(everywhere, everywhere),
        check_vma=False,
    )(x, centres, half, doubt)


def _grid(x: Any, scale: Any, xp: Any) -> Any:
    """Integers; equal on the host and on a device, because a product with a power of two is exact."""
    return xp.round(x * scale)


@partial(jax.jit, static_argnames=("tile", "mesh"))
def _try_seeds(x: Array, nearest: Array, seeds: Array, scale: Array, *, tile: int, mesh: Mesh) -> tuple[Array, Array]:
    """For t candidate seeds on the grid: each point's squared distance to its nearest seed if the candidate is added,
    int32 ``[t, M]``; and the sums of these over each tile in two parts, int32 ``[tiles, 2, t]``."""

    def one(part: tuple[Array, Array], seeds: Array, scale: Array) -> tuple[Array, Array]:
        grid_TxC, nearest_T = _grid(part[0], scale, jnp), part[1]
        product = jnp.matmul(seeds, grid_TxC.T, precision=jax.lax.Precision.HIGHEST).astype(jnp.int32)
        length, own = ((a * a).sum(axis=1).astype(jnp.int32) for a in (seeds, grid_TxC))
        trial = jnp.minimum(nearest_T, length[:, None] + own - 2 * product)
        return trial, jnp.stack([(trial >> LOW).sum(axis=1), (trial & (2**LOW - 1)).sum(axis=1)])

    def local(x: Array, nearest: Array, seeds: Array, scale: Array) -> tuple[Array, Array]:
        tiles = x.reshape(-1, tile, x.shape[1]), nearest.reshape(-1, tile)
        trial, sums = jax.lax.map(partial(one, seeds=seeds, scale=scale), tiles)
        return trial.swapaxes(0, 1).reshape(len(seeds), -1), jax.lax.all_gather(sums, AXIS, tiled=True)

    return jax.shard_map(
        local, mesh=mesh, in_specs=(P(AXIS), P(AXIS), P(), P()), out_specs=(P(None, AXIS), P()), check_vma=False
    )(x, nearest, seeds, scale)


@partial(jax.jit, static_argnames=("mesh",))
def _add_seed(trial: Array, best: Array, *, mesh: Mesh) -> tuple[Array, Array]:
    """The distances of the best candidate: sharded, and replicated."""

    def local(trial: Array, best: Array) -> tuple[Array, Array]:
        return trial[best], jax.lax.all_gather(trial[best], AXIS, tiled=True)

    return jax.shard_map(local, mesh=mesh, in_specs=(P(None, AXIS), P()), out_specs=(P(AXIS), P()), check_vma=False)(
        trial, best
    )
