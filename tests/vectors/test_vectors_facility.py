"""Facility location against whole numbers of any size: equal to the last bit, however it is cut up."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from mig_jax.core.errors import UserError
from mig_jax.engine import pool_mesh
from mig_jax.vectors.facility_location import GRID, WIDEST, FacilityLocation, _check_memory, grid_steps
from mig_jax.vectors.lazy_greedy import LazyGreedy
from mig_jax.vectors.vectors import Vectors


def points(count: int, dim: int = 5, seed: int = 0) -> Vectors:
    """In three heaps, the last of each seven the one before it again, one vector of zeros."""
    rng = np.random.default_rng(seed)
    array = (rng.normal(size=(count, dim)) + 2 * rng.normal(size=(3, dim))[rng.integers(0, 3, count)]).astype(
        np.float32
    )
    array[6::7] = array[5::7][: len(array[6::7])]
    array[3] = 0
    return Vectors(array, np.arange(count))


def cosines(vectors: Vectors) -> np.ndarray:
    """The definition, in whole numbers: coordinates of 26 binary digits, their products added without rounding."""
    unit = vectors.take(np.arange(len(vectors))).astype(np.float64)
    whole = np.rint(unit * 2**GRID).astype(np.int64)
    return np.rint((whole @ whole.T) / (2.0 ** (2 * GRID) / grid_steps(len(vectors))))


def mesh(devices: int) -> Mesh:
    return pool_mesh(jax.devices()[:devices])


@pytest.mark.parametrize(("devices", "block"), [(1, 64), (1, 4), (3, 8), (8, 2)])
def test_gains_are_exact_after_any_picks(devices: int, block: int):
    vectors = points(50)
    s, m = cosines(vectors), np.zeros(50)
    here = FacilityLocation(vectors, mesh(devices), block)
    for picks in ([], [7], [3], [20], [], [48]):
        m = np.maximum(m, s[picks].max(axis=0, initial=0.0))
        gains = here.gains_after(np.array(picks, np.int64), np.arange(50))
        np.testing.assert_array_equal(gains, np.maximum(s - m, 0).sum(axis=1))
        assert not gains[[*picks, 3]].any()
    assert gains.any()
    here.restart()
    here.add(np.array([48, 3, 20, 7]))
    np.testing.assert_array_equal(here.gains_after(np.zeros(0, np.int64), np.arange(50)), gains)
    np.testing.assert_array_equal(here.gains_after(np.zeros(0, np.int64), np.array([49, 0])), gains[[49, 0]])


def test_more_picks_than_the_widest_program():
    vectors = points(WIDEST + 90, dim=3)
    s, asked = cosines(vectors), np.arange(WIDEST + 90)[-99:]
    here = FacilityLocation(vectors, mesh(2), 128)
    here.add(np.arange(WIDEST + 40))
    m = np.maximum(s[: WIDEST + 40].max(axis=0), 0)
    gains = here.gains_after(np.zeros(0, np.int64), asked)
    np.testing.assert_array_equal(gains, np.maximum(s[asked] - m, 0).sum(axis=1))
    assert not gains[:40].any()
    assert gains[-50:].any()


def test_the_grid_is_near_the_cosine_and_holds_the_sum():
    vectors = points(60, dim=40)
    x = vectors.array.astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1), 1e-300)[:, None]
    np.testing.assert_allclose(
        cosines(vectors) / grid_steps(60), x @ x.T, atol=2e-7
    )  # float32 and 26 digits of 40 numbers
    for count in (1, 2**23 - 1, 2**23, 10**9):
        assert count * grid_steps(count) <= 2**53
    assert grid_steps(2**23 - 1) == 2**30


def test_what_does_not_fit_is_said_beforehand():
    with pytest.raises(UserError, match=r"[\d,.]+ GiB are needed and this machine has [\d,.]+ GiB; .*mesh.rows"):
        _check_memory(10**9, 4096, 512, mesh(1))


@pytest.mark.parametrize("weights", ["coverage", "both", "quality"])
@pytest.mark.parametrize("ratio", [False, True])
@pytest.mark.parametrize(("devices", "block", "listed"), [(1, 64, 4096), (2, 8, 3)])
def test_lazy_greedy_is_the_naive_one(weights: str, ratio: bool, devices: int, block: int, listed: int):
    vectors, rng = points(70), np.random.default_rng(1)
    s, m, left = cosines(vectors), np.zeros(70), np.ones(70, bool)
    here = FacilityLocation(vectors, mesh(devices), block)
    weight = 0.0 if weights == "quality" else 1 / here.unit
    bonus = np.zeros(70) if weights == "coverage" else rng.integers(0, 4, 70) * 2.0
    cost = rng.integers(1, 4, 70) * 1.0 if ratio else None
    lazy = LazyGreedy(here, weight, bonus, cost, listed=listed)
    for _ in range(70):
        gain = weight * np.maximum(s - m, 0).sum(axis=1) + bonus
        expected = int(np.argmax(np.where(left, gain if cost is None else gain / cost, -np.inf)))
        assert lazy.best() == expected
        assert lazy.gain(expected) == gain[expected]
        lazy.pick(expected)
        left[expected], m = False, np.maximum(m, s[expected])
    assert lazy.best() is None
    assert (lazy.counts["passes"] == 0) == (weights == "quality")
