"""The engine measured on small pools, and rehearsed on one that is like the planned one in everything but size.

Two facts carry the prediction. What a run takes is nearly linear in counts:

    seconds = a + b G + passes (c + d G + e C1) + looks f + picks g           G queues, C1 candidates of a pass

fitted (all factors >= 0, relative errors) to runs of two sizes, two C1 and three n. And the greedy is nearly
self-similar: a pool with a k-th of the rows, labels, picks and candidates takes as many full passes, and as many looks
a pick up to a slow drift in log k. So the counts come from real runs at k and 2k, drawn on to k = 1.
"""

import math
import time
import tracemalloc
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from scipy.optimize import nnls

from mig_jax.commands.plan.memory import resident
from mig_jax.commands.select.solve import solve
from mig_jax.encode import Encoded
from mig_jax.engine import greedy, make_problem
from mig_jax.labels.label_graph import LabelGraph, Propagation
from mig_jax.objective import Phi
from mig_jax.samplers import Order, Sampler, SamplingTask
from mig_jax.samplers.configured import sampler_options

MOST_ROWS = {"first_order": 200_000, "exact": 80_000}  # of a measured pool
REHEARSED = 60_000  # rows that a rehearsal has at least, where the labels allow it
LONGEST_REHEARSAL = 300_000
FEWEST_LABELS = 150
JUDGED = 200_000  # rows: half of it is a block of mig_jax.objective.certificate, the unit of what it holds
FACTORS = ("fixed", "queue", "pass", "pass_queue", "pass_candidate", "look", "pick")


class Shape(NamedTuple):
    """What the engine's work depends on; ``phi`` as a jax pytree of numbers, ``c1`` as configured."""

    rows: int
    labels: int
    tags: float
    degree: float
    gain: str
    c1: int

    def scaled(self, k: float) -> "Shape":
        """A k-th of everything that counts; what a row looks like stays."""
        labels = min(self.labels, max(FEWEST_LABELS, round(self.labels / k)))
        return self._replace(rows=max(1, round(self.rows / k)), labels=labels, c1=max(16, round(self.c1 / k)))


def synthetic(shape: Shape, seed: int = 0) -> tuple[Encoded, Propagation]:
    """A pool as arrays, with a head of frequent labels and a long tail, and P of a graph of unequal degrees."""
    rng = np.random.default_rng([seed, 2504])
    rows, labels = shape.rows, shape.labels
    popularity = np.cumsum(1.0 / np.arange(1, labels + 1) ** 0.8)
    count = np.minimum(1 + rng.poisson(max(shape.tags - 1, 0.0), rows), 3 * math.ceil(shape.tags))
    drawn = np.searchsorted(popularity / popularity[-1], rng.random(count.sum())).clip(0, labels - 1)
    key = np.unique(np.repeat(np.arange(rows), count) * labels + rng.permutation(labels)[drawn])
    owner, label = key // labels, (key % labels).astype(np.int32)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=rows))]).astype(np.int64)
    score = rng.normal(4.0, 0.8, rows).clip(1, 6) * rng.normal(2.6, 0.8, rows).clip(1, 6)
    names = tuple(f"label {i:08d}" for i in range(labels))
    want = min(round(labels * shape.degree / 2), labels * (labels - 1) // 2)
    social = np.minimum(rng.lognormal(0.0, 0.8, labels), 5.0)
    ends = np.sort(rng.choice(labels, size=(3 * want, 2), p=social / social.sum()), axis=1)
    edge = np.unique(ends[ends[:, 0] < ends[:, 1]] @ np.array([labels, 1]))
    edge = np.sort(rng.permutation(edge)[:want])
    source, target = (edge // labels).astype(np.int32), (edge % labels).astype(np.int32)
    weight = rng.uniform(0.6, 0.95, len(edge)).astype(np.float32)
    graph = LabelGraph(names, np.ones(labels, np.float32), source, target, weight, 0.6)
    return Encoded(np.arange(rows), ptr, label, score, names, {}), graph.propagation()


def rehearse(shape: Shape, picks: int, phi: Phi, mesh: Mesh) -> dict[str, Any]:
    """Full passes and looks of the whole run, from runs of pools like it."""
    k = max(shape.rows / LONGEST_REHEARSAL, min(shape.rows / REHEARSED, shape.labels / FEWEST_LABELS), 1.0)
    found = []
    for scale in (k, 2 * k) if k > 1 else (k,):
        small = shape.scaled(scale)
        encoded, p = synthetic(small)
        problem = make_problem(encoded, p, phi, shape.gain, mesh.size)
        n = max(1, min(round(picks / scale), problem.num_points))
        counts = greedy(problem, n, mesh, shortlist_size=small.c1).counts
        found.append((counts["full_passes"], counts["looks"] / n))
    passes, looks = found[0]
    if len(found) > 1:
        looks = max(0.5 * looks, looks + (looks - found[1][1]) * math.log2(k))
    return {"passes": float(passes), "looks": float(looks * picks), "scale": k}


def measured_rows(shape: Shape) -> int:
    """Of the larger synthetic pool: beyond some size a planned pool is measured like any other."""
    wide = shape.tags * (shape.degree + 1) / 20 if shape.gain == "exact" else shape.tags / 4
    return min(shape.rows, max(4_000, round(MOST_ROWS[shape.gain] / max(1.0, wide))))


def measure_engine(shape: Shape, phi: Phi, mesh: Mesh, inner: str) -> dict[str, Any]:
    """Seconds and bytes of layout and engine: a row, a queue, a pass, a look and a pick."""
    most = measured_rows(shape)
    lines: list[list[float]] = []
    took: list[float] = []
    compiling, compiled, shares, found = [], [], [], {}
    for rows in sorted({max(1, most // 4), most}):
        encoded, p = synthetic(shape._replace(rows=rows))
        layout_s, problem = fastest(2, lambda e=encoded, p=p: make_problem(e, p, phi, shape.gain, mesh.size))
        queues = problem.groups.many
        shares.append((math.log(rows), queues / rows))
        few = max(16, shape.c1 // 16)
        for c1 in (few, shape.c1) if rows == most else (shape.c1,):
            run = partial(greedy, problem, mesh=mesh, shortlist_size=c1, heap_device=inner)
            before = resident()
            first_s, _ = fastest(1, lambda run=run: run(1))
            compiled.append(resident() - before)
            for n in sorted({1, max(1, rows // 100), max(1, rows // (10 if c1 == shape.c1 else 30))}):
                seconds, result = fastest(2, lambda run=run, n=n: run(n))
                if n == 1:
                    compiling.append(max(0.0, first_s - seconds))
                passes, looks = result.counts["full_passes"], result.counts["looks"]
                lines.append([1, queues, passes, passes * queues, passes * min(c1, queues), looks, n])
                took.append(seconds)
        found = {"layout": layout_s / rows} | _bytes(encoded, p, phi, shape.gain, mesh, problem)
    factors = fitted(np.array(lines), np.array(took))
    return found | {
        "factors": dict(zip(FACTORS, factors, strict=True)),
        "compile": float(np.median(compiling)),
        "compile_bytes": max(0, *compiled),
        "error": float(np.median(np.abs(np.array(lines) @ np.array(factors) / np.array(took) - 1))),
        "rows": most,
        "queues": shares,
    }


def measure_judge(shape: Shape, phi: Phi, mesh: Mesh, runners_up: int) -> dict[str, Any]:
    """Seconds of "judge" (fixed, a row, a pick) and its bytes (fixed, a row), of selections that the engine made."""
    points, sizes = [], []
    most = min(shape.rows, JUDGED)
    for rows in sorted({max(1, most // 2), most}):
        encoded, p = synthetic(shape._replace(rows=rows))
        task = SamplingTask(encoded, p, phi, sampler_options("mig", {"gain": shape.gain}), mesh=mesh)
        for n in sorted({max(1, rows // 50), max(1, rows // 8)} if rows == most else {max(1, rows // 50)}):
            order = greedy(make_problem(encoded, p, phi, "first_order", mesh.size), n, mesh).points
            known = Sampler(lambda task, n, order=order: _order(order), by_labels=True)
            points.append((1.0, rows, n, _judge_seconds(known, task, len(order), runners_up)))
            work = partial(solve, known, task, (len(order),), runners_up)
        sizes.append((rows, float(most_bytes(work))))
    table = np.array(points)
    return {
        "seconds": dict(zip(("fixed", "row", "pick"), fitted(table[:, :3], table[:, 3]), strict=True)),
        "bytes": through(sizes),
    }


def _order(points: np.ndarray) -> Order:
    return Order(points, np.zeros(len(points)), "first-order gain", {})


def _judge_seconds(sampler: Sampler, task: SamplingTask, n: int, runners_up: int) -> float:
    took = {}

    @contextmanager
    def stage(name: str):
        start = time.perf_counter()
        yield
        took[name] = time.perf_counter() - start

    return min(solve(sampler, task, (n,), runners_up, stage) and took["judge"] for _ in range(2))


def fitted(lines: np.ndarray, seconds: np.ndarray) -> list[float]:
    """Factors >= 0 with the least squares of relative errors; columns are brought to one scale first."""
    weight = 1 / (seconds + 0.003)
    scale = np.maximum(lines.max(0), 1e-30)
    found, _ = nnls(lines / scale * weight[:, None], seconds * weight)
    return (found / scale).tolist()


def through(points: list[tuple[float, float]]) -> list[float]:
    """(fixed, a unit) of the line through the first and the last point; through 0 where there is but one."""
    (small, a), (large, b) = points[0], points[-1]
    if large <= small or b <= a:
        return [0.0, b / max(large, 1)]
    slope = min((b - a) / (large - small), b / large)
    return [b - slope * large, slope]


def fastest(repeats: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """The least seconds, what other programs take of the machine left out; and what the work gave."""
    seconds, made = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        made = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), made


def _bytes(encoded: Encoded, p: Propagation, phi: Phi, gain: str, mesh: Mesh, problem: Any) -> dict[str, float]:
    """Bytes of the laid out pool, from its arrays, and the most that laying it out holds."""
    rows, queues = len(encoded), problem.groups.many
    groups = sum(a.nbytes for a in problem.groups if a is not None)
    buckets = sum(a.nbytes for a in jax.tree.leaves(problem.buckets)) + problem.where.nbytes
    return {
        "layout_bytes": most_bytes(lambda: make_problem(encoded, p, phi, gain, mesh.size)) / rows,
        "host_bytes": (groups + buckets) / rows,
        "device_bytes": buckets / queues,
    }


def most_bytes(work: Callable[[], Any]) -> int:
    """The most that numpy held at once for ``work`` beyond what it held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
