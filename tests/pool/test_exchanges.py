"""Exchanges of a dialog: what was asked and answered, in every layout; nothing that was said is lost."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_jax.core.errors import UserError
from mig_jax.pool import Exchange, load_pool
from mig_jax.pool.exchanges import exchanges_of
from mig_jax.pool.layouts import LAYOUTS

Turns = list[tuple[str, str | None]]


def openai(turns: Turns) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def of(turns: Turns) -> list[Exchange]:
    return exchanges_of(openai(turns), LAYOUTS["openai"])


def read(path: Path, *records: dict | str, **how):
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_pool(path, **how)


def test_turns_of_one_side_are_one_text():
    assert of([("user", "a"), ("user", "b"), ("assistant", "x"), ("user", "c"), ("assistant", "y")]) == [
        ("a\nb", "", "x"),
        ("c", "", "y"),
    ]
    assert of([("user", "a"), ("assistant", "x"), ("assistant", "y")]) == [("a", "", "x\ny")]


def test_other_roles_are_passed_over_and_part_nothing():
    said = [("system", "s"), ("user", "a"), ("system", "t"), ("user", "b"), ("assistant", "x"), ("tool", "42")]
    assert of([*said, ("assistant", "y"), ("function", "f")]) == [("a\nb", "", "x\ny")]


def test_a_tool_call_adds_no_line():
    assert of([("user", "a"), ("assistant", None), ("tool", "42"), ("assistant", "it is 42")]) == [
        ("a", "", "it is 42")
    ]
    assert of([("user", "a"), ("assistant", None)]) == [("a", "", "")], "an answer without text is an answer"


def test_the_ends_of_a_dialog():
    assert of([("assistant", "hello"), ("user", "a"), ("assistant", "x"), ("user", "b")]) == [
        ("a", "", "x"),
        ("b", "", None),
    ]
    assert of([("system", "s"), ("assistant", "hello")]) == []
    assert of([]) == []
    assert of([("user", "")]) == [("", "", None)]


def test_mig_and_sharegpt_name_their_turns_otherwise(tmp_path):
    turns = [("human", "q é"), ("gpt", "a"), ("user", "q2"), ("model", "a2"), ("observation", "o")]
    for name, key, role, content in (
        ("mig", "dialogs", "role", "content"),
        ("sharegpt", "conversations", "from", "value"),
    ):
        record = {key: [{role: who, content: text} for who, text in turns]}
        pool = read(tmp_path / f"{name}.jsonl", record)
        assert pool.sources[0].layout == name
        assert list(pool.each_exchanges([0])) == [[("q é", "", "a"), ("q2", "", "a2")]]


def test_alpaca_keeps_its_input_apart(tmp_path):
    pool = read(
        tmp_path / "p.jsonl",
        {"instruction": "i", "input": "in", "output": "o"},
        {"instruction": "i", "output": ""},
        {"instruction": "i", "input": None, "output": "o"},
        {"instruction": "i", "input": "", "output": "o"},
        {"instruction": 3, "input": "", "output": "o"},
        {"instruction": "i", "input": "in"},
    )
    assert list(pool.each_exchanges(range(6))) == [
        [("i", "in", "o")],
        [("i", "", "")],
        [("i", "", "o")],
        [("i", "", "o")],
        [],
        [],
    ]


def test_fields_of_ones_own(tmp_path):
    pool = read(
        tmp_path / "p.jsonl",
        {"ask": {"it": "q"}, "more": "m", "say": "a"},
        fields={"instruction": "ask.it", "input": "more", "output": "say"},
    )
    assert list(pool.each_exchanges([0])) == [[("q", "m", "a")]]


def test_rows_in_the_order_asked_and_those_without_a_dialog(tmp_path):
    pool = read(
        tmp_path / "p.jsonl",
        openai([("user", "first"), ("assistant", "x")]),
        "{broken",
        "[1]",
        {"messages": []},
        openai([("system", "alone")]),
        on_error="skip",
    )
    assert list(pool.each_exchanges([4, 0, 3, 2, 1, 0])) == [
        [],
        [("first", "", "x")],
        [],
        [],
        [],
        [("first", "", "x")],
    ]


def test_rows_are_read_as_they_are_asked_for(tmp_path):
    pool = read(tmp_path / "p.jsonl", openai([("user", "a")]))
    (tmp_path / "p.jsonl").unlink()
    lazy = pool.each_exchanges([0])
    assert isinstance(lazy, Iterator)
    with pytest.raises(UserError):
        next(lazy)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "human", "gpt", "tool", "system"]), st.text("ab"))))
def test_nothing_of_either_side_is_lost_or_moved(turns):
    found = of(list(turns))
    users, answers = {"user", "human"}, {"assistant", "gpt"}
    first = next((i for i, (role, _) in enumerate(turns) if role in users), len(turns))
    said = [(role in users, text) for role, text in turns[first:] if role in users | answers]
    for side, part in ((True, 0), (False, 2)):
        whole = "".join((exchange[part] or "").replace("\n", "") for exchange in found)
        assert whole == "".join(text for user, text in said if user == side)
    # One exchange for each time that the user's side begins; the last alone may lack its answer.
    assert len(found) == sum(user and (i == 0 or not said[i - 1][0]) for i, (user, _) in enumerate(said))
    assert all(exchange.output is not None for exchange in found[:-1])
    assert not found or (found[-1].output is None) == said[-1][0]
