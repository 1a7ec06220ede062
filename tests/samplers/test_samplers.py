"""What each sampler promises: its order, its ties, its seed, and what it does when its rows run dry."""

import random
from dataclasses import replace

import numpy as np
import pytest
from oracle import Naive
from sampler_tasks import options, picked, task

from mig_jax.core.errors import UserError
from mig_jax.objective import make_phi
from mig_jax.samplers import SAMPLERS, find_sampler


@pytest.mark.parametrize("gain", ["first_order", "exact"])
def test_mig_is_the_naive_greedy_and_then_by_score(gain):
    data, t = task()
    found = picked("mig", t, 40, gain=gain)
    rows, gains = Naive(data, "power", 0.8, 1e-6, 1.0, gain).run(40)
    assert 5 < len(rows) < 40
    np.testing.assert_array_equal(np.sort(found.points[: len(rows)]), np.sort(rows))
    np.testing.assert_allclose(found.gains[: len(rows)], gains, rtol=1e-5)
    rest = found.points[len(rows) :]
    expected = sorted(set(range(40)) - set(rows.tolist()), key=lambda d: (-data.score[d], d))
    assert rest.tolist() == expected
    assert (found.gains[len(rows) :] == 0).all()
    assert found.rounds["picked_without_gain"] == 40 - len(rows)


def test_mig_where_every_gain_underflows():
    """exp(-x) of a large score is 0: the rest follow by score, or in file order with compat (argmax over zeros)."""
    data, t = task(phi=make_phi("exp", alpha=100.0))
    found = picked("mig", t, 40)
    assert sorted(found.points.tolist()) == list(range(40))
    taken = 40 - found.rounds["picked_without_gain"]
    assert 0 < taken < 20
    rest = found.points[taken:]
    assert rest.tolist() == sorted(rest.tolist(), key=lambda d: (-data.score[d], d))
    compat = picked("mig", t, 40, compat=True)
    np.testing.assert_array_equal(compat.points[:taken], found.points[:taken])
    assert compat.points[taken:].tolist() == sorted(rest.tolist())


def test_random_is_one_permutation_of_its_seed():
    _, t = task()
    whole = picked("random", t, 40).points
    assert sorted(whole.tolist()) == list(range(40))
    np.testing.assert_array_equal(picked("random", t, 7).points, whole[:7])
    assert find_sampler("random").nested(replace(t, options=options("random")))
    assert picked("random", replace(t, seed=1), 40).points.tolist() != whole.tolist()


def test_random_with_compat_is_python_s_own():
    _, t = task(seed=0)
    for n in (3, 9):
        found = picked("random", replace(t, seed=7), n, compat=True)
        assert found.points.tolist() == random.Random(7).sample(range(40), n)
    assert not find_sampler("random").nested(replace(t, options=options("random", compat=True)))


def test_ifd_takes_the_highest_from_zero_to_one_with_ties_in_file_order():
    _, t = task()
    t = replace(t, ranking=np.array([0.5, 1.0, 1.01, np.nan, 0.5, -0.01, 0.0, 0.7, 0.5] + [2.0] * 31))
    found = picked("ifd", t, 40)
    assert found.points.tolist() == [1, 7, 0, 4, 8, 6]
    assert picked("ifd", t, 3).points.tolist() == [1, 7, 0]
    np.testing.assert_array_equal(found.gains, t.ranking[found.points])
    with pytest.raises(UserError, match=r"sampler=ifd: none of the 40 usable rows .*39 have none"):
        picked("ifd", replace(t, ranking=np.array([2.0] + [np.nan] * 39)), 3)


def test_pool_takes_everything_in_file_order():
    _, t = task()
    assert picked("pool", t, 3).points.tolist() == list(range(40))


def test_a_sampler_that_is_not_there():
    with pytest.raises(UserError, match=r"sampler=mgi: must be one of .*mig"):
        find_sampler("mgi")
    assert set(SAMPLERS) >= {"mig", "random", "ifd"}
