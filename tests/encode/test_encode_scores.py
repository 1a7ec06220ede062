"""What score.from may name: each number by itself, and products, against plain Python on the same records."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_jax import select
from mig_jax.core.errors import UserError
from mig_jax.encode import columns_read, encode, factor_names, scores
from mig_jax.pool import Pool, load_pool

FACTORS = ("deita", "quality", "complexity", "ifd", "car", "annotation.CaR", "mine", "deep.er")
COLUMNS = ("annotation.CaR", "mine", "deep.er")


def record(**has) -> dict:
    """A row with these numbers; None: without."""
    deita = {f"{name}_scores": has[name] for name in ("quality", "complexity") if has.get(name) is not None}
    made = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "annotation": {"instag": {"content": ["a", "b"]}, "deita": deita, "CaR": has.get("car")},
        "ifd_score": {"content": has.get("ifd")},
    }
    return made | {"mine": has.get("mine"), "deep": {"er": has.get("deeper")}}


def pool_of(path: Path, records: list[dict], columns=COLUMNS) -> Pool:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return load_pool(path, columns=columns)


def number(record: dict, name: str, turns: str) -> float | None:
    """One factor of a row, by hand."""
    if name in ("deita", "quality", "complexity"):
        deita = record["annotation"]["deita"]
        lists = [deita.get(f"{one}_scores") for one in (("quality", "complexity") if name == "deita" else (name,))]
        if None in lists or [] in lists:
            return None
        products = [math.prod(turn) for turn in zip(*lists, strict=True)]
        return sum(products) / (len(products) if turns == "mean" else 1)
    if name == "ifd":
        return record["ifd_score"]["content"]
    if name in ("car", "annotation.CaR"):
        return record["annotation"]["CaR"]
    return record["mine"] if name == "mine" else record["deep"]["er"]


@pytest.fixture(scope="module")
def records() -> list[dict]:
    """Rows of which each number lacks here and there."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(150):
        turns = int(rng.integers(0, 4))
        has = {name: rng.uniform(0.5, 6, turns).tolist() for name in ("quality", "complexity")}
        has |= {name: float(rng.uniform(0.1, 3)) for name in ("ifd", "car", "mine", "deeper")}
        rows.append(record(**{name: value for name, value in has.items() if rng.random() > 0.1}))
    return rows


@pytest.fixture(scope="module")
def pool(tmp_path_factory, records) -> Pool:
    return pool_of(tmp_path_factory.mktemp("pool") / "pool.jsonl", records)


@given(names=st.lists(st.sampled_from(FACTORS), min_size=1, max_size=4), turns=st.sampled_from(["mean", "sum"]))
def test_a_product_is_that_of_its_factors(pool, records, names, turns):
    found = encode(pool, score="*".join(names), turns=turns)
    values = [[number(record, name, turns) for name in names] for record in records]
    assert found.row.tolist() == [r for r, each in enumerate(values) if None not in each]
    np.testing.assert_allclose(
        found.score,
        [math.prod(v for v in each if v is not None) for each in values if None not in each],
        rtol=1e-14 * len(names),  # a few roundings of float64
    )
    lacking: dict[str, int] = {}
    for each in values:
        if None in each:  # the first that lacks is the reason
            name = names[each.index(None)]
            reason = f"no number at {name}" if name in COLUMNS else f"no {name} score"
            lacking[reason] = lacking.get(reason, 0) + 1
    assert found.dropped == lacking


def test_turns_count_where_there_is_a_number_a_turn(tmp_path):
    row = record(quality=[4.0, 2.0], complexity=[3.0, 5.0], ifd=0.5, mine=2.0)
    rows = pool_of(tmp_path / "p.jsonl", [row])
    for score, mean, total in (
        ("deita", 11, 22),
        ("quality", 3, 6),
        ("complexity", 4, 8),
        ("quality*complexity", 12, 48),
        ("deita * ifd", 5.5, 11),
        ("mine*mine", 4, 4),
    ):
        assert encode(rows, score=score).score.tolist() == [mean], score
        assert encode(rows, score=score, turns="sum").score.tolist() == [total], score


def test_quality_alone_needs_no_complexity(tmp_path):
    rows = pool_of(tmp_path / "p.jsonl", [record(quality=[4.0, 3.0], complexity=[1.0]), record(quality=[2.0])])
    assert encode(rows, score="quality").score.tolist() == [3.5, 2.0]
    assert encode(rows, score="complexity").dropped == {"no complexity score": 1}


@pytest.mark.parametrize(
    ("score", "has", "told"),
    [
        ("mine*deep.er", {"mine": -2.0, "deeper": -3.0}, r"2: mine=-2\.0 \(of mine\*deep\.er\); scores must be"),
        ("deita*mine", {"mine": -2.0}, r"2: mine=-2\.0 \(of deita\*mine\)"),
        ("ifd*deita", {"quality": [-1.0, 2.0]}, r"2: quality \[-1\.0, 2\.0\] x complexity .* \(of ifd\*deita\)"),
        ("ifd*quality", {"quality": [-1.0, 2.0]}, r"2: quality \[-1\.0, 2\.0\] \(of ifd\*quality\)"),
        ("quality", {"quality": [-1.0, 2.0]}, r"2: quality \[-1\.0, 2\.0\]; scores must be"),
        ("quality", {"quality": ["x"]}, r"2: quality scores are not a list of finite numbers"),
        ("deita", {"quality": [1.0]}, r"2: 1 quality scores but 2 complexity scores"),
        ("car*ifd", {"car": "x"}, r"2: car=nan \(of car\*ifd\)"),
        ("car", {"car": -0.5}, r"2: car=-0\.5; scores must be"),
        ("mine*deep.er", {"mine": 1e10, "deeper": 1e10}, r"2: mine\*deep\.er=1e\+20; scores must be"),
        ("mine*mine", {"mine": 1e200}, r"2: mine\*mine=inf; scores must be"),
        ("mine*mine", {"mine": 1e-200}, None),
    ],
)
def test_a_wrong_factor_names_its_line_or_is_left_out(tmp_path, score, has, told):
    good = {"quality": [4.0, 3.0], "complexity": [2.0, 1.0], "ifd": 0.5, "car": 1.0, "mine": 2.0, "deeper": 3.0}
    rows = pool_of(tmp_path / "p.jsonl", [record(**good), record(**good | has)])
    if told is None:  # it rounds to 0, which a score may be
        assert encode(rows, score=score).score.tolist() == [4.0, 0.0]
        return
    with pytest.raises(UserError, match=rf"p\.jsonl:{told}"):
        encode(rows, score=score)
    found = encode(rows, score=score, on_error="skip")
    assert (found.row.tolist(), found.faulty.tolist()) == ([0], [1])
    assert found.dropped == {f"{score} score negative or not a finite number": 1}


def test_what_lacks_is_not_wrong(tmp_path):
    """A row without one factor is left out for that, whatever the other is."""
    rows = pool_of(tmp_path / "p.jsonl", [record(ifd=0.5, mine=1.0), record(mine=-1.0), record(ifd=0.5, mine=2.0)])
    found = encode(rows, score="mine*ifd")
    assert found.row.tolist() == [0, 2] and found.dropped == {"no ifd score": 1}
    value, missing, wrong = scores(rows, "mine*ifd", "mean")
    assert value[[0, 2]].tolist() == [0.5, 1.0]
    assert missing.tolist() == [False, True, False] and not wrong.any()


def test_a_single_column_may_be_negative_to_be_ranked_by(tmp_path):
    rows = pool_of(tmp_path / "p.jsonl", [record(mine=-1.0)])
    value, missing, wrong = scores(rows, "mine", "mean")
    assert (value.tolist(), missing.tolist(), wrong.tolist()) == ([-1.0], [False], [False])


@pytest.mark.parametrize("score", ["deita*", "*ifd", "deita**ifd", "*", "", " ", "a..b", ".a", "ifd*a."])
def test_what_is_no_product(tmp_path, score):
    rows = pool_of(tmp_path / "p.jsonl", [record(ifd=0.5)])
    told = r"=.*: must be deita, quality, complexity, ifd, car, the path of a numeric column, a product"
    with pytest.raises(UserError, match=rf"^score\.from{told}"):
        encode(rows, score=score)
    with pytest.raises(UserError, match=rf"^score\.from{told}"):
        factor_names(score, "score.from")


def test_the_columns_that_a_score_reads(tmp_path):
    assert columns_read("deita*ifd*quality") == ()
    assert columns_read("car*mine*annotation.CaR * deep.er*mine") == ("annotation.CaR", "mine", "deep.er")
    rows = pool_of(tmp_path / "p.jsonl", [record(ifd=0.5)], columns=["deep.er"])
    told = r"score\.from=car\*deep\.er: not a column of this pool: annotation\.CaR \(load_pool\(\.\.\., columns="
    with pytest.raises(UserError, match=rf"{told}\['annotation\.CaR', 'deep\.er'\]\) reads what it needs\)"):
        select(rows, 1, score="car*deep.er")


def test_a_pool_without_them_says_where_they_are_looked_for(tmp_path):
    rows = pool_of(tmp_path / "p.jsonl", [record(quality=[1.0], complexity=[2.0])])
    for score, told, no in (
        ("deita*ifd", r"1 no ifd score\. IFD is read from ifd_score\.content; pool\.fields\.ifd=", "annotation.deita"),
        ("ifd*quality", r"1 no ifd score\. IFD", "annotation.deita"),
        ("car", r"1 no car score\. CaR's score is read from annotation\.CaR", "IFD"),
        ("mine", r"1 no number at mine\. score\.from= may be deita, quality", "read from"),
    ):
        with pytest.raises(UserError, match=rf"no usable row among 1: {told}") as error:
            encode(rows, score=score)
        assert no not in str(error.value).partition(". score.from= may be ")[0]
        assert "did you mean" not in str(error.value)
    with pytest.raises(UserError, match=r"no number at qualty\. .*; did you mean quality\?$"):
        encode(load_pool(tmp_path / "p.jsonl", columns=["qualty"]), score="qualty")


def test_no_score_at_all(tmp_path):
    """Tags alone: every row counts 1, also those that have a score; none in a product means nothing."""
    pool = pool_of(tmp_path / "p.jsonl", [record(), record(quality=[2.0], complexity=[3.0]), record(ifd=-1.0)])
    encoded = encode(pool, score="none")
    assert encoded.score.tolist() == [1.0, 1.0, 1.0] and not encoded.scored and columns_read("none") == ()
    with pytest.raises(UserError, match=r"score\.from=none\*ifd: must be deita, .* or none \(all rows alike\)"):
        encode(pool, score="none*ifd")
    with pytest.raises(UserError, match="or none"):
        encode(pool_of(tmp_path / "q.jsonl", [record()]))
