"""From ``limits.*`` to the points they mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mig_jax.commands.select.config import LimitsConfig
from mig_jax.commands.select.named_rows import find_points, find_rows, shown
from mig_jax.commands.select.quotas import quotas_of
from mig_jax.core.errors import UserError
from mig_jax.encode import Encoded
from mig_jax.pool import ABSENT, Pool
from mig_jax.samplers import Limits, Sampler
from mig_jax.samplers.limits import NO_MOST, Gate

_KEYS = {
    "first": "limits.warm_start and limits.include",
    "exclude": "limits.exclude",
    "caps": "a cap of limits.sources or limits.labels",
    "minima": "a minimum of limits.sources or limits.labels",
    "tokens": "limits.tokens",
}


def limits_of(config: LimitsConfig, pool: Pool, encoded: Encoded, budgets: Sequence[int]) -> Limits:
    """The limits of a selection.

    Args:
      budgets: the numbers of rows that will be selected; a share in a quota is one of the only budget.

    Raises:
      UserError: names the key; a row that is asked for and cannot be picked, a name that the pool does not have, minima
        that do not fit, rows without a cost.
    """
    points = np.full(len(pool), -1, np.int64)
    points[encoded.row] = np.arange(len(encoded))
    started = find_points(config.warm_start, "limits.warm_start", pool, points)
    included = [p for p in find_points(config.include, "limits.include", pool, points) if p not in set(started)]
    banned, notes = np.zeros(len(encoded), bool), ()
    if config.exclude is not None:
        key, value = "limits.exclude", shown(config.exclude)
        named = np.array(find_rows(config.exclude, key, pool, all_of=True), np.int64)
        rows = named[named >= 0]
        if len(named) and not len(rows):
            raise UserError(f"none of its {len(named)} rows is in the pool", key=key, value=value)
        banned[points[rows][points[rows] >= 0]] = True
        if len(rows) < len(named):
            notes = (f"limits.exclude: {len(named) - len(rows):,} of {len(named):,} rows are not in the pool",)
    first = np.array([*started, *included], np.int64)
    both = first[banned[first]]
    if len(both):
        row = pool.where(int(encoded.row[both[0]]))
        raise UserError(
            f"{row} is also in limits.warm_start or limits.include",
            key="limits.exclude",
            value=shown(config.exclude),
        )
    ptr, idx, names, most, least = quotas_of(config, pool, encoded, budgets)
    cost = None if config.tokens is None else _cost(config.cost, pool, encoded, banned)
    budget = None if config.tokens is None else float(config.tokens)
    limits = Limits(first, len(started), banned, ptr, idx, names, most, least, cost, budget, notes)
    _check(limits, config, budgets)
    return limits


def check_refused(sampler: Sampler, name: str, limits: Limits) -> None:
    """Raise UserError where a limit makes no sense for the sampler."""
    for kind in limits.kinds:
        if kind in sampler.refuses:
            raise UserError(f"sampler={name} cannot have it: {sampler.refuses[kind]}", key=_KEYS[kind])


def facts_of_limits(limits: Limits, points: np.ndarray) -> dict[str, Any]:
    """The limits as the manifest has them; empty without any."""
    facts: dict[str, Any] = {}
    if len(limits.first):
        facts |= {"earlier selection": limits.started, "must include": len(limits.first) - limits.started}
    if limits.banned.any():
        facts["excluded"] = int(limits.banned.sum())
    if limits.quota_names and limits.most is not None and limits.least is not None:
        counts = Gate(limits, points).counts
        facts["quotas"] = [
            {"name": name, "least": int(a), "most": None if b >= NO_MOST else int(b), "picked": int(n)}
            for name, a, b, n in zip(limits.quota_names, limits.least, limits.most, counts, strict=True)
        ][:1000]
    if limits.cost is not None:
        facts["tokens"] = {"budget": limits.budget, "spent": float(limits.cost[points].sum())}
    return facts


def _check(limits: Limits, config: LimitsConfig, budgets: Sequence[int]) -> None:
    """Raise UserError where the limits leave too few rows."""
    left = int((~limits.banned).sum())
    if not left:
        raise UserError("leaves no row", key="limits.exclude", value=shown(config.exclude))
    for n in budgets:
        if len(limits.first) > n:
            raise UserError(
                f"limits.warm_start and limits.include alone hold {len(limits.first)} rows", key="n", value=n
            )
        if n > left:
            raise UserError(f"limits.exclude leaves {left} rows", key="n", value=n, allowed=f"at most {left}")
    if limits.cost is not None and limits.budget is not None:
        spent, cheapest = float(limits.cost[limits.first].sum()), float(limits.cost[~limits.banned].min())
        if spent > limits.budget:
            message = f"limits.warm_start and limits.include alone cost {spent:,.0f}"
            raise UserError(message, key="limits.tokens", value=config.tokens)
        if cheapest > limits.budget:
            raise UserError(f"the shortest row costs {cheapest:,.0f}", key="limits.tokens", value=config.tokens)
    if not limits.quota_names or limits.most is None or limits.least is None:
        return
    open_count, first_count = Gate(limits, np.flatnonzero(~limits.banned)).counts, Gate(limits).counts
    by_source = np.array([name.startswith("source ") for name in limits.quota_names])
    for name, least, most, rows, first in zip(
        limits.quota_names, limits.least, limits.most, open_count, first_count, strict=True
    ):
        key = f"limits.{name.replace(' ', 's.', 1)}"
        if least > rows:
            raise UserError(f"{name} has {rows} rows that can be picked, and its minimum is {least}", key=key)
        if first > most:
            raise UserError(f"{name} may have {most} rows; limits.warm_start and .include hold {first}", key=key)
    needed = max(int(limits.least[by_source].sum()), int(limits.least.max()))
    if budgets and needed > min(budgets):
        message = f"the minima of limits.sources and limits.labels need {needed} rows"
        raise UserError(message, key="n", value=min(budgets))


def _cost(source: str, pool: Pool, encoded: Encoded, banned: np.ndarray) -> np.ndarray:
    """The cost of each point; float64 ``[M]``, > 0; 1 where it may not be picked."""
    if source == "tokens":
        cost = pool.tokens.astype(np.float64)
        missing, hint = pool.tokens < 0, "tokens are read from annotation.token_count, tokens or num_tokens; "
    elif source == "chars":
        cost, missing, hint = pool.chars.astype(np.float64), np.zeros(len(pool), bool), ""
    else:
        cost, missing, hint = pool.columns[source], pool.columns_state[source] == ABSENT, ""
    without = encoded.row[missing[encoded.row] & ~banned]
    if len(without):
        raise UserError(
            f"{len(without)} of {len(encoded)} usable rows have none, the first is {pool.where(int(without[0]))}"
            f" ({hint}limits.cost=chars counts characters, limits.cost=COLUMN reads another number)",
            key="limits.cost",
            value=source,
        )
    cost_of_points = np.where(banned, 1.0, cost[encoded.row])
    wrong = np.flatnonzero(~(np.isfinite(cost_of_points) & (cost_of_points > 0)))
    if len(wrong):
        row = pool.where(int(encoded.row[wrong[0]]))
        raise UserError(
            f"{row} costs {cost_of_points[wrong[0]]:g}; a cost must be a finite number above 0"
            f" ({len(wrong)} such rows; limits.exclude leaves rows out)",
            key="limits.cost",
            value=source,
        )
    return cost_of_points
