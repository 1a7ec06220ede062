"""One selection, from arrays to everything that can be said of it: shared by the command line and the Python API."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.commands.select.shares import LabelShares, Shares
from mig_jax.core.errors import UserError
from mig_jax.encode import Encoded
from mig_jax.objective import Certificate, Curve, certify, curve
from mig_jax.objective.certificate import exact_gains
from mig_jax.objective.information import first_order_gains, gains_at
from mig_jax.samplers import Order, Sampler, Task
from mig_jax.samplers.limits import Gate, walk

CURVE_POINTS = 48


@dataclass(frozen=True)
class Solved:
    """The picks of the largest budget and what they are worth. n picks.

    Args:
      order: the points, in the order of the picks.
      curve: E(D) after each pick, gains, labels that earned them.
      orders: the points of budgets that are no prefix; ``order_curves`` theirs.
      certificate: budget -> how far from the best it can be at most.
      random_objective: rows -> E(D) of a random pick of as many, under the same limits.
      random_within: rows and E(D) of the random pick that a budget of tokens ends; None: there is no such budget.
      runners_up: points, gains at the end, and the labels that would earn them.
    """

    order: Order
    curve: Curve
    orders: dict[int, Int64[np.ndarray, " m"]]
    order_curves: dict[int, Curve]
    certificate: dict[int, Certificate]
    random_objective: dict[int, float]
    runners_up: tuple[Int64[np.ndarray, " r"], Float64[np.ndarray, " r"], Sequence[Shares]]
    random_within: tuple[int, float] | None = None


def budgets_of(sampler: Sampler, asked: tuple[int, ...], encoded: Encoded, rows: int) -> tuple[int, ...]:
    """The budgets in rows: those asked for; all usable rows where the sampler takes them all, or tokens are the budget.

    Raises:
      UserError: a budget is no number of usable rows.
    """
    if sampler.whole or not asked:
        return (len(encoded),)
    check_budgets(asked, encoded, rows)
    return asked


def check_budgets(budgets: tuple[int, ...], encoded: Encoded, rows: int) -> None:
    """Raises UserError where a budget is no number of usable rows."""
    for n in budgets:
        if n < 1:
            raise UserError(f"n={n}: must be at least 1")
        if n > len(encoded):
            why = ", ".join(f"{count} {reason}" for reason, count in encoded.dropped.items())
            raise UserError(
                f"n={n}: the pool has {len(encoded)} usable rows of {rows}{f' ({why})' if why else ''};"
                " n can be at most that"
            )


def solve(
    sampler: Sampler,
    task: Task,
    budgets: tuple[int, ...],
    runners_up: int = 0,
    stage: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> Solved:
    """Sample the largest budget (and the others, where a sampler's budgets are not nested) and judge the result.

    ``stage(name)`` is entered around the two parts, "select" and "judge", for whoever times them.
    """
    with stage("select"):
        order = sampler.sample(task, budgets[-1])
        smaller = () if sampler.nested(task) else budgets[:-1]
        again = replace(task, resume=None, on_snapshot=None)  # what is kept is of the largest
        orders = {n: sampler.sample(again, n).points for n in smaller}
    with stage("judge"):
        return _judge(sampler, task, budgets, order, orders, runners_up)


def _judge(sampler: Sampler, task: Task, budgets: tuple[int, ...], order: Order, orders, runners_up: int) -> Solved:
    encoded, p, phi = task.encoded, task.propagation, task.phi
    if not encoded.labels:  # nothing is known of information
        curves = {n: _no_curve(len(points)) for n, points in orders.items()}
        return Solved(order, _no_curve(len(order)), orders, curves, {}, {}, _nobody())
    whole = curve(encoded, p, phi, order.points, task.gain if sampler.by_labels else None)
    curves = {n: curve(encoded, p, phi, points, None) for n, points in orders.items()}
    certificate = {}
    for n in budgets:
        task.progress("certificate", len(certificate), len(budgets))
        points = orders.get(n, order.points[:n])
        objective = curves[n].objective if n in curves else whole.objective[:n]
        certificate[n] = certify(encoded, p, phi, points, objective, limits=task.limit.feasible(n))
    # Another stream than the random sampler's own, which would else be compared with itself.
    drawn = np.random.default_rng([task.seed, 1]).permutation(len(encoded))
    random_points = walk(drawn, budgets[-1], task.limit)
    random_curve = curve(encoded, p, phi, random_points, None).objective
    within = None
    if task.limit.budget is not None and len(random_points):
        within = len(random_points), float(random_curve[-1])
    ranks = {int(r) for r in np.unique(np.geomspace(1, budgets[-1], CURVE_POINTS).round())} | set(budgets)
    ranks |= {len(order)} - {0}
    near = _runners_up(task, order.points, whole.x, runners_up) if sampler.by_labels else _nobody()
    return Solved(
        order,
        whole,
        orders,
        curves,
        certificate,
        {r: float(random_curve[r - 1]) for r in sorted(ranks) if r <= len(random_curve)},
        near,
        within,
    )


def _no_curve(n: int) -> Curve:
    zeros, none = np.zeros(n), np.zeros(0)
    return Curve(zeros, zeros, zeros, none, np.zeros(n + 1, np.int64), none.astype(np.int64), none)


def _nobody():
    return np.zeros(0, np.int64), np.zeros(0), ()


def _runners_up(task: Task, picked: np.ndarray, x: np.ndarray, most: int):
    """The points outside with the largest gains at the end, equals in file order."""
    left = Gate(task.limit, picked).open()
    most = min(most, int(left.sum()))
    if not most:
        return _nobody()
    of_all = first_order_gains if task.gain == "first_order" else exact_gains
    gains = np.where(left, of_all(task.encoded, task.propagation, task.phi, x), -1.0)
    best = np.argsort(-gains, kind="stable")[:most]
    gains, ptr, label, share = gains_at(task.encoded, task.propagation, task.phi, x, best, task.gain)
    return best, gains, LabelShares(task.encoded.labels, ptr, label, share)
