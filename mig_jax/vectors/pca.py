"""Principal components of a pool's vectors, over tiles of rows on the devices of a mesh."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float32, Float64

from mig_jax.core.index import as_points
from mig_jax.core.processes import replicated
from mig_jax.core.progress import Progress, silent
from mig_jax.engine.full_pass import AXIS
from mig_jax.vectors.vectors import Vectors

TILE = 1 << 12  # rows of a float32 sum; fixed, since bits depend on it


class Pca(NamedTuple):
    """The mean of the vectors and the c directions of largest variance.

    ``mean`` float64 ``[d]``; ``components`` float64 ``[c, d]``, orthonormal rows, by falling variance; ``ratio``
    float64 ``[d]``: the explained variance ratio of all d directions.
    """

    mean: Float64[np.ndarray, " d"]
    components: Float64[np.ndarray, "c d"]
    ratio: Float64[np.ndarray, " d"]


def fit_pca(vectors: Vectors, variance: float, mesh: Mesh, progress: Progress = silent) -> Pca:
    """The principal components that explain a share of the variance.

    c is the least number of components whose explained ratio is above ``variance`` (as in scikit-learn), at least 1 and
    at most d; the entry of largest magnitude of a component is positive. The covariance is that of x - m, with m the
    mean in float32 (its rounding error is below that of the vectors): float32 sums over each tile, added in float64 in
    the order of the tiles. Bits do not depend on the number of devices.

    Args:
      variance: from 0 to 1; 1 returns all d directions.
    """
    mean, count = _mean(vectors), len(vectors)
    scatter = np.zeros((vectors.dim, vectors.dim))
    for start, products in _tiles(vectors, mean, (), _gram, mesh):
        for product in products[: -(-(count - start) // TILE)]:
            scatter += product
        progress("covariance", min(start + TILE * mesh.size, count), count)
    variances, directions = np.linalg.eigh(scatter / count)
    variances, directions = np.maximum(variances[::-1], 0.0), directions.T[::-1]
    total = variances.sum()
    ratio = variances / total if total > 0 else variances
    c = min(int(np.searchsorted(np.cumsum(ratio), variance, side="right")) + 1, vectors.dim) if total > 0 else 1
    largest = np.abs(directions).argmax(axis=1)
    sign = np.where(directions[np.arange(vectors.dim), largest] < 0, -1.0, 1.0)
    return Pca(mean, (directions * sign[:, None])[:c], ratio)


def project(vectors: Vectors, pca: Pca, mesh: Mesh, progress: Progress = silent) -> Float32[np.ndarray, "M c"]:
    """The coordinates of each point along the components, float32 on the host: (x - mean) components^T."""
    found, count = np.empty((len(vectors), len(pca.components)), np.float32), len(vectors)
    onto = pca.components.T.astype(np.float32)
    for start, tiles in _tiles(vectors, pca.mean, (onto,), _coordinates, mesh):
        end = min(start + TILE * mesh.size, count)
        found[start:end] = tiles.reshape(-1, tiles.shape[-1])[: end - start]
        progress("principal components", end, count)
    return found


def _mean(vectors: Vectors) -> np.ndarray:
    total = np.zeros(vectors.dim)
    for _, block in vectors.blocks(TILE):
        total += block.sum(axis=0, dtype=np.float64)
    return total / len(vectors)


def _gram(tile_TxD: Array) -> Array:
    return jnp.matmul(tile_TxD.T, tile_TxD, precision=jax.lax.Precision.HIGHEST)


def _coordinates(tile_TxD: Array, onto_DxC: Array) -> Array:
    return jnp.matmul(tile_TxD, onto_DxC, precision=jax.lax.Precision.HIGHEST)


def _tiles(
    vectors: Vectors, mean: np.ndarray, more: tuple[np.ndarray, ...], work: Callable[..., Array], mesh: Mesh
) -> Iterator[tuple[int, np.ndarray]]:
    """(first point, ``work`` of a centred tile on each device), tile after tile; the last is padded with zeros.

    A process reads the tiles of its own devices only.
    """
    centre, count = mean.astype(np.float32), len(vectors)
    sharding = NamedSharding(mesh, P(AXIS))

    def tile(index: Any) -> np.ndarray:
        first = start + (index[0].start or 0)
        rows = np.zeros((TILE, vectors.dim), np.float32)
        points = as_points(np.arange(first, max(first, min(first + TILE, count))))
        rows[: len(points)] = vectors.take(points) - centre
        return rows

    for start in range(0, count, TILE * mesh.size):
        rows = jax.make_array_from_callback((TILE * mesh.size, vectors.dim), sharding, tile)
        yield start, replicated(_each(rows, *more, work=work, mesh=mesh))


@partial(jax.jit, static_argnames=("work", "mesh"))
def _each(rows: Array, *more: Array, work: Callable[..., Array], mesh: Mesh) -> Array:
    def local(tile: Array, *more: Array) -> Array:
        return jax.lax.all_gather(work(tile, *more), AXIS)

    specs = (P(AXIS), *[P()] * len(more))
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)(rows, *more)
