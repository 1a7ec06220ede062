"""Parity with yichengchen24/MIG @969eb53: numbers recorded from its own run (README.md says how)."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from mig_jax.encode import Encoded
from mig_jax.engine import greedy, make_problem, pool_mesh
from mig_jax.labels import LabelGraph
from mig_jax.objective import curve, make_phi
from mig_jax.objective.matrices import label_matrix, propagation_matrix
from mig_jax.objective.pool_gains import gains_and_tag_gains

NEAR_TIE = 1e-6  # a relative margin below which float32 cannot tell two rows apart
NUMBERS = np.load(Path(__file__).parent / "mig.npz")


class Setting(NamedTuple):
    graph: str = "T065"
    alpha: float = 1.0
    phi: dict = {}  # noqa: RUF012
    norm: bool = False


SETTINGS = {
    "T090": Setting(graph="T090"),
    "T065": Setting(),
    "T065_alpha0": Setting(alpha=0.0),
    "T065_alpha2": Setting(alpha=2.0),
    "T065_norm": Setting(norm=True),
    "T065_exp": Setting(phi={"kind": "exp"}),
    "T065_bs512": Setting(),
    "T065_pow05": Setting(phi={"exponent": 0.5}),
    "T065_exp_a002": Setting(phi={"kind": "exp", "alpha": 0.02}),
}
EXACT = ("T090", "T065", "T065_exp")


def encoded(setting: Setting) -> Encoded:
    score = NUMBERS["score"] / (np.maximum(NUMBERS["tags_with_repeats"], 1) if setting.norm else 1)
    names = tuple(f"{i:04d}" for i in range(int(NUMBERS["num_labels"])))
    ptr, idx = NUMBERS["label_ptr"].astype(np.int64), NUMBERS["label_idx"].astype(np.int32)
    return Encoded(np.arange(len(score)), ptr, idx, score, names, {})


def graph(setting: Setting) -> LabelGraph:
    row, col, val = (NUMBERS[f"wam_{setting.graph}_{field}"] for field in ("row", "col", "val"))
    count = int(NUMBERS["num_labels"])
    diagonal = np.zeros(count, np.float32)
    diagonal[row[row == col]] = val[row == col]
    upper = row < col
    return LabelGraph(
        tuple(f"{i:04d}" for i in range(count)),
        diagonal,
        row[upper].astype(np.int32),
        col[upper].astype(np.int32),
        val[upper],
        int(setting.graph[1:]) / 100,
    )


def until_near_tie(margin: np.ndarray, gain: np.ndarray) -> int:
    """How many picks nobody can dispute."""
    tied = np.flatnonzero(margin / gain < NEAR_TIE)
    return int(tied[0]) if len(tied) else len(margin)


def test_the_numbers_are_all_here_and_small():
    assert (Path(__file__).parent / "mig.npz").stat().st_size < 1_000_000
    assert all(NUMBERS[key].dtype.kind in "if" for key in NUMBERS.files)
    steps = {name: until_near_tie(NUMBERS[f"{name}_margin"], NUMBERS[f"{name}_gain"]) for name in SETTINGS}
    assert sorted(steps.values())[1:] == [300] * 8
    assert 0 < steps["T065_exp_a002"] < 300


def test_the_graphs_are_symmetric_so_that_one_triangle_is_all():
    for name in ("T090", "T065"):
        row, col, val = (NUMBERS[f"wam_{name}_{field}"] for field in ("row", "col", "val"))
        entry = {(r, c): v for r, c, v in zip(row.tolist(), col.tolist(), val.tolist(), strict=True)}
        assert all(abs(entry[c, r] - v) < 1e-6 for (r, c), v in entry.items())


@pytest.mark.parametrize("name", SETTINGS)
def test_each_pick_of_the_reference_is_our_best_along_its_path(name):
    """In float64, at the reference's own mass: no error of an earlier pick can hide or excuse a later one."""
    setting = SETTINGS[name]
    points, p, phi = encoded(setting), graph(setting).propagation(setting.alpha), make_phi(**setting.phi)
    order, margin = NUMBERS[f"{name}_order"].astype(np.int64), NUMBERS[f"{name}_margin"]
    v, matrix = label_matrix(points), propagation_matrix(p)
    whole = np.arange(len(points))
    left = np.ones(len(points), bool)
    x = np.zeros(len(points.labels))
    for step, pick in enumerate(order):
        # Every tenth step through the function that reports use; between them the same sum without its shares.
        if step % 10 == 0:
            gain = gains_and_tag_gains(points, p, phi, x, whole, "first_order")[0]
        else:
            gain = points.score * (v @ (matrix @ phi.slope(x)))
        gain[~left] = -1
        best = int(np.argmax(gain))
        relative = margin[step] / NUMBERS[f"{name}_gain"][step]
        assert best == pick or relative < NEAR_TIE, f"step {step}"
        np.testing.assert_allclose(gain[pick], NUMBERS[f"{name}_gain"][step], rtol=1e-6, err_msg=f"step {step}")
        second = np.partition(gain, -2)[-2]
        np.testing.assert_allclose(gain[best] - second, margin[step], rtol=1e-4, atol=1e-6 * gain[best])
        left[pick] = False
        x += matrix.T @ (v[[pick]].T @ points.score[[pick]])
    np.testing.assert_allclose(x, NUMBERS[f"{name}_x"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [{}, {"shortlist_size": 64}], ids=["default", "small"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_engine_running_free_makes_the_reference_s_picks(name, sizes):
    setting = SETTINGS[name]
    points, p, phi = encoded(setting), graph(setting).propagation(setting.alpha), make_phi(**setting.phi)
    order, gain = NUMBERS[f"{name}_order"].astype(np.int64), NUMBERS[f"{name}_gain"]
    snapshots = []
    found = greedy(
        make_problem(points, p, phi), 300, pool_mesh(jax.devices()[:1]), on_snapshot=snapshots.append, **sizes
    )
    sure = until_near_tie(NUMBERS[f"{name}_margin"], gain)
    np.testing.assert_array_equal(found.points[:sure], order[:sure])
    np.testing.assert_allclose(found.gains[:sure], gain[:sure], rtol=2e-6)
    # At the near-tie the two rows may change places, and no more than that: the set is the same.
    assert set(found.points.tolist()) == set(order.tolist())

    ours = curve(points, p, phi, found.points)
    np.testing.assert_allclose(ours.x, NUMBERS[f"{name}_x"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(snapshots[-1].state.x[:-1], NUMBERS[f"{name}_x"], rtol=1e-5, atol=1e-5)
    expected = float(NUMBERS[f"{name}_E"]) - len(points.labels) * phi.at_zero  # ours is 0 for the empty set
    np.testing.assert_allclose(ours.objective[-1], expected, rtol=1e-5)


@pytest.mark.parametrize("sizes", [{}, {"shortlist_size": 64}], ids=["default", "small"])
@pytest.mark.parametrize("name", EXACT)
def test_the_exact_gain_makes_the_picks_of_the_float64_greedy(name, sizes):
    setting = SETTINGS[name]
    points, p, phi = encoded(setting), graph(setting).propagation(setting.alpha), make_phi(**setting.phi)
    order, gain = NUMBERS[f"{name}_exact_order"].astype(np.int64), NUMBERS[f"{name}_exact_gain"]
    sure = until_near_tie(NUMBERS[f"{name}_exact_margin"], gain)
    assert sure == {"T090": 281, "T065": 300, "T065_exp": 249}[name]
    found = greedy(make_problem(points, p, phi, "exact"), 300, pool_mesh(jax.devices()[:1]), **sizes)
    np.testing.assert_array_equal(found.points[:sure], order[:sure])
    np.testing.assert_allclose(found.gains[:sure], gain[:sure], rtol=5e-6)
    # Past a near-tie rows may change places; E cannot have suffered.
    ours, theirs = curve(points, p, phi, found.points, "exact"), curve(points, p, phi, order, "exact")
    np.testing.assert_allclose(theirs.exact, gain, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(theirs.x, NUMBERS[f"{name}_exact_x"], rtol=1e-9)
    np.testing.assert_allclose(ours.objective, theirs.objective, rtol=1e-6)
