"""QDIT: greedy argmax_u (1 - alpha) * [d(A+u) - d(A)] + alpha * q(u) (arXiv 2311.14736, which has no official code).

d(A) = sum_j max(0, max_{i in A} cos(x_i, x_j)) over all rows j of the pool (facility location; without the 0 it would
not be submodular from the empty set), q the quality of a row. The paper states no scale for either: ``normalize``
divides d by the number of rows and scales q to [0, 1].
"""

from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float64, Int64

from mig_jax.core.errors import UserError
from mig_jax.core.index import PointArray, as_points
from mig_jax.engine import Snapshot, pool_mesh
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.limits import Gate
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, SamplingTask
from mig_jax.vectors.facility_location import FacilityLocation, grid_steps
from mig_jax.vectors.lazy_greedy import LISTED, LazyGreedy

EVERY = 32  # passes over the pool between two snapshots
GUARANTEE = "at least (1 - 1/e)/2 = 31.6 % of the best within the budget (Leskovec et al. 2007)"


class Options(SamplerOptions, frozen=True):
    score: str | None
    alpha: Annotated[float, msgspec.Meta(ge=0, le=1)]
    normalize: bool


class QditState(NamedTuple):
    """What a snapshot holds beside the picks of the greedy that runs.

    ``bounds``: of each point's gain, in steps. ``finished``: greedies that have ended, 0 or 1; ``first_points`` and
    ``first_gains``: the picks of the one that has ended (empty before).
    """

    bounds: Float64[np.ndarray, " M"]
    finished: Int64[np.ndarray, ""]
    first_points: Int64[PointArray, " f"]
    first_gains: Float64[np.ndarray, " f"]


class Objective(NamedTuple):
    """f(A) = weight * (coverage in steps) + sum of bonus; rows without a quality have no bonus and are not picked."""

    weight: float
    bonus: Float64[np.ndarray, " M"]
    pickable: Bool[np.ndarray, " M"]


class GreedyPicks(NamedTuple):
    """What one greedy took, in order, and how it worked."""

    points: Int64[np.ndarray, " n"]
    gains: Float64[np.ndarray, " n"]
    counts: dict[str, int]

    @property
    def value(self) -> float:
        """f of them."""
        return float(np.cumsum(self.gains)[-1]) if len(self.gains) else 0.0


def sample(task: SamplingTask, n: int, *, block: int | None = None, listed: int = LISTED, every: int = EVERY) -> Order:
    """The n points that the naive greedy picks, equals in file order; fewer where fewer have a quality or fit.

    A row without a quality is never picked, but is to be covered like all others. Quality below 0 is taken as it is
    (``normalize`` makes it at least 0); the greedy's guarantee of 1 - 1/e presumes that none is.

    With a budget of tokens there are two greedies, by gain and by gain per cost, and the better one is returned.
    Either alone may be as bad as one likes; the better is worth at least (1 - 1/e) / 2 of the best there is, where
    nothing but the budget ends them: no cap, no minimum, not n (Leskovec et al. 2007).

    Args:
      block, listed, every: rows looked at together, points kept in order, passes over the pool between two snapshots;
        they change no pick.

    Raises:
      UserError: no point has a quality, or the embeddings do not fit into memory.
    """
    assert task.vectors is not None
    objective = _objective(task, grid_steps(len(task.vectors)))
    coverage = FacilityLocation(task.vectors, task.mesh or pool_mesh(), block, task.progress)
    resume, done = task.resume, []
    if resume is not None and resume.state.finished:
        done.append(GreedyPicks(resume.state.first_points, resume.state.first_gains, {}))
    for cost in [None, task.limit.cost][len(done) : 2 if task.limit.budget is not None else 1]:
        done.append(_greedy(task, n, coverage, objective, cost, done, resume, listed, every))
        resume = None
    best = max(done, key=lambda picks: picks.value)  # the first of equals
    notes = _notes(task, n, objective, best, done)
    return Order(best.points, best.gains, "coverage and quality", best.counts, _why(task, objective, best), notes)


def _objective(task: SamplingTask, unit: float) -> Objective:
    options, quality = task.options, task.ranking
    assert quality is not None
    pickable = np.isfinite(quality)
    if not pickable.any():
        message = f"none of the {len(quality)} usable rows has a quality (sampler.score)"
        raise UserError(message, key="sampler", value="qdit")
    weight, quality = (1 - options.alpha) / unit, np.where(pickable, quality, 0.0)
    if options.normalize:
        low, high = quality[pickable].min(), quality[pickable].max()
        weight /= len(quality)
        quality = np.where(pickable, (quality - low) / (high - low if high > low else 1.0), 0.0)
    return Objective(weight, options.alpha * quality, pickable)


def _greedy(
    task: SamplingTask,
    n: int,
    coverage: FacilityLocation,
    objective: Objective,
    cost: Float64[np.ndarray, " M"] | None,
    done: list[GreedyPicks],
    resume: Snapshot | None,
    listed: int,
    every: int,
) -> GreedyPicks:
    """One greedy from the start or from ``resume``; its snapshots include what is ``done``."""
    points, gains = ([], []) if resume is None else (resume.points.tolist(), resume.gains.tolist())
    stage = "select" if cost is None else "select by gain per cost"
    coverage.restart()
    coverage.add(as_points(np.array(points, np.int64)))

    def keep() -> None:
        if not points:
            task.progress("gains of all rows", greedy.counts["evaluations"], len(objective.bonus))
        if task.on_snapshot is not None and greedy.counts["passes"] % every == 0:
            first = done[0][:2] if done else (np.zeros(0, np.int64), np.zeros(0))
            state = QditState(greedy.bounds.copy(), np.asarray(len(done)), as_points(first[0]), first[1])
            task.on_snapshot(Snapshot(as_points(np.array(points, np.int64)), np.array(gains, np.float64), state))

    def take(point: int) -> None:
        gain = greedy.gain(point)  # may evaluate gains, and so report the picks before this one
        points.append(point)
        gains.append(gain)
        greedy.pick(point)
        task.progress(stage, len(points), n)

    bounds = None if resume is None else resume.state.bounds
    greedy = LazyGreedy(coverage, objective.weight, objective.bonus, cost, bounds, keep, listed)
    for point in task.limit.first[len(points) : n].tolist():
        take(point)
    gate = Gate(task.limit, np.array(points, np.int64))
    allows = gate.allows if {"caps", "minima", "tokens"} & set(task.limit.kinds) else None
    for minima in gate.phases:
        gate.minima = minima
        greedy.restrict_to(objective.pickable & ~gate.out)
        while len(points) < n and (point := greedy.best(allows)) is not None:
            gate.take(point)
            take(point)
    return GreedyPicks(np.array(points, np.int64), np.array(gains), greedy.counts)


def _why(task: SamplingTask, objective: Objective, picks: GreedyPicks) -> list[str]:
    """Which part of its gain each pick owes to coverage and which to quality."""
    quality = objective.bonus[picks.points]
    parts = [f"coverage {g - q:.4g} + quality {q:.4g}" for g, q in zip(picks.gains, quality, strict=True)]
    forced = task.limit.why(min(len(picks.points), len(task.limit.first)), "")
    return forced + parts[len(forced) :]


def _notes(
    task: SamplingTask, n: int, objective: Objective, best: GreedyPicks, done: list[GreedyPicks]
) -> tuple[str, ...]:
    notes = []
    without = int((~objective.pickable).sum())
    if without:
        notes.append(f"{without:,} rows have no quality: they count as rows to cover, and none is picked")
    if len(done) > 1:
        kept, other = ("gain", "gain per cost") if best is done[0] else ("gain per cost", "gain")
        notes.append(
            f"of two greedies under the budget the one by {kept} is kept: its objective is {best.value:.6g},"
            f" that of the one by {other} {next(picks for picks in done if picks is not best).value:.6g}"
        )
        alone = set(task.limit.kinds) <= {"tokens", "exclude"} and all(len(picks.points) < n for picks in done)
        if alone and (objective.bonus >= 0).all():
            notes[-1] += f" ({GUARANTEE})"
    return tuple(notes)


QDIT = Sampler(
    sample,
    Options,
    nested=lambda task: "tokens" not in task.limit.kinds,
    needs=("ranking", "vectors"),
    state=QditState,
)
