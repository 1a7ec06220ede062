"""The engine's greedy on the exact gain is the naive one's: any pool, any number of devices, after any interruption."""

import numpy as np
import pytest
from engine_cases import SHAPES, Size, case, fill, run
from engine_property import PLAIN, STYLES, anything, check, phis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mig_jax.objective import curve, make_phi

QUICK = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
PAIRS = [("separate", "power"), ("web", "log"), ("full", "exp"), ("one label", "log"), ("one row", "power")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), PAIRS)
@QUICK
@given(st.data())
def test_it_is_the_naive_greedy_s(name, kind, data):
    phi = data.draw(phis(kind), "phi")
    alpha = data.draw(st.floats(0.1, 2.0), "alpha")
    check("exact", name, phi, alpha, data.draw(st.integers(0, 2**32), "seed"), data.draw(st.sampled_from(STYLES)), data)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_pool_of_any_shape(seed):
    anything("exact", seed)


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_equal_rows_come_in_row_order_on_any_number_of_devices(shards):
    drawn = case(((0,),) * 96, np.full(96, 3.0), np.eye(2, dtype=np.float32), make_phi(), 1.0)
    assert run(drawn, 96, "exact", Size(shards, 10, 1_024)).points.tolist() == list(range(96))


def test_exact_gains_fall_along_the_picks_and_sum_to_the_objective():
    drawn = fill(SHAPES["web"], 8, "real", make_phi("log"), 1.0, same_labels=True)
    found = run(drawn, drawn.candidates, "exact", PLAIN)
    assert (np.diff(found.gains) <= 0).all()
    whole = curve(drawn.encoded, drawn.graph.propagation(), drawn.phi, found.points, "exact")
    np.testing.assert_allclose(found.gains.astype(np.float64).sum(), whole.objective[-1], rtol=1e-5)


def test_it_ends_where_nothing_gains_any_more():
    drawn = case(((0,),) * 40, np.full(40, 100.0), np.eye(1, dtype=np.float32), make_phi("exp"), 1.0)
    found = run(drawn, 40, "exact", Size(2, 8, 1_024))
    assert 8 <= len(found.points) <= 12
    assert (found.gains > 0).all()
