"""The peers against a naive greedy in plain Python, whose sums run in the order that the heap promises."""

import math

import numpy as np
import pytest

from experiments.peers import dense_jax, dense_numpy, have_numba, heap_numba, scan_jax
from experiments.peers.heap import HOW, _kernels
from experiments.synthetic import synthetic_pool
from mig_jax.core.errors import UserError
from mig_jax.encode import Encoded
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective import Phi, make_phi

PHIS = {"power": make_phi(), "exp": make_phi("exp", alpha=0.3), "log": make_phi("log", c=2.0)}
needs_numba = pytest.mark.skipif(not have_numba(), reason=HOW)


def slope(phi: Phi, x: float) -> float:
    if phi.kind == "power":
        return phi.a * math.pow(x + phi.eps, phi.a - 1.0)
    return phi.a * math.exp(-phi.a * x) if phi.kind == "exp" else 1.0 / (phi.a + x)


def rise(phi: Phi, x: float, d: float) -> float:
    if phi.kind == "power":
        return math.pow(x + phi.eps, phi.a) * math.expm1(phi.a * math.log1p(d / (x + phi.eps)))
    return math.exp(-phi.a * x) * -math.expm1(-phi.a * d) if phi.kind == "exp" else math.log1p(d / (phi.a + x))


def naive(encoded: Encoded, p: Propagation, phi: Phi, picks: int, kind: str):
    """(rows, gains, margins): every gain anew at every step, tags ascending, the lowest row among equals."""
    tags = [
        sorted(encoded.label_idx[a:b].tolist()) for a, b in zip(encoded.label_ptr, encoded.label_ptr[1:], strict=False)
    ]
    of_label = [
        list(zip(p.idx[a:b].tolist(), p.val[a:b].tolist(), strict=True)) for a, b in zip(p.ptr, p.ptr[1:], strict=False)
    ]
    reach: list[dict[int, float]] = [{} for _ in tags]
    for row, mine in zip(reach, tags, strict=True):
        for tag in mine:
            for k, part in of_label[tag]:
                row[k] = row.get(k, 0.0) + part
    score, x = encoded.score.tolist(), [0.0] * len(of_label)
    left = {row for row in range(len(tags)) if tags[row] and score[row] > 0}
    rows, gains, margins = [], [], []
    while left and len(rows) < picks:
        if kind == "exact":
            gain = {r: sum(rise(phi, x[k], score[r] * part) for k, part in reach[r].items()) for r in left}
        else:
            at = [slope(phi, value) for value in x]
            y = [loop_sum(part * at[k] for k, part in row) for row in of_label]
            gain = {r: loop_sum(y[tag] for tag in tags[r]) * score[r] for r in left}
        best, *rest = sorted(left, key=lambda r: (-gain[r], r))
        if gain[best] <= 0:
            break
        rows.append(best)
        gains.append(gain[best])
        margins.append((gain[best] - (gain[rest[0]] if rest else 0.0)) / gain[best])
        left.remove(best)
        for k, part in reach[best].items():
            x[k] += score[best] * part
    return np.array(rows, np.int64), np.array(gains), np.array(margins)


def loop_sum(terms) -> float:
    """One after another: Python's own sum of floats compensates from 3.12 on."""
    total = 0.0
    for term in terms:
        total += term
    return total


def pool(rows: int, labels: int, degree: float, seed: int, style: str, tags: float = 2.5):
    encoded, graph = synthetic_pool(
        rows, labels, tags=tags, degree=degree, max_degree=45, integer_scores=style != "real", seed=seed
    )
    score = encoded.score.copy()
    score[3::17] = 0.0
    if style == "ties":
        score = np.minimum(score, 2.0)
    ptr, idx = encoded.label_ptr.copy(), encoded.label_idx.copy()
    if style == "near":  # one tag set for most rows, scores an ulp apart
        ptr, idx = np.arange(rows + 1), np.r_[idx[: rows // 4], np.zeros(rows - rows // 4, np.int32)]
        score *= 1 + np.random.default_rng(seed).integers(0, 3, rows) * 2.0**-52
    return Encoded(encoded.row, ptr, idx, score, encoded.labels, {}), graph.propagation()


@needs_numba
@pytest.mark.parametrize("kind", ["first_order", "exact"])
@pytest.mark.parametrize("phi", PHIS.values(), ids=PHIS)
@pytest.mark.parametrize("degree", [0, 5, 40])
@pytest.mark.parametrize("style", ["real", "ties", "near"])
def test_the_heap_is_the_naive_greedy(kind: str, phi: Phi, degree: int, style: str):
    encoded, p = pool(150, 60, degree, seed=degree, style=style)
    for picks in (40, 150):
        rows, gains, margins = naive(encoded, p, phi, picks, kind)
        found = heap_numba(encoded, p, phi, picks, kind, margins=True)
        assert found.points.tolist() == rows.tolist()
        assert np.array_equal(found.gains, gains)
        assert np.array_equal(found.margins, margins)
        plain = heap_numba(encoded, p, phi, picks, kind, update="recompute")
        assert plain.points.tolist() == rows.tolist()
        assert plain.margins is None


@needs_numba
@pytest.mark.parametrize("seed", range(5))
def test_the_timed_heap_picks_the_same_where_scores_do_not_tie(seed: int):
    encoded, p = pool(400, 50, 4, seed, "real", tags=4.0)
    for phi in PHIS.values():
        rows, gains, _ = naive(encoded, p, phi, 100, "first_order")
        found = heap_numba(encoded, p, phi, 100)
        assert found.points.tolist() == rows.tolist()
        assert np.allclose(found.gains, gains, rtol=1e-9)  # additions of slopes that fall by a factor of 1e3
        assert found.evaluations > 0


@needs_numba
def test_rows_of_many_tags_and_pools_of_none():
    encoded, p = pool(60, 40, 5, 0, "real", tags=10.0)
    assert encoded.label_count.max() > 8  # more than an entry holds
    rows, gains, _ = naive(encoded, p, PHIS["power"], 60, "first_order")
    found = heap_numba(encoded, p, PHIS["power"], 60, update="recompute")
    assert found.points.tolist() == rows.tolist() and np.array_equal(found.gains, gains)
    nothing = Encoded(encoded.row, encoded.label_ptr, encoded.label_idx, 0 * encoded.score, encoded.labels, {})
    for margins in (False, True):
        assert len(heap_numba(nothing, p, PHIS["power"], 5, margins=margins).points) == 0
        assert len(heap_numba(encoded, p, PHIS["power"], 0, margins=margins).points) == 0


@pytest.mark.parametrize("kind", ["first_order", "exact"])
@pytest.mark.parametrize("phi", PHIS.values(), ids=PHIS)
def test_the_naive_peers_pick_the_same(kind: str, phi: Phi):
    encoded, p = pool(120, 40, 4, 1, "real")
    rows, gains, margins = naive(encoded, p, phi, 20, kind)
    assert margins.min() > 1e-5  # far enough apart for float32
    peers = [scan_jax(encoded, p, phi, 20, kind)]
    if kind == "first_order":
        peers += [dense_jax(encoded, p, phi, 20), dense_numpy(encoded, p, phi, 20)]
    for found in peers:
        assert found.points.tolist() == rows.tolist()
        assert np.allclose(found.gains, gains, rtol=1e-5)  # float32, sums of tens of terms


def test_without_numba_one_message_says_how(monkeypatch: pytest.MonkeyPatch):
    import builtins
    import sys

    there = builtins.__import__

    def missing(name, *more):
        if name.partition(".")[0] == "numba":
            raise ModuleNotFoundError("No module named 'numba'", name="numba")
        return there(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "experiments.peers.heap_kernels", raising=False)
    monkeypatch.delattr("experiments.peers.heap_kernels", raising=False)
    _kernels.cache_clear()
    encoded, p = pool(10, 5, 0, 0, "real")
    with pytest.raises(UserError, match=r"needs numba: .*requirements/bench\.txt"):
        heap_numba(encoded, p, PHIS["power"], 2)
    assert not have_numba()
    assert len(scan_jax(encoded, p, PHIS["power"], 2).points) == 2
    monkeypatch.undo()
    _kernels.cache_clear()
