"""k-means: scikit-learn's iterations, an oracle of its seeds, the same bits on any number of devices."""

import jax
import numpy as np
import pytest
from sklearn.cluster import KMeans

from mig_jax.core.errors import UserError
from mig_jax.engine import pool_mesh
from mig_jax.vectors import kmeans as module
from mig_jax.vectors.kmeans import ShardedPoints, draw_seeds, kmeans, lloyd


def points(x: np.ndarray, devices: int = 1) -> ShardedPoints:
    return ShardedPoints(x.astype(np.float32), pool_mesh(jax.devices()[:devices]))


def blobs(rows: int = 600, count: int = 12, dim: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, dim))[rng.integers(count, size=rows)] + 0.4 * rng.normal(size=(rows, dim))
    return (found - found.mean(0)).astype(np.float32)


def labels_of(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Every distance, in float64."""
    return ((x[:, None].astype(np.float64) - centres) ** 2).sum(-1).argmin(1)


def scikit(x: np.ndarray, centres: np.ndarray, **settings) -> KMeans:
    return KMeans(len(centres), init=centres, n_init=1, algorithm="lloyd", **settings).fit(x.astype(np.float64))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settings", [{}, {"max_iter": 3}, {"tol": 0.0}, {"tol": 0.3}])
def test_lloyd_is_scikit_learn_s_from_equal_centres(seed, settings):
    x = blobs(seed=seed) + 1.5  # not centred
    start = x[np.random.default_rng(seed).choice(len(x), 9, replace=False)].astype(np.float64)
    found = lloyd(points(x), start, settings.get("max_iter", 300), settings.get("tol", 1e-4))
    expected = scikit(x, start, **settings)
    np.testing.assert_array_equal(found.labels, expected.labels_)
    np.testing.assert_allclose(found.centres, expected.cluster_centers_, atol=1e-9)
    assert found.iterations == expected.n_iter_
    assert found.inertia == pytest.approx(expected.inertia_, rel=1e-9)


def test_centres_without_points_go_to_the_farthest_points():
    x = blobs(200)
    start = np.vstack([x[:3], 50 + np.arange(2)[:, None] * np.ones(6)])
    found, expected = lloyd(points(x), start), scikit(x, start)
    assert set(found.labels) == set(range(5))
    np.testing.assert_allclose(np.sort(found.centres, 0), np.sort(expected.cluster_centers_, 0), atol=1e-9)
    assert found.inertia == pytest.approx(expected.inertia_, rel=1e-9)


def test_labels_where_float32_cannot_tell():
    """Points a hair to either side of the middle between two centres, where rounding decides in float32."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 64))
    sides = rng.normal(size=(500, 64)) + (a + b) / 2
    across = (a - b) / np.linalg.norm(a - b)
    x = (sides - ((sides - (a + b) / 2) @ across)[:, None] * across + rng.normal(size=(500, 1)) * 1e-7 * across).astype(
        np.float32
    )
    centres = np.stack([b, a])
    assert 100 < labels_of(x, centres).sum() < 400
    np.testing.assert_array_equal(module._assign(points(x), centres), labels_of(x, centres))


def oracle_seeds(x: np.ndarray, scale: float, k: int, rng: np.random.Generator) -> list[int]:
    """Greedy k-means++ in whole numbers of any size."""
    grid = np.round(x.astype(np.float64) * scale).astype(np.int64)
    candidates, nearest, seeds = [int(rng.integers(len(x)))], None, []
    while True:
        away = [((grid - grid[c]) ** 2).sum(1) for c in candidates]
        away = away if nearest is None else [np.minimum(nearest, a) for a in away]
        best = int(np.argmin([a.sum() for a in away]))
        nearest = away[best]
        seeds.append(int(candidates[best]))
        if len(seeds) == k:
            return seeds
        draws = rng.integers(nearest.sum(), size=2 + int(np.log(k)))
        candidates = [int(np.flatnonzero(np.cumsum(nearest) > draw)[0]) for draw in draws]


@pytest.mark.parametrize(("devices", "tile"), [(1, 4096), (8, 4096), (1, 64), (8, 16)])
@pytest.mark.parametrize("longest", [1e-3, 1.0, 700.0])
def test_seeds_are_those_of_exact_arithmetic(devices, tile, longest, monkeypatch):
    monkeypatch.setattr(module, "TILE", tile)
    x = blobs()
    x = (x * longest / np.linalg.norm(x, axis=1).max()).astype(np.float32)
    p = points(x, devices)
    assert 2.0**10.9 < np.linalg.norm(x * p.scale, axis=1).max() <= 2.0**12
    found = draw_seeds(p, 20, np.random.default_rng(3))
    assert found.tolist() == oracle_seeds(x, p.scale, 20, np.random.default_rng(3))


def test_a_seed_is_never_drawn_again():
    class Lowest(np.random.Generator):
        def integers(self, high, size=None):  # pyright: ignore[reportIncompatibleMethodOverride]
            return np.zeros(size or (), np.int64)

    x = np.repeat(np.eye(4), 3, axis=0)
    assert draw_seeds(points(x), 4, Lowest(np.random.PCG64())).tolist() == [0, 3, 6, 9]


def test_bits_do_not_depend_on_devices_or_tile(monkeypatch):
    x = blobs(1000)
    runs = []
    for devices, tile in ((1, 4096), (8, 4096), (3, 16)):
        monkeypatch.setattr(module, "TILE", tile)
        runs.append(kmeans(points(x, devices), 15, (42, 0)))
    for other in runs[1:]:
        np.testing.assert_array_equal(other.labels, runs[0].labels)
        np.testing.assert_array_equal(other.centres, runs[0].centres)
        assert (other.inertia, other.iterations) == (runs[0].inertia, runs[0].iterations)


def test_as_good_as_scikit_learn_on_the_recorded_points(shared):
    golden = np.load(shared / "golden" / "public" / "car" / "car.npz")
    x = golden["pca_X_reduced"]
    p = points(x)
    runs = [kmeans(p, 31, (42, run)) for run in range(5)]
    best = min(run.inertia for run in runs)
    assert best == pytest.approx(float(golden["ninit10_inertia"]), rel=0.01)
    assert np.mean([run.inertia for run in runs]) == pytest.approx(float(golden["n1_10_inertia"]), rel=0.01)
    # Their labels' means are a fixed point of ours, too.
    again = lloyd(p, golden["ninit10_centers"].astype(np.float64))
    assert (again.labels == golden["ninit10_labels"]).mean() > 0.999
    assert again.inertia <= float(golden["ninit10_inertia"]) * (1 + 1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_identical_points(value):
    found = kmeans(points(np.full((30, 5), value)), 4, (0,))
    assert (found.labels == 0).all()
    assert found.inertia == pytest.approx(0, abs=1e-12)


def test_fewer_distinct_points_than_clusters():
    x = np.repeat(np.eye(3), 10, axis=0) - 1 / 3
    found = kmeans(points(x), 6, (1,))
    assert found.inertia == pytest.approx(0, abs=1e-12)
    assert len(set(found.labels)) == 3
    assert all(len(set(found.labels[start : start + 10])) == 1 for start in (0, 10, 20))


@pytest.mark.parametrize("devices", [1, 8])
def test_as_many_clusters_as_points_and_one_for_all(devices):
    x = blobs(20)
    assert sorted(kmeans(points(x, devices), 20, (0,)).labels.tolist()) == list(range(20))
    one = kmeans(points(x, devices), 1, (0,))
    assert (one.labels == 0).all()
    assert one.inertia == pytest.approx(((x - x.mean(0)) ** 2).sum(), rel=1e-6)
    assert kmeans(points(x[:1], devices), 1, (0,)).labels.tolist() == [0]


def test_more_clusters_than_points():
    with pytest.raises(UserError) as error:
        kmeans(points(blobs(20)), 21, (0,))
    assert (error.value.key, error.value.value) == ("clusters", 21)
