"""#InsTag against a walk over the rows as the paper words it, and against recorded selections."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampler_tasks import golden_task, options, picked

from mig_jax.encode import Encoded
from mig_jax.labels import LabelGraph
from mig_jax.labels.valid_tags import read_valid_tags
from mig_jax.objective import make_phi
from mig_jax.samplers import Limits, SamplingTask


def task_of(rows: list[list[str]], **changes) -> SamplingTask:
    names = tuple(sorted({tag for row in rows for tag in row}))
    number = {name: i for i, name in enumerate(names)}
    ids = [[*dict.fromkeys(number[tag] for tag in row)] for row in rows]
    encoded = Encoded(
        np.arange(len(rows)),
        np.cumsum([0, *map(len, ids)]).astype(np.int64),
        np.array([label for row in ids for label in row], np.int32),
        np.ones(len(rows)),
        names,
        {},
        tag_count=np.array([*map(len, rows)], np.int64),
    )
    empty = np.zeros(0, np.int32)
    graph = LabelGraph(names, np.ones(len(names), np.float32), empty, empty, np.zeros(0, np.float32), 1.0)
    return SamplingTask(encoded, graph.propagation(), make_phi(), options("instag"), **changes)


def walked(rows: list[list[str]], n: int, repeats: bool = False) -> list[int]:
    """Algorithm 1, line by line."""
    left = sorted(range(len(rows)), key=lambda r: -(len(rows[r]) if repeats else len(set(rows[r]))))
    order: list[int] = []
    while len(order) < n:
        covered, before = set(), len(order)
        for row in [*left]:
            if len(order) < n and not covered.issuperset(rows[row]):
                covered.update(rows[row])
                order.append(row)
                left.remove(row)
        if len(order) == before:
            order += left[: n - len(order)]
    return order


@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=5), min_size=1, max_size=30), st.data(), st.booleans())
def test_the_passes_are_those_of_the_walk(rows, data, repeats):
    n = data.draw(st.integers(1, len(rows)))
    found = picked("instag", task_of(rows), n, repeats=repeats)
    assert found.points.tolist() == walked(rows, n, repeats)
    assert len(found.why) == n


def test_the_golden(shared):
    pool, _ = golden_task(shared)
    valid = read_valid_tags(shared / "data" / "instag_tags_4531.json")
    with gzip.open(shared / "golden" / "public" / "instag" / "instag.json.gz", "rt") as file:
        expected = json.load(file)
    assert len(expected) == 12
    for name, run in expected.items():
        kept, how, n = name.split("_", 1)[0], name.split("_", 1)[1].rsplit("_n", 1)[0], int(name.rsplit("_n", 1)[1])
        rows = [[tag for tag in pool.tags(r) if kept == "all" or tag in valid] for r in range(len(pool))]
        found = picked("instag", task_of(rows), n, repeats=how == "with_dups")
        assert found.points.tolist() == run["order"], name
        assert [found.why.count(f"pass {i + 1}") for i in range(len(run["passes"]))] == run["passes"]
        assert found.rounds == {"passes": len(run["passes"]), "filled": run["filled"]}


def test_what_is_in_already_counts_to_the_first_pass():
    rows = [["a", "b", "c"], ["a", "b"], ["c"], ["d"], []]
    none = Limits.none(5)
    limits = Limits(np.array([4, 1]), 1, none.banned, none.quota_ptr, none.quota_idx)
    found = picked("instag", task_of(rows, limits=limits), 5)
    assert found.points.tolist() == [4, 1, 0, 3, 2]
    assert [*found.why] == ["earlier selection", "must include", "pass 1", "pass 1", "pass 2"]
    everything = Limits(np.array([0, 3]), 2, none.banned, none.quota_ptr, none.quota_idx)
    assert picked("instag", task_of(rows, limits=everything), 5).points.tolist() == [0, 3, 1, 2, 4]


@pytest.mark.parametrize("n", [1, 3, 4])
def test_quotas_and_exclusions(n):
    rows = [["a", "b", "c"], ["a", "b"], ["c"], ["d"], ["e", "f"], []]
    none = Limits.none(6)
    banned = np.array([True, False, False, False, False, False])
    limits = Limits(
        none.first, 0, banned, np.array([0, 1, 2, 3, 3, 4, 4]), np.array([0, 0, 0, 1]),
        ("source x", "source y"), np.array([1, 2**62]), np.array([0, 1]),
    )  # fmt: skip
    found = picked("instag", task_of(rows, limits=limits), n)
    assert found.points.tolist() == [4, 1, 3, 5][:n]
    assert picked("instag", task_of(rows, limits=limits), 6).points.tolist() == [4, 1, 3, 5]
