"""Pools for the engine's tests: a few fixed shapes, so that few programs are compiled, filled by a drawn seed.

A shape is the number of tags of every row, the rows whose score is 0, and which labels are joined. Scores, weights,
phi's numbers and (where that keeps the widths) labels are drawn.
"""

from typing import NamedTuple

import jax
import numpy as np
from oracle import Data, Naive, random_labels, random_scores, random_w

from mig_jax.encode import Encoded
from mig_jax.engine import Result, greedy, make_problem, pool_mesh
from mig_jax.labels import LabelGraph
from mig_jax.objective import Phi

FLOAT32 = 1e-6  # gains nearer than this, relative to the largest, cannot be told apart in float32


class Shape(NamedTuple):
    tags: tuple[int, ...]
    zero: tuple[int, ...]
    labels: int
    edges: tuple[tuple[int, int], ...]


class Size(NamedTuple):
    """How the engine is asked to go about it."""

    shards: int
    shortlist_size: int
    picks_per_call: int


def _web() -> tuple[tuple[int, int], ...]:
    """A hub with 10 neighbours (a degree class of its own), a triangle, a chain, and labels on their own."""
    hub = tuple((0, k) for k in range(1, 11))
    return (*hub, (11, 12), (12, 13), (11, 13), (14, 15), (15, 16), (16, 17))


SHAPES = {
    "separate": Shape((1, 2, 0, 3, 1, 4, 2, 2, 1, 0, 1, 3) * 3, (1, 7, 20), 7, ()),
    "web": Shape((1, 2, 9, 3, 0, 4, 2, 18, 1, 5, 1, 3, 2) * 5, (3, 11, 40, 41), 24, _web()),
    "full": Shape((1, 2, 3, 1, 4) * 6, (0, 29), 6, tuple((p, q) for p in range(6) for q in range(p + 1, 6))),
    "one label": Shape((1,) * 17, (4,), 1, ()),
    "one row": Shape((2,), (), 3, ((0, 2),)),
}


class Case(NamedTuple):
    data: Data
    encoded: Encoded
    graph: LabelGraph
    phi: Phi
    alpha: float

    @property
    def candidates(self) -> int:
        return int(((self.encoded.label_count > 0) & (self.encoded.score > 0)).sum())


def fill(shape: Shape, seed: int, style: str, phi: Phi, alpha: float, *, same_labels: bool) -> Case:
    """``same_labels``: the rows' labels are the shape's, and not drawn. Every third row repeats the one before it."""
    rng = np.random.default_rng(seed)
    labels = list(random_labels(np.random.default_rng(0) if same_labels else rng, shape.tags, shape.labels))
    score = random_scores(rng, style, len(labels))
    for row in range(2, len(labels), 3):
        if shape.tags[row] == shape.tags[row - 1]:
            labels[row], score[row] = labels[row - 1], score[row - 1]
    score[list(shape.zero)] = 0.0
    return case(tuple(labels), score, random_w(rng, np.array(shape.edges).reshape(-1, 2), shape.labels), phi, alpha)


def case(labels, score: np.ndarray, w: np.ndarray, phi: Phi, alpha: float) -> Case:
    """The same pool as the oracle's dense data and as mig_jax's arrays."""
    names = tuple(f"{i:05d}" for i in range(len(w)))
    p, q = np.nonzero(np.triu(w, 1))
    graph = LabelGraph(names, np.diag(w).copy(), p.astype(np.int32), q.astype(np.int32), w[p, q], 0.3)
    ptr = np.cumsum([0, *map(len, labels)]).astype(np.int64)
    idx = np.array([label for row in labels for label in row], np.int32)
    encoded = Encoded(np.arange(len(labels)), ptr, idx, score, names, {})
    return Case(Data(tuple(labels), score, w), encoded, graph, phi, alpha)


def run(case: Case, n: int, kind: str, size: Size, **more) -> Result:
    """The engine on simulated devices."""
    problem = make_problem(case.encoded, case.graph.propagation(case.alpha), case.phi, kind, size.shards)
    mesh = pool_mesh(jax.devices()[: size.shards])
    return greedy(problem, n, mesh, shortlist_size=size.shortlist_size, picks_per_call=size.picks_per_call, **more)


def naive(case: Case, kind: str, dtype=np.float64) -> Naive:
    return Naive(case.data, case.phi.kind, case.phi.a, case.phi.eps, case.alpha, kind, dtype)


def assert_greedy(case: Case, found: Result, n: int, kind: str) -> None:
    """Every pick is the naive greedy's at that point of the engine's own path, as far as float32 can tell."""
    oracle = naive(case, kind)
    assert len(np.unique(found.points)) == len(found.points) <= n
    # Naive differences phi(x + d) - phi(x) cancel: their error in float64 is relative to phi, not to them.
    cancelled = 1e-13 * oracle.objective()
    scale = 0.0
    for step, (point, gain) in enumerate(zip(found.points.tolist(), found.gains.tolist(), strict=True)):
        gains = oracle.gains()
        best = gains.max()
        scale = max(scale, best)
        assert gains[point] >= best * (1 - FLOAT32) - cancelled, f"step {step}: {gains[point]} picked, {best} possible"
        # Gains near the end of float32's range (exp) have few bits left.
        np.testing.assert_allclose(gain, gains[point], rtol=3e-5, atol=1e-30 + cancelled, err_msg=f"step {step}")
        oracle.pick(point)
        cancelled = 1e-13 * (abs(oracle.objective()) + scale)
    if len(found.points) < min(n, case.candidates):
        assert oracle.gains().max() < 1e-36, "it stopped although a row would still gain"
    _assert_equals_in_row_order(case, found)


def _assert_equals_in_row_order(case: Case, found: Result) -> None:
    """Rows alike in labels and score have equal gains always: the lower must be picked first, exactly."""
    groups: dict = {}
    for row, labels in enumerate(case.data.labels):
        if labels and case.data.score[row] > 0:
            groups.setdefault((labels, case.data.score[row]), []).append(row)
    rank = {int(point): step for step, point in enumerate(found.points)}
    for rows in groups.values():
        ranks = [rank.get(row, len(rank) + row) for row in rows]
        assert ranks == sorted(ranks)


def assert_same_bits(a: Result, b: Result) -> None:
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(a.gains.view(np.int64), b.gains.view(np.int64))
