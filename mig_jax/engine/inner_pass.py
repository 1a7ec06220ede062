"""Levels 2 and 3: picks among the candidates of a full pass, without looking at any other row.

    repeat                                                    level 2
      the first C2 of the C1 candidates, by their bounds; the cut is the later of level 1's and the last of these
      repeat                                                  level 3
        b = the first of the C2
        stop unless b comes at or before the cut              (then nothing outside can come before it)
        take b; x, phi'(x), y; the C2 again
    until level 2 has run without a pick and its cut is level 1's

A kernel that is not eager keeps bounds instead of gains: the row in front is looked at again, and taken only when it is
still in front with its present gain. Both orders are the same order, the naive greedy's.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mig_jax.engine.full_pass import Candidates, first
from mig_jax.engine.kernels import KERNELS, Row, State, gains
from mig_jax.engine.problem import Labels
from mig_jax.gain.gain import take
from mig_jax.gain.phi import Phi


class Picks(NamedTuple):
    """What one call picked, in order: ``row`` int32 ``[B]``, ``gain`` float32 ``[B]``, ``count`` of them filled."""

    row: Int[Array, " B"]
    gain: Float[Array, " B"]
    count: Int[Array, ""]


class Inner(NamedTuple):
    """The loop's carry. ``exhausted``: a full pass is needed. ``rounds`` counts level-2 rounds."""

    state: State
    candidates: Candidates
    picks: Picks
    exhausted: Bool[Array, ""]
    rounds: Int[Array, ""]


class Front(NamedTuple):
    """Level 3's carry over the C2 rows: gains or bounds (-1: picked), and which of them are of this state."""

    state: State
    gain: Float[Array, " C2"]
    fresh: Bool[Array, " C2"]
    picks: Picks
    going: Bool[Array, ""]


@partial(jax.jit, static_argnames=("kind", "c2", "size"), donate_argnames=("candidates",))
def inner_pass(
    labels: Labels,
    phi: Phi,
    state: State,
    candidates: Candidates,
    limit: Int[Array, ""],
    *,
    kind: str,
    c2: int,
    size: int,
) -> Inner:
    """Pick up to ``limit`` <= ``size`` rows, or until the candidates are exhausted."""
    picks = Picks(jnp.full(size, -1, jnp.int32), jnp.zeros(size, jnp.float32), jnp.int32(0))
    carry = Inner(state, candidates, picks, jnp.bool_(False), jnp.int32(0))
    c2 = min(c2, candidates.row.shape[0])
    return jax.lax.while_loop(
        lambda c: ~c.exhausted & (c.picks.count < limit), partial(_level_2, labels, phi, limit, kind, c2), carry
    )


def _level_2(labels, phi, limit, kind, c2, carry: Inner) -> Inner:
    kernel, (state, found, picks, _, rounds) = KERNELS[kind], carry
    bound = found.bound
    if kernel.eager:
        bound = jnp.where(bound < 0, -1.0, gains(kernel, phi, state, Row(found.labels, found.part, found.score)))
    value, at = first(bound, c2)
    last_row = take(found.row, at[-1])
    whole = c2 == found.row.shape[0]  # then only level 1 cuts
    later = (value[-1] > found.cut_gain) | ((value[-1] == found.cut_gain) & (last_row < found.cut_row))
    deeper = jnp.bool_(False) if whole else later
    cut_gain = jnp.where(deeper, value[-1], found.cut_gain)
    cut_row = jnp.where(deeper, last_row, found.cut_row)
    at = jnp.sort(at)
    rows = Row(*jax.tree.map(lambda a: a[..., at], (found.labels, found.part, found.score)))
    row = take(found.row, at)
    gone = take(bound, at) < 0
    front = Front(state, _masked(gone, gains(kernel, phi, state, rows)), jnp.ones(c2, bool), picks, jnp.bool_(True))
    step = partial(_level_3, labels, phi, kind, rows, row, cut_gain, cut_row)
    front = jax.lax.while_loop(lambda f: f.going & (f.picks.count < limit), step, front)
    found = found._replace(bound=bound.at[at].set(front.gain))
    # Where the first of them all gains nothing, nothing passes however deep the cut: going on would never end.
    exhausted = (~deeper | (value[0] <= 0)) & (front.picks.count == picks.count)
    return Inner(front.state, found, front.picks, exhausted, rounds + 1)


def _level_3(labels, phi, kind, rows: Row, row, cut_gain, cut_row, front: Front) -> Front:
    """Take the first row, or look at it again, or stop."""
    kernel = KERNELS[kind]
    b = jnp.argmax(front.gain)
    gain = front.gain[b]
    passes = (gain > 0) & ((gain > cut_gain) | ((gain == cut_gain) & (row[b] <= cut_row)))
    chosen = jax.tree.map(lambda a: a[..., b], rows)

    def take_it(front: Front) -> Front:
        state = kernel.absorb(labels, phi, front.state, chosen)
        count = front.picks.count
        picks = Picks(front.picks.row.at[count].set(row[b]), front.picks.gain.at[count].set(gain), count + 1)
        gone = (front.gain < 0).at[b].set(True)
        gain_C2 = _masked(gone, gains(kernel, phi, state, rows)) if kernel.eager else front.gain.at[b].set(-1.0)
        fresh = front.fresh if kernel.eager else jnp.zeros_like(front.fresh)
        return Front(state, gain_C2, fresh, picks, jnp.bool_(True))

    def look_again(front: Front) -> Front:
        gain_b = kernel.gain(phi, front.state, chosen)
        return front._replace(gain=front.gain.at[b].set(gain_b), fresh=front.fresh.at[b].set(True))

    def stop(front: Front) -> Front:
        return front._replace(going=jnp.bool_(False))

    if kernel.eager:
        return jax.lax.cond(passes, take_it, stop, front)
    choice = jnp.where(passes, jnp.where(front.fresh[b], 0, 1), 2)
    return jax.lax.switch(choice, (take_it, look_again, stop), front)


def _masked(gone: Bool[Array, " C"], gain: Float[Array, " C"]) -> Float[Array, " C"]:
    return jnp.where(gone, -1.0, gain)
