"""The largest cosine to what is kept: float32 within its bound, float64 that depends on the two vectors alone."""

import math

import jax
import numpy as np
import pytest

from mig_jax.engine import pool_mesh
from mig_jax.vectors import novelty
from mig_jax.vectors.novelty import NO_COSINE, BlockCosines, SelectedVectors, cosines, hundredths, slack
from mig_jax.vectors.vectors import Vectors


def unit(rng: np.random.Generator, rows: int, dim: int, positive: bool = False) -> Vectors:
    found = rng.normal(size=(rows, dim)).astype(np.float32)
    return Vectors(np.abs(found) if positive else found, np.arange(rows))


@pytest.mark.parametrize("dim", [1, 2, 7, 9, 129, 384, 4096])
def test_a_cosine_depends_on_its_two_vectors_alone(dim):
    vectors = unit(np.random.default_rng(dim), 40, dim)
    rows = vectors.take(np.arange(40))
    together = cosines(rows[0], rows)
    alone = [cosines(rows[0].copy(), rows[i : i + 1].copy())[0] for i in range(40)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(cosines(rows[0], np.asfortranarray(rows)), together)
    np.testing.assert_array_equal([cosines(row, rows[:1])[0] for row in rows], together)  # either way round
    exact = [min(math.fsum(np.float64(rows[0]) * np.float64(row)), 1.0) for row in rows]
    np.testing.assert_allclose(together, exact, rtol=0, atol=16 * 2.0**-53)  # pairwise: log2(d) roundings and a few


@pytest.mark.parametrize("dim", [2, 384, 4096])
def test_float32_is_off_by_less_than_the_slack(dim):
    """Terms of one sign are where rounding errors add up most."""
    rng = np.random.default_rng(0)
    for positive in (False, True):
        rows = unit(rng, 64, dim, positive).take(np.arange(64))
        found = np.asarray(novelty._among(rows), np.float64)
        off = np.abs(found - rows.astype(np.float64) @ rows.astype(np.float64).T).max()
        assert 0 < off < slack(dim)
    assert slack(384) < 2.5e-5 and slack(4096) < 2.5e-4


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_chunks_hold_what_was_added_in_its_order(devices):
    """Three blocks over chunks that they do not fill and do not fit into; then one block against all of it."""
    vectors = unit(np.random.default_rng(devices), 50, 4)
    kept = SelectedVectors(vectors, pool_mesh(jax.devices()[:devices]), 0.9, block=6, tile=2)
    assert BlockCosines(kept, *started(kept, np.arange(6))).largest.tolist() == [NO_COSINE] * 6
    kept.add_points(np.arange(20, 28))
    block = kept.read(np.array([3, 1, 4, 0, 5]))
    kept.add(block, [])
    kept.add(block, [2, 0, 4])
    kept.add_points(np.arange(30, 41))
    expected = [*range(20, 28), 4, 3, 5, *range(30, 41)]
    assert kept.points == expected
    assert len(kept.chunks) == -(-len(expected) // (2 * devices))
    rows = vectors.take(np.arange(50)).astype(np.float64)
    asked = np.array([45, 4, 46, 47])
    near = BlockCosines(kept, *started(kept, asked))
    np.testing.assert_allclose(near.largest, (rows[asked] @ rows[expected].T).max(axis=1), atol=slack(4))
    for place, point in enumerate(asked):
        cosine = rows[expected] @ rows[point]
        middle = float(np.sort(cosine)[len(cosine) // 2 :][:2].mean())
        found = [p for i in range(len(kept.chunks)) for p in kept.points_above(near.block, place, i, middle)]
        assert found == [p for p, c in zip(expected, cosine, strict=True) if c >= middle]
        assert (
            near._exact(place, near.largest[place] - 2 * kept.slack)
            == cosines(vectors.take(np.array([point]))[0], vectors.take(np.array(expected))).max()
        )


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_float32_decides_nothing_within_its_slack(threshold):
    """Signs of 48 numbers: cosines of 1/8, where two decimals are rounded, and of 1/2, the threshold."""
    signs = np.ones((3, 48), np.float32)
    signs[1, :21], signs[2, :12] = -1, -1
    vectors = Vectors(signs, np.arange(3))
    kept = SelectedVectors(vectors, pool_mesh(jax.devices()[:1]), threshold, block=2, tile=2)
    kept.add_points(np.array([0]))
    near = BlockCosines(kept, *started(kept, np.array([1, 2])))
    rows = vectors.take(np.arange(3))
    for place, at in [(0, 0.125)] + [(1, 0.5)] * (threshold == 0.5):
        exact = cosines(rows[place + 1], rows[:1])[0]
        assert abs(exact - at) < 1e-7
        for off in (-0.9, 0.9):
            near.largest[place] = at + off * kept.slack
            assert near.cosine(place) == exact
        for off in (-1.1, 1.1):
            near.largest[place] = at + off * kept.slack
            assert near.cosine(place) == near.largest[place]
    assert kept.redecided == (4 if threshold == 0.5 else 2)


def started(kept: SelectedVectors, points: np.ndarray):
    block = kept.read(points)
    return block, *kept.compare(block)


def test_a_pool_of_any_size_compiles_each_program_once():
    vectors = unit(np.random.default_rng(0), 60, 5)  # no other test has five numbers
    before = [program._cache_size() for program in (novelty._nearest, novelty._among, novelty._put, novelty._with)]
    kept = SelectedVectors(vectors, pool_mesh(jax.devices()[:2]), 0.9, block=7, tile=2)
    for start in range(0, 60, 5):
        near = BlockCosines(kept, *started(kept, np.arange(start, start + 5)))
        if kept.points:
            near._exact(1, -1.0)
        kept.add(near.block, [0, 2, 3])
    after = [program._cache_size() for program in (novelty._nearest, novelty._among, novelty._put, novelty._with)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1, 1]


def test_cosines_in_two_decimals():
    assert [hundredths(c) for c in (0.125, 0.994999, 0.995, 1.0, -0.001, -1.0)] == [13, 99, 100, 100, 0, -100]
