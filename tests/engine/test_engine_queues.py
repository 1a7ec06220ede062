"""Rows that differ in score alone share a queue: what that changes (the number of passes) and what not (the picks)."""

from itertools import permutations

import numpy as np
import pytest
from engine_cases import Case, Size, assert_same_bits, case, naive, run

from mig_jax.engine.greedy import SHORTLIST
from mig_jax.engine.pool_in_memory import PoolInMemory
from mig_jax.engine.problem import make_groups
from mig_jax.objective import make_phi

KINDS = ["first_order", "exact"]
LOG = make_phi("log", c=1.0)  # with whole scores and labels apart each gain is one rounded operation: ties are exact


def apart(labels, score, count: int) -> Case:
    return case(labels, np.asarray(score, float), np.eye(count, dtype=np.float32), LOG, 1.0)


def groups_of(labels, score, count: int):
    encoded = apart(labels, score, count).encoded
    return make_groups(encoded.label_ptr, encoded.label_idx, encoded.score, count)


def queues(groups) -> list[tuple[tuple[int, ...], list[int]]]:
    """(labels, rows in order) of each."""
    sets = [tuple(part.tolist()) for part in np.split(groups.idx, groups.ptr[1:-1])]
    return list(zip(sets, [part.tolist() for part in np.split(groups.point, groups.queue[1:-1])], strict=True))


@pytest.mark.parametrize("size", [Size(1, SHORTLIST, 1_024), Size(8, SHORTLIST, 300)])
@pytest.mark.parametrize("kind", KINDS)
def test_four_thousand_rows_of_twenty_tags(kind, size):
    rng = np.random.default_rng(0)
    drawn = apart(tuple((int(tag),) for tag in rng.integers(0, 20, 4_000)), np.ones(4_000), 20)
    assert groups_of(drawn.data.labels, drawn.data.score, 20).num_groups == 20
    n = 4_000 if kind == "first_order" else 1_000  # the naive one computes all logarithms anew
    found = run(drawn, n, kind, size)
    rows, gains = naive(drawn, kind).run(n)
    np.testing.assert_array_equal(found.points, rows)
    np.testing.assert_allclose(found.gains, gains, rtol=1e-6)
    assert found.counts["full_passes"] <= 3
    assert found.counts["gain_evaluations"] <= 2.1 * n


def test_a_queue_is_ordered_by_score_then_row_and_queues_by_their_first_row():
    labels = ((1,), (0,), (), (1,), (0,), (1,), (2,), (1,))
    found = groups_of(labels, [2, 1, 9, 3, 1, 2, 0, 3], 3)
    assert queues(found) == [((0,), [1, 4]), ((1,), [3, 7, 0, 5])]
    np.testing.assert_array_equal(found.score, [1, 1, 3, 3, 2, 2])
    assert groups_of(((), (2,)), [1, 0], 3).num_groups == 0


def test_equal_sets_in_another_order_share_a_queue():
    labels = (*permutations((0, 2, 3)), (1,), *permutations((0, 2, 3)), (0, 2), (2, 0))
    found = groups_of(labels, np.ones(len(labels)), 4)
    assert queues(found) == [((0, 2, 3), [*range(6), *range(7, 13)]), ((1,), [6]), ((0, 2), [13, 14])]
    drawn = apart(labels, np.ones(len(labels)), 4)
    for kind in KINDS:
        np.testing.assert_array_equal(run(drawn, 15, kind, Size(2, 3, 4)).points, naive(drawn, kind).run(15)[0])


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_the_dictionary_s(seed):
    rng = np.random.default_rng(seed)
    labels = tuple(tuple(rng.permutation(9)[: rng.integers(0, 5)].tolist()) for _ in range(500))
    score = rng.integers(0, 5, 500)
    expected: dict[tuple[int, ...], list[int]] = {}
    for row in np.lexsort((np.arange(500), -score)).tolist():
        if labels[row] and score[row]:
            expected.setdefault(tuple(sorted(labels[row])), []).append(row)
    assert queues(groups_of(labels, score, 9)) == sorted(expected.items(), key=lambda item: item[1][0])


class Marks:
    """In place of numpy's generator: marks that collide where the seed is below ``bad``."""

    def __init__(self, bad: int, marks):
        self.bad, self.marks, self.honest, self.seeds = bad, marks, np.random.default_rng, []

    def __call__(self, seed):
        self.seeds.append(seed[0])
        return self if seed[0] < self.bad else self.honest(seed)

    def integers(self, low, high, size, dtype):
        return np.resize(np.array(self.marks, dtype), size)


# All alike; two labels alike; {0, 1} and {2} alike, of different widths.
COLLIDING = [[5], [1, 1, 40, 700, 9_000], [1, 2, 3, 700, 9_000]]


@pytest.mark.parametrize("marks", COLLIDING)
def test_equal_digests_of_different_sets_share_no_queue(marks, monkeypatch):
    rng = np.random.default_rng(1)
    labels = tuple(tuple(rng.permutation(4)[: rng.integers(1, 4)].tolist()) for _ in range(200))
    score = rng.integers(1, 4, 200)
    honest = groups_of(labels, score, 4)
    for bad in (1, 7):
        drawn = Marks(bad, marks)
        monkeypatch.setattr("numpy.random.default_rng", drawn)
        found = groups_of(labels, score, 4)
        monkeypatch.undo()
        assert drawn.seeds == list(range(bad + 1))
        assert queues(found) == queues(honest)
    monkeypatch.setattr("numpy.random.default_rng", Marks(8, marks))
    with pytest.raises(AssertionError, match="digests of different label sets"):
        groups_of(labels, score, 4)


@pytest.fixture
def widened(monkeypatch) -> list[int]:
    """The length of the list each time that it was widened."""
    lengths, widen = [], PoolInMemory.widen

    def spy(pool: PoolInMemory) -> None:
        lengths.append(pool.shortlist_size)
        widen(pool)

    monkeypatch.setattr(PoolInMemory, "widen", spy)
    return lengths


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_equals_with_an_earlier_row_outside_is_widened(kind, shards, widened):
    """After rows 0 and 1 both heads gain alike. The list of one holds the first queue, whose head is row 3: row 2, of
    the queue outside, comes before it."""
    drawn = apart(((0,), (1,), (1,), (0,)), np.ones(4), 2)
    found = run(drawn, 4, kind, Size(shards, 1, 8))
    assert found.points.tolist() == [0, 1, 2, 3]
    assert widened == [1]
    assert found.counts["full_passes"] <= 6


@pytest.mark.parametrize("shortlist_size", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_many_equals_and_a_short_list(kind, shortlist_size, widened):
    """Six tags in turn, backwards in the second half: the heads of the first queues are then the last rows."""
    half = [tag for _ in range(10) for tag in range(6)]
    drawn = apart(tuple((tag,) for tag in half + half[::-1]), np.ones(120), 6)
    rows, _ = naive(drawn, kind).run(120)
    short = run(drawn, 120, kind, Size(1, shortlist_size, 16))
    np.testing.assert_array_equal(short.points, rows)
    assert widened == [shortlist_size * 4**i for i in range(len(widened))] and widened
    assert_same_bits(short, run(drawn, 120, kind, Size(4, shortlist_size, 7)))
    assert_same_bits(short, run(drawn, 120, kind, Size(1, SHORTLIST, 1_024)))
