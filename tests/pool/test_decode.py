"""The typed decoder and the generic walk mean the same, whatever a row holds."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mig_jax.pool.decode import BAD, Malformed, NotAnObject, RowDecoder, parse
from mig_jax.pool.fields import resolve_fields
from mig_jax.pool.layouts import LAYOUTS, dialog_of

FIELDS = resolve_fields({}, ("n", "annotation.CaR", "ifd_score.content"))
MARKS = ["@HUGE@", ["@HUGE@"], "@DEEP@", "@NAN@", "@LONE@"]
LISTS = [[], [1], [1.5, 2], ["a", "b"], [None], [True], ["a", 1], [{"tag": "a"}], [{"tag": 1}], [[1]]]
PLAIN = [None, True, 0, -0.0, 3, -7, 1.5, 10**25, 10**400, 1e308, "", "t", "é", "\x00", {}, {"content": ["x"]}]
LEAF = st.sampled_from([*PLAIN, *LISTS, *MARKS])
TURN = st.fixed_dictionaries(
    {}, optional={k: st.one_of(st.just("user"), LEAF) for k in ("role", "content", "from", "value", "x")}
)
NODE = st.dictionaries(
    st.sampled_from(["instag", "deita", "content", "quality_scores", "complexity_scores", "token_count", "CaR", "x"]),
    st.one_of(
        LEAF, st.dictionaries(st.sampled_from(["content", "quality_scores", "complexity_scores"]), LEAF, max_size=2)
    ),
    max_size=3,
)
KEYS = [
    "dialogs",
    "conversations",
    "messages",
    "instruction",
    "input",
    "output",
    "annotation",
    "ifd_score",
    "_id",
    "id",
]
KEYS += ["source", "tokens", "num_tokens", "n", "other"]
# A list of pairs: a JSON text may name a key twice.
ROW = st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(LEAF, st.lists(TURN, max_size=2), NODE)), max_size=7)
RAW = {'"@HUGE@"': "1e999", '"@NAN@"': "NaN", '"@LONE@"': '"\\ud800"', '"@DEEP@"': "[" * 3000 + "]" * 3000}


def text(pairs) -> bytes:
    row = "{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in pairs) + "}"
    for mark, raw in RAW.items():
        row = row.replace(mark, raw)
    return row.encode()


def outcome(decoder: RowDecoder, raw: bytes):
    try:
        leaves = decoder.leaves(raw)
    except (Malformed, NotAnObject) as error:
        return type(error), str(error)
    dialog = leaves[0]
    if decoder.layout.dialog:
        # The typed decoder makes turns of its own type, and keeps an empty list that the walk calls no dialog.
        dialog = [(turn.role, turn.content) for turn in dialog] if dialog else None
    return dialog, leaves[1:], decoder.measure([[leaf] for leaf in leaves])


DECODERS = {
    name: (RowDecoder(layout, FIELDS), RowDecoder(layout, FIELDS, typed=False)) for name, layout in LAYOUTS.items()
}


@settings(max_examples=400, deadline=None)
@given(pairs=ROW)
@example([("_id", 10**400), ("other", "@HUGE@")])
@example([("annotation", None), ("annotation", {"instag": {"content": ["a"]}})])
@example([("annotation", {"instag": {"content": ["a"]}}), ("annotation", {})])
@example([("messages", [{"role": "user", "content": None}]), ("n", [2])])
def test_typed_and_generic_agree(pairs):
    raw = text(pairs)
    for typed, generic in DECODERS.values():
        assert typed.typed is not None
        assert outcome(typed, raw) == outcome(generic, raw)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_measure_is_of_the_dialog(layout):
    turn = {"role": "system", "from": "human", "content": "ab", "value": "cde"}
    record = {k: [turn, turn] for k in ("dialogs", "conversations", "messages")}
    record |= {"instruction": "a", "input": "b", "output": "cd"}
    raw = json.dumps(record).encode()
    turns, chars = RowDecoder(LAYOUTS[layout], FIELDS).measure([[leaf] for leaf in DECODERS[layout][0].leaves(raw)])
    dialog = dialog_of(record, LAYOUTS[layout]) or []
    assert (turns, chars) == ([len(dialog)], [sum(len(content) for _, content in dialog)])


def test_paths_that_collide_fall_back_to_the_walk():
    fields = resolve_fields({"tags": "annotation", "ifd": "annotation.n"}, ())
    decoder = RowDecoder(LAYOUTS["mig"], fields)
    assert decoder.typed is None
    leaves = decoder.leaves(b'{"annotation": {"n": 2}}')
    assert leaves[decoder.slots["tags"][0]] is BAD
    assert leaves[decoder.slots["ifd"][0]] == 2.0


def test_most_rows_take_the_typed_way():
    # The fast way is only fast if it is taken; a full row must not raise.
    row = {"dialogs": [{"role": "user", "content": "x"}], "source": ["a"], "_id": "b", "ifd_score": {"content": 1}}
    row |= {"annotation": {"instag": {"content": ["t"]}, "deita": {"quality_scores": [1], "complexity_scores": [1.0]}}}
    typed, _ = DECODERS["mig"]
    assert typed.typed is not None
    typed.typed(json.dumps(row).encode())
    typed.typed(b'{"dialogs": [], "other": {"deep": [1, null, "x"]}}')


@pytest.mark.parametrize("raw", [b"3", b"[]", b"null", b'"x"', b"[{}]"])
def test_not_an_object(raw):
    for pair in DECODERS.values():
        for decoder in pair:
            with pytest.raises(NotAnObject):
                decoder.leaves(raw)


def test_parse_keeps_numbers_out_of_range():
    assert parse(b"[1e999, -1e999, %s]" % (b"9" * 5000)) == [float("inf"), float("-inf"), float("inf")]
    digits = b"9" * 4300
    assert parse(b"[1e999, -%s]" % digits)[1] == parse(b"[-%s]" % digits)[0]
