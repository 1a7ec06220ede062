"""One selection, from arrays to its picks and their worth: shared by the command line and the Python API."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.commands.select.shares import LabelShares, Shares
from mig_jax.core.errors import UserError
from mig_jax.core.index import PointArray, as_points
from mig_jax.encode import Encoded
from mig_jax.objective import Certificate, Curve, certify, curve
from mig_jax.objective.pool_gains import exact_gains, first_order_gains, gains_and_tag_gains
from mig_jax.samplers import Order, Sampler, SamplingTask
from mig_jax.samplers.limits import Gate, first_allowed

CURVE_POINTS = 48
BestUnpicked = tuple[Int64[PointArray, " r"], Float64[np.ndarray, " r"], Sequence[Shares]]


@dataclass(frozen=True)
class Solved:
    """The picks of the largest budget and what they are worth. n picks.

    Args:
      order: the points, in the order of the picks.
      curve: E(D) after each pick, gains, labels that earned them.
      orders: budget -> its points, where they are not a prefix of ``order``; ``order_curves``: their curves.
      certificate: budget -> how far from the best selection it can be at most.
      random_objective: rows -> E(D) of a random pick of as many rows, under the same limits.
      random_within: rows and E(D) of the random pick within a budget of tokens; None: tokens are not limited.
      runners_up: points, gains at the end, and the labels that would earn them.
    """

    order: Order
    curve: Curve
    orders: dict[int, Int64[PointArray, " m"]]
    order_curves: dict[int, Curve]
    certificate: dict[int, Certificate]
    random_objective: dict[int, float]
    runners_up: BestUnpicked
    random_within: tuple[int, float] | None = None


def budgets_of(sampler: Sampler, asked: tuple[int, ...], encoded: Encoded, rows: int) -> tuple[int, ...]:
    """The budgets in rows: ``asked``; all usable rows where the sampler takes every row or tokens are the budget.

    Raises:
      UserError: a budget is not from 1 to the number of usable rows.
    """
    if sampler.takes_all or not asked:
        return (len(encoded),)
    for n in asked:
        if not 1 <= n <= len(encoded):
            reasons = ", ".join(f"{count} {reason}" for reason, count in encoded.dropped.items())
            message = f"the pool has {len(encoded)} usable rows of {rows}{f' ({reasons})' if reasons else ''}"
            raise UserError(message, key="n", value=n, allowed=f"from 1 to {len(encoded)}")
    return asked


def solve(
    sampler: Sampler,
    task: SamplingTask,
    budgets: tuple[int, ...],
    runners_up: int = 0,
    stage: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> Solved:
    """Sample the largest budget, and the others where a sampler's budgets are not nested; then judge the result.

    Args:
      budgets: in rows, ascending.
      runners_up: how many points outside the selection are reported.
      stage: a context for each of the two parts, "select" and "judge", that measures its time.
    """
    with stage("select"):
        order = sampler.sample(task, budgets[-1])
        smaller = () if sampler.nested(task) else budgets[:-1]
        fresh = replace(task, resume=None, on_snapshot=None)  # snapshots are of the largest budget
        orders = {n: as_points(sampler.sample(fresh, n).points) for n in smaller}
    with stage("judge"):
        return _judge(sampler, task, budgets, order, orders, runners_up)


def _judge(
    sampler: Sampler,
    task: SamplingTask,
    budgets: tuple[int, ...],
    order: Order,
    orders: dict[int, Int64[PointArray, " m"]],
    runners_up: int,
) -> Solved:
    encoded, p, phi = task.encoded, task.propagation, task.phi
    if not encoded.labels:  # E(D) is not known
        curves = {n: _no_curve(len(points)) for n, points in orders.items()}
        return Solved(order, _no_curve(len(order)), orders, curves, {}, {}, _no_runners_up())
    picks = as_points(order.points)
    largest = curve(encoded, p, phi, picks, task.gain if sampler.by_labels else None)
    if sampler.by_labels:  # gains in float64 by one formula: what is reported does not depend on the backend
        gains = largest.first_order if task.gain == "first_order" else largest.exact
        order = replace(order, gains=np.asarray(gains))
    curves = {n: curve(encoded, p, phi, points, None) for n, points in orders.items()}
    certificate = {}
    for n in budgets:
        task.progress("certificate", len(certificate), len(budgets))
        points = orders.get(n, as_points(picks[:n]))
        objective = curves[n].objective if n in curves else largest.objective[:n]
        certificate[n] = certify(encoded, p, phi, points, objective, limits=task.limit.feasible(n))
    # Another stream than that of the random sampler, which would otherwise be compared with itself.
    permutation = np.random.default_rng([task.seed, 1]).permutation(len(encoded))
    random_points = as_points(first_allowed(permutation, budgets[-1], task.limit))
    random_objective = curve(encoded, p, phi, random_points, None).objective
    within_tokens = None
    if task.limit.budget is not None and len(random_points):
        within_tokens = len(random_points), float(random_objective[-1])
    ranks = {int(r) for r in np.unique(np.geomspace(1, budgets[-1], CURVE_POINTS).round())} | set(budgets)
    ranks |= {len(order)} - {0}
    return Solved(
        order,
        largest,
        orders,
        curves,
        certificate,
        {r: float(random_objective[r - 1]) for r in sorted(ranks) if r <= len(random_objective)},
        _runners_up(task, picks, largest.x, runners_up) if sampler.by_labels else _no_runners_up(),
        within_tokens,
    )


def _no_curve(n: int) -> Curve:
    zeros, empty = np.zeros(n), np.zeros(0)
    return Curve(zeros, zeros, zeros, empty, np.zeros(n + 1, np.int64), empty.astype(np.int64), empty)


def _no_runners_up() -> BestUnpicked:
    return as_points(np.zeros(0, np.int64)), np.zeros(0), ()


def _runners_up(task: SamplingTask, picked: PointArray, x: np.ndarray, most: int) -> BestUnpicked:
    """The points outside with the largest gains at the end, equals in file order."""
    may = Gate(task.limit, picked).open()
    most = min(most, int(may.sum()))
    if not most:
        return _no_runners_up()
    of_all = first_order_gains if task.gain == "first_order" else exact_gains
    gains = np.where(may, of_all(task.encoded, task.propagation, task.phi, x), -1.0)
    best = as_points(np.argsort(-gains, kind="stable")[:most])
    gains, ptr, label, tag_gain = gains_and_tag_gains(task.encoded, task.propagation, task.phi, x, best, task.gain)
    return best, gains, LabelShares.of_gains(task.encoded.labels, ptr, label, tag_gain)
