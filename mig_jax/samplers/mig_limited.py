"""MIG under limits: the same greedy among the points that may be taken.

The points that are in already come first, and bring their mass. Then quotas get their minima: only points of a quota
that lacks rows may be taken. Then all others may, as long as no quota of theirs is full and they fit into the budget.

With a token budget two greedies run, and that with the larger E(D) is kept: one takes the largest gain, the other the
largest gain per cost. Either alone can be arbitrarily bad; by the exact gain the better of the two has at least
(1 - 1/e) / 2 of the best E(D) within the budget (Khuller, Moss & Naor 1999; Krause & Guestrin 2005), as long as nothing
but the budget ends them: no cap, no minimum, not n. The first-order gain is no gain of E(D): no such bound covers it.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.core.index import PointArray, as_points
from mig_jax.engine import Snapshot, State, greedy, make_problem, pool_mesh, warm_start
from mig_jax.objective import curve
from mig_jax.samplers.limits import Gate
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import SamplingTask

GUARANTEE = "at least (1 - 1/e)/2 = 31.6 % of the best within the budget (Khuller et al. 1999; Krause & Guestrin 2005)"


class TokenBudgetState(NamedTuple):
    """What a snapshot of one of the two greedies holds beside its picks.

    ``finished``: greedies that have ended, 0 or 1. ``n``: of the selection. ``first_points``, ``first_gains``: the
    picks of the greedy that has ended (empty before). ``engine``: the labels' state.
    """

    finished: Int64[np.ndarray, ""]
    n: Int64[np.ndarray, ""]
    first_points: Int64[PointArray, " f"]
    first_gains: Float64[np.ndarray, " f"]
    engine: State


class GreedyRun(NamedTuple):
    """A finished greedy. ``cut``: n ended it, and not that nothing could be taken any more."""

    points: np.ndarray
    gains: np.ndarray
    cut: bool
    counts: Counter


def sample_limited(task: SamplingTask, n: int) -> Order:
    """The points that the naive greedy picks among those that ``task.limit`` allows at each turn; n, or fewer where it
    allows no more. Where none of them gains anything the rest follow as without limits."""
    if task.limit.budget is not None:
        return _better(task, n)
    run = _run(task, n, None, task.resume, task.on_snapshot)
    return _order(task, run, run.counts)


def _run(
    task: SamplingTask,
    n: int,
    cost: np.ndarray | None,
    resume: Snapshot | None,
    on_snapshot: Callable[[Snapshot], None] | None,
) -> GreedyRun:
    """One greedy, by gain or, with a cost, by gain / cost. The points picked so far decide what a phase has left."""
    limits, mesh = task.limit, task.mesh or pool_mesh()
    problem = make_problem(task.encoded, task.propagation, task.phi, task.gain, mesh.size, cost)
    done = warm_start(problem, as_points(limits.first[:n]), mesh, task.heap_device) if resume is None else resume
    counts, cut = Counter(), False
    for minima in Gate(limits).phases:  # one that was over before an interruption is over at once
        gate = Gate(limits, done.points)
        gate.minima = minima
        found = greedy(
            problem,
            n,
            mesh,
            shortlist_size=task.shortlist_size,
            picks_per_call=task.picks_per_call,
            heap_device=task.heap_device,
            allowance=gate.allowance(),
            progress=task.progress,
            resume=done,
            on_snapshot=on_snapshot,
        )
        counts.update(found.counts)
        cut = len(found.points) >= n
        rest = _without_gain(task, found.points, minima, n - len(found.points))
        # What gains nothing brings mass only where phi is flat: the labels' state need not know of it.
        points, gains = np.concatenate([found.points, rest]), np.concatenate([found.gains, np.zeros(len(rest))])
        done = Snapshot(as_points(points), gains, found.state)
    return GreedyRun(done.points, done.gains, cut, counts)


def _without_gain(task: SamplingTask, taken: np.ndarray, minima: bool, most: int) -> np.ndarray:
    """Points that may still be taken though none gains anything: by score, or in file order with ``compat``."""
    gate = Gate(task.limit, taken)
    gate.minima = minima
    score = task.encoded.score
    ranked = np.arange(len(score)) if task.options.compat else np.argsort(-score, kind="stable")
    return gate.first_open(ranked, most) if most else np.zeros(0, np.int64)


def _better(task: SamplingTask, n: int) -> Order:
    """Both greedies of a token budget. A snapshot says which one runs and for which n, and holds the finished one."""
    cost = task.limit.cost
    assert cost is not None
    resume, plain = _resumed(task.resume, n)
    if plain is None:
        plain = _run(task, n, None, resume, _on_snapshot(task, 0, n, None))
        resume = None
    ratio = _run(task, n, cost, resume, _on_snapshot(task, 1, n, plain))
    worth = [_objective(task, as_points(run.points)) for run in (plain, ratio)]
    texts = [
        f"E(D) = {value:,.6g} with {cost[run.points].sum():,.0f} spent in {len(run.points):,} rows"
        for value, run in zip(worth, (plain, ratio), strict=True)
    ]
    kept, name = (ratio, "the latter") if worth[1] > worth[0] else (plain, "the former")
    note = f"token budget: the greedy by gain has {texts[0]}, the greedy by gain per cost {texts[1]}; {name} is kept"
    counts = plain.counts.copy()
    counts.update(ratio.counts)
    return _order(task, kept, counts, f"{note}; {_bound(task, ratio)}")


def _bound(task: SamplingTask, ratio: GreedyRun) -> str:
    """What is known of the better of the two."""
    if task.gain != "exact":
        return "no guarantee covers the first-order gain (sampler.gain=exact has one), see the certificate"
    if ratio.cut or {"caps", "minima"} & set(task.limit.kinds):
        return "no guarantee covers a budget beside quotas or n, see the certificate"
    return GUARANTEE


def _on_snapshot(task: SamplingTask, which: int, n: int, plain: GreedyRun | None) -> Callable[[Snapshot], None] | None:
    """Tells the task of a snapshot of one of the two greedies."""
    store = task.on_snapshot
    if store is None:
        return None
    before = (np.zeros(0, np.int64), np.zeros(0)) if plain is None else (plain.points, plain.gains)
    points, gains = as_points(before[0]), before[1]
    return lambda snapshot: store(
        Snapshot(
            snapshot.points,
            snapshot.gains,
            TokenBudgetState(np.asarray(which), np.asarray(n), points, gains, snapshot.state),
        )
    )


def _resumed(stored: Snapshot | None, n: int) -> tuple[Snapshot | None, GreedyRun | None]:
    """(snapshot that the running greedy resumes from, the first greedy if it is finished); none for another n."""
    if stored is None or stored.state.n != n:
        return None, None
    state: TokenBudgetState = stored.state
    at = Snapshot(stored.points, stored.gains, state.engine)
    return at, GreedyRun(state.first_points, state.first_gains, False, Counter()) if state.finished else None


def _tail(gains: np.ndarray) -> int:
    """How many of the last picks gained nothing."""
    some = np.flatnonzero(gains > 0)
    return len(gains) - (int(some[-1]) + 1 if len(some) else 0)


def _objective(task: SamplingTask, points: PointArray) -> float:
    worth = curve(task.encoded, task.propagation, task.phi, points, None).objective
    return float(worth[-1]) if len(worth) else 0.0


def _order(task: SamplingTask, run: GreedyRun, counts: Counter, *notes: str) -> Order:
    limits, reason = task.limit, "first-order gain" if task.gain == "first_order" else "exact gain"
    rounds = dict(counts) | {"picked_without_gain": _tail(run.gains)}
    return Order(run.points, run.gains, reason, rounds, limits.reasons(run.points, reason), notes)
