"""Pairs of similar labels: the cosine matrix is computed in tiles, of which only the edges are stored."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent

TILE = 2048
MOST_EDGES = 50_000_000  # 600 MB
GRID = 1e4  # an automatic threshold is rounded up to four decimals, so that the printed number gives the same graph


def cosine_edges(
    embeddings: Float[np.ndarray, "L d"], threshold: float, *, tile: int = TILE, progress: Progress = silent
) -> tuple[Int32[np.ndarray, " E"], Int32[np.ndarray, " E"], Float32[np.ndarray, " E"]]:
    """Every pair p < q with cos(p, q) >= threshold, as (p, q, cosine), sorted by (p, q).

    Args:
      embeddings: rows of unit length.

    Raises:
      UserError: there are more than ``MOST_EDGES`` pairs.
    """
    parts, num_edges = [], 0
    for start, other, cosine in _tiles(embeddings, tile, progress):
        parts.append(_edges(start, other, cosine, np.flatnonzero(cosine.reshape(-1) >= threshold)))
        num_edges += len(parts[-1][0])
        if num_edges > MOST_EDGES:
            raise UserError(
                f"more than {MOST_EDGES:,} pairs of the {len(embeddings):,} labels are neighbours: give a higher"
                " threshold, or auto",
                key="graph.threshold",
                value=threshold,
            )
    return _sorted(parts)


def densest_edges(
    embeddings: Float[np.ndarray, "L d"], degree: float, *, tile: int = TILE, progress: Progress = silent
) -> tuple[float, Int32[np.ndarray, " E"], Int32[np.ndarray, " E"], Float32[np.ndarray, " E"]]:
    """The threshold T at which labels have ``degree`` neighbours on average, and the edges at that T.

    One pass over the tiles collects the E = L degree / 2 largest cosines, with a lower bound that only rises. T is the
    least of them rounded up to four decimals, so the mean degree is ``degree`` or slightly less.
    """
    n = len(embeddings)
    count = min(round(n * degree / 2), n * (n - 1) // 2)
    if count < 1:
        return 1.0, *cosine_edges(embeddings, 1.0, tile=tile, progress=progress)
    cut = -np.inf
    edges: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    num_edges = 0
    for start, other, cosine in _tiles(embeddings, tile, progress):
        part = _edges(start, other, cosine, np.flatnonzero(cosine.reshape(-1) >= cut))
        edges.append(part)
        num_edges += len(part[0])
        if num_edges > 2 * count + 1_000_000:
            cut, edges = _largest(edges, count)
            num_edges = len(edges[0][0])
    cut, edges = _largest(edges, count)
    threshold = float(np.clip(np.ceil(float(cut) * GRID) / GRID, 0.0, 1.0))
    p, q, w = _sorted(edges)
    chosen = w >= threshold
    return threshold, p[chosen], q[chosen], w[chosen]


def self_cosines(embeddings: Float[np.ndarray, "L d"]) -> Float32[np.ndarray, " L"]:
    """w_pp as computed (1 up to rounding).

    Raises:
      UserError: a vector is not finite or not of unit length.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        squared = np.einsum("ld,ld->l", embeddings, embeddings, dtype=np.float64)
    wrong = np.flatnonzero(~(np.abs(squared - 1.0) < 1e-3))
    if len(wrong):
        raise UserError(
            f"label embedding {wrong[0]} has squared length {squared[wrong[0]]:.6g}; every embedding must be finite and"
            f" of unit length ({len(wrong)} of {len(embeddings)} are not)"
        )
    return squared.astype(np.float32)


@partial(jax.jit, static_argnames="size")
def _tile(rows_LxD: Array, start: Array, other: Array, size: int) -> Array:
    """Cosines of two blocks of labels, of one shape: one compilation for all L."""
    a_TxD = jax.lax.dynamic_slice_in_dim(rows_LxD, start, size)
    b_TxD = jax.lax.dynamic_slice_in_dim(rows_LxD, other, size)
    return jnp.matmul(a_TxD, b_TxD.T, precision=jax.lax.Precision.HIGHEST)


def _tiles(embeddings, tile, progress):
    """Yield (start, other, cosine) over the upper triangle; entries with p >= q and padding are -inf."""
    n = len(embeddings)
    tile = min(tile, max(8, 1 << (n - 1).bit_length()))
    blocks = -(-n // tile)
    rows_LxD = jnp.asarray(np.pad(np.asarray(embeddings, np.float32), ((0, blocks * tile - n), (0, 0))))
    below_or_on = np.tril(np.ones((tile, tile), bool))
    pairs = [(i, j) for i in range(blocks) for j in range(i, blocks)]
    for done, (i, j) in enumerate(pairs):
        cosine = np.array(_tile(rows_LxD, i * tile, j * tile, tile))
        if i == j:
            cosine[below_or_on] = -np.inf
        cosine[:, n - j * tile :] = -np.inf
        cosine[max(n - i * tile, 0) :, :] = -np.inf
        yield i * tile, j * tile, cosine
        progress("label graph", done + 1, len(pairs))


def _edges(start, other, cosine, flat):
    p, q = np.divmod(flat, cosine.shape[1])
    return (p + start).astype(np.int32), (q + other).astype(np.int32), cosine.reshape(-1)[flat]


def _largest(edges, count):
    """The ``count`` largest edges and those equal to the least of them; (the least cosine, the edges)."""
    p, q, w = (np.concatenate(column) for column in zip(*edges, strict=True))
    real = np.isfinite(w)
    p, q, w = p[real], q[real], w[real]
    if len(w) > count:
        cut = np.partition(w, len(w) - count)[len(w) - count]
        chosen = w >= cut
        return float(cut), [(p[chosen], q[chosen], w[chosen])]
    return (float(w.min()) if len(w) else -np.inf), [(p, q, w)]


def _sorted(parts):
    p, q, w = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((q, p))
    return p[order], q[order], w[order]
