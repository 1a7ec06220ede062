"""DEITA's filter: the walk written out row by row, the reference's own picks, and what no block may change."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_tasks import options, picked, vectors_task

from mig_jax.core.errors import UserError
from mig_jax.engine import Snapshot, pool_mesh
from mig_jax.engine.checkpoint import from_bytes, to_bytes
from mig_jax.samplers import Limits, Order, SamplingTask
from mig_jax.samplers.deita import DEITA, DeitaState, sample
from mig_jax.samplers.limits import NO_MOST, Gate
from mig_jax.vectors.novelty import _among
from mig_jax.vectors.vectors import Vectors

RUNS = {
    "t090": (0.9, 1, None),
    "t070": (0.7, 1, None),
    "t050": (0.5, 1, None),
    "t070_bs16": (0.7, 16, None),
    "t050_bs16": (0.5, 16, None),
    "t070_size300": (0.7, 1, 300),
    "t090_chunk64": (0.9, 1, 300),
}
DIM = 3
STEPS = st.integers(-2, 2)  # few values, so that rows are often equal, opposite, at right angles or zero


def run(task: SamplingTask, n: int, *, block: int = 4, tile: int = 2, devices: int = 1, **given: Any) -> Order:
    """In blocks and chunks so small that the tests' few rows make several."""
    task = replace(task, options=options("deita", **given), mesh=pool_mesh(jax.devices()[:devices]))
    return sample(task, n, block=block, tile=tile)


def assert_same(found: Order, expected: Order) -> None:
    """Bit for bit, but for how often float64 was asked."""
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.gains, expected.gains)
    assert (list(found.why), found.notes) == (list(expected.why), expected.notes)
    assert {**found.rounds, "redecided": 0} == {**expected.rounds, "redecided": 0}


def naive(task: SamplingTask, n: int, threshold: float, batch: int = 1) -> tuple[list[int], list[float]]:
    """Row by row in float64: (the picks, the largest cosine of each to what it is held against)."""
    vectors, score, limit = task.vectors, task.ranking, task.limit
    assert vectors is not None and score is not None
    unit = vectors.take(np.arange(len(vectors))).astype(np.float64)
    kept, nearest = limit.first.tolist(), [-2.0] * len(limit.first)
    mates: list[int] = []
    gate = Gate(limit)
    ranked = sorted(np.flatnonzero(~np.isnan(score)).tolist(), key=lambda d: (-score[d], d))
    for minima in gate.phases:
        gate.minima = minima
        for place, d in enumerate(ranked):
            if (place - 1) % batch == 0:
                mates = []
            if len(kept) >= n or not gate.allows(d):
                continue
            against = kept + mates if batch > 1 else kept
            cosine = max((float((unit[d] * unit[k]).sum().clip(-1, 1)) for k in against), default=-2.0)
            if cosine <= threshold:
                kept.append(d)
                nearest.append(cosine)
                gate.take(d)
            elif batch > 1:
                mates.append(d)
    return kept[:n], nearest[:n]


def pool(rows: int = 60, seed: int = 0, dim: int = DIM) -> SamplingTask:
    """Points around a few directions, some of them twice, with scores that are sometimes equal."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(6, dim))[rng.integers(0, 6, rows)] + 0.3 * rng.normal(size=(rows, dim))
    vectors[rng.integers(0, rows, 8)] = vectors[rng.integers(0, rows, 8)]
    return vectors_task(vectors.astype(np.float32), rng.integers(0, 40, rows) / 4)


@pytest.fixture(scope="module")
def golden(shared):
    found = np.load(shared / "golden" / "public" / "deita_filter" / "filter.npz")
    vectors = np.load(shared / "golden" / "public" / "embeddings.npy")
    task = vectors_task(vectors[found["rows"]], found["final_score"])
    return task, found


@pytest.mark.parametrize("name", RUNS)
def test_the_reference_picks_the_same_in_the_same_order(golden, name):
    """The nearest cosine to a threshold is 2.9e-5 away, and scores differ by 1.3e-6: no tie decides."""
    task, found = golden
    threshold, batch, size = RUNS[name]
    order = picked("deita", task, size or len(task.encoded), threshold=threshold, compat=batch > 1, batch_size=batch)
    np.testing.assert_array_equal(order.points, found[f"{name}_order"])
    np.testing.assert_array_equal(order.gains, found["final_score"][order.points])
    kept = found[f"{name}_candidate_kept"]
    assert order.rounds["candidates"] == len(kept)
    assert order.rounds["rejected"] == (~kept).sum()
    for why, cosine in zip(order.why[1:], found[f"{name}_candidate_maxsim"][kept][1:], strict=True):
        assert float(why.split()[-1]) == pytest.approx(cosine, abs=0.005 + 1e-6)


@given(
    st.lists(st.tuples(STEPS, STEPS, STEPS), min_size=1, max_size=20),
    st.sampled_from([-1.0, -0.5, 0.0, 0.5, 0.70710678, 0.9, 1.0]),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 3]),
)
@settings(deadline=None, max_examples=60)
def test_it_is_the_walk_row_by_row(vectors, threshold, random, batch):
    """Cosines of such vectors fall on these thresholds and on roundings."""
    score = np.array([random.choice([0.5, 1.0, 2.0, np.nan]) for _ in vectors])
    score[0] = 1.0
    task = vectors_task(np.array(vectors, np.float32), score)
    order = run(task, len(vectors), threshold=threshold, compat=True, batch_size=batch)
    points, nearest = naive(task, len(vectors), threshold, batch)
    assert order.points.tolist() == points
    for why, cosine in zip(order.why[1:], nearest[1:], strict=True):
        assert why.endswith(f"nearest kept {np.floor(100 * cosine + 0.5) / 100 + 0.0:.2f}")


@pytest.mark.parametrize("threshold", [0.3, 0.9, 0.99])
def test_blocks_chunks_and_devices_change_nothing(threshold):
    task = pool()
    expected = run(task, 40, threshold=threshold)
    assert expected.points.tolist() == naive(task, 40, threshold)[0]
    assert expected.rounds["rejected"] > 0
    for block, tile, devices in [(1, 2, 1), (7, 5, 1), (64, 64, 1), (512, 16, 1), (4, 2, 8), (7, 1, 3)]:
        assert_same(run(task, 40, block=block, tile=tile, devices=devices, threshold=threshold), expected)


def test_a_smaller_budget_is_a_prefix():
    task = pool()
    whole = run(task, 60, threshold=0.8)
    assert 5 < len(whole) < 60
    for n in (1, 4, 5, len(whole)):
        found = run(task, n, threshold=0.8)
        np.testing.assert_array_equal(found.points, whole.points[:n])
        assert list(found.why) == list(whole.why[:n])
    assert DEITA.nested(task)


def test_the_order_of_rows_does_not_matter_where_scores_differ():
    task, rng = pool(), np.random.default_rng(1)
    assert task.vectors is not None
    score, shuffled = rng.permutation(60) / 8, rng.permutation(60)
    found = run(replace(task, ranking=score), 60)
    again = run(vectors_task(task.vectors.array[shuffled], score[shuffled]), 60)
    np.testing.assert_array_equal(shuffled[again.points], found.points)
    np.testing.assert_array_equal(again.gains, found.gains)


def test_of_equal_rows_the_first_of_the_best_is_kept():
    vectors = np.eye(DIM, dtype=np.float32)[[0, 1, 0, 1, 2, 0]] * np.arange(1, 7)[:, None]
    order = run(vectors_task(vectors.astype(np.float32), np.array([1.0, 2.0, 3.0, 2.0, 1.0, 3.0])), 6)
    assert order.points.tolist() == [2, 1, 4]
    assert list(order.why) == ["score 3", "score 2, nearest kept 0.00", "score 1, nearest kept 0.00"]
    assert order.notes == ("3 rows rejected: too similar to a pick (cosine above 0.9)",)


def test_all_equal():
    task = vectors_task(np.full((9, DIM), 0.7, np.float32), np.ones(9))
    assert run(task, 9).points.tolist() == [0]
    everything = run(task, 9, threshold=1.0)
    assert everything.points.tolist() == list(range(9)), "a threshold of 1 rejects nothing"
    assert everything.rounds["redecided"] == 0


def test_zeros_are_like_nothing():
    task = vectors_task(np.zeros((9, DIM), np.float32), np.ones(9))
    assert run(task, 9, threshold=0.0).points.tolist() == list(range(9))
    assert run(task, 9, threshold=-0.1).points.tolist() == [0]


def test_a_threshold_of_1_takes_the_best():
    """Equal vectors have cosines of 1 and a little more or less in floating point; that decides nothing."""
    rng = np.random.default_rng(0)
    signs = np.sign(rng.normal(size=(20, DIM))) * [2, 2, 1]
    task = vectors_task(np.repeat(signs, 2, axis=0).astype(np.float32), rng.normal(size=40))
    assert task.vectors is not None
    rows = task.vectors.take(np.arange(40))
    assert (np.asarray(_among(rows)).diagonal() > 1).any()
    assert task.ranking is not None
    np.testing.assert_array_equal(run(task, 40, threshold=1.0).points, np.argsort(-task.ranking, kind="stable"))
    assert len(run(task, 40, threshold=0.99999)) == len(np.unique(signs, axis=0))


def test_rows_without_a_score():
    task = pool()
    score = np.where(np.arange(60) % 3 == 0, np.nan, task.ranking)
    order = run(replace(task, ranking=score), 60)
    assert len(order) > 5 and (order.points % 3 > 0).all()
    assert order.notes[-1] == "20 rows without a score could not be picked"
    with pytest.raises(UserError, match=r"none of the 60 usable rows has a score \(sampler.score=deita"):
        run(replace(task, ranking=np.full(60, np.nan)), 5, score="deita")


def test_only_rows_that_are_met_are_read():
    task, read = pool(), set()
    assert task.vectors is not None and task.ranking is not None

    class Watched(Vectors):
        def take(self, points):
            read.update(points.tolist())
            return super().take(points)

    snapshots: list[Snapshot] = []
    task = replace(task, vectors=Watched(task.vectors.array, task.vectors.rows), on_snapshot=snapshots.append)
    order = run(task, 12)
    met = np.argsort(-task.ranking, kind="stable")[: order.rounds["candidates"] + 8].tolist()  # its block and the next
    assert read <= set(met) and len(met) < 50
    last = snapshots[-2]
    rejected = set(np.flatnonzero(last.state.rejected).tolist())
    assert rejected & read
    read.clear()
    assert_same(run(replace(task, resume=last), 12), order)
    assert set(last.points.tolist()) < read and not rejected & read


def limited(task: SamplingTask, **changes: Any) -> SamplingTask:
    """Two quotas, even and odd points, with a cost of 1 + point % 3."""
    count = len(task.encoded)
    given = {
        "first": np.zeros(0, np.int64), "started": 0, "banned": np.zeros(count, bool),
        "quota_ptr": np.arange(count + 1), "quota_idx": np.arange(count) % 2, "quota_names": ("even", "odd"),
        "most": np.full(2, NO_MOST), "least": np.zeros(2, np.int64),
    }  # fmt: skip
    return replace(task, limits=Limits(**(given | changes)))


LIMITS = {
    "first": {"first": np.array([7, 12, 13]), "started": 1},
    "exclude": {"banned": np.arange(60) % 4 == 0},
    "caps": {"most": np.array([4, NO_MOST])},
    "minima": {"least": np.array([0, 8])},
    "tokens": {"cost": 1.0 + np.arange(60) % 3, "budget": 20.0},
    "all": {
        "first": np.array([7, 12]), "banned": np.arange(60) % 5 == 0, "most": np.array([9, 12]),
        "least": np.array([5, 6]), "cost": 1.0 + np.arange(60) % 3, "budget": 33.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("n", [2, 18, 60])
def test_limits(name, n):
    task = limited(pool(), **LIMITS[name])
    order = run(task, n, threshold=0.8)
    points, _ = naive(task, n, 0.8)
    assert order.points.tolist() == points
    assert_same(run(task, n, block=9, tile=3, devices=4, threshold=0.8), order)
    if name == "first" and n > 3:
        assert list(order.why[:3]) == ["earlier selection", "must include", "must include"]
        assert order.why[3].startswith("score ") and "nearest kept" in order.why[3]


def test_a_row_that_must_be_in_needs_no_score_and_is_not_compared():
    vectors = np.eye(DIM, dtype=np.float32)[[0, 0, 1]]
    task = vectors_task(vectors, np.array([np.nan, np.nan, 1.0]))
    nobody = Limits.none(3)
    order = run(replace(task, limits=replace(nobody, first=np.array([1, 0]))), 3)
    assert order.points.tolist() == [1, 0, 2]
    assert order.gains.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("name", [None, "all", "batches"])
def test_a_resumed_run_is_the_undisturbed_one(name):
    task, given = pool(), {"compat": True, "batch_size": 3} if name == "batches" else {}
    if name == "all":
        task = limited(task, **LIMITS["all"])
    snapshots: list[Snapshot] = []
    expected = run(replace(task, on_snapshot=snapshots.append), 60, threshold=0.8, **given)
    assert len(snapshots) >= 10
    for snapshot in snapshots:
        stored = from_bytes(to_bytes(snapshot), DeitaState)
        for devices in (1, 2):
            found = run(replace(task, resume=stored), 60, threshold=0.8, devices=devices, **given)
            assert_same(found, expected)
            assert devices > 1 or found.rounds == expected.rounds


def test_batches_need_compat_and_no_limits():
    with pytest.raises(UserError, match=r"give sampler.compat=true") as error:
        run(pool(), 5, batch_size=2)
    assert (error.value.key, error.value.value) == ("sampler.batch_size", 2)
    with pytest.raises(UserError, match=r"know no limits") as error:
        run(limited(pool(), **LIMITS["caps"]), 5, compat=True, batch_size=2)
    assert (error.value.key, error.value.allowed) == ("sampler.batch_size", [1])
