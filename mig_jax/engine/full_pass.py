"""A bound on the gain of every group, sharded, and the C groups with the largest bounds: the shortlist.

Each shard finds its own first C; one all_gather makes the first C of the whole pool, since shards hold consecutive
groups and top_k puts the lower index first among equals. No group outside the list has a larger bound than the last
one on it, now or later, because gains only fall.

The first-order gain of all groups is computed in every pass, in float32. It is above the exact gain too, phi being
concave; that one is so dear that it is only computed for all at the start; after that each group keeps the last gain
that was seen of it, and the lower of the two is its bound.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from mig_jax.engine.problem import Bucket
from mig_jax.objective.gain import exact_gain, labels_sum, take
from mig_jax.objective.phi import Phi

AXIS = "pool"
BLOCK = 8192  # rows whose exact gain is in flight at once: the terms of all rows would be N x W floats


class Heads(NamedTuple):
    """Of every group, float32 ``[S n]``: its head's score (0: the queue is empty); exact gain only, its bound."""

    score: Any
    bound: Any


class News(NamedTuple):
    """What the last picks changed: groups ``[C]`` (padded with -1) and their new score and bound."""

    group: Any
    score: Any
    bound: Any


class Shortlist(NamedTuple):
    """The first C groups, int32, and their bounds before slack, float32, in falling order."""

    group: Int[Array, " C"]
    bound: Float[Array, " C"]


@partial(jax.jit, static_argnames=("shortlist_size", "mesh"), donate_argnames=("heads",))
def full_pass(
    y: Float[Array, " L1"],
    buckets: tuple[Bucket, ...],
    where: Int[Array, " S_n"],
    heads: Heads,
    news: News,
    *,
    shortlist_size: int,
    mesh: Mesh,
) -> tuple[Heads, Shortlist]:
    """Take in the news, compute the bounds from ``y`` and find the first ``shortlist_size`` groups.

    ``buckets``, ``where`` and ``heads`` are sharded over the mesh; everything else is replicated.
    """
    specs = _by_row(buckets), P(AXIS), jax.tree.map(lambda _: P(AXIS), heads)
    sharded = jax.shard_map(
        partial(_local_pass, shortlist_size=shortlist_size, shards=mesh.shape[AXIS]),
        mesh=mesh,
        in_specs=(P(), *specs, P()),
        out_specs=(specs[2], P()),
        check_vma=False,  # the list is equal everywhere after the all_gather, which the checker cannot see
    )
    return sharded(y, buckets, where, heads, news)


@partial(jax.jit, static_argnames=("mesh",))
def first_bounds(
    phi: Phi, x: Float[Array, " L1"], buckets: tuple[Bucket, ...], where: Int[Array, " S_n"], *, mesh: Mesh
) -> Float[Array, " S_n"]:
    """The exact gain of every group at the mass x, in float32."""

    def local(phi, x, buckets, where):
        return take(jnp.concatenate([_exact_gains(phi, x, bucket) for bucket in buckets]), where)

    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=(P(), P(), _by_row(buckets), P(AXIS)), out_specs=P(AXIS), check_vma=False
    )
    return sharded(phi, x, buckets, where)


def _by_row(buckets: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
    return tuple(jax.tree.map(lambda a: P(*[None] * (a.ndim - 1), AXIS), bucket) for bucket in buckets)


def _local_pass(y, buckets, where, heads: Heads, news: News, *, shortlist_size, shards):
    n = where.shape[0]
    base = jax.lax.axis_index(AXIS).astype(jnp.int32) * n
    mine = (news.group >= base) & (news.group < base + n)
    place = jnp.where(mine, news.group - base, n)
    heads = Heads(
        heads.score.at[place].set(news.score, mode="drop"),
        None if heads.bound is None else heads.bound.at[place].set(news.bound, mode="drop"),
    )
    sums = [jax.vmap(labels_sum, in_axes=(None, 1))(y, bucket.labels) for bucket in buckets]
    gain = take(jnp.concatenate(sums), where) * heads.score
    if heads.bound is not None:
        gain = jnp.minimum(gain, heads.bound)
    gain = jnp.where(heads.score > 0, gain, -1.0)
    local = min(shortlist_size, n)
    bound, index = first(gain, local)
    group = base + index.astype(jnp.int32)
    if shards > 1:
        bound, group = (jax.lax.all_gather(a, AXIS, tiled=True) for a in (bound, group))
        bound, index = first(bound, min(shortlist_size, shards * local))
        group = take(group, index)
    return heads, Shortlist(group, bound)


def first(values: Float[Array, " N"], count: int) -> tuple[Float[Array, " C"], Int[Array, " C"]]:
    """The ``count`` largest, the lower index first among equals.

    Without the barriers, indexing the result makes XLA miss its TopK and sort all N values (9 times the time); as one
    barrier over both it aborts under shard_map.
    """
    value, index = jax.lax.top_k(values, count)
    return jax.lax.optimization_barrier(value), jax.lax.optimization_barrier(index)


def _exact_gains(phi: Phi, x: Array, bucket: Bucket) -> Array:
    gains = jax.vmap(partial(exact_gain, phi, x), in_axes=(1, 1, 0))
    count = bucket.score.shape[0]
    if count <= BLOCK:
        return gains(*bucket)
    blocks = -(-count // BLOCK)
    last = count - BLOCK  # the last block overlaps the one before it

    def one(i):
        start = jnp.minimum(i * BLOCK, last)
        return gains(*jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, BLOCK, a.ndim - 1), bucket))

    whole = jax.lax.map(one, jnp.arange(blocks))
    return jnp.concatenate([whole[:-1].reshape(-1), whole[-1][blocks * BLOCK - count :]])
