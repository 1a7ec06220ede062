"""QDIT against the greedy written out, against recorded selections, and what no block, device or crash may change."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from sampler_tasks import options, picked, vectors_task

from mig_jax.core.errors import UserError
from mig_jax.engine import pool_mesh
from mig_jax.engine.checkpoint import from_bytes, to_bytes
from mig_jax.samplers import Limits, Order, SamplingTask, find_sampler
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.configured import sampler_options
from mig_jax.samplers.limits import NO_MOST
from mig_jax.samplers.qdit import Options, QditState, sample
from mig_jax.vectors.facility_location import GRID, grid_steps

ROWS = 48


def some(seed: int = 0, rows: int = ROWS, **changes: Any) -> SamplingTask:
    """Three heaps of rows; some equal rows of equal quality, a vector of zeros, two rows without a quality."""
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(rows, 4)) + 1.5 * rng.normal(size=(3, 4))[rng.integers(0, 3, rows)]
    quality = rng.integers(1, 7, rows) * 0.75
    array[8::5], quality[8::5] = array[4::5][: len(array[8::5])], quality[4::5][: len(array[8::5])]
    array[2], quality[[5, 31]] = 0, np.nan
    return vectors_task(array.astype(np.float32), quality, **changes)


def run(task: SamplingTask, n: int, devices: int = 1, **given: Any) -> Order:
    """In small blocks and with few points in order, so that the few rows of a test make several."""
    how = {key: given.pop(key) for key in ("block", "listed", "every") if key in given}
    task = replace(task, options=options("qdit", **given), mesh=pool_mesh(jax.devices()[:devices]))
    return sample(task, n, **({"block": 16, "listed": 5, "every": 1} | how))


def assert_same(found: Order, expected: Order) -> None:
    """Bit for bit, but for how the work was cut."""
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.gains, expected.gains)
    assert (list(found.why), found.notes, found.reason) == (list(expected.why), expected.notes, expected.reason)


class Naive:
    """All cosines, all gains at every step; rules of the limits one by one."""

    def __init__(self, task: SamplingTask, alpha: float, normalize: bool):
        assert task.vectors is not None and task.ranking is not None
        self.limit, count = task.limit, len(task.vectors)
        unit = task.vectors.take(np.arange(count)).astype(np.float64)
        x = np.rint(unit * 2**GRID).astype(np.int64)
        self.s = np.rint((x @ x.T) / (2.0 ** (2 * GRID) / grid_steps(count)))
        self.has = ~np.isnan(task.ranking)
        q = np.where(self.has, task.ranking, 0.0)
        self.weight = (1 - alpha) / grid_steps(count)
        if normalize:
            low, high = q[self.has].min(), q[self.has].max()
            q = np.where(self.has, (q - low) / (high - low or 1.0), 0.0)
            self.weight /= count
        self.bonus = alpha * q

    def allowed(self, u: int, taken: list[int], minima: bool) -> bool:
        limit = self.limit
        if u in taken or limit.banned[u] or not self.has[u]:
            return False
        if limit.budget is not None and limit.cost is not None and limit.cost[[*taken, u]].sum() > limit.budget:
            return False
        of = [set(limit.quota_idx[limit.quota_ptr[p] : limit.quota_ptr[p + 1]].tolist()) for p in (*taken, u)]
        counts = {quota: sum(quota in one for one in of[:-1]) for quota in of[-1]}
        if limit.most is not None and any(counts[quota] >= limit.most[quota] for quota in counts):
            return False
        return not minima or any(limit.least is not None and counts[quota] < limit.least[quota] for quota in counts)

    def greedy(self, n: int, ratio: bool = False) -> tuple[list[int], list[float]]:
        m, points, gains = np.zeros(len(self.s)), [], []
        cost = self.limit.cost if ratio else None

        def take(u: int) -> None:
            points.append(u)
            gains.append(self.weight * np.maximum(self.s[u] - m, 0).sum() + self.bonus[u])
            np.maximum(m, self.s[u], out=m)

        for u in self.limit.first[:n].tolist():
            take(u)
        for minima in (True, False) if self.limit.least is not None else (False,):
            while len(points) < n:
                gain = self.weight * np.maximum(self.s - m, 0).sum(axis=1) + self.bonus
                gain = gain if cost is None else gain / cost
                allowed = [u for u in range(len(gain)) if self.allowed(u, points, minima)]
                if not allowed:
                    break
                take(min(allowed, key=lambda u: (-gain[u], u)))
        return points, gains


@pytest.mark.parametrize("normalize", [True, False], ids=["norm", "raw"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_every_pick_is_that_of_the_naive_greedy(alpha: float, normalize: bool):
    task = some()
    points, gains = Naive(task, alpha, normalize).greedy(ROWS)
    found = run(task, ROWS, alpha=alpha, normalize=normalize)
    assert found.points.tolist() == points
    assert len(points) == ROWS - 2
    assert found.notes == ("2 rows have no quality: they count as rows to cover, and none is picked",)
    np.testing.assert_array_equal(found.gains, gains)
    np.testing.assert_array_equal(run(task, 9, alpha=alpha, normalize=normalize).points, points[:9])


@pytest.mark.parametrize("given", [{"devices": 3, "block": 4}, {"devices": 8}, {"block": 1}, {"listed": 1}, {}])
def test_neither_devices_nor_blocks_change_a_bit(given: dict):
    task = some(seed=1)
    for alpha in (0.0, 0.7):
        assert_same(run(task, 40, alpha=alpha, **given), run(task, 40, alpha=alpha, block=64, listed=4096))


def test_other_orders_of_the_rows_pick_the_same_rows():
    rng = np.random.default_rng(5)
    array, quality = rng.normal(size=(40, 6)).astype(np.float32), rng.uniform(1, 6, 40)
    before = run(vectors_task(array, quality), 20)
    order = rng.permutation(40)
    after = run(vectors_task(array[order], quality[order]), 20)
    np.testing.assert_array_equal(order[after.points], before.points)
    np.testing.assert_array_equal(after.gains, before.gains)


def test_equal_rows_go_in_file_order():
    array = np.tile(np.array([[3.0, 4.0]], np.float32), (9, 1))
    found = run(vectors_task(array, np.full(9, 2.5)), 9)
    assert found.points.tolist() == [*range(9)]
    np.testing.assert_allclose(found.gains, [0.3] + [0] * 8, atol=1e-7)  # all is covered by the first; q is constant: 0
    raw = run(vectors_task(array, np.full(9, 2.5)), 9, normalize=False)
    np.testing.assert_allclose(raw.gains, [0.3 * 9 + 0.7 * 2.5] + [0.7 * 2.5] * 8, atol=1e-6)


def test_vectors_of_zeros_cover_nothing():
    array = np.zeros((5, 3), np.float32)
    found = run(vectors_task(array, np.array([1.0, 3, 2, 3, 1])), 5)
    assert found.points.tolist() == [1, 3, 2, 0, 4]
    np.testing.assert_allclose(found.gains, [0.7, 0.7, 0.35, 0, 0])
    assert found.why[0] == "coverage 0 + quality 0.7"
    assert run(vectors_task(array, np.arange(5.0)), 5, alpha=0.0).points.tolist() == [*range(5)]


def test_one_row():
    found = run(vectors_task(np.array([[1.0, 2.0]], np.float32), np.array([4.0])), 1, normalize=False)
    assert found.points.tolist() == [0]
    np.testing.assert_allclose(found.gains, [0.3 + 0.7 * 4], atol=1e-7)


def test_no_quality_at_all():
    with pytest.raises(UserError, match=r"sampler=qdit: none of the 3 usable rows has a quality \(sampler.score\)"):
        run(vectors_task(np.ones((3, 2), np.float32), np.full(3, np.nan)), 1)


@pytest.mark.parametrize("wrong", [{"alpha": 1.1}, {"alpha": -0.1}, {"normalize": "so"}, {"beta": 1}])
def test_options_have_their_ranges(wrong: dict):
    assert issubclass(Options, SamplerOptions)
    with pytest.raises(UserError):
        sampler_options("qdit", wrong)


def limited(**changes: Any) -> Limits:
    """Of the points two colours and, of every third, a shape."""
    kinds = [[u % 2] if u % 3 else [u % 2, 2] for u in range(ROWS)]
    ptr = np.cumsum([0, *map(len, kinds)]).astype(np.int64)
    idx = np.array([kind for one in kinds for kind in one], np.int64)
    limits = Limits(np.zeros(0, np.int64), 0, np.zeros(ROWS, bool), ptr, idx, ("even", "odd", "round"))
    return replace(limits, **changes)


BANNED = np.arange(ROWS) % 7 == 1
COST = np.random.default_rng(2).integers(1, 30, ROWS) * 1.0
LIMITS = {
    "first": {"first": np.array([31, 2, 40, 3]), "started": 2},  # 31 has no quality
    "exclude": {"banned": BANNED},
    "caps": {"most": np.array([NO_MOST, 4, 6])},
    "minima": {"least": np.array([0, 9, 12])},
    "tokens": {"cost": COST, "budget": 150.0},
    "all": {
        "first": np.array([30, 2]), "started": 0, "banned": BANNED, "most": np.array([NO_MOST, NO_MOST, 9]),
        "least": np.array([6, 0, 3]), "cost": COST, "budget": 160.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("alpha", [0.0, 0.7])
@pytest.mark.parametrize("kind", LIMITS)
def test_limits(kind: str, alpha: float):
    task = some(limits=limited(**LIMITS[kind]))
    naive = Naive(task, alpha, True)
    runs = [naive.greedy(20), *([naive.greedy(20, ratio=True)] if task.limit.budget is not None else [])]
    points, gains = max(runs, key=lambda one: np.cumsum(one[1])[-1])
    found = run(task, 20, alpha=alpha)
    assert found.points.tolist() == points
    np.testing.assert_array_equal(found.gains, gains)
    assert find_sampler("qdit").nested(task) == (task.limit.budget is None)
    if kind == "first":
        assert list(found.why[:4]) == ["earlier selection"] * 2 + ["must include"] * 2
        assert found.why[4].startswith("coverage ")
        assert run(task, 3, alpha=alpha).points.tolist() == [31, 2, 40]


def test_of_the_two_greedies_under_a_budget_the_better_is_kept():
    """One dear row that takes all the budget, or many cheap ones: by gain the first, by gain per cost the others."""
    array, none = np.eye(6, dtype=np.float32), Limits.none(6)

    def found(dear: float, n: int = 6) -> Order:
        limits = replace(none, cost=np.array([10.0, 1, 1, 1, 1, 1]), budget=10.0)
        task = vectors_task(array, np.array([dear, 1, 1, 1, 1, 1]), limits=limits)
        return run(task, n, alpha=0.5, normalize=False)

    cheap, dear = found(2.0), found(20.0)
    assert cheap.points.tolist() == [1, 2, 3, 4, 5]
    assert cheap.notes == (
        "of two greedies under the budget the one by gain per cost is kept: its objective is 5, that of the"
        " one by gain 1.5 (at least (1 - 1/e)/2 = 31.6 % of the best within the budget (Leskovec et al. 2007))",
    )
    assert dear.points.tolist() == [0]
    assert "the one by gain is kept: its objective is 10.5" in dear.notes[0]
    assert "1/e" not in found(2.0, n=5).notes[0]  # not the budget, but n ends it


@pytest.mark.parametrize("kind", ["none", "all"])
def test_a_resumed_run_ends_with_the_same_bytes(kind: str):
    task = some(seed=3, limits=limited(**LIMITS.get(kind, {})))
    kept = []
    whole = run(replace(task, on_snapshot=kept.append), 24, alpha=0.3)
    assert len(kept) > 10
    if kind == "all":
        assert {int(snapshot.state.finished) for snapshot in kept} == {0, 1}  # in the first greedy, and in the second
    for snapshot in (kept[0], *kept[3::7], kept[-1]):
        again = run(replace(task, resume=from_bytes(to_bytes(snapshot), QditState)), 24, alpha=0.3, devices=2)
        assert_same(again, whole)


KINDS = {"a00": 0.0, "a07": 0.7, "a09": 0.9, "a10": 1.0}


@pytest.mark.parametrize("scale", ["raw", "norm"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_recorded_selections(shared, scale: str, kind: str):
    """A float64 greedy of its own. Gains to what float32 unit vectors leave of the first of them."""
    stored = np.load(shared / "golden" / "public" / "qdit" / "qdit.npz")
    task = vectors_task(np.load(shared / "golden" / "public" / "embeddings.npy"), stored["quality"])
    order, gain, margin = (stored[f"{scale}_{kind}_{part}"] for part in ("order", "gain", "margin"))
    found = picked("qdit", task, 100, alpha=KINDS[kind], normalize=scale == "norm")
    clear = margin > 1e-6 * gain
    assert clear.sum() > 95
    np.testing.assert_array_equal(found.points[clear], order[clear])
    np.testing.assert_allclose(found.gains, gain, rtol=1e-6)


def test_without_quality_it_is_the_facility_location_of_others(shared):
    """submodlib (0.0.3) and apricot-select (0.6.1), naive and lazy, on the kernel of the same embeddings."""
    stored = np.load(shared / "golden" / "public" / "facility_location" / "fl.npz")
    task = vectors_task(np.load(shared / "golden" / "public" / "embeddings.npy"), np.ones(2000))
    found = picked("qdit", task, 100, alpha=0.0, normalize=False)
    clear = stored["oracle_margin"] > 1e-6 * stored["oracle_gain"]
    for peer in ("oracle", "submodlib_NaiveGreedy", "submodlib_LazyGreedy", "apricot_naive", "apricot_lazy"):
        np.testing.assert_array_equal(found.points[clear], stored[f"{peer}_order"][clear], err_msg=peer)
        np.testing.assert_allclose(found.gains, stored[f"{peer}_gain"], rtol=1e-6, err_msg=peer)
