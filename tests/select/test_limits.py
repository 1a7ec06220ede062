"""``limits.*`` as written to the points they mean, and every mistake in it."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from mig_jax import load_pool, select
from mig_jax.commands.select.config import limits_config
from mig_jax.commands.select.limits import check_refused, facts_of_limits, limits_of
from mig_jax.commands.select.quotas import quotas_of
from mig_jax.core.errors import UserError
from mig_jax.encode import encode
from mig_jax.samplers import Limits, find_sampler
from mig_jax.samplers.limits import NO_MOST, Gate, first_allowed

ROWS = 12


def record(at: int, **more):
    return {
        "dialogs": [{"role": "user", "content": f"question {at}"}, {"role": "assistant", "content": "x" * (at + 1)}],
        "_id": f"id{at}",
        "source": ["web", "code", "maths"][at % 3],
        "tokens": 10 * (at + 1),
        "annotation": {
            "instag": {"content": ["a", "b", "c"][: at % 4]},
            "deita": {"quality_scores": [2.0], "complexity_scores": [1.0]},
        },
    } | more


@pytest.fixture
def pool(tmp_path):
    rows = [record(at) for at in range(ROWS)]
    rows[5]["annotation"] = {}  # no usable row
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_pool(tmp_path / "pool.jsonl")


def resolved(pool, budgets=(4,), **settings):
    encoded = encode(pool)
    limits = limits_of(limits_config(settings), pool, encoded, budgets)
    return encoded, limits


def rows_first(pool, **settings):
    encoded, limits = resolved(pool, **settings)
    return encoded.row[limits.first].tolist()


def test_rows_are_named_by_ids_records_numbers_or_a_run(pool, tmp_path):
    (tmp_path / "ids.txt").write_text("id3\n\nid1\nid3\n")
    assert rows_first(pool, include=str(tmp_path / "ids.txt")) == [3, 1]
    (tmp_path / "ids.json").write_text('["id7", "id0"]')
    assert rows_first(pool, include=str(tmp_path / "ids.json")) == [7, 0]
    np.save(tmp_path / "rows.npy", np.array([2, 9]))
    assert rows_first(pool, warm_start=str(tmp_path / "rows.npy")) == [2, 9]
    with gzip.open(tmp_path / "some.jsonl.gz", "wb") as file:  # two as they came, one that only its id tells
        file.write(b"".join(row + b"\n" for row in pool.read_rows([8, 4])))
        file.write(json.dumps(record(11, tokens=1)).encode() + b"\n")
    assert rows_first(pool, include=str(tmp_path / "some.jsonl.gz")) == [8, 4, 11]
    made = select(pool, 3, sampler="random").write(tmp_path / "run")
    earlier = [json.loads(line)["_id"] for line in (made / "selection.jsonl").read_text().splitlines()]
    assert [f"id{row}" for row in rows_first(pool, warm_start=str(made))] == earlier
    assert [f"id{row}" for row in rows_first(pool, warm_start=str(made / "manifest.json"))] == earlier


def test_a_run_on_another_pool_is_found_by_its_ids(pool, tmp_path):
    rows = [record(at) for at in reversed(range(ROWS))]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = select(load_pool(tmp_path / "other.jsonl"), 2, sampler="pool").write(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"n=4: limits.warm_start and limits.include alone hold 11 rows|cannot be picked"
    ):
        rows_first(pool, warm_start=str(run))
    two = select(load_pool(tmp_path / "other.jsonl"), 2, sampler="instag").write(tmp_path / "two")
    assert rows_first(pool, warm_start=str(two)) == [11, 7]


def test_start_comes_before_include_and_counts_once(pool, tmp_path):
    (tmp_path / "a.txt").write_text("id3\nid1\n")
    (tmp_path / "b.txt").write_text("id1\nid2\n")
    encoded, limits = resolved(pool, warm_start=str(tmp_path / "a.txt"), include=str(tmp_path / "b.txt"))
    assert encoded.row[limits.first].tolist() == [3, 1, 2] and limits.started == 2
    assert limits.why(4, "drawn") == ["earlier selection", "earlier selection", "must include", "drawn"]


def test_exclude_leaves_out_every_row_of_an_id_and_does_not_mind_strangers(pool, tmp_path):
    (tmp_path / "out.txt").write_text("id3\nnobody\nid5\n")
    encoded, limits = resolved(pool, exclude=str(tmp_path / "out.txt"))
    assert encoded.row[limits.banned].tolist() == [3]
    found = select(pool, 10, sampler="random", limits={"exclude": str(tmp_path / "out.txt")})
    assert sorted(found.rows.tolist()) == [0, 1, 2, 4, 6, 7, 8, 9, 10, 11]


def test_excluded_rows_that_are_not_there_are_told(pool, tmp_path):
    (tmp_path / "out.txt").write_text("id3\nnobody\n")
    _, limits = resolved(pool, exclude=str(tmp_path / "out.txt"))
    assert limits.notes == ("limits.exclude: 1 of 2 rows are not in the pool",)
    (tmp_path / "none.txt").write_text("nobody\nno one\n")
    with pytest.raises(UserError, match=r"limits.exclude=.*: none of its 2 rows is in the pool"):
        resolved(pool, exclude=str(tmp_path / "none.txt"))


def test_rows_as_numbers_ids_or_a_selection(pool):
    assert rows_first(pool, include=[3, "id1", 3]) == [3, 1]
    found = select(pool, 3, sampler="instag")
    more = select(pool, 6, sampler="random", limits={"warm_start": found, "exclude": np.array([0, 4])})
    assert more.rows[:3].tolist() == found.rows.tolist() and not {0, 4} & set(more.rows.tolist())
    with pytest.raises(UserError, match=r"1 of its 2 rows are not in the pool; the first such is number 2"):
        rows_first(pool, include=[3, 99])


def test_quotas_of_sources_and_labels(pool):
    encoded, limits = resolved(pool, sources={"web": 2, "*": {"min": 1, "max": 3}}, labels={"a": 0.5})
    assert limits.quota_names == ("source web", "source code", "source maths", "label a")
    assert limits.most is not None and limits.least is not None
    assert limits.most.tolist() == [2, 3, 3, 2] and limits.least.tolist() == [0, 1, 1, 0]
    for point, row in enumerate(encoded.row.tolist()):
        mine = limits.quota_idx[limits.quota_ptr[point] : limits.quota_ptr[point + 1]].tolist()
        assert mine == [row % 3] + ([3] if row % 4 else [])
    assert limits.kinds == ("caps", "minima")


def test_the_walk_takes_what_is_in_then_minima_then_the_rest(pool):
    encoded, limits = resolved(pool, sources={"web": {"max": 1}, "maths": {"min": 2}})
    limits = replace(limits, first=np.array([4]), started=1)
    order = first_allowed(np.arange(len(encoded)), 6, limits)
    assert encoded.row[order].tolist() == [4, 2, 8, 0, 1, 7]
    gate = Gate(limits)
    assert not gate.allows(4) and gate.allows(0)
    gate.take(0)
    assert not gate.allows(3)


def test_a_budget_of_tokens(pool):
    _, limits = resolved(pool, tokens=100)
    assert limits.cost is not None and limits.cost.tolist() == [10.0 * (row + 1) for row in range(ROWS) if row != 5]
    found = select(pool, 11, sampler="instag", limits={"tokens": 100})
    spent = sum(10 * (row + 1) for row in found.rows.tolist())
    assert 60 < spent <= 100
    assert facts_of_limits(found.solved.order and limits, found.solved.order.points)["tokens"]["spent"] == spent
    limits = resolved(pool, tokens=100, cost="chars")[1]
    assert limits.cost is not None and limits.cost[0] == len("question 0") + 1


def test_facts_of_quotas(pool):
    _, limits = resolved(pool, sources={"web": 2})
    facts = facts_of_limits(limits, np.array([0, 1, 3]))
    assert facts == {"quotas": [{"name": "source web", "least": 0, "most": 2, "picked": 2}]}
    assert facts_of_limits(Limits.none(5), np.array([0])) == {}


def test_the_digest_tells_limits_apart(pool, tmp_path):
    (tmp_path / "a.txt").write_text("id3\n")
    file = str(tmp_path / "a.txt")
    asked = [{}, {"include": file}, {"warm_start": file}, {"exclude": file}, {"tokens": 100}, {"tokens": 101}]
    asked += [{"sources": {"web": 1}}, {"sources": {"web": 2}}, {"labels": {"a": 2}}]
    assert len({resolved(pool, **settings)[1].digest() for settings in asked}) == len(asked)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"include": "nowhere.txt"}, r"limits.include=nowhere.txt: no such file"),
        ({"include": "id99"}, r"limits.include=.*: 1 of its 1 rows are not in the pool; the first such is number 1"),
        ({"include": "id5"}, r"pool.jsonl:6 cannot be picked"),
        ({"include": "id1", "exclude": "id1"}, r"limits.exclude=.*pool.jsonl:2 is also in"),
        ({"include": "id0 id1 id2 id3 id4"}, r"n=4: limits.warm_start and limits.include alone hold 5 rows"),
        ({"exclude": "id0 id1 id2 id3 id4 id6 id7 id8"}, r"n=4: limits.exclude leaves 3 rows"),
        ({"sources": {"wob": 3}}, r"limits.sources.wob: the pool has no such source; did you mean web\?"),
        ({"labels": {"d": 3}}, r"limits.labels.d: the pool has no such label"),
        ({"sources": {"web": -1}}, r"limits.sources.web=-1: must be a whole number of rows >= 0, or a share"),
        ({"sources": {"web": 1.5}}, r"limits.sources.web=1.5: must be"),
        ({"sources": {"web": True}}, r"limits.sources.web=true: must be"),
        ({"sources": {"web": {"most": 3}}}, r"limits.sources.web=.*: must be a number of rows"),
        ({"sources": {"web": {"min": 3, "max": 2}}}, r"limits.sources.web: its minimum 3 is above its maximum 2"),
        ({"sources": {"web": {"min": 9}}}, r"source web has 4 rows that can be picked, and its minimum is 9"),
        ({"sources": {"*": {"min": 2}}}, r"n=4: the minima of limits.sources and limits.labels need 6 rows"),
        ({"sources": {"web": 1}, "include": "id0 id3"}, r"source web may have 1 rows; limits.warm_start and .incl"),
        ({"sources": "nowhere.json"}, r"limits.sources=nowhere.json: .*; must be a mapping, or a JSON file"),
        ({"tokens": 5}, r"limits.tokens=5: the shortest row costs 10"),
        ({"tokens": 50, "include": "id2 id3"}, r"limits.tokens=50: limits.warm_start and limits.include alone cost 70"),
        ({"tokens": 0}, r"limits.tokens=0: must be"),
        ({"tocens": 5}, r"limits.tocens: no such key; did you mean limits.tokens\?"),
    ],
)  # fmt: skip
def test_mistakes(pool, tmp_path, settings, told):
    for key in ("include", "exclude"):
        if settings.get(key, "").startswith("id"):
            (tmp_path / f"{key}.txt").write_text(settings[key].replace(" ", "\n"))
            settings = settings | {key: str(tmp_path / f"{key}.txt")}
    with pytest.raises(UserError, match=told):
        resolved(pool, **settings)


def test_costs_that_are_missing_or_zero(tmp_path):
    rows = [record(0), record(1, tokens=None), record(2)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"limits.cost=tokens: 1 of 3 usable rows have none, .*pool.jsonl:2"):
        resolved(load_pool(tmp_path / "pool.jsonl"), (2,), tokens=100)
    rows[1]["tokens"] = 0
    (tmp_path / "zero.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"zero.jsonl:2 costs 0; a cost must be a finite number above 0"):
        resolved(load_pool(tmp_path / "zero.jsonl"), (2,), tokens=100)


def test_excluded_rows_need_no_cost(tmp_path):
    rows = [record(0), record(1, tokens=0), record(2)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, limits = resolved(load_pool(tmp_path / "pool.jsonl"), (2,), tokens=100, exclude=["id1"])
    assert limits.cost is not None and limits.cost.tolist() == [10, 1, 30]
    with pytest.raises(UserError, match="leaves no row"):
        resolved(load_pool(tmp_path / "pool.jsonl"), (), tokens=100, exclude=["id0", "id1", "id2"])


def test_shares_are_of_n_as_people_reckon(pool):
    def quotas(n, value):
        return quotas_of(limits_config({"sources": {"web": value}}), pool, encode(pool), (n,))

    assert quotas(100, 0.29)[3].tolist() == [29] and quotas(10, 0.25)[3].tolist() == [2]
    assert quotas(10, {"min": 0.21})[4].tolist() == [3]


def test_a_share_needs_one_budget(pool):
    with pytest.raises(UserError, match="a share needs one n"):
        resolved(pool, (2, 4), sources={"web": 0.5})
    assert resolved(pool, (4,), sources={"web": 0.5})[1].most.tolist() == [2]


def test_a_sampler_refuses_what_makes_no_sense_for_it(pool):
    _, limits = resolved(pool, tokens=100)
    with pytest.raises(UserError, match=r"limits.tokens: sampler=pool cannot have it: it takes everything"):
        check_refused(find_sampler("pool"), "pool", limits)
    check_refused(find_sampler("random"), "random", limits)
    assert NO_MOST > 10**18
