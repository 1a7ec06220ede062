"""What each sampler promises: its order, its ties, its seed, and what it does when its rows run dry."""

import random
from dataclasses import replace

import jax
import numpy as np
import pytest
from oracle import Data, Naive, random_labels, random_w

from mig_jax.encode import Encoded
from mig_jax.engine import pool_mesh
from mig_jax.errors import UserError
from mig_jax.gain import make_phi
from mig_jax.graph import LabelGraph
from mig_jax.samplers import SAMPLERS, Task, find_sampler


def task(rows: int = 40, count: int = 6, seed: int = 0, phi=None, **changes) -> tuple[Data, Task]:
    rng = np.random.default_rng(seed)
    data = Data(
        random_labels(rng, rng.integers(0, 4, rows), count),
        rng.integers(0, 4, rows) * 2.5,
        random_w(rng, np.array([(0, 1), (1, 2), (4, 5)]), count),
    )
    names = tuple(f"{i:03d}" for i in range(count))
    p, q = np.nonzero(np.triu(data.w, 1))
    graph = LabelGraph(names, np.diag(data.w).copy(), p.astype(np.int32), q.astype(np.int32), data.w[p, q], 0.3)
    ptr = np.cumsum([0, *map(len, data.labels)]).astype(np.int64)
    idx = np.array([label for row in data.labels for label in row], np.int32)
    encoded = Encoded(np.arange(rows), ptr, idx, data.score, names, {})
    ifd = rng.uniform(-0.2, 1.2, rows)
    settings = {"mesh": pool_mesh(jax.devices()[:1]), "c1": 16} | changes
    return data, Task(encoded, graph.propagation(), phi or make_phi(), ifd, **settings)


@pytest.mark.parametrize("gain", ["first_order", "exact"])
def test_mig_is_the_naive_greedy_and_then_by_score(gain):
    data, t = task(gain=gain)
    picked = find_sampler("mig").sample(t, 40)
    rows, gains = Naive(data, "power", 0.8, 1e-6, 1.0, gain).run(40)
    assert 5 < len(rows) < 40
    np.testing.assert_array_equal(np.sort(picked.points[: len(rows)]), np.sort(rows))
    np.testing.assert_allclose(picked.gains[: len(rows)], gains, rtol=1e-5)
    rest = picked.points[len(rows) :]
    expected = sorted(set(range(40)) - set(rows.tolist()), key=lambda d: (-data.score[d], d))
    assert rest.tolist() == expected
    assert (picked.gains[len(rows) :] == 0).all()
    assert picked.rounds["picked_without_gain"] == 40 - len(rows)


def test_mig_where_every_gain_underflows():
    """exp(-x) of a large score is 0: the rest follow by score, or in file order with compat (argmax over zeros)."""
    data, t = task(phi=make_phi("exp", alpha=100.0))
    picked = find_sampler("mig").sample(t, 40)
    assert sorted(picked.points.tolist()) == list(range(40))
    taken = 40 - picked.rounds["picked_without_gain"]
    assert 0 < taken < 20
    rest = picked.points[taken:]
    assert rest.tolist() == sorted(rest.tolist(), key=lambda d: (-data.score[d], d))
    compat = find_sampler("mig").sample(replace(t, compat=True), 40)
    np.testing.assert_array_equal(compat.points[:taken], picked.points[:taken])
    assert compat.points[taken:].tolist() == sorted(rest.tolist())


def test_random_is_one_permutation_of_its_seed():
    _, t = task()
    sampler = find_sampler("random")
    whole = sampler.sample(t, 40).points
    assert sorted(whole.tolist()) == list(range(40))
    np.testing.assert_array_equal(sampler.sample(t, 7).points, whole[:7])
    assert sampler.nested(t)
    assert sampler.sample(replace(t, seed=1), 40).points.tolist() != whole.tolist()


def test_random_with_compat_is_python_s_own():
    _, t = task(compat=True, seed=0)
    sampler = find_sampler("random")
    for n in (3, 9):
        assert sampler.sample(replace(t, seed=7), n).points.tolist() == random.Random(7).sample(range(40), n)
    assert not sampler.nested(t)


def test_ifd_takes_the_highest_from_zero_to_one_with_ties_in_file_order():
    _, t = task()
    t = replace(t, ifd=np.array([0.5, 1.0, 1.01, np.nan, 0.5, -0.01, 0.0, 0.7, 0.5] + [2.0] * 31))
    picked = find_sampler("ifd").sample(t, 40)
    assert picked.points.tolist() == [1, 7, 0, 4, 8, 6]
    assert find_sampler("ifd").sample(t, 3).points.tolist() == [1, 7, 0]
    np.testing.assert_array_equal(picked.gains, t.ifd[picked.points])
    with pytest.raises(UserError, match=r"sampler=ifd: none of the 40 usable rows .*39 have none"):
        find_sampler("ifd").sample(replace(t, ifd=np.array([2.0] + [np.nan] * 39)), 3)


def test_a_sampler_that_is_not_there():
    with pytest.raises(UserError, match=r"sampler=mgi: must be one of .*mig"):
        find_sampler("mgi")
    assert set(SAMPLERS) >= {"mig", "random", "ifd"}
