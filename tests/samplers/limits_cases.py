"""Limits for tests, and the naive greedy under them: a scan of all points for every pick, one rule after the other."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from oracle import Data, Naive

from mig_jax.samplers.limits import NO_MOST, Limits


class Quota(NamedTuple):
    points: list[int]
    least: int = 0
    most: int = int(NO_MOST)


def limits_of(
    points: int, *, first=(), started=0, banned=(), quotas: tuple[Quota, ...] = (), cost=None, budget=None
) -> Limits:
    """The same limits as arrays."""
    out = np.zeros(points, bool)
    out[list(banned)] = True
    mine = [[q for q, quota in enumerate(quotas) if point in quota.points] for point in range(points)]
    return replace(
        Limits.none(points),
        first=np.array(first, np.int64),
        started=started,
        banned=out,
        quota_ptr=np.cumsum([0, *map(len, mine)]).astype(np.int64),
        quota_idx=np.array([q for row in mine for q in row], np.int64),
        quota_names=tuple(f"quota {q}" for q in range(len(quotas))),
        most=np.array([quota.most for quota in quotas], np.int64),
        least=np.array([quota.least for quota in quotas], np.int64),
        cost=None if cost is None else np.asarray(cost, np.float64),
        budget=budget,
    )


def _allowed(point: int, picked: list[int], limits: Limits, quotas, minima: bool) -> bool:
    if point in picked or limits.banned[point]:
        return False
    if limits.budget is not None and sum(limits.cost[d] for d in picked) + limits.cost[point] > limits.budget:
        return False
    mine = [quota for quota in quotas if point in quota.points]
    counts = [sum(d in quota.points for d in picked) for quota in mine]
    if any(count >= quota.most for quota, count in zip(mine, counts, strict=True)):
        return False
    return not minima or any(count < quota.least for quota, count in zip(mine, counts, strict=True))


def assert_limited_greedy(
    data: Data, phi, gain: str, n: int, limits: Limits, quotas: tuple[Quota, ...], run, *, ratio=False, near=1e-6
) -> list[str]:
    """Every pick of ``run`` is the naive greedy's at that point of the run's own path; the phase of each pick.

    ``near``: keys nearer than this, relative to each other, are not told apart; 0: to the bit, the lowest of equals.
    """
    greedy = Naive(data, phi.kind, phi.a, phi.eps, 1.0, gain)
    able = np.array([bool(row) for row in data.labels]) & (data.score > 0)
    points, gains, phases = run.points.tolist(), run.gains.tolist(), []
    assert points[: len(limits.first)] == limits.first[:n].tolist()
    for rank, (point, found) in enumerate(zip(points, gains, strict=True)):
        gained = greedy.gains()
        if rank < len(limits.first):
            phases.append("first")
        else:
            allowed, phase = _turn(points[:rank], limits, quotas)
            assert allowed[point], f"rank {rank}: {point} is not allowed ({phase})"
            key = np.where(allowed & able, gained / limits.cost if ratio else gained, -1.0)
            if key.max() > 0:
                best = key[point] >= key.max() * (1 - near) if near else point == int(np.argmax(key))
                assert best, f"rank {rank}: {key[point]} picked, {key.max()} possible ({phase})"
                phases.append(phase)
            else:
                assert data.score[point] == data.score[allowed].max(), "the rest goes by score"
                assert point == np.flatnonzero(allowed & (data.score == data.score[point]))[0]
                phases.append(f"{phase}, without gain")
        np.testing.assert_allclose(found, gained[point] if able[point] else 0.0, rtol=1e-6, atol=1e-11)
        greedy.pick(point)
    assert len(points) == n or (len(points) < n and not _turn(points, limits, quotas)[0].any())
    return phases


def _turn(picked: list[int], limits: Limits, quotas) -> tuple[np.ndarray, str]:
    """Who may be picked now, and in which phase."""
    everybody = range(len(limits.banned))
    for minima in (True, False):
        allowed = np.array([_allowed(point, picked, limits, quotas, minima) for point in everybody])
        if allowed.any():
            break
    return allowed, "minima" if minima else "main"
