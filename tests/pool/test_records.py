"""Blocks may end anywhere; what is malformed is named, or counted."""

import gzip
import json
from itertools import product

import pytest
import zstandard

from mig_jax.core.errors import UserError
from mig_jax.pool import REASONS, load_pool
from mig_jax.pool.records import _is_utf8, array_blocks, line_blocks

GOOD = b'{"messages": [{"role": "user", "content": "x"}]}'


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def records(blocks) -> list[tuple[bytes, int, int]]:
    return [r for b in blocks for r in zip(b.records, b.lines, b.offsets, strict=True)]


LINES = b'\xef\xbb\xbf{"a": 1}\r\n\n \t\r\n{"b": "\xc3\xa9\xe2\x82\xac"}\n\n\r\n{"c": [1, 2]} \n{"d": 4}'


def test_lines_whatever_the_block_size():
    want = [(b'{"a": 1}', 1, 3), ('{"b": "é€"}'.encode(), 4, 18), (b'{"c": [1, 2]} ', 7, 36), (b'{"d": 4}', 8, 51)]
    for size in range(1, len(LINES) + 1):
        got = records(line_blocks(cut(LINES, size)))
        assert got == want, size
        assert not any(block.bad for block in line_blocks(cut(LINES, size)))
    for record, _, offset in want:
        assert LINES[offset:].startswith(record)


def test_utf8_is_what_python_says_it_is():
    """Every sequence of up to three bytes at the borders of UTF-8's ranges, and of four that begin as one of four."""
    edges = [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF]
    tried = [bytes(some) for length in (1, 2, 3) for some in product(edges, repeat=length)]
    tried += [bytes([first, *rest]) for first in (0xF0, 0xF4, 0xF5) for rest in product(edges, repeat=3)]
    for text in tried:
        want = "\ufffd" not in text.decode(errors="replace")
        assert _is_utf8(text) == _is_utf8(b"a" * 61 + text + b"z" * 61) == want, text


ARRAY = rb"""  [ {"a": "]}\"[{,\\"}, {"b": [1, {"c": "\\\\"}]} , 3,"x,]" ,
 null, [[], {}, ","], {"d":
 1}
] """


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_array_whatever_the_block_size(bom):
    text = bom + ARRAY
    want = json.loads(ARRAY)
    for size in range(1, len(text) + 1):
        got = records(array_blocks(cut(text, size), "f"))
        assert [json.loads(raw) for raw, _, _ in got] == want, size
        assert [number for _, number, _ in got] == list(range(1, len(want) + 1))
        assert all(text[at : at + len(raw)].replace(b"\n", b" ") == raw for raw, _, at in got)


@pytest.mark.parametrize("text", [b"[]", b" [ \n] ", b'[{"a": 1}]', b"[1,]", b"[,1]", b"[1,,2]"])
def test_empty_elements(text):
    inside = text.strip()[1:-1].strip()
    want = [part.strip() for part in inside.split(b",")] if inside else []
    for size in range(1, len(text) + 1):
        assert [raw for raw, _, _ in records(array_blocks(cut(text, size), "f"))] == want


@pytest.mark.parametrize("text", [b"[1, 2", b"[", b'["a', b'[{"a": 1}', b'[{"a": "\\'])
def test_an_array_cut_short(text):
    for size in range(1, len(text) + 1):
        with pytest.raises(UserError, match="f: the JSON array is not closed"):
            list(array_blocks(cut(text, size), "f"))


@pytest.mark.parametrize("text", [b"[1] 2", b"[1]]", b"[1}", b"[1][2]", b"[1]   \n ,"])
def test_something_after_an_array(text):
    for size in range(1, len(text) + 1):
        with pytest.raises(UserError, match="f: there is more after"):
            list(array_blocks(cut(text, size), "f"))


MALFORMED = [
    (b'{"messages": [', "cut short"),
    (b'{"messages": [}', "invalid character"),
    (GOOD + b"x", "trailing characters"),
    (GOOD[:-1] + b', "x": NaN}', "NaN is not JSON"),
    (GOOD[:-1] + b', "x": -Infinity}', "Infinity is not JSON"),
    (GOOD[:-1] + b', "ifd_score": {"content": NaN}}', "NaN is not JSON"),
    (GOOD[:-1] + b', "x": "\xff"}', "not UTF-8"),
    (GOOD[:-1] + b', "x": "\xed\xa0\x80"}', "not UTF-8"),
    (GOOD[:-1] + b', "x": "\\ud800"}', "surrogate"),
    (GOOD[:-1] + b', "x": 1e999, "y": NaN}', "NaN is not JSON"),
    (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (GOOD[:-1] + b', "x": "a\tb"}', "invalid character"),
]


@pytest.mark.parametrize(("line", "reason"), MALFORMED)
def test_malformed_lines(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([GOOD, b"", line, GOOD]))
    with pytest.raises(UserError, match=rf"a\.jsonl:3: malformed: .*{reason}.*pool\.on_error=skip"):
        load_pool(path)
    pool = load_pool(path, on_error="skip")
    assert pool.status.tolist() == [0, 1, 0]
    assert pool.line.tolist() == [1, 3, 4]
    (reject,) = pool.rejects
    assert (reject.row, reject.file, reject.line, reject.reason) == (1, str(path), 3, "malformed")
    assert reason in reject.detail
    assert reject.head == line[:200]
    assert list(pool.read_rows([1, 2])) == [line, GOOD]
    assert pool.dialogs([1, 0]) == [[], [("user", "x")]]
    assert pool.tag_ptr.tolist() == [0, 0, 0, 0]


def test_a_malformed_first_line_does_not_decide_the_layout(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"[1]\n{\n" + GOOD)
    pool = load_pool(path, on_error="skip", block_bytes=1)
    assert pool.status.tolist() == [2, 1, 0]
    assert [r.reason for r in pool.rejects] == ["not an object", "malformed"]
    assert pool.sources[0].layout == "openai"
    with pytest.raises(UserError, match=r"a\.jsonl:1: not an object"):
        load_pool(path)


def test_a_line_break_inside_a_string_of_an_array_is_malformed(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(
        b"[" + GOOD + b',\n{"messages":\n[{"role": "user", "content": "x\ny"}]}, ' + GOOD.replace(b"x", b"\xff") + b"]"
    )
    pool = load_pool(path, on_error="skip")
    assert pool.status.tolist() == [0, 1, 1]
    with pytest.raises(UserError, match=r"a\.json:2: malformed"):
        load_pool(path)


def test_numbers_that_no_machine_has(tmp_path):
    path = tmp_path / "a.jsonl"
    tails = [b"9" * 30, b"9" * 400, b"9" * 5000, b"1e999", b"-1e999", b"-" + b"9" * 5000]
    path.write_bytes(b"\n".join(GOOD[:-1] + b', "c": %s, "tokens": %s, "_id": "k"}' % (t, t) for t in tails))
    pool = load_pool(path, columns=["c"])
    assert pool.columns_state["c"].tolist() == [0, 2, 2, 2, 2, 2]
    assert pool.columns["c"][0] == 1e30
    assert pool.tokens.tolist() == [-1] * 6
    assert pool.id(5) == "k"
    assert [REASONS[s] for s in pool.status] == ["usable"] * 6


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("text", [b"", b"\n\n \r\n"])
def test_empty(tmp_path, name, text):
    pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.rpartition(".")[2], bytes)
    (tmp_path / name).write_bytes(pack(text))
    with pytest.raises(UserError, match="an empty pool"):
        load_pool(tmp_path / name)


def test_one_empty_file_among_others_is_fine(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl").write_bytes(GOOD)
    pool = load_pool(tmp_path)
    assert [s.rows for s in pool.sources] == [0, 1]
    assert pool.dialogs([0]) == [[("user", "x")]]


def test_no_usable_record(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"messages": []}\n{"messages": [{"role": "user"}]}\n{"messages": 3}\n{}\n{')
    with pytest.raises(
        UserError, match=r"no usable record among 5: 1 malformed, 4 no dialog\. .*a\.jsonl:1: messages is empty"
    ):
        load_pool(path, on_error="skip")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_damaged_compression(tmp_path, suffix, pack):
    path = tmp_path / f"a.jsonl{suffix}"
    packed = pack(b"\n".join([GOOD] * 1000))
    for part in (packed[: len(packed) // 2], packed[:-1], packed[:5]):
        path.write_bytes(part)
        with pytest.raises(UserError, match=r"a\.jsonl.*cut short"):
            load_pool(path, on_error="skip")
    path.write_bytes(packed[:20] + b"\xff" * 20 + packed[40:])
    with pytest.raises(UserError, match="damaged"):
        load_pool(path)
    path.write_bytes(GOOD)
    with pytest.raises(UserError, match=r"its content is not"):
        load_pool(path)
    plain = tmp_path / "b.jsonl"
    plain.write_bytes(packed)
    with pytest.raises(UserError, match=r"compressed; add \."):
        load_pool(plain)
    # Several frames end to end are one file; pzstd puts a skippable one before each.
    pack = (lambda data: b"\x50\x2a\x4d\x18\x01\0\0\0x" + zstandard.compress(data)) if suffix == ".zst" else pack
    path.write_bytes(pack(GOOD + b"\n") + pack(GOOD) + (b"\0" * 512 if suffix == ".gz" else b""))
    for block in (1, 7, 1 << 20):
        pool = load_pool(path, block_bytes=block)
        assert list(pool.read_rows([1, 0])) == [GOOD, GOOD]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", GOOD, "not parquet"),
        ("a.parquet", b"PAR1xxxxxxxxxxxxxxxx", "not a readable parquet file"),
        ("a.parquet.gz", gzip.compress(GOOD, mtime=0), "not a readable parquet file"),
        ("a.jsonl", b"PAR1xxxx", "its content is parquet"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16"),
    ],
)
def test_content_against_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_pool(tmp_path / name)


def test_one_object_over_many_lines_is_no_pool(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{\n "messages": []\n}')
    with pytest.raises(UserError, match=r"a\.json:1: malformed: cut short \(a \.json file is an array"):
        load_pool(path)
