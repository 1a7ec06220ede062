"""What every system promises, whatever it ranks by: distinct rows, as many as asked for or fewer with a reason, for
pools of every awkward kind; the same on any number of devices; limits kept."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from sampler_tasks import options

from mig_jax.encode import Encoded
from mig_jax.engine import pool_mesh
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective import make_phi
from mig_jax.samplers import SAMPLERS, Limits, Rows, SamplingTask, find_sampler
from mig_jax.vectors.vectors import Vectors

M, LABELS = 24, 5
RUN_DRY = {"deita", "ifd"}  # their own rules may leave fewer


def a_task(name: str, kind: str, devices: int = 1) -> SamplingTask:
    """M points: drawn, or with one of their sides made awkward."""
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((M, 16)).astype(np.float32)
    score = rng.uniform(0.1, 1.0, M)
    labels = [sorted(set(rng.integers(0, LABELS, 1 + at % 3).tolist())) for at in range(M)]
    texts = [f"question {at} " + "word " * int(rng.integers(1, 30)) for at in range(M)]
    if kind == "duplicates":
        for at in range(M // 2, M):
            vectors[at], score[at], labels[at], texts[at] = (
                part[at - M // 2] for part in (vectors, score, labels, texts)
            )
    elif kind == "one point many times":
        vectors[:], score[:], labels, texts = vectors[0], score[0], labels[:1] * M, texts[:1] * M
    elif kind == "constant scores":
        score[:] = 0.5
    elif kind == "zero vectors":
        vectors[:] = 0
    elif kind == "one cluster":
        vectors = (np.ones(16) + 1e-3 * vectors).astype(np.float32)
    ptr = np.cumsum([0, *map(len, labels)]).astype(np.int64)
    idx = np.array([label for row in labels for label in row], np.int32)
    encoded = Encoded(np.arange(M), ptr, idx, score, tuple("abcde"), {})
    eye = Propagation(np.arange(LABELS + 1), np.arange(LABELS, dtype=np.int32), np.ones(LABELS))
    dialogs = Rows(
        lambda points: (texts[point].encode() for point in points.tolist()),
        lambda points: ([("user", texts[point]), ("assistant", texts[point][::-1])] for point in points.tolist()),
    )
    return SamplingTask(
        encoded, eye, make_phi(), options(name), ranking=score, vectors=Vectors(vectors, encoded.row), rows=dialogs,
        mesh=pool_mesh(jax.devices()[:devices]),
    )  # fmt: skip


KINDS = ("drawn", "duplicates", "one point many times", "constant scores", "zero vectors", "one cluster")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [1, 7, M])
def test_distinct_rows_as_many_as_asked_for(name: str, kind: str, n: int) -> None:
    found = find_sampler(name).sample(a_task(name, kind), n)
    points = found.points.tolist()
    assert len(set(points)) == len(points) and set(points) <= set(range(M))
    assert len(found.gains) == len(points) and len(found.why) in (0, len(points))
    assert np.isfinite(found.gains).all() and found.reason
    if SAMPLERS[name].takes_all:
        assert points == list(range(M))
    elif name in RUN_DRY:
        assert 1 <= len(points) <= n
    else:
        assert len(points) == n
    if name == "deita":
        kept = {"one point many times": 1, "one cluster": 1, "duplicates": M // 2}.get(kind, M)
        assert len(points) == min(n, kept)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_on_eight_devices_and_again(name: str) -> None:
    one, again, eight = (find_sampler(name).sample(a_task(name, "drawn", devices), 9) for devices in (1, 1, 8))
    for other in (again, eight):
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.gains, other.gains)
        assert [*one.why] == [*other.why]


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if not sampler.takes_all])
def test_a_smaller_budget_is_a_prefix_where_it_says_so(name: str) -> None:
    task, sampler = a_task(name, "drawn"), find_sampler(name)
    if sampler.nested(task):
        np.testing.assert_array_equal(sampler.sample(task, 4).points, sampler.sample(task, 11).points[:4])


@pytest.mark.parametrize("name", SAMPLERS)
def test_limits_are_kept_or_refused(name: str) -> None:
    sampler, task = find_sampler(name), a_task(name, "drawn")
    none = Limits.none(M)
    half = np.arange(M) % 2
    quotas = {"quota_ptr": np.arange(M + 1), "quota_idx": half, "quota_names": ("source even", "source odd")}
    cost = 1.0 + np.arange(M) % 5
    given = {
        "first": replace(none, first=np.array([5, 2]), started=1),
        "exclude": replace(none, banned=np.arange(M) < 12),
        "caps": replace(none, **quotas, most=np.array([2, 2**62]), least=np.array([0, 0])),
        "minima": replace(none, **quotas, most=np.array([2**62, 2**62]), least=np.array([4, 0])),
        "tokens": replace(none, cost=cost, budget=15.0),
    }
    for kind, limits in given.items():
        assert limits.kinds == (kind,)
        if kind in sampler.refuses:
            assert len(sampler.refuses[kind]) > 10
            continue
        found = sampler.sample(replace(task, limits=limits), 8).points
        if kind == "first":
            assert found[:2].tolist() == [5, 2]
        elif kind == "exclude":
            assert found.min() >= 12
        elif kind == "caps":
            assert (half[found] == 0).sum() <= 2 and len(found) >= 6
        elif kind == "minima":
            assert (half[found[:4]] == 0).all()
        else:
            assert cost[found].sum() <= 15 and len(found) >= 3
    assert "exclude" not in sampler.refuses, "leaving rows out makes sense for every system"
