"""A bound on the gain of every group, sharded, and the C groups with the largest bounds: the shortlist.

Each shard finds its own first C; one all_gather makes the first C of the whole pool, since shards hold consecutive
groups and top_k puts the lower index first among equals. No group outside the shortlist has a larger bound than the
last one on it, at this state or later, because gains only fall.

Every pass computes the first-order gain of all groups, in float32. It bounds the exact gain too, phi being concave. The
exact gain costs much more: it is computed for all groups at the start only (``exact_bounds``). After that a group's
bound is the lower of its first-order gain and the last gain that the heap evaluated.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from mig_jax.engine.problem import Bucket
from mig_jax.objective.phi import Phi
from mig_jax.objective.row_gain import exact_gain, first_order_sum, take

AXIS = "pool"
BLOCK = 8192  # rows whose exact gain is computed at once: the terms of all rows would be N x W floats


class Heads(NamedTuple):
    """Per group, float32 ``[S n]``: the score of its head (0: empty queue); for the exact gain also its bound."""

    score: Any
    bound: Any


class Changes(NamedTuple):
    """What changed since the last pass: groups ``[C]`` (padded with -1) and their new score and bound."""

    group: Any
    score: Any
    bound: Any


class TopGroups(NamedTuple):
    """The first C groups, int32, and their bounds before slack, float32, in falling order."""

    group: Int[Array, " C"]
    bound: Float[Array, " C"]


@partial(jax.jit, static_argnames=("shortlist_size", "mesh"), donate_argnames=("heads",))
def full_pass(
    y: Float[Array, " L1"],
    buckets: tuple[Bucket, ...],
    column: Int[Array, " S_n"],
    heads: Heads,
    changes: Changes,
    *,
    shortlist_size: int,
    mesh: Mesh,
) -> tuple[Heads, TopGroups]:
    """Apply the changes, compute the bounds from ``y`` and find the first ``shortlist_size`` groups.

    Args:
      y: the labels' gains, float32 ``[L+1]``.
      buckets, column, heads: sharded over the mesh; all else is replicated. ``column``: see ``Problem``.
    """
    specs = _by_row(buckets), P(AXIS), jax.tree.map(lambda _: P(AXIS), heads)
    sharded = jax.shard_map(
        partial(_local_pass, shortlist_size=shortlist_size, shards=mesh.shape[AXIS]),
        mesh=mesh,
        in_specs=(P(), *specs, P()),
        out_specs=(specs[2], P()),
        check_vma=False,  # the checker does not know that the list is equal on all shards after the all_gather
    )
    return sharded(y, buckets, column, heads, changes)


@partial(jax.jit, static_argnames=("mesh",))
def exact_bounds(
    phi: Phi, x: Float[Array, " L1"], buckets: tuple[Bucket, ...], column: Int[Array, " S_n"], *, mesh: Mesh
) -> Float[Array, " S_n"]:
    """The exact gain of every group's head at the mass x, in float32 ``[S n]``."""

    def local(phi, x, buckets, column):
        return take(jnp.concatenate([_exact_gains_in_blocks(phi, x, bucket) for bucket in buckets]), column)

    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=(P(), P(), _by_row(buckets), P(AXIS)), out_specs=P(AXIS), check_vma=False
    )
    return sharded(phi, x, buckets, column)


def _by_row(buckets: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
    return tuple(jax.tree.map(lambda a: P(*[None] * (a.ndim - 1), AXIS), bucket) for bucket in buckets)


def _local_pass(y, buckets, column, heads: Heads, changes: Changes, *, shortlist_size, shards):
    n = column.shape[0]
    base = jax.lax.axis_index(AXIS).astype(jnp.int32) * n
    in_shard = (changes.group >= base) & (changes.group < base + n)
    index = jnp.where(in_shard, changes.group - base, n)
    heads = Heads(
        heads.score.at[index].set(changes.score, mode="drop"),
        None if heads.bound is None else heads.bound.at[index].set(changes.bound, mode="drop"),
    )
    sums = [jax.vmap(first_order_sum, in_axes=(None, 1))(y, bucket.labels) for bucket in buckets]
    gain = take(jnp.concatenate(sums), column) * heads.score
    if heads.bound is not None:
        gain = jnp.minimum(gain, heads.bound)
    gain = jnp.where(heads.score > 0, gain, -1.0)
    local = min(shortlist_size, n)
    bound, best = largest(gain, local)
    group = base + best.astype(jnp.int32)
    if shards > 1:
        bound, group = (jax.lax.all_gather(a, AXIS, tiled=True) for a in (bound, group))
        bound, best = largest(bound, min(shortlist_size, shards * local))
        group = take(group, best)
    return heads, TopGroups(group, bound)


def largest(values: Float[Array, " N"], count: int) -> tuple[Float[Array, " C"], Int[Array, " C"]]:
    """The ``count`` largest values and their indices, the lower index first among equals.

    Without the barriers, indexing the result makes XLA miss its TopK and sort all N values (9 times the time). One
    barrier over both aborts under shard_map.
    """
    value, index = jax.lax.top_k(values, count)
    return jax.lax.optimization_barrier(value), jax.lax.optimization_barrier(index)


def _exact_gains_in_blocks(phi: Phi, x: Array, bucket: Bucket) -> Array:
    gains = jax.vmap(partial(exact_gain, phi, x), in_axes=(1, 1, 0))
    count = bucket.score.shape[0]
    if count <= BLOCK:
        return gains(*bucket)
    blocks = -(-count // BLOCK)
    last = count - BLOCK  # the last block overlaps the one before it

    def one_block(i):
        start = jnp.minimum(i * BLOCK, last)
        return gains(*jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, BLOCK, a.ndim - 1), bucket))

    gained = jax.lax.map(one_block, jnp.arange(blocks))
    return jnp.concatenate([gained[:-1].reshape(-1), gained[-1][blocks * BLOCK - count :]])
