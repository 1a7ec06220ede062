"""CaR: the recorded selections, the rule by hand, its edges, and one clustering for any devices and after any crash."""

from dataclasses import replace

import numpy as np
import pytest
from sampler_tasks import options, picked, vectors_task

from mig_jax.core.errors import UserError
from mig_jax.engine import Snapshot
from mig_jax.samplers import Limits, car, find_sampler
from mig_jax.samplers.car import as_published, by_score_and_cluster

GOLDEN = {"n1_10": 10, "sk191_ninit_auto": 100, "ninit10": 100, "n1_1000_default": 1000, "ties_score2dp": 100}


@pytest.fixture(autouse=True)
def _nothing_clustered_before():
    car._newest.clear()


def limited(points: int, first=(), banned=(), started: int = 0) -> Limits:
    out = np.zeros(points, bool)
    out[list(banned)] = True
    return replace(Limits.none(points), first=np.array(first, np.int64), started=started, banned=out)


def a_task(rows: int = 90, dim: int = 5, seed: int = 0, **changes):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(7, dim))
    array = (centres[rng.integers(7, size=rows)] + 0.2 * rng.normal(size=(rows, dim))).astype(np.float32)
    return vectors_task(array, rng.permutation(rows) / 7, **changes)


@pytest.mark.parametrize("run", GOLDEN)
def test_the_recorded_selections_on_the_recorded_labels(shared, run):
    golden = np.load(shared / "golden" / "public" / "car" / "car.npz")
    score = golden["score"].round(2) if run == "ties_score2dp" else golden["score"]
    labels, order = golden[f"{run}_labels"].astype(np.int32), golden[f"{run}_order"]
    found = as_published(score, labels, len(score), GOLDEN[run], Limits.none(len(score)))
    np.testing.assert_array_equal(found.points, order)
    capped = as_published(score, labels, 12, GOLDEN[run], Limits.none(len(score)))
    np.testing.assert_array_equal(capped.points, order[:12])


def test_the_recorded_pool_from_its_embeddings(shared):
    """Of another random stream, so not the same clusters; but as many, and the best rows are the same."""
    folder = shared / "golden" / "public"
    golden = np.load(folder / "car" / "car.npz")
    task = vectors_task(np.load(folder / "embeddings.npy"), golden["score"])
    found = picked("car", task, 200, compat=True, n1=100, n_init=1)
    assert (found.rounds["clusters"], found.rounds["components"]) == (31, 216)
    assert found.rounds["picked_by_score"] == 100 < len(found) <= 131
    np.testing.assert_array_equal(found.points[:100], golden["ninit10_order"][:100])


SCORE = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], float)
LABELS = np.array([2, 2, 0, 2, 0, 10, 2, 10, 9, 0], np.int32)


@pytest.mark.parametrize(
    ("n", "top", "expected"),
    [
        (1, 0.8613, [0]),
        (1, 0.0, [2]),
        (3, 0.8613, [0, 1, 2]),
        (6, 0.5, [0, 1, 2, 8, 5, 4]),  # the best of 0 and 2 are in
        (10, 0.0, [2, 0, 8, 5, 4, 1, 7, 9, 3, 6]),
        (10, 1.0, list(range(10))),
    ],
)
def test_the_rule_by_hand(n, top, expected):
    found = by_score_and_cluster(SCORE, LABELS, n, top, Limits.none(10))
    assert found.points.tolist() == expected
    assert found.by_score + found.of_clusters == n


def test_why():
    found = by_score_and_cluster(SCORE, LABELS, 6, 0.5, limited(10, first=[7, 3], started=1))
    assert found.points.tolist() == [7, 3, 0, 1, 2, 8]
    assert found.why == [
        "earlier selection", "must include", "rank 1 by score", "rank 2 by score", "best of cluster 0",
        "best of cluster 9",
    ]  # fmt: skip
    assert by_score_and_cluster(SCORE, LABELS, 6, 0.5, Limits.none(10)).why[-1] == "number 2 of cluster 0"


def test_limits():
    found = by_score_and_cluster(SCORE, LABELS, 10, 0.3, limited(10, first=[0, 5], banned=[1, 2]))
    assert found.points.tolist() == [0, 5, 3, 4, 8, 9, 7, 6]  # cluster 10's best is in; the rules leave no more
    assert by_score_and_cluster(SCORE, LABELS, 1, 0.3, limited(10, first=[4, 5])).points.tolist() == [4]
    published = as_published(SCORE, LABELS, 10, 2, limited(10, first=[5], banned=[0]))
    assert published.points.tolist() == [5, 1, 2, 8]  # 10's best is in already


def test_published_clusters_come_in_falling_order_of_strings():
    found = as_published(SCORE, LABELS, 10, 1, Limits.none(10))
    assert found.points.tolist() == [0, 8, 5, 2]
    assert found.why == ["rank 1 by score", "best of cluster 9", "best of cluster 10", "best of cluster 0"]


def test_equal_scores_go_in_file_order():
    found = by_score_and_cluster(np.ones(10), LABELS, 10, 0.3, Limits.none(10))
    assert found.points.tolist() == [0, 1, 2, 8, 5, 4, 7, 9, 3, 6]


def test_the_order_of_rows_decides_nothing_but_ties():
    rng = np.random.default_rng(0)
    score, labels = rng.permutation(60).astype(float), rng.integers(0, 12, 60).astype(np.int32)
    order = rng.permutation(60)
    for rule, share in ((by_score_and_cluster, 0.4), (as_published, 9)):
        straight = rule(score, labels, 40, share, Limits.none(60)).points
        mixed = rule(score[order], labels[order], 40, share, Limits.none(60)).points
        np.testing.assert_array_equal(order[mixed], straight)


@pytest.mark.parametrize("n", [1, 2, 45, 90])
def test_exactly_n_distinct_points(n):
    task = a_task()
    found = picked("car", task, n, n_init=2)
    assert len(set(found.points.tolist())) == len(found) == len(found.why) == n
    assert found.rounds["clusters"] == 6
    assert found.rounds["picked_by_score"] == round(0.8613 * n)
    np.testing.assert_array_equal(found.gains, task.ranking[found.points])


def test_points_without_a_score_are_not_picked():
    task = a_task()
    score = task.ranking.copy()
    score[::3] = np.nan
    found = picked("car", replace(task, ranking=score), 90, n_init=1)
    assert sorted(found.points.tolist()) == np.flatnonzero(~np.isnan(score)).tolist()
    assert found.notes == ("30 usable rows have no annotation.CaR: clustered, but not picked",)
    must = replace(task, ranking=score, limits=limited(90, first=[0, 1]))
    assert picked("car", must, 3, n_init=1).gains[0] == 0
    with pytest.raises(UserError, match=r"sampler=car: none of the 90 usable rows has a score \(annotation.CaR\)"):
        picked("car", replace(task, ranking=np.full(90, np.nan)), 3)


def test_more_clusters_than_rows():
    with pytest.raises(UserError, match=r"must be at most 90") as error:
        picked("car", a_task(), 3, clusters=91)
    assert (error.value.key, error.value.value) == ("sampler.clusters", 91)


@pytest.mark.parametrize(
    "array",
    [np.ones((8, 3)), np.zeros((8, 3)), np.eye(8)[[0, 0, 1, 1, 2, 2, 2, 2]], np.vstack([np.zeros((4, 3)), np.eye(3)])],
    ids=["identical", "zeros", "duplicates", "some zeros"],
)
@pytest.mark.parametrize("clusters", [None, 1, 5])
def test_degenerate_embeddings(array, clusters):
    rows = len(array)
    task = vectors_task(array.astype(np.float32), np.arange(rows, dtype=float))
    found = picked("car", task, rows, clusters=clusters, n_init=2)
    assert sorted(found.points.tolist()) == list(range(rows))
    assert found.points[0] == rows - 1


def test_one_row():
    found = picked("car", vectors_task(np.ones((1, 4), np.float32), np.array([0.5])), 1)
    assert found.points.tolist() == [0]


def test_picks_do_not_depend_on_the_number_of_devices():
    rng = np.random.default_rng(0)
    array, score = rng.normal(size=(700, 16)).astype(np.float32), rng.normal(size=700)
    found = []
    for devices in (1, 8):
        car._newest.clear()
        found.append(picked("car", vectors_task(array, score, devices=devices), 300, n_init=2, top=0.3))
    np.testing.assert_array_equal(found[0].points, found[1].points)
    assert found[0].rounds == found[1].rounds
    assert found[0].why == found[1].why


def test_resumed_after_each_run_of_kmeans(monkeypatch):
    kept: list[Snapshot] = []
    task = a_task(on_snapshot=kept.append)
    whole = picked("car", task, 60, n_init=4, top=0.2)
    assert [int(snapshot.state.facts[0]) for snapshot in kept] == [1, 2, 3, 4]
    for snapshot in kept:
        car._newest.clear()
        runs = []
        monkeypatch.setattr(car, "kmeans", lambda *a, do=car.kmeans, runs=runs: (runs.append(a[2]), do(*a))[1])
        again = picked("car", replace(task, resume=snapshot, on_snapshot=None), 60, n_init=4, top=0.2)
        monkeypatch.undo()
        assert runs == [(42, run) for run in range(int(snapshot.state.facts[0]), 4)]
        np.testing.assert_array_equal(again.points, whole.points)
        assert (again.why, again.rounds) == (whole.why, whole.rounds)


def test_budgets_share_one_clustering(monkeypatch):
    task = a_task()
    picked("car", task, 60, n_init=2)
    monkeypatch.setattr(car, "kmeans", None)
    assert len(picked("car", task, 10, n_init=2)) == 10
    with pytest.raises(TypeError):  # but not with another seed
        picked("car", replace(task, seed=1), 10, n_init=2)


def test_more_runs_never_hurt():
    task = a_task(rows=300)
    inertia = []
    for runs in (1, 3, 9):
        clustered = car._clusters(replace(task, options=options("car", n_init=runs)))
        inertia.append(float(clustered.inertia))
        car._newest.clear()
    assert inertia == sorted(inertia, reverse=True)
    assert inertia[0] > inertia[-1]


def test_its_budgets_and_the_limits_it_refuses():
    sampler, task = find_sampler("car"), a_task()
    assert not sampler.nested(replace(task, options=options("car")))
    assert sampler.nested(replace(task, options=options("car", compat=True)))
    assert set(sampler.refuses) == {"caps", "minima", "tokens"}
    assert sampler.needs == ("vectors",)
