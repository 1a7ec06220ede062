"""Level 1: the gain of every row, sharded; the first C1 of them all, replicated.

Order rows by (gain descending, row ascending). Each shard finds its own first C1; one all_gather makes the first C1 of
the whole pool, since shards hold consecutive rows and top_k puts the lower index first among equals. The row at which
the list ends is the threshold: whatever is not on the list comes after it, and stays there, because gains only fall.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from mig_jax.engine.kernels import KERNELS, Row, State, gains
from mig_jax.engine.problem import Bucket, Tensor
from mig_jax.gain.gain import take
from mig_jax.gain.phi import Phi

AXIS = "pool"
BLOCK = 8192  # rows whose exact gain is in flight at once: the terms of all rows would be N x W floats


class Candidates(NamedTuple):
    """C rows in row order, with the threshold after which all other rows come.

    ``row`` int32 ``[C]``; ``labels`` and ``part`` ``[W, C]``; ``score`` float32 ``[C]``; ``bound`` float32 ``[C]``: the
    gain at the pass, an upper bound ever after (-1: picked, or padding); ``cut_gain`` float32 and ``cut_row`` int32.
    """

    row: Int[Array, " C"]
    labels: Int[Array, "W C"]
    part: Tensor
    score: Float[Array, " C"]
    bound: Float[Array, " C"]
    cut_gain: Float[Array, ""]
    cut_row: Int[Array, ""]


@partial(jax.jit, static_argnames=("kind", "c1", "mesh"), donate_argnames=("alive",))
def full_pass(
    phi: Phi,
    state: State,
    buckets: tuple[Bucket, ...],
    where: Int[Array, " S_n"],
    alive: Array,
    picked: Int[Array, " K"],
    *,
    kind: str,
    c1: int,
    mesh: Mesh,
) -> tuple[Array, Candidates]:
    """Mark ``picked`` rows (padded with -1) as gone and find the first ``c1`` rows at this state.

    ``buckets``, ``where`` and ``alive`` (bool ``[S n]``) are sharded over the mesh; everything else is replicated.
    """
    by_row = Bucket(P(None, AXIS), P(None, AXIS), P(AXIS))
    specs = tuple(by_row._replace(part=None if b.part is None else by_row.part) for b in buckets)
    sharded = jax.shard_map(
        partial(_local_pass, kind=kind, c1=c1, shards=mesh.shape[AXIS]),
        mesh=mesh,
        in_specs=(P(), P(), specs, P(AXIS), P(AXIS), P()),
        out_specs=(P(AXIS), P()),
        check_vma=False,  # candidates are equal everywhere after the all_gather, which the checker cannot see
    )
    return sharded(phi, state, buckets, where, alive, picked)


def _local_pass(phi, state, buckets, where, alive, picked, *, kind, c1, shards):
    n = where.shape[0]
    base = jax.lax.axis_index(AXIS).astype(jnp.int32) * n
    mine = (picked >= base) & (picked < base + n)
    alive = alive.at[jnp.where(mine, picked - base, n)].set(False, mode="drop")
    gain = jnp.concatenate([_bucket_gains(kind, phi, state, bucket) for bucket in buckets])
    bound = jnp.where(alive, take(gain, where), -1.0)
    value, index = first(bound, min(c1, n))
    found = _gather(buckets, where, value, index, base, pad=state.x.shape[0] - 1)
    if shards > 1:
        found = jax.tree.map(_all_gather, found)
        value, index = first(found.bound, min(c1, shards * min(c1, n)))
        found = jax.tree.map(lambda a: a if a.ndim == 0 else a[..., index], found)
    # A list that holds every row leaves nothing outside: then all of it may pass.
    cut_gain = jnp.float32(-1) if c1 >= shards * n else found.bound[-1]
    cut_row, order = found.row[-1], jnp.argsort(found.row)
    found = jax.tree.map(lambda a: a if a.ndim == 0 else a[..., order], found)
    return alive, found._replace(cut_gain=cut_gain, cut_row=cut_row)


def first(values: Float[Array, " N"], count: int) -> tuple[Float[Array, " C"], Int[Array, " C"]]:
    """The ``count`` largest, the lower index first among equals.

    Without the barriers, indexing the result makes XLA miss its TopK and sort all N values (9 times the time); as one
    barrier over both it aborts under shard_map.
    """
    value, index = jax.lax.top_k(values, count)
    return jax.lax.optimization_barrier(value), jax.lax.optimization_barrier(index)


def _bucket_gains(kind: str, phi: Phi, state: State, bucket: Bucket) -> Array:
    kernel, rows = KERNELS[kind], Row(*bucket)
    count = bucket.score.shape[0]
    if kind == "first_order" or count <= BLOCK:
        return gains(kernel, phi, state, rows)
    blocks = -(-count // BLOCK)
    last = count - BLOCK  # the last block overlaps the one before it: same rows, same bits

    def one(i):
        start = jnp.minimum(i * BLOCK, last)
        block = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, BLOCK, a.ndim - 1), rows)
        return gains(kernel, phi, state, block)

    whole = jax.lax.map(one, jnp.arange(blocks))
    return jnp.concatenate([whole[:-1].reshape(-1), whole[-1][blocks * BLOCK - count :]])


def _gather(buckets, where, value, index, base, pad) -> Candidates:
    """The rows at ``index`` of this shard, brought to the widest bucket's width."""
    column = take(where, index)
    widest = max(bucket.labels.shape[0] for bucket in buckets)
    rows: Any = None
    offset = 0
    for bucket in buckets:
        size = bucket.score.shape[0]
        here = jax.tree.map(lambda a: a[..., jnp.clip(column - offset, 0, size - 1)], bucket)  # noqa: B023
        missing = ((0, widest - bucket.labels.shape[0]), (0, 0))
        wide = Bucket(
            jnp.pad(here.labels, missing, constant_values=pad),
            None if here.part is None else jnp.pad(here.part, missing),
            here.score,
        )
        inside = (column >= offset) & (column < offset + size)
        rows = wide if rows is None else jax.tree.map(partial(jnp.where, inside), wide, rows)
        offset += size
    row = base + index.astype(jnp.int32)
    return Candidates(row, rows.labels, rows.part, rows.score, value, jnp.float32(-1), jnp.int32(0))


def _all_gather(a):
    """Shards laid end to end along the last axis."""
    if a.ndim == 0:
        return a
    return jax.lax.all_gather(a, AXIS, axis=a.ndim - 1, tiled=True)
