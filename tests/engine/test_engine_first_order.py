"""The engine's first-order greedy is the naive one's: on any pool, any number of devices, after any interruption."""

import jax
import numpy as np
import pytest
from engine_cases import SHAPES, Shape, Size, assert_same_bits, case, fill, naive, run
from engine_property import PLAIN, STYLES, anything, check, phis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mig_jax.engine import greedy, make_problem, pool_mesh
from mig_jax.objective import make_phi

QUICK = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
PAIRS = [
    ("separate", "log"),
    ("web", "power"),
    ("web", "exp"),
    ("full", "log"),
    ("one label", "power"),
    ("one row", "power"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), PAIRS)
@QUICK
@given(st.data())
def test_it_is_the_naive_greedy_s(name, kind, data):
    phi = data.draw(phis(kind), "phi")
    alpha = data.draw(st.floats(0.1, 2.0), "alpha")
    check(
        "first_order",
        name,
        phi,
        alpha,
        data.draw(st.integers(0, 2**32), "seed"),
        data.draw(st.sampled_from(STYLES)),
        data,
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_pool_of_any_shape(seed):
    anything("first_order", seed)


@pytest.mark.parametrize("seed", range(25))
def test_mass_ties_bit_for_bit(seed):
    """Separate labels, at most two a row, whole scores, phi = log: every operation of the gain is one correctly rounded
    IEEE operation, so a naive greedy in float32 has the engine's very bits, and hundreds of exact ties."""
    rng = np.random.default_rng(seed)
    labels = tuple(tuple(rng.permutation(5)[: 1 + d % 2].tolist()) for d in range(300))
    drawn = case(
        labels, rng.integers(1, 3, 300).astype(float), np.eye(5, dtype=np.float32), make_phi("log", c=1.0), 1.0
    )
    rows, gains = naive(drawn, "first_order").run(300)
    tied = sum(gains[1:] == gains[:-1])
    assert tied > 50
    for size in (PLAIN, Size(8, 13, 1_024)):
        found = run(drawn, 300, "first_order", size)
        np.testing.assert_array_equal(found.points, rows)
        np.testing.assert_array_equal(found.gains, gains)


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_equal_rows_come_in_row_order_on_any_number_of_devices(shards):
    drawn = case(((0,),) * 96, np.full(96, 3.0), np.eye(2, dtype=np.float32), make_phi(), 1.0)
    assert run(drawn, 96, "first_order", Size(shards, 10, 1_024)).points.tolist() == list(range(96))


def test_alpha_zero_is_the_graph_without_edges():
    full, apart = SHAPES["full"], SHAPES["full"]._replace(edges=())
    a = run(fill(full, 5, "real", make_phi(), 0.0, same_labels=False), 20, "first_order", PLAIN)
    b = run(fill(apart, 5, "real", make_phi(), 1.0, same_labels=False), 20, "first_order", PLAIN)
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_allclose(a.gains, b.gains, rtol=1e-6)


def test_nobody_to_pick():
    shape = Shape((0, 1, 0, 1), (1, 3), 2, ())
    found = run(fill(shape, 0, "ties", make_phi(), 1.0, same_labels=False), 3, "first_order", Size(2, 4, 4))
    assert len(found.points) == len(found.gains) == 0


def test_it_ends_where_nothing_gains_any_more():
    """exp(-x) leaves float64 near x = 745, and float32, in which bounds are, near x = 104."""
    drawn = case(((0,),) * 40, np.full(40, 100.0), np.eye(1, dtype=np.float32), make_phi("exp"), 1.0)
    found = run(drawn, 40, "first_order", Size(2, 8, 1_024))
    assert 8 <= len(found.points) <= 12
    assert (found.gains > 0).all()


def test_gains_too_small_for_float32_are_still_told_apart():
    """Gains of 2.6e-37 and 2.5e-37: their bounds lose bits, or become 0."""
    drawn = fill(SHAPES["web"], 533792608, "real", make_phi("exp", alpha=1.0), 1.2692317118143823, same_labels=False)
    whole = run(drawn, drawn.candidates, "first_order", PLAIN)
    assert whole.gains.min() < 1e-40
    assert_same_bits(whole, run(drawn, drawn.candidates, "first_order", Size(4, 9, 7)))


def test_rows_keep_their_picks_when_they_are_shuffled():
    """With no two gains alike, the order of the file does not matter."""
    drawn = fill(SHAPES["web"], 3, "real", make_phi(), 1.0, same_labels=False)
    keep = np.array(
        sorted(
            {
                (row, score): d for d, (row, score) in enumerate(zip(drawn.data.labels, drawn.data.score, strict=True))
            }.values()
        )
    )
    order = np.random.default_rng(1).permutation(keep)
    straight = case(tuple(drawn.data.labels[d] for d in keep), drawn.data.score[keep], drawn.data.w, drawn.phi, 1.0)
    shuffled = case(tuple(drawn.data.labels[d] for d in order), drawn.data.score[order], drawn.data.w, drawn.phi, 1.0)
    a, b = run(straight, 30, "first_order", PLAIN), run(shuffled, 30, "first_order", PLAIN)
    np.testing.assert_array_equal(keep[a.points], order[b.points])
    np.testing.assert_array_equal(a.gains, b.gains)


def test_twice_the_score_with_twice_the_scale_is_the_same_selection():
    """log(1 + x / c) does not change when x and c double; powers of two change no bit."""
    drawn = fill(SHAPES["web"], 4, "real", make_phi("log", c=1.0), 1.0, same_labels=False)
    double = case(drawn.data.labels, 4 * drawn.data.score, drawn.data.w, make_phi("log", c=4.0), 1.0)
    assert_same_bits(run(drawn, 40, "first_order", PLAIN), run(double, 40, "first_order", PLAIN))


def test_a_segment_ends_a_call_and_changes_nothing():
    drawn = fill(SHAPES["web"], 6, "real", make_phi(), 1.0, same_labels=False)
    heard = []
    cut = run(drawn, 30, "first_order", Size(4, 9, 7), progress=lambda *a: heard.append(a))
    assert_same_bits(run(drawn, 30, "first_order", PLAIN), cut)
    done = [0, *(a[1] for a in heard)]
    assert done[-1] == 30
    assert max(np.diff(done)) <= 7
    assert cut.counts["calls"] >= len(heard)


def test_a_problem_for_other_shards_is_refused():
    drawn = fill(SHAPES["full"], 0, "real", make_phi(), 1.0, same_labels=False)
    problem = make_problem(drawn.encoded, drawn.graph.propagation(), drawn.phi, shards=2)
    with pytest.raises(ValueError, match="2 shards on a mesh of 1"):
        greedy(problem, 3, pool_mesh(jax.devices()[:1]))
