"""Principal components: scikit-learn's, the recorded ones, the same bits on any number of devices."""

import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA

from mig_jax.engine import pool_mesh
from mig_jax.vectors import pca
from mig_jax.vectors.pca import fit_pca, project
from mig_jax.vectors.vectors import Vectors


def vectors(array: np.ndarray) -> Vectors:
    return Vectors(array.astype(np.float32), np.arange(len(array)))


def mesh(devices: int = 1):
    return pool_mesh(jax.devices()[:devices])


def spread(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    """Directions of clearly different widths, away from the origin."""
    rng = np.random.default_rng(seed)
    return (2 + rng.normal(size=(rows, dim)) * 0.7 ** np.arange(dim)) @ np.linalg.qr(rng.normal(size=(dim, dim)))[0]


def test_the_recorded_components(shared):
    golden = np.load(shared / "golden" / "public" / "car" / "car.npz")
    points = vectors(np.load(shared / "golden" / "public" / "embeddings.npy"))
    found = fit_pca(points, 0.95, mesh())
    assert len(found.components) == 216
    np.testing.assert_allclose(found.ratio, golden["oracle_explained_variance_ratio"], atol=1e-8)
    np.testing.assert_allclose(found.mean, golden["pca_mean"], atol=1e-6)
    # Theirs is a float32 decomposition; neighbouring directions are near in width and mix by so much.
    np.testing.assert_allclose(found.components, golden["pca_components"], atol=5e-4)
    np.testing.assert_allclose(project(points, found, mesh()), golden["pca_X_reduced"], atol=5e-4)


@pytest.mark.parametrize("variance", [0.5, 0.95, 0.9999])
def test_scikit_learn_s_components_of_more_than_one_tile(variance):
    points = vectors(spread(pca.TILE + 300, 24))
    unit = points.take(np.arange(len(points))).astype(np.float64)
    expected = PCA(n_components=variance, svd_solver="full").fit(unit)
    found = fit_pca(points, variance, mesh(8))
    assert len(found.components) == expected.n_components_
    np.testing.assert_allclose(found.ratio[: len(found.components)], expected.explained_variance_ratio_, atol=1e-7)
    np.testing.assert_allclose(found.components, expected.components_, atol=1e-4)
    np.testing.assert_allclose(project(points, found, mesh(8)), expected.transform(unit), atol=1e-5)


def test_a_mean_much_longer_than_the_spread():
    """Sums of raw squares, or a mean in float32 alone, would leave nothing of a spread of 1e-4."""
    rng = np.random.default_rng(0)
    points = vectors(10 * np.eye(8)[0] + 1e-3 * rng.normal(size=(5000, 8)) * 0.5 ** np.arange(8))
    unit = points.take(np.arange(len(points))).astype(np.float64)
    expected = PCA(svd_solver="full").fit(unit)
    np.testing.assert_allclose(fit_pca(points, 0.95, mesh()).ratio, expected.explained_variance_ratio_, atol=1e-6)


def test_bits_do_not_depend_on_the_number_of_devices():
    points = vectors(spread(2 * pca.TILE + 5, 12))
    one, many = (fit_pca(points, 0.9, mesh(devices)) for devices in (1, 8))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(project(points, one, mesh(1)), project(points, many, mesh(8)))


def test_all_of_the_variance_is_a_rotation():
    points = vectors(spread(50, 6))
    found = project(points, fit_pca(points, 1.0, mesh()), mesh())
    unit = points.take(np.arange(50))
    assert found.shape == (50, 6)
    np.testing.assert_allclose(found @ found.T, (unit - unit.mean(0)) @ (unit - unit.mean(0)).T, atol=1e-6)


def test_the_largest_entry_of_a_component_is_positive():
    found = fit_pca(vectors(spread(50, 6)), 1.0, mesh()).components
    largest = found[np.arange(6), np.abs(found).argmax(axis=1)]
    assert (largest > 0).all()


@pytest.mark.parametrize("array", [np.ones((1, 4)), np.ones((7, 4)), np.zeros((7, 4))])
def test_no_spread_at_all(array):
    points = vectors(array)
    found = fit_pca(points, 0.95, mesh())
    assert found.components.shape == (1, 4)
    assert (found.ratio == 0).all()
    np.testing.assert_allclose(project(points, found, mesh()), 0, atol=1e-7)


def test_fewer_points_than_directions():
    points = vectors(spread(3, 10))
    found = fit_pca(points, 0.99999, mesh())
    assert len(found.components) == 2
    assert found.ratio[2:].max() < 1e-7  # products are rounded to float32
