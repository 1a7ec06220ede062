"""Random and IFD against the reference's own picks (yichengchen24/MIG @969eb53) on the recorded pool."""

from dataclasses import replace

import numpy as np
import pytest
from sampler_tasks import golden_task, picked


@pytest.fixture(scope="module")
def task(shared):
    pool, task = golden_task(shared)
    return replace(task, ranking=pool.ifd[task.encoded.row])


@pytest.fixture(scope="module")
def expected(shared):
    return np.load(shared / "golden" / "public" / "mig" / "random_ifd.npz")


def test_random(task, expected):
    np.testing.assert_array_equal(picked("random", task, 300, compat=True).points, expected["random_order"])


@pytest.mark.parametrize("decimals", [None, 2], ids=["as it is", "rounded, so with ties"])
def test_ifd(task, expected, decimals):
    if decimals is not None:
        task = replace(task, ranking=np.round(task.ranking, decimals))
    found = picked("ifd", task, 300)
    np.testing.assert_array_equal(found.points, expected["ifd_order" if decimals is None else "ifd_order_round2"])
    np.testing.assert_array_equal(found.gains, task.ranking[found.points])
