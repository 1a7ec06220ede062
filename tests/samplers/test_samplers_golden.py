"""Random and IFD against the reference's own picks (yichengchen24/MIG @969eb53) on the recorded pool."""

from dataclasses import replace

import numpy as np
import pytest

from mig_jax.encode import encode
from mig_jax.gain import make_phi
from mig_jax.graph import LabelGraph
from mig_jax.pool import load_pool
from mig_jax.samplers import Task, find_sampler


@pytest.fixture(scope="module")
def task(shared):
    pool = load_pool(shared / "golden" / "public" / "pool.jsonl.gz")
    points = encode(pool)
    count = len(points.labels)
    empty = np.zeros(0, np.int32)
    graph = LabelGraph(points.labels, np.ones(count, np.float32), empty, empty, np.zeros(0, np.float32), 1.0)
    return Task(points, graph.propagation(), make_phi(), pool.ifd[points.row], compat=True)


@pytest.fixture(scope="module")
def expected(shared):
    return np.load(shared / "golden" / "public" / "mig" / "random_ifd.npz")


def test_random(task, expected):
    np.testing.assert_array_equal(find_sampler("random").sample(task, 300).points, expected["random_order"])


@pytest.mark.parametrize("decimals", [None, 2], ids=["as it is", "rounded, so with ties"])
def test_ifd(task, expected, decimals):
    if decimals is not None:
        task = replace(task, ifd=np.round(task.ifd, decimals))
    picked = find_sampler("ifd").sample(task, 300)
    np.testing.assert_array_equal(picked.points, expected["ifd_order" if decimals is None else "ifd_order_round2"])
    np.testing.assert_array_equal(picked.gains, task.ifd[picked.points])
