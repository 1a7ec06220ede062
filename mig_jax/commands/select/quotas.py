"""Quotas by the names of sources and labels: how many rows at least, and how many at most."""

import json
from collections.abc import Callable, Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np

from mig_jax.commands.select.config import LimitsConfig
from mig_jax.core.errors import UserError
from mig_jax.core.text import did_you_mean
from mig_jax.encode import Encoded
from mig_jax.pool import Pool
from mig_jax.samplers.limits import NO_MOST

OTHERS = "*"  # the quota of every name that has none of its own


def quotas_of(config: LimitsConfig, pool: Pool, encoded: Encoded, budgets: Sequence[int]):
    """(ptr, idx, names, most, least): those of sources first, then those of labels."""
    sources = _named(config.sources, "source", pool.source_names, budgets)
    labels = _named(config.labels, "label", encoded.labels, budgets)
    count = len(encoded)
    if not sources and not labels:
        return np.zeros(count + 1, np.int64), np.zeros(0, np.int64), (), None, None
    owners, quotas = [], []
    source_of = np.full(len(pool.source_names) + 1, -1, np.int64)  # the last: no source
    source_of[[*sources]] = np.arange(len(sources))
    mine = source_of[pool.source_idx[encoded.row]]
    owners.append(np.flatnonzero(mine >= 0))
    quotas.append(mine[mine >= 0])
    label_of = np.full(len(encoded.labels) + 1, -1, np.int64)
    label_of[[*labels]] = len(sources) + np.arange(len(labels))
    of_entry = label_of[encoded.label_idx]
    owners.append(np.repeat(np.arange(count), encoded.label_count)[of_entry >= 0])
    quotas.append(of_entry[of_entry >= 0])
    owner, quota = np.concatenate(owners), np.concatenate(quotas)
    order = np.argsort(owner, kind="stable")
    ptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))]).astype(np.int64)
    names = [f"source {pool.source_names[at]}" for at in sources] + [f"label {encoded.labels[at]}" for at in labels]
    bounds = [*sources.values(), *labels.values()]
    least, most = (np.array(part, np.int64) for part in zip(*bounds, strict=True))
    return ptr, quota[order].astype(np.int64), tuple(names), most, least


def _named(
    asked: dict[str, Any] | str, kind: str, names: Sequence[str], budgets: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """Number of the name -> (at least, at most)."""
    key = f"limits.{kind}s"
    if isinstance(asked, str):
        asked = _mapping(asked, key)
    number = {name: at for at, name in enumerate(names)}
    quotas: dict[int, tuple[int, int]] = {}
    for name, value in asked.items():
        bounds = _bounds(value, f"{key}.{name}", budgets)
        if name == OTHERS:
            continue
        if name not in number:
            hint = did_you_mean(name, [*names][:10_000])
            raise UserError(f"the pool has no such {kind}{hint}", key=f"{key}.{name}")
        quotas[number[name]] = bounds
    if OTHERS in asked:
        bounds = _bounds(asked[OTHERS], f"{key}.{OTHERS}", budgets)
        quotas |= {at: bounds for at in range(len(names)) if at not in quotas}
    return quotas


def _mapping(name: str, key: str) -> dict[str, Any]:
    try:
        quotas = json.loads(Path(name).expanduser().read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{error}", key=key, value=name, allowed="a mapping, or a JSON file that holds one") from None
    if not isinstance(quotas, dict):
        raise UserError(key=key, value=name, allowed="a file of one JSON object, name: rows")
    return quotas


def _bounds(value: Any, key: str, budgets: Sequence[int]) -> tuple[int, int]:
    """(at least, at most) of 500, of 0.1 (a share of n), or of {min: 100, max: 500}."""
    if isinstance(value, dict):
        if set(value) - {"min", "max"} or not value:
            allowed = "a number of rows, a share of n, or {min: A, max: B} of these"
            raise UserError(key=key, value=value, allowed=allowed)
        least = _number(value["min"], f"{key}.min", budgets, ceil) if value.get("min") is not None else 0
        most = _number(value["max"], f"{key}.max", budgets, floor) if value.get("max") is not None else int(NO_MOST)
        if least > most:
            raise UserError(f"its minimum {least} is above its maximum {most}", key=key)
        return least, most
    return 0, _number(value, key, budgets, floor)


def _number(value: Any, key: str, budgets: Sequence[int], rounded: Callable[[float], int]) -> int:
    if type(value) is int and value >= 0:
        return value
    if type(value) is float and 0 <= value <= 1:
        if len(budgets) != 1:
            raise UserError("a share needs one n; give a number of rows", key=key, value=value)
        return rounded(round(value * budgets[0], 6))  # 0.29 of 100 is 29, whatever float64 makes of it
    raise UserError(key=key, value=value, allowed="a whole number of rows >= 0, or a share of n from 0.0 to 1.0")
