"""The state that picks leave is the one computed anew, and what labels gain by only falls."""

import importlib

import jax
import numpy as np
import pytest
from engine_cases import SHAPES, Case, Size, assert_greedy, assert_same_bits, fill, run

from mig_jax.engine import make_problem
from mig_jax.engine.kernels import FirstOrder, label_gains
from mig_jax.objective import make_phi
from mig_jax.objective.matrices import propagation_matrix

# The slopes of exp end below 1e-30 of what they were: among float32's last numbers.
PHIS = {"power": make_phi(), "exp": make_phi("exp", alpha=0.45), "log": make_phi("log", c=0.5)}


def mass(drawn: Case, rows: np.ndarray) -> np.ndarray:
    """x of these rows."""
    return drawn.data.score[rows] @ drawn.data.v[rows] @ drawn.data.matrix(drawn.alpha)


def snapshots(drawn: Case, kind: str, n: int) -> list:
    found = []
    run(drawn, n, kind, Size(1, 12, 2), on_snapshot=found.append)
    assert len(found) >= 10
    return found


@pytest.mark.parametrize("name", ["web", "full"])
@pytest.mark.parametrize("phi", PHIS)
def test_first_order(phi, name):
    """y is what the bounds are computed from."""
    drawn = fill(SHAPES[name], 12, "real", PHIS[phi], 0.7, same_labels=False)
    problem = make_problem(drawn.encoded, drawn.graph.propagation(drawn.alpha), drawn.phi)
    p = propagation_matrix(drawn.graph.propagation(drawn.alpha))
    empty = FirstOrder(np.zeros(len(p.indptr)), drawn.phi.slope(np.zeros(len(p.indptr))))
    last, lowest = None, 1.0
    exact_at_zero = (p @ empty.slope[:-1]).min()
    for rows, state in [(np.zeros(0, np.int64), empty)] + [
        (found.points, found.state) for found in snapshots(drawn, "first_order", drawn.candidates)
    ]:
        assert state.x.dtype == state.slope.dtype == np.float64
        np.testing.assert_allclose(state.x[:-1], mass(drawn, rows), rtol=1e-12, atol=0)
        assert state.x[-1] == 0, "padding must gain nothing"
        np.testing.assert_allclose(state.slope, drawn.phi.slope(state.x), rtol=1e-12, atol=0)
        with jax.enable_x64(True):
            y = np.asarray(label_gains(problem.objective.p, state.slope, native=True))
        assert y.dtype == np.float64
        exact = p @ state.slope[:-1]
        np.testing.assert_allclose(y[:-1], exact, rtol=1e-11, atol=0)
        assert y[-1] == 0
        assert last is None or (y <= last).all(), "a bound rose"
        last, lowest = y, min(lowest, exact.min() / exact_at_zero)
    assert phi != "exp" or lowest < 1e-30


@pytest.mark.parametrize("name", ["web", "full"])
@pytest.mark.parametrize("phi", PHIS)
def test_exact(phi, name):
    drawn = fill(SHAPES[name], 12, "real", PHIS[phi], 0.7, same_labels=False)
    for found in snapshots(drawn, "exact", drawn.candidates):
        x, height = found.state
        np.testing.assert_allclose(x[:-1], mass(drawn, found.points), rtol=1e-12, atol=0)
        assert x[-1] == 0
        np.testing.assert_allclose(height, drawn.phi.height(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["first_order", "exact"])
def test_inner_device_is_inner_host(kind):
    drawn = fill(SHAPES["web"], 5, "real", make_phi(), 1.0, same_labels=True)
    size = Size(8, 9, 7)
    host = run(drawn, drawn.candidates, kind, size, heap_device="host")
    assert_same_bits(host, run(drawn, drawn.candidates, kind, size, heap_device="device"))
    assert_same_bits(host, run(drawn, drawn.candidates, kind, size))


@pytest.mark.parametrize("kind", ["first_order", "exact"])
def test_the_form_for_an_accelerator_picks_the_same(kind, monkeypatch):
    """On a CPU both forms are at hand: one native function, and the operations one by one."""
    drawn = fill(SHAPES["web"], 5, "real", make_phi(), 1.0, same_labels=True)
    size, asked = Size(2, 9, 7), []
    native = run(drawn, 40, kind, size)
    module = importlib.import_module("mig_jax.engine.greedy")
    for name in ("pick", "label_gains"):
        whole = getattr(module, name)

        def plain(*args, native, whole=whole, **options):
            asked.append(native)
            return whole(*args, native=False, **options)

        monkeypatch.setattr(module, name, plain)
    found = run(drawn, 40, kind, size)
    assert asked and all(asked)
    assert_greedy(drawn, found, 40, kind)
    np.testing.assert_array_equal(native.points, found.points)
    np.testing.assert_allclose(native.gains, found.gains, rtol=1e-12)
