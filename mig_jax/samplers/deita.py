"""DEITA: the best by complexity x quality that are not too similar to a better one (arXiv 2312.15685, algorithm 1;
hkust-nlp/deita @b279f2c).

Rows stand by their score, highest first, equals in file order; a row is taken where its largest cosine to the rows that
are in is ``threshold`` or less. So a row is looked at once, in blocks on the devices (``mig_jax.vectors.novelty``),
and one block is read while the devices are at the one before it.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Int16, Int64

from mig_jax.config.struct import Positive
from mig_jax.core.errors import UserError
from mig_jax.core.index import as_points
from mig_jax.engine import Snapshot, pool_mesh
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.limits import Gate
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, SamplingTask
from mig_jax.vectors.novelty import BLOCK, NO_COSINE, TILE, Block, BlockCosines, SelectedVectors, hundredths


class Options(SamplerOptions, frozen=True):
    score: str | None
    turns: Literal["mean", "sum"]
    threshold: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    compat: bool
    batch_size: Positive


class DeitaState(NamedTuple):
    """What a snapshot holds beside the picks.

    ``phase``, ``position``: see ``RankingState``; ``redecided``: cosines computed again in float64 so far. ``nearest``:
    hundredths of each pick's largest cosine to the picks before it; ``rejected``: points too similar to a pick.
    """

    phase: Int64[np.ndarray, ""]
    position: Int64[np.ndarray, ""]
    redecided: Int64[np.ndarray, ""]
    nearest: Int16[np.ndarray, " n"]
    rejected: Bool[np.ndarray, " M"]


@dataclass
class RankingState:
    """Where a selection stands.

    Args:
      points: the picks, those of ``limits.first`` included, in 64 bits.
      nearest: of each pick the hundredths of its largest cosine to those before it, in 16 bits.
      rejected: points that are too similar to one that is in; bool ``[M]``.
      phase, position: of the walk: which of the gate's phases, and the next place in the ranking.
    """

    points: array
    nearest: array
    rejected: np.ndarray
    phase: int = 0
    position: int = 0

    @classmethod
    def start(cls, task: SamplingTask) -> "RankingState":
        """From what is in already, or where an earlier process stopped."""
        if task.resume is None:
            first = array("q", task.limit.first.tolist())
            return cls(first, array("h", [hundredths(NO_COSINE)] * len(first)), np.zeros(len(task.encoded), bool))
        state: DeitaState = task.resume.state
        points, nearest = array("q", task.resume.points.tolist()), array("h", state.nearest.tolist())
        return cls(points, nearest, state.rejected.copy(), int(state.phase), int(state.position))

    def snapshot(self, score: np.ndarray, redecided: int) -> Snapshot:
        """What ``start`` resumes from."""
        points = as_points(np.array(self.points, np.int64))
        phase, position, redecided_so_far = map(np.asarray, (self.phase, self.position, redecided))
        nearest = np.array(self.nearest, np.int16)
        state = DeitaState(phase, position, redecided_so_far, nearest, self.rejected.copy())
        return Snapshot(points, _gains(score, points), state)


def sample(task: SamplingTask, n: int, *, block: int = BLOCK, tile: int = TILE) -> Order:
    """The first n of the ranking that are novel; fewer where the ranking ends. A vector of zeros is novel always.

    A threshold of 1 rejects nothing, not even equal vectors: the cosine is held to be 1 at most.

    ``block`` and ``tile``, of ``SelectedVectors``, do not change what is picked.

    Raises:
      UserError: no row has a score; a batch size without ``compat``, or with limits.
    """
    options, limit, score = task.options, task.limit, task.ranking
    assert score is not None and task.vectors is not None
    ranked = _ranked(task, score)
    if options.batch_size > 1 and not options.compat:
        message = "only the reference has it; give sampler.compat=true"
        raise UserError(message, key="sampler.batch_size", value=options.batch_size)
    if options.batch_size > 1 and limit.kinds:
        message = "the reference's batches know no limits"
        raise UserError(message, key="sampler.batch_size", value=options.batch_size, allowed=[1])
    picks = RankingState.start(task)
    block = -(-block // options.batch_size) * options.batch_size  # a batch is in one block
    kept = SelectedVectors(task.vectors, task.mesh or pool_mesh(), options.threshold, block, tile)
    kept.redecided = int(task.resume.state.redecided) if task.resume is not None else 0
    points = as_points(np.array(picks.points, np.int64))
    kept.add_points(points)
    gate = Gate(limit, points)
    for phase in range(picks.phase, len(gate.phases)):
        if phase > picks.phase:
            picks.phase, picks.position = phase, 0
        gate.minima = gate.phases[phase]
        _follow_ranking(task, n, ranked, gate, kept, picks)
    points, rejected = np.array(picks.points[:n], np.int64), int(picks.rejected.sum())
    looked = len(picks.points) - len(limit.first) + rejected
    return Order(
        points,
        _gains(score, points),
        "score",
        {"candidates": looked, "rejected": rejected, "redecided": kept.redecided},
        why=_why(task, score, points, picks.nearest),
        notes=_notes(score, rejected, options.threshold),
    )


def _ranked(task: SamplingTask, score: np.ndarray) -> np.ndarray:
    """The points that have a score, highest first, equals in file order."""
    scored = np.flatnonzero(~np.isnan(score))
    if not len(scored):
        raise UserError(
            f"none of the {len(score)} usable rows has a score"
            f" (sampler.score={task.options.score or 'null'}; it can name any numeric column)",
            key="sampler",
            value="deita",
        )
    return scored[np.argsort(-score[scored], kind="stable")]


def _follow_ranking(
    task: SamplingTask, n: int, ranked: np.ndarray, gate: Gate, kept: SelectedVectors, picks: RankingState
) -> None:
    """Go on through the ranking until n are picked or it ends."""
    batch = task.options.batch_size
    assert task.ranking is not None
    block, end = _read(kept, ranked, picks, gate, batch)
    while len(picks.points) < n and len(block.points):
        started = kept.compare(block)
        picks.position = end
        ahead, end = _read(kept, ranked, picks, gate, batch)
        kept.add(block, _novel(BlockCosines(kept, block, *started), n, gate, picks, batch))
        block = ahead
        task.progress("select", len(picks.points), n)
        if task.on_snapshot is not None:
            task.on_snapshot(picks.snapshot(task.ranking, kept.redecided))


def _novel(near: BlockCosines, n: int, gate: Gate, picks: RankingState, batch: int) -> list[int]:
    """The places of a block that are picked."""
    chosen = []
    for place, point in enumerate(near.block.points.tolist()):
        if len(picks.points) >= n:
            break
        if not gate.allows(point):
            continue
        cosine = near.cosine(place)
        if cosine > near.selected.threshold:
            picks.rejected[point] = True
            if batch > 1:
                near.compare_with(place, (place // batch + 1) * batch)
            continue
        near.compare_with(place)
        gate.take(point)
        chosen.append(place)
        picks.points.append(point)
        picks.nearest.append(hundredths(cosine))
    return chosen


def _read(kept: SelectedVectors, ranked: np.ndarray, picks: RankingState, gate: Gate, batch: int) -> tuple[Block, int]:
    """The next points that may be picked, and where in the ranking those after them begin."""
    start = picks.position
    if not gate.limits.kinds:
        # The reference has the first row for itself, and batches after it.
        end = min(start + (1 if start == 0 and batch > 1 else kept.block), len(ranked))
        return kept.read(as_points(ranked[start:end])), end
    found = []
    for end in range(start, len(ranked)):
        if len(found) == kept.block:
            return kept.read(as_points(np.array(found))), end
        point = int(ranked[end])
        if not picks.rejected[point] and gate.allows(point):
            found.append(point)
    return kept.read(as_points(np.array(found, np.int64))), len(ranked)


def _gains(score: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The scores of picks; 0 of one that had to be in and has none."""
    return np.nan_to_num(score[points], nan=0.0)


def _why(task: SamplingTask, score: np.ndarray, points: np.ndarray, nearest: array) -> Sequence[str]:
    why = task.limit.why(len(points), "")
    for i in range(len(task.limit.first), len(points)):
        why[i] = f"score {score[points[i]]:.4g}"
        if nearest[i] != hundredths(NO_COSINE):
            why[i] += f", nearest kept {nearest[i] / 100:.2f}"
    return why


def _notes(score: np.ndarray, rejected: int, threshold: float) -> tuple[str, ...]:
    unscored, notes = int(np.isnan(score).sum()), []
    if rejected:
        notes.append(
            f"{rejected:,} row{'s' * (rejected > 1)} rejected: too similar to a pick (cosine above {threshold:g})"
        )
    if unscored:
        notes.append(f"{unscored:,} row{'s' * (unscored > 1)} without a score could not be picked")
    return tuple(notes)


DEITA = Sampler(sample, Options, needs=("ranking", "vectors"), state=DeitaState)
