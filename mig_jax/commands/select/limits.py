"""From ``limits.*`` to the points they mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mig_jax.commands.select.config import LimitsConfig
from mig_jax.commands.select.named_rows import points_of, rows_of
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
    started = points_of(config.warm_start, "limits.warm_start", pool, points)
    included = [p for p in points_of(config.include, "limits.include", pool, points) if p not in set(started)]
    banned, notes = np.zeros(len(encoded), bool), ()
    if config.exclude is not None:
        asked = np.array(rows_of(config.exclude, "limits.exclude", pool, all_of=True), np.int64)
        rows = asked[asked >= 0]
        if len(asked) and not len(rows):
            raise UserError(f"limits.exclude={config.exclude}: none of its {len(asked)} rows is in the pool")
        banned[points[rows][points[rows] >= 0]] = True
        if len(rows) < len(asked):
            notes = (f"limits.exclude: {len(asked) - len(rows):,} of {len(asked):,} rows are not in the pool",)
    first = np.array([*started, *included], np.int64)
    both = first[banned[first]]
    if len(both):
        where = pool.where(int(encoded.row[both[0]]))
        raise UserError(
            f"limits.exclude={config.exclude}: {where} must be in too, by limits.warm_start or limits.include"
        )
    ptr, idx, names, most, least = quotas_of(config, pool, encoded, budgets)
    cost = None if config.tokens is None else _cost(config.cost, pool, encoded, banned)
    budget = None if config.tokens is None else float(config.tokens)
    limits = Limits(first, len(started), banned, ptr, idx, names, most, least, cost, budget, notes)
    _check(limits, config, budgets)
    return limits


def check_refused(sampler: Sampler, name: str, limits: Limits) -> None:
    """Raises UserError where a limit makes no sense for the sampler."""
    for kind in limits.kinds:
        if kind in sampler.refuses:
            raise UserError(f"{_KEYS[kind]}: sampler={name} cannot have it: {sampler.refuses[kind]}")


def facts_of_limits(limits: Limits, points: np.ndarray) -> dict[str, Any]:
    """What a manifest says of them; empty without any."""
    found: dict[str, Any] = {}
    if len(limits.first):
        found |= {"earlier selection": limits.started, "must include": len(limits.first) - limits.started}
    if limits.banned.any():
        found["excluded"] = int(limits.banned.sum())
    if limits.quota_names and limits.most is not None and limits.least is not None:
        counts = Gate(limits, points).counts
        found["quotas"] = [
            {"name": name, "least": int(a), "most": None if b >= NO_MOST else int(b), "picked": int(n)}
            for name, a, b, n in zip(limits.quota_names, limits.least, limits.most, counts, strict=True)
        ][:1000]
    if limits.cost is not None:
        found["tokens"] = {"budget": limits.budget, "spent": float(limits.cost[points].sum())}
    return found


def _check(limits: Limits, config: LimitsConfig, budgets: Sequence[int]) -> None:
    left = int((~limits.banned).sum())
    if not left:
        raise UserError(f"limits.exclude={config.exclude}: leaves no row")
    for n in budgets:
        if len(limits.first) > n:
            raise UserError(f"n={n}: limits.warm_start and limits.include alone hold {len(limits.first)} rows")
        if n > left:
            raise UserError(f"n={n}: limits.exclude leaves {left} rows; n can be at most that")
    if limits.cost is not None and limits.budget is not None:
        spent = float(limits.cost[limits.first].sum())
        if spent > limits.budget:
            raise UserError(
                f"limits.tokens={config.tokens}: limits.warm_start and limits.include alone cost {spent:,.0f}"
            )
        if not (limits.cost[~limits.banned] <= limits.budget).any():
            least = float(limits.cost[~limits.banned].min())
            raise UserError(f"limits.tokens={config.tokens}: the shortest row costs {least:,.0f}")
    if not limits.quota_names or limits.most is None or limits.least is None:
        return
    there, held = Gate(limits, np.flatnonzero(~limits.banned)).counts, Gate(limits).counts
    for at, name in enumerate(limits.quota_names):
        if limits.least[at] > there[at]:
            raise UserError(
                f"limits: {name} has {there[at]} rows that can be picked, and its minimum is {limits.least[at]}"
            )
        if held[at] > limits.most[at]:
            raise UserError(
                f"limits: {name} may have {limits.most[at]} rows; limits.warm_start and .include hold {held[at]}"
            )
    least = max(
        int(limits.least[[name.startswith("source ") for name in limits.quota_names]].sum()), limits.least.max()
    )
    if budgets and least > min(budgets):
        raise UserError(f"n={min(budgets)}: the minima of limits.sources and limits.labels need {least} rows")


def _cost(source: str, pool: Pool, encoded: Encoded, banned: np.ndarray) -> np.ndarray:
    """What each point costs; float64 ``[M]``, > 0; 1 where it cannot be picked anyway."""
    if source == "tokens":
        cost = pool.tokens.astype(np.float64)
        missing, told = pool.tokens < 0, "tokens are read from annotation.token_count, tokens or num_tokens; "
    elif source == "chars":
        cost, missing, told = pool.chars.astype(np.float64), np.zeros(len(pool), bool), ""
    else:
        cost, missing, told = pool.columns[source], pool.columns_state[source] == ABSENT, ""
    wrong = encoded.row[missing[encoded.row] & ~banned]
    if len(wrong):
        raise UserError(
            f"limits.cost={source}: {len(wrong)} of {len(encoded)} usable rows have none, the first is"
            f" {pool.where(int(wrong[0]))} ({told}limits.cost=chars counts characters, limits.cost=COLUMN reads another"
            " number)"
        )
    mine = np.where(banned, 1.0, cost[encoded.row])
    bad = np.flatnonzero(~(np.isfinite(mine) & (mine > 0)))
    if len(bad):
        row = int(encoded.row[bad[0]])
        raise UserError(
            f"limits.cost={source}: {pool.where(row)} costs {mine[bad[0]]:g}; a cost must be a finite number above 0"
            f" ({len(bad)} such rows; limits.exclude leaves rows out)"
        )
    return mine
