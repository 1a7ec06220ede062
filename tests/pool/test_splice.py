"""Values put into rows: what a reader finds is what was put in, and no other byte has changed."""

import json
import tracemalloc
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mig_jax.pool.splice import spliced

Paths = dict[tuple[str, ...], Any]


def put(text: str, values: Paths) -> str:
    return spliced(text.encode(), {path: json.dumps(value).encode() for path, value in values.items()}).decode()


def updated(record: dict[str, Any], values: Paths) -> dict[str, Any]:
    """The same in Python."""
    record = json.loads(json.dumps(record))
    for (*outer, last), value in values.items():
        here = record
        for key in outer:
            if not isinstance(here.get(key), dict):
                here[key] = {}
            here = here[key]
        here[last] = value
    return record


@pytest.mark.parametrize(
    ("row", "values", "expected"),
    [
        # a value that is there is replaced, alone
        ('{"a": 1, "b": [2]}', {("a",): "x"}, '{"a": "x", "b": [2]}'),
        ('{"a" :\t1 , "b":[2, {"a": 3}] }', {("b",): None}, '{"a" :\t1 , "b":null }'),
        ('{"s": "}\\"{", "t": {"u": "]"}}', {("t", "u"): 1}, '{"s": "}\\"{", "t": {"u": 1}}'),
        # one that is not comes last in the innermost object
        ('{"a": 1}', {("b",): 2}, '{"a": 1, "b": 2}'),
        ('{"a":1}', {("b", "c"): [2]}, '{"a":1,"b":{"c":[2]}}'),
        ('{"a": {"b":1}, "c": 2}', {("a", "d", "e"): 3}, '{"a": {"b":1,"d":{"e":3}}, "c": 2}'),
        ('{"a":{"b": 1}}', {("d",): 3}, '{"a":{"b": 1},"d":3}'),
        # empty objects; their style is that of the object around them
        ("{}", {("a", "b"): 1}, '{"a": {"b": 1}}'),
        ("{ }", {("a",): 1}, '{"a": 1 }'),
        ('{"a":{},"b":2}', {("a", "x"): 1, ("a", "y"): 2}, '{"a":{"x":1,"y":2},"b":2}'),
        # what lies on the way and is no object gives way
        ('{"annotation": null, "z": 1}', {("annotation", "a"): 1}, '{"annotation": {"a": 1}, "z": 1}'),
        ('{"a": {"b": [1, {"c": 2}], "z": 0}}', {("a", "b", "c"): 1}, '{"a": {"b": {"c": 1}, "z": 0}}'),
        ('{"a":7}', {("a", "b", "c"): 1, ("a", "d"): 2}, '{"a":{"b":{"c":1},"d":2}}'),
        ('{"a": "{}"}', {("a", "b"): 1}, '{"a": {"b": 1}}'),
        # keys as they read
        ('{"\\u0061nnotation": {"é": 1}}', {("annotation", "é"): 2}, '{"\\u0061nnotation": {"é": 2}}'),
        ('{"\\ud83d\\ude00": 1, "q\\"\\\\": 2}', {("😀",): 3, ('q"\\',): 4}, '{"\\ud83d\\ude00": 3, "q\\"\\\\": 4}'),
        ('{"a": 1}', {("é\n",): 2}, '{"a": 1, "\\u00e9\\n": 2}'),
        ('{"": 1}', {("",): 2}, '{"": 2}'),
        # of two the last counts, even where the first alone is an object
        ('{"a": 1, "a": 2, "b": 0}', {("a",): 3}, '{"a": 1, "a": 3, "b": 0}'),
        ('{"a": {"b": 1}, "a": 2}', {("a", "b"): 3}, '{"a": {"b": 1}, "a": {"b": 3}}'),
        ('{"a": {"b": 1}, "\\u0061": {"c": 1}}', {("a", "b"): 3}, '{"a": {"b": 1}, "\\u0061": {"c": 1, "b": 3}}'),
        # what stands around the row stays
        (' {"a": 1 }\r', {("b",): 2}, ' {"a": 1, "b": 2 }\r'),
        ('{"a": 1}\r', {("a",): 2}, '{"a": 2}\r'),
        ('{"a": 1}', {}, '{"a": 1}'),
    ],
)
def test_by_hand(row, values, expected):
    assert put(row, values) == expected
    assert put(expected, values) == expected
    assert json.loads(expected) == updated(json.loads(row), values)


def test_an_annotation_is_made_once_in_the_order_given():
    values = {
        ("annotation", "instag", "content"): ["b", "a"],
        ("annotation", "deita", "quality_scores"): [4.5],
        ("ifd_score", "content"): 0.5,
        ("annotation", "deita", "complexity_scores"): [2.0],
    }
    assert put('{"dialogs": []}', values) == (
        '{"dialogs": [], "annotation": {"instag": {"content": ["b", "a"]}, '
        '"deita": {"quality_scores": [4.5], "complexity_scores": [2.0]}}, "ifd_score": {"content": 0.5}}'
    )


def test_what_cannot_be_meant():
    for values in ({(): b"1"}, {("a",): b"1", ("a", "b"): b"2"}, {("a", "b"): b"2", ("a",): b"1"}):
        with pytest.raises(ValueError, match=r"path|value"):
            spliced(b"{}", values)
    for row in (b"[1]", b"", b"1", b'"{}"'):
        with pytest.raises(ValueError, match="not a JSON object"):
            spliced(row, {("a",): b"1"})
    for row in (b'{"a": 1', b'{"a" 1}', b'{"a": }', b'{"a": [1', b"{1: 2}", b'{"a', b'{"a": 1]'):
        with pytest.raises(ValueError, match="not JSON"):
            spliced(row, {("b",): b"1"})


# Rows as they can lie in a file: every blank and escape of theirs is known, so that what must come out is known too.


@dataclass(frozen=True)
class Member:
    before: str
    key: str
    written: str
    colon: str
    value: "Node"
    after: str


@dataclass(frozen=True)
class Node:
    """Text of a value that is no object; or members, or what an empty object has inside."""

    text: str | None = None
    members: tuple[Member, ...] = ()
    inside: str = ""

    def __str__(self) -> str:
        if self.text is not None:
            return self.text
        written = (f"{m.before}{m.written}{m.colon}{m.value}{m.after}" for m in self.members)
        return "{" + (",".join(written) if self.members else self.inside) + "}"


KEYS = ["a", "b", "é", 'q"\\/', "😀", ""]
PATHS = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).map(tuple)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('{}[]",:\\é😀a'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
BLANKS = st.sampled_from(["", "", " ", "\t", "  ", "\r", "\n"])


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, str]:
    """A key, and one way to write it."""
    key = draw(st.sampled_from(KEYS))
    if draw(st.booleans()):
        units = key.encode("utf-16-be")
        return key, '"' + "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)) + '"'
    return key, json.dumps(key, ensure_ascii=draw(st.booleans()))


@st.composite
def rows(draw: st.DrawFn, depth: int = 3) -> Node:
    members = []
    for _ in range(draw(st.integers(0, 4))):
        key, written = draw(keys())
        if depth and draw(st.booleans()):
            value = draw(rows(depth - 1))
        else:
            value = Node(
                json.dumps(draw(JSON.filter(lambda v: not isinstance(v, dict))), ensure_ascii=draw(st.booleans()))
            )
        colon = draw(BLANKS) + ":" + draw(BLANKS)
        members.append(Member(draw(BLANKS), key, written, colon, value, draw(BLANKS)))
    return Node(members=tuple(members), inside=draw(BLANKS))


@st.composite
def values_of(draw: st.DrawFn) -> Paths:
    """Values at paths of which none goes on inside another's value."""
    values: Paths = {}
    for path in draw(st.lists(PATHS, max_size=5, unique=True)):
        if not any(path[: len(other)] == other or other[: len(path)] == path for other in values):
            values[path] = draw(JSON)
    return values


def nested(values: Paths) -> dict[str, Any]:
    """Paths as nested keys; a value is a tuple of one."""
    root: dict[str, Any] = {}
    for (*outer, last), value in values.items():
        here = root
        for key in outer:
            here = here.setdefault(key, {})
        here[last] = (value,)
    return root


def made(wanted: Any, spaced: bool) -> str:
    if isinstance(wanted, tuple):
        return json.dumps(wanted[0])
    comma, colon = (", ", ": ") if spaced else (",", ":")
    return "{" + comma.join(f"{json.dumps(key)}{colon}{made(inner, spaced)}" for key, inner in wanted.items()) + "}"


def expected(node: Node, wanted: dict[str, Any], spaced: bool = True) -> Node:
    """What ``spliced`` promises, done to the row's parts."""
    if node.members:
        spaced = not node.members[0].colon.endswith(":")
    members = list(node.members)
    for key, inner in wanted.items():
        there = [i for i, member in enumerate(members) if member.key == key]
        if there:
            old = members[there[-1]].value
            descend = isinstance(inner, dict) and old.text is None
            new = expected(old, inner, spaced) if descend else Node(made(inner, spaced))
            members[there[-1]] = replace(members[there[-1]], value=new)
            continue
        after = members[-1].after if members else node.inside
        if members:
            members[-1] = replace(members[-1], after="")
        before, colon = (" " if members and spaced else ""), (": " if spaced else ":")
        members.append(Member(before, key, json.dumps(key), colon, Node(made(inner, spaced)), after))
    return replace(node, members=tuple(members))


@settings(max_examples=300)
@given(rows(), values_of(), BLANKS, BLANKS)
def test_a_reader_finds_the_values_and_every_other_byte_stays(row, values, before, after):
    text = f"{before}{row}{after}"
    found = put(text, values)
    assert json.loads(found) == updated(json.loads(text), values)
    assert found == f"{before}{expected(row, nested(values))}{after}"
    assert put(found, values) == found, "the same once more"


@given(rows(), values_of(), st.randoms())
def test_disjoint_values_may_come_in_any_order_and_one_by_one(row, values, random):
    assume(len(values) > 1)
    shuffled = list(values.items())
    random.shuffle(shuffled)
    text = str(row)
    together = put(text, values)
    assert json.loads(put(text, dict(shuffled))) == json.loads(together)
    for path, value in values.items():
        text = put(text, {path: value})
    assert json.loads(text) == json.loads(together)


@given(rows(), PATHS, JSON, JSON)
def test_a_value_that_is_there_can_be_put_back(row, path, one, other):
    with_one = put(str(row), {path: one})
    assert put(put(with_one, {path: other}), {path: one}) == with_one


def test_a_value_may_come_with_blanks_around_it():
    once = spliced(b'{"a": 1}', {("a",): b" 2\n", ("b",): b"\t3 "})
    assert once == b'{"a": 2, "b": 3}'


BIG = {
    "plain text": lambda: b'"' + b"x" * 4_000_000 + b'"',
    "escapes": lambda: b'"' + rb"\n\"" * 1_000_000 + b'"',
    "nested": lambda: b"[" * 100_000 + b"]" * 100_000,
    "objects": lambda: b"[" + b",".join([b'{"k": [1, "]"]}'] * 20_000) + b"]",
    "numbers": lambda: b"[" + b"1.5, " * 500_000 + b"1]",
}


@pytest.mark.parametrize("name", BIG)
def test_a_big_row_takes_no_stack_and_no_copies(name):
    text = BIG[name]()
    row = b'{"annotation": {"old": ' + text + b'}, "text": ' + text + b"}"
    tracemalloc.start()
    found = spliced(row, {("annotation", "new"): b"1", ("text2",): b"2"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == b'{"annotation": {"old": ' + text + b', "new": 1}, "text": ' + text + b', "text2": 2}'
    assert peak < 3.5 * len(row), "the pieces and what they are joined to"


def test_many_members_and_many_values():
    row = json.dumps({f"k{i}": i for i in range(20_000)})
    values = {(f"k{i}" if i % 2 else f"new{i}",): -i for i in range(20_000)}
    assert json.loads(put(row, values)) == updated(json.loads(row), values)
    deep = tuple("ab"[i % 2] for i in range(300))
    assert json.loads(put('{"a": {}}', {deep: 1})) == updated({"a": {}}, {deep: 1})
