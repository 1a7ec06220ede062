"""Which rows may be picked: banned rows, quotas, and a budget of costs.

Within a phase a row that may not be picked never may again: a full quota stays full, a quota that has its minimum keeps
it, and the spent costs stay spent. So the heap drops such a row when it comes first, as if it were no row of the pool.
The gains of all other rows still only fall, so the greedy stays exact.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mig_jax.engine.problem import Tensor, csr_rows, power_of_two
from mig_jax.engine.scalar import at, put


class Rules(NamedTuple):
    """What does not change within a phase. N rows (points, or queue positions: see ``in_queue_order``); Q quotas.

    ``out`` bool ``[N]``: picked already, or banned. ``ptr`` int32 ``[N+1]``, ``idx`` int32 ``[Z]``: CSR of the quotas
    that a row counts towards. ``cost`` float64 ``[N]`` and ``budget`` float64, or None. ``minima``, bool: only rows of
    a quota below its minimum may be picked.
    """

    out: Tensor
    ptr: Tensor
    idx: Tensor
    cost: Tensor
    budget: Tensor
    minima: Tensor


class Remaining(NamedTuple):
    """What picks consume: int64 ``[Q]`` rows until a quota is full, and until it has its minimum; float64 ``spent``."""

    until_full: Tensor
    until_minimum: Tensor
    spent: Tensor


class Allowance(NamedTuple):
    """The rules of a phase, by point, and what remains at its start."""

    rules: Rules
    remaining: Remaining


def in_queue_order(allowance: Allowance, points: np.ndarray) -> Allowance:
    """The same rules by queue position; ``points`` int32 ``[N]`` is the point at each position.

    Quotas and ``idx`` are padded to a power of two, so that few shapes are compiled. There are at least two quotas, the
    second without rows: with one, XLA would see that no index is needed, drop ``idx`` from the native function, and
    abort (see scalar.py).
    """
    rules, remaining = allowance
    ptr, idx = csr_rows(rules.ptr, rules.idx, points)
    idx = np.pad(idx, (0, int(power_of_two(len(idx))) - len(idx)))
    slack = max(2, int(power_of_two(len(remaining.until_full)))) - len(remaining.until_full)
    most, least = (
        np.pad(remaining.until_full, (0, slack), constant_values=1),
        np.pad(remaining.until_minimum, (0, slack)),
    )
    cost = None if rules.cost is None else rules.cost[points]
    rules = Rules(rules.out[points], ptr.astype(np.int32), idx.astype(np.int32), cost, rules.budget, rules.minima)
    return Allowance(rules, Remaining(most, least, remaining.spent))


def pickable(rules: Rules, remaining: Remaining) -> np.ndarray:
    """Which rows may be picked in this state; bool ``[N]``, on the host."""
    free = ~rules.out
    if rules.cost is not None:
        free &= remaining.spent + rules.cost <= rules.budget
    if (full := remaining.until_full <= 0).any():
        free &= ~_counts_to(rules, full)
    return free & _counts_to(rules, remaining.until_minimum > 0) if rules.minima else free


def _counts_to(rules: Rules, quotas: np.ndarray) -> np.ndarray:
    """Whether a row counts towards any of these quotas (bool ``[Q]``)."""
    before = np.concatenate([[0], np.cumsum(quotas[rules.idx])])
    return before[rules.ptr[1:]] > before[rules.ptr[:-1]]


def may_pick(rules: Rules, remaining: Remaining, row: Any) -> Any:
    """``pickable`` for one row, in JAX."""

    def quota(e, flags):
        full, wanted = flags
        q = at(rules.idx, e)
        return full | (at(remaining.until_full, q) <= 0), wanted | (at(remaining.until_minimum, q) > 0)

    false = jnp.zeros((), bool)
    full, wanted = jax.lax.fori_loop(at(rules.ptr, row), at(rules.ptr, row + 1), quota, (false, false))
    free = ~at(rules.out, row) & ~full & (wanted | ~rules.minima)
    return free if rules.cost is None else free & (remaining.spent + at(rules.cost, row) <= rules.budget)


def consume(rules: Rules, remaining: Remaining, row: Any, picked: Any) -> Remaining:
    """What remains after a row, if it was ``picked``."""

    def quota(e, remaining):
        most, least = remaining
        q = at(rules.idx, e)
        return put(most, q, at(most, q) - 1), put(least, q, at(least, q) - 1)

    start = at(rules.ptr, row)
    stop = jnp.where(picked, at(rules.ptr, row + 1), start)
    most, least = jax.lax.fori_loop(start, stop, quota, (remaining.until_full, remaining.until_minimum))
    spent = remaining.spent if rules.cost is None else remaining.spent + jnp.where(picked, at(rules.cost, row), 0.0)
    return Remaining(most, least, spent)
