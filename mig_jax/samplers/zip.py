"""ZIP: the rows that compress worst together (arXiv 2407.06645; USTC-StarTeam/ZIP @f77b0b5).

g(X) = bytes of str(X) / bytes of zlib.compress(str(X), 9) of a list X of records; a low ratio says that they repeat
little. A round takes, by ratios s that start as s_i = g([i]):

  1. the k1 points of lowest s, for which s_i = g(selected + [i]) is computed again;
  2. of these the k2 of lowest s;
  3. of these one after the other the argmin of g(batch + [i]), the batch starting empty, until it has k3 points.

The batch is appended to the selected. Equal ratios: the lowest point.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from mig_jax.config.struct import NOT_IN_KEY, Positive
from mig_jax.core.errors import UserError
from mig_jax.core.index import as_points
from mig_jax.engine import Snapshot
from mig_jax.pool.decode import parse
from mig_jax.samplers.compression import Prefix, Records
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.limits import Gate
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, SamplingTask

SHAREGPT = {"user": "human", "assistant": "gpt"}
BLOCK = 1 << 13  # rows between two reports of progress
MOST = 16  # threads; what they do under the interpreter's lock would hold up more


class Options(SamplerOptions, frozen=True):
    """``record``: what of a row is compressed. "dialog": roles and texts, which is what a model is trained on; "whole":
    all its fields, ids and annotations included. ``workers``: threads; None: one for each core.

    ``compat`` copies the reference where it differs from the above: the whole record; ratios rounded to float32 before
    the lowest are taken; points of step 2 that step 3 leaves are never looked at again (else they return with the
    ratio of step 1). Three things stay: torch.topk's choice among equal ratios follows no rule, here it is the first;
    its file goes on to the end of the last round, here it ends at n; with fewer than k1 points left it goes over taken
    ones again, here it ends.
    """

    k1: Positive
    k2: Positive
    k3: Positive
    record: Literal["dialog", "whole"]
    workers: Annotated[Positive | None, NOT_IN_KEY]
    compat: bool


class ZipState(NamedTuple):
    """What a snapshot holds beside the picks; see ``_State``. ``ratio`` is float32 with ``compat``."""

    ratio: Float[np.ndarray, " M"]
    left: Bool[np.ndarray, " M"]
    rounds: Int64[np.ndarray, " r"]


@dataclass
class _State:
    """``ratio``: s of each point; ``left``: points that may still be looked at; ``rounds``: of each pick after those of
    ``limits.first``, the number of its round, from 1."""

    ratio: Float[np.ndarray, " M"]
    left: Bool[np.ndarray, " M"]
    points: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)

    def snapshot(self) -> Snapshot:
        state = ZipState(self.ratio.copy(), self.left.copy(), np.array(self.rounds, np.int64))
        return Snapshot(as_points(np.array(self.points, np.int64)), np.array(self.gains), state)


def sample(task: SamplingTask, n: int) -> Order:
    """n points, round after round; fewer where limits, ``compat`` or rows without a dialogue leave no more. A smaller n
    is a prefix: it only ends sooner.

    Raises:
      UserError: no row has a dialogue; the temporary file for the texts cannot be written.
    """
    options, limit = task.options, task.limit
    records, silent = _records(task)
    with ThreadPoolExecutor(options.workers or _cores()) as threads:
        state, selected = _start(task, records, silent, threads)
        gate = Gate(limit, np.array(state.points, np.int64))
        while len(state.points) < n:
            pool = _lowest_allowed(state, gate, options.k1)
            if not len(pool):
                break
            pool = pool if options.compat else np.sort(pool)  # equals of step 2 and 3 are in the order they are given
            state.ratio[pool] = selected.ratios(pool)
            final = pool[lowest(state.ratio[pool], options.k2)]
            final = final if options.compat else np.sort(final)
            points, gains = _batch(Prefix(records, threads), final, gate, min(options.k3, n - len(state.points)))
            state.left[final if options.compat else points] = False
            state.rounds += [1 + max(state.rounds, default=0)] * len(points)
            state.points += points
            state.gains += gains
            for point in points:
                selected.append(point)
            task.progress("select", len(state.points), n)
            if task.on_snapshot:
                task.on_snapshot(state.snapshot())
    why = limit.why(min(len(limit.first), n), "") + [f"round {number}" for number in state.rounds]
    return Order(
        np.array(state.points[:n], np.int64),
        np.array(state.gains[:n], np.float64),
        "compression ratio with the row (lower is better)",
        {"rounds": max(state.rounds, default=0)},
        why=why[:n],
        notes=(f"{silent.sum():,} rows without any text in a dialogue were left out",) if silent.any() else (),
    )


def lowest(values: Float[np.ndarray, " m"], k: int) -> Int64[np.ndarray, " k"]:
    """Positions of the k lowest, ascending, equals in the order they stand; all where there are no more."""
    near = np.arange(len(values))
    if k < len(values):
        near = np.flatnonzero(values <= np.partition(values, k - 1)[k - 1])
    return near[np.argsort(values[near], kind="stable")][:k]


def _lowest_allowed(state: _State, gate: Gate, k: int) -> Int64[np.ndarray, " k"]:
    """The k points of lowest ratio that may be taken now; those that may not are not looked at again."""
    while True:
        left = np.flatnonzero(state.left)
        found = left[lowest(state.ratio[left], k)]
        out = [point for point in found.tolist() if not gate.allows(point)]
        if not out:
            return found
        state.left[out] = False


def _batch(batch: Prefix, points: Int64[np.ndarray, " m"], gate: Gate, most: int) -> tuple[list[int], list[float]]:
    """Step 3: (points, their ratios), at most so many; the gate counts them."""
    picked: list[int] = []
    gains: list[float] = []
    while len(picked) < most:
        points = points[[gate.allows(point) for point in points.tolist()]]  # not those that were picked
        if not len(points):
            break
        ratios = batch.ratios(points)
        best = int(np.argmin(ratios))
        picked.append(int(points[best]))
        gains.append(float(ratios[best]))
        gate.take(picked[-1])
        batch.append(picked[-1])
    return picked, gains


def _start(task: SamplingTask, records: Records, silent: Bool[np.ndarray, " M"], threads: ThreadPoolExecutor):
    """(state, the selected rows as a prefix) of a snapshot, or from ``limits.first`` and s_i = g([i])."""
    selected = Prefix(records, threads)
    if task.resume:
        ratio, left, rounds = task.resume.state
        state = _State(
            ratio.copy(), left.copy(), task.resume.points.tolist(), task.resume.gains.tolist(), rounds.tolist()
        )
        for point in state.points:
            selected.append(point)
        return state, selected
    state = _State(np.zeros(len(records), np.float32 if task.options.compat else np.float64), ~silent)
    state.ratio[:] = _alone(task, records, threads)
    for point in task.limit.first.tolist():
        state.gains.append(float(selected.ratios(np.array([point]))[0]))
        state.points.append(point)
        selected.append(point)
    if task.on_snapshot:
        task.on_snapshot(state.snapshot())
    return state, selected


def _alone(task: SamplingTask, records: Records, threads: ThreadPoolExecutor) -> Float64[np.ndarray, " M"]:
    """g([i]) of every point."""
    nothing, ratios = Prefix(records, threads), np.zeros(len(records))
    for start in range(0, len(records), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(records)))
        ratios[block] = nothing.ratios(block)
        task.progress("compress", int(block[-1]) + 1, len(records))
    return ratios


def _records(task: SamplingTask) -> tuple[Records, Bool[np.ndarray, " M"]]:
    """The records, and which points have no text at all: as short as they are, they would compress worst."""
    assert task.rows is not None
    count = len(task.encoded)
    silent = np.zeros(count, bool)

    def whole(block: np.ndarray) -> Iterator[str]:
        assert task.rows is not None
        for raw in task.rows.raw(block):
            yield repr(parse(raw))

    def dialogs(block: np.ndarray) -> Iterator[str]:
        assert task.rows is not None
        for point, turns in zip(block.tolist(), task.rows.dialogs(block), strict=True):
            silent[point] = not any(content for _, content in turns)
            yield repr({"conversations": [{"from": SHAREGPT.get(r, r), "value": content} for r, content in turns]})

    def reported(read: Callable[[np.ndarray], Iterator[str]]) -> Iterator[str]:
        for done, record in enumerate(read(np.arange(count))):
            if done % BLOCK == 0:
                task.progress("read texts", done, count)
            yield record

    options = task.options
    try:
        records = Records(reported(whole if options.compat or options.record == "whole" else dialogs))
    except OSError as error:
        raise UserError(
            f"the texts of the pool go into a temporary file in {tempfile.gettempdir()},"
            f" which cannot be written: {error.strerror or error}; TMPDIR can name another folder",
            key="sampler",
            value="zip",
        ) from error
    if silent.all():
        message = f"none of the {count} usable rows has a dialogue; sampler.record=whole takes rows"
        raise UserError(message, key="sampler", value="zip")
    return records, silent


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST)


ZIP = Sampler(
    sample,
    Options,
    needs=("rows",),
    state=ZipState,
    refuses={"minima": "it takes rows for what they add to those of its own round, not quota by quota"},
)
