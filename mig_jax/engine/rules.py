"""Which rows may be picked at all: rows that are out, quotas, and a budget that costs use up.

Within a phase a row that may not be picked never may again: a quota that is full stays full, one that has its minimum
keeps it, and what is spent stays spent. So the heap drops such a row when it comes first, as if it were no row of the
pool, and what is left of the pool still only gains less and less: the greedy stays exact.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mig_jax.engine.problem import Tensor, power_of_two, rows_of
from mig_jax.engine.scalar import at, put


class Rules(NamedTuple):
    """What does not change within a phase. N rows, in whatever order; Q quotas.

    ``out`` bool ``[N]``: in already, or never to be picked. ``ptr`` int32 ``[N+1]``, ``idx`` int32 ``[Z]``: CSR of the
    quotas that a row counts towards. ``cost`` float64 ``[N]`` and ``budget`` float64, or None. ``minima``, bool: only
    rows of a quota that has not reached its minimum may be picked.
    """

    out: Tensor
    ptr: Tensor
    idx: Tensor
    cost: Tensor
    budget: Tensor
    minima: Tensor


class Left(NamedTuple):
    """What picks use up: int64 ``[Q]`` rows until a quota is full, and until it has its minimum; float64 ``spent``."""

    most: Tensor
    least: Tensor
    spent: Tensor


class Allowance(NamedTuple):
    """The rules of a phase, by point, and what is left at its start."""

    rules: Rules
    left: Left


def laid_out(allowance: Allowance, rows: np.ndarray) -> Allowance:
    """The rules of these rows, in their order. Quotas and ``idx`` end in slack up to a power of two: few are compiled.

    At least two quotas, the second without rows: of one, XLA would see that no index is needed, drop ``idx`` from the
    native function, and abort (see scalar.py).
    """
    rules, left = allowance
    ptr, idx = rows_of(rules.ptr, rules.idx, rows)
    idx = np.pad(idx, (0, int(power_of_two(len(idx))) - len(idx)))
    slack = max(2, int(power_of_two(len(left.most)))) - len(left.most)
    most, least = np.pad(left.most, (0, slack), constant_values=1), np.pad(left.least, (0, slack))
    cost = None if rules.cost is None else rules.cost[rows]
    rules = Rules(rules.out[rows], ptr.astype(np.int32), idx.astype(np.int32), cost, rules.budget, rules.minima)
    return Allowance(rules, Left(most, least, left.spent))


def open_rows(rules: Rules, left: Left) -> np.ndarray:
    """Which rows may be picked now; bool ``[N]``, on the host."""
    free = ~rules.out
    if rules.cost is not None:
        free &= left.spent + rules.cost <= rules.budget
    if (full := left.most <= 0).any():
        free &= ~_counts_to(rules, full)
    return free & _counts_to(rules, left.least > 0) if rules.minima else free


def _counts_to(rules: Rules, quotas: np.ndarray) -> np.ndarray:
    """Whether a row counts towards any of these quotas (bool ``[Q]``)."""
    before = np.concatenate([[0], np.cumsum(quotas[rules.idx])])
    return before[rules.ptr[1:]] > before[rules.ptr[:-1]]


def may_pick(rules: Rules, left: Left, row: Any) -> Any:
    """Whether a row may be picked now: ``open_rows`` of one row, where the heap runs."""

    def quota(e, found):
        full, wanted = found
        q = at(rules.idx, e)
        return full | (at(left.most, q) <= 0), wanted | (at(left.least, q) > 0)

    nothing = jnp.zeros((), bool)
    full, wanted = jax.lax.fori_loop(at(rules.ptr, row), at(rules.ptr, row + 1), quota, (nothing, nothing))
    free = ~at(rules.out, row) & ~full & (wanted | ~rules.minima)
    return free if rules.cost is None else free & (left.spent + at(rules.cost, row) <= rules.budget)


def use_up(rules: Rules, left: Left, row: Any, picked: Any) -> Left:
    """What is left after a row, if it was ``picked``."""

    def quota(e, left):
        most, least = left
        q = at(rules.idx, e)
        return put(most, q, at(most, q) - 1), put(least, q, at(least, q) - 1)

    start = at(rules.ptr, row)
    stop = jnp.where(picked, at(rules.ptr, row + 1), start)
    most, least = jax.lax.fori_loop(start, stop, quota, (left.most, left.least))
    spent = left.spent if rules.cost is None else left.spent + jnp.where(picked, at(rules.cost, row), 0.0)
    return Left(most, least, spent)
