"""Every layout, format and compression gives the same columns, and the rows as they lie."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mig_jax.core.errors import UserError
from mig_jax.pool import ABSENT, BAD_VALUE, PRESENT, REASONS, load_pool

RECORDS = [
    {
        "dialogs": [{"role": "user", "content": f"q{i} é"}, {"role": "assistant", "content": "a" * i}],
        "_id": f"id{i}",
        "source": ["s0", "other"] if i % 2 else "s1",
        "ifd_score": {"content": i / 7},
        "extra": {"deep": i},
        "annotation": {
            "instag": {"content": ["t0", f"t{i}", "t0"]},
            "deita": {"quality_scores": [1.5, i], "complexity_scores": [2]},
            "token_count": i,
        },
    }
    for i in range(7)
]
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def lines(records, **how) -> bytes:
    return b"".join(json.dumps(r, **how).encode() + b"\n" for r in records)


def parquet(records) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records), sink, row_group_size=3)
    return sink.getvalue().to_pybytes()


def write(folder: Path, records, suffix: str, packed: str, indent=None) -> Path:
    if suffix == ".parquet":
        # One type a column.
        content = parquet(
            [{**r, "source": [r["source"]] if isinstance(r["source"], str) else r["source"]} for r in records]
        )
    elif suffix == ".json":
        content = json.dumps(records, indent=indent).encode()
    else:
        content = lines(records)
    path = folder / f"pool{suffix}{packed}"
    path.write_bytes(PACK[packed](content))
    return path


def check_columns(pool) -> None:
    assert len(pool) == 7
    assert pool.status.tolist() == [0] * 7
    assert [pool.tags(r) for r in range(7)] == [["t0", f"t{i}", "t0"] for i in range(7)]
    assert pool.quality[pool.quality_ptr[3] : pool.quality_ptr[4]].tolist() == [1.5, 3.0]
    assert np.diff(pool.complexity_ptr).tolist() == [1] * 7
    assert pool.complexity_state.tolist() == [PRESENT] * 7
    assert pool.ifd.tolist() == [i / 7 for i in range(7)]
    assert pool.tokens.tolist() == list(range(7))
    assert [pool.source_names[i] for i in pool.source_idx] == ["s0" if i % 2 else "s1" for i in range(7)]
    assert [pool.id(r) for r in range(7)] == [f"id{i}" for i in range(7)]
    assert pool.turns.tolist() == [2] * 7
    assert pool.chars.tolist() == [4 + i for i in range(7)]
    assert pool.columns["extra.deep"].tolist() == list(range(7))
    assert pool.dialogs([5, 0]) == [[("user", "q5 é"), ("assistant", "aaaaa")], [("user", "q0 é"), ("assistant", "")]]
    assert not pool.crc.flags.writeable
    pool.check_unchanged()


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".parquet"])
def test_formats(tmp_path, suffix, packed):
    pool = load_pool(write(tmp_path, RECORDS, suffix, packed), columns=["extra.deep"])
    check_columns(pool)
    rows = [6, 0, 3, 3, 5]
    got = [json.loads(raw) for raw in pool.read_rows(rows)]
    assert [g["_id"] for g in got] == [f"id{i}" for i in rows]
    assert pool.sources[0].format == {".ndjson": "jsonl"}.get(suffix, suffix[1:])
    assert pool.where(2).endswith(":3")
    if suffix.endswith("l") or suffix == ".ndjson":
        assert list(pool.read_rows(range(7))) == [json.dumps(r).encode() for r in RECORDS]


def test_a_pretty_printed_array_gives_rows_of_one_line(tmp_path):
    pool = load_pool(write(tmp_path, RECORDS, ".json", ".gz", indent=2), columns=["extra.deep"])
    check_columns(pool)
    got = list(pool.read_rows([4, 2]))
    assert all(b"\n" not in raw for raw in got)
    assert [json.loads(raw) for raw in got] == [RECORDS[4], RECORDS[2]]


def test_json_with_one_object_per_line(tmp_path):
    path = tmp_path / "pool.json"
    path.write_bytes(b"\xef\xbb\xbf \n" + lines(RECORDS))
    pool = load_pool(path, columns=["extra.deep"])
    check_columns(pool)
    assert pool.sources[0].format == "jsonl"


LAYOUT_RECORDS = {
    "mig": {"dialogs": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "yz"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "yz"}]},
    "openai": {"messages": [{"role": "user", "content": "x"}, {"role": "model", "content": "yz"}]},
    "alpaca": {"instruction": "x", "input": "", "output": "yz"},
}


@pytest.mark.parametrize("layout", LAYOUT_RECORDS)
@pytest.mark.parametrize("asked", ["auto", None])
def test_layouts(tmp_path, layout, asked):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([LAYOUT_RECORDS[layout]]))
    pool = load_pool(path, layout=asked or layout)
    assert pool.sources[0].layout == layout
    assert (pool.turns[0], pool.chars[0]) == (2, 3)
    assert pool.dialogs([0]) == [[("user", "x"), ("assistant", "yz")]]


def test_alpaca_input_joins_the_instruction(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"instruction": "i", "input": "in", "output": "o"},
        {"instruction": "i", "output": "o"},
        {"instruction": "i"},
    ]
    path.write_bytes(lines([*rows, {"instruction": "i", "input": 3, "output": "o"}]))
    pool = load_pool(path)
    assert pool.dialogs([0, 1, 2]) == [[("user", "i\nin"), ("assistant", "o")], [("user", "i"), ("assistant", "o")], []]
    assert pool.chars.tolist() == [5, 2, 0, 0]
    assert [REASONS[s] for s in pool.status] == ["usable", "usable", "no dialog", "no dialog"]
    assert [r.detail for r in pool.rejects] == ["no output", "instruction, input or output is not text"]


def test_each_file_has_its_layout(tmp_path):
    for name, record in LAYOUT_RECORDS.items():
        (tmp_path / f"{name}.jsonl").write_bytes(lines([record]))
    pool = load_pool(tmp_path)
    assert [s.layout for s in pool.sources] == sorted(LAYOUT_RECORDS)
    assert pool.dialogs(range(4)) == [[("user", "x"), ("assistant", "yz")]] * 4


def test_fields_map_what_no_layout_knows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"x": {"talk": [{"who": "human", "said": "hey"}]}, "my": {"tags": ["a"]}, "n": 4}]))
    with pytest.raises(UserError, match=r"a\.jsonl:1: no layout fits.*keys: x, my, n.*sharegpt.*pool\.fields\.dialog"):
        load_pool(path)
    mapping = {"dialog": "x.talk", "role": "who", "content": "said", "tags": "my.tags", "tokens": "n"}
    pool = load_pool(path, fields=mapping)
    assert pool.dialogs([0]) == [[("user", "hey")]]
    assert (pool.tags(0), pool.tokens[0]) == (["a"], 4)
    path.write_bytes(
        lines([{"talk": [{"from": "gpt", "value": "hey"}]}, {"talk": [{"role": "user", "content": "no"}]}])
    )
    pool = load_pool(path, fields={"dialog": "talk"})
    assert pool.status.tolist() == [0, 3]
    assert pool.sources[0].layout == "sharegpt"
    path.write_bytes(lines([{"ask": "q", "say": "a"}]))
    assert load_pool(path, fields={"instruction": "ask", "output": "say"}).dialogs([0]) == [
        [("user", "q"), ("assistant", "a")]
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "chatml"}, r"pool\.layout=chatml.*auto, mig, sharegpt, openai, alpaca"),
        ({"fields": {"tag": "x"}}, r"pool\.fields\.tag: no such field.*tags, quality"),
        ({"fields": {"tags": "a..b"}}, r"pool\.fields\.tags: 'a\.\.b' is not a path"),
        ({"fields": {"role": "a.b"}}, r"pool\.fields\.role"),
        ({"fields": {"role": "content"}}, "both 'content'"),
        ({"columns": "abc"}, r"pool\.columns: 'abc' is a string"),
        ({"on_error": "ignore"}, r"pool\.on_error=ignore: must be one of raise, skip"),
    ],
)
def test_settings_are_checked(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        load_pool(write(tmp_path, RECORDS, ".jsonl", ""), **settings)


def test_annotation_states(tmp_path):
    def row(**annotation):
        return {"messages": [{"role": "user", "content": None}], "annotation": annotation}

    rows = [
        row(instag={"content": [{"tag": "a", "explanation": "?"}, {"tag": "B "}]}),
        row(instag={"content": [1, 2]}, deita={"quality_scores": [1, None], "complexity_scores": 3}),
        row(instag={"content": []}, deita={"quality_scores": [], "complexity_scores": [True]}),
        row(instag={"content": "a"}, deita={"quality_scores": "5"}),
        row(instag={"content": None}, deita={}),
        row(instag={}, deita=None),
        row(instag=None),
        {"messages": [{"role": "user", "content": ""}], "annotation": None},
        {"messages": [{"role": "user", "content": ""}], "annotation": "none"},
        {"messages": [{"role": "user", "content": ""}], "annotation": {}},
        {"messages": [{"role": "user", "content": ""}]},
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(rows))
    pool = load_pool(path)
    assert pool.tag_state.tolist() == [PRESENT, BAD_VALUE, PRESENT, BAD_VALUE] + [ABSENT] * 7
    assert (pool.tags(0), pool.tags(1), pool.tags(2)) == (["a", "B "], [], [])
    assert pool.quality_state.tolist() == [ABSENT, BAD_VALUE, PRESENT, BAD_VALUE] + [ABSENT] * 7
    assert pool.complexity_state.tolist() == [ABSENT, PRESENT, BAD_VALUE] + [ABSENT] * 8
    assert pool.complexity.tolist() == [3.0]
    assert pool.status.tolist() == [0] * 11


def test_columns_tell_a_stored_nan_from_none(tmp_path):
    path = tmp_path / "a.parquet"
    turn = [{"role": "user", "content": "x"}]
    rows = [{"messages": turn, "v": v, "w": str(v)} for v in (1.5, float("nan"), None, float("inf"))]
    pq.write_table(pa.Table.from_pylist(rows), path)
    pool = load_pool(path, columns=["v", "w", "none", "v"])
    assert list(pool.columns) == ["v", "w", "none"]
    assert pool.columns_state["v"].tolist() == [PRESENT, BAD_VALUE, ABSENT, BAD_VALUE]
    assert np.isnan(pool.columns["v"]).tolist() == [False, True, True, True]
    assert pool.columns_state["w"].tolist() == [BAD_VALUE] * 4
    assert pool.columns_state["none"].tolist() == [ABSENT] * 4
    assert [json.loads(raw)["v"] for raw in pool.read_rows([1, 0])] == [None, 1.5]


def test_a_column_of_lists_is_read_as_their_means(tmp_path):
    """One number a turn, as CaR's scores."""
    path = tmp_path / "a.jsonl"
    turn = [{"role": "user", "content": "x"}]
    lists = [[1.0, 2.0, 6.0], [4], 5, [], [1, None], None]
    path.write_text("".join(json.dumps({"messages": turn, "v": v}) + "\n" for v in lists))
    pool = load_pool(path, columns=["v"])
    assert pool.columns["v"][:3].tolist() == [3.0, 4.0, 5.0]
    assert pool.columns_state["v"].tolist() == [PRESENT] * 3 + [BAD_VALUE, BAD_VALUE, ABSENT]


def test_ids_and_tokens(tmp_path):
    ids = [
        {"_id": "é", "id": "x"},
        {"id": 12},
        {"_id": None, "id": "x"},
        {"_id": True},
        {},
        {"_id": 10**400},
        {"_id": ""},
    ]
    tokens = [{"annotation": {"token_count": 3}}, {"tokens": 2.0}, {"tokens": None, "num_tokens": 9}, {"tokens": 2.5}]
    tokens += [{"tokens": -3}, {"tokens": 10**400}, {"tokens": "3"}]
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"instruction": "", "output": "", **i, **t} for i, t in zip(ids, tokens, strict=True)]))
    pool = load_pool(path)
    assert [pool.id(r) for r in range(7)] == ["é", "12", "x", None, None, str(10**400), None]
    assert pool.tokens.tolist() == [3, 2, 9, -1, -1, -1, -1]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    extras=st.lists(
        st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), JSON, max_size=3), min_size=1, max_size=6
    ),
    ascii_only=st.booleans(),
    spaces=st.sampled_from([b"", b" ", b"\t  "]),
    end=st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \r\n"]),
    packed=st.sampled_from(list(PACK)),
    block=st.integers(1, 300),
    data=st.data(),
)
def test_what_is_read_back_is_what_was_written(tmp_path, extras, ascii_only, spaces, end, packed, block, data):
    turn = {"messages": [{"role": "user", "content": "x"}]}
    rows = [spaces + json.dumps({**e, **turn}, ensure_ascii=ascii_only).encode() + spaces for e in extras]
    path = tmp_path / f"a.jsonl{packed}"
    path.write_bytes(PACK[packed](end.join(rows)))
    pool = load_pool(path, layout="openai", block_bytes=block)
    assert list(pool.read_rows(range(len(rows)))) == rows
    order = data.draw(st.permutations(range(len(rows))))
    assert list(pool.read_rows(order)) == [rows[i] for i in order]
    array = tmp_path / f"b.json{packed}"
    array.write_bytes(PACK[packed](b"[" + (b"," + end).join(rows) + end + b"]"))
    pool = load_pool(array, layout="openai", block_bytes=block)
    assert list(pool.read_rows(order)) == [rows[i].strip() for i in order]
