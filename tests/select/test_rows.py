import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_jax.core.lines import one_line, selection_names, write_lines, write_prefixes


@pytest.mark.parametrize("row", [b'{"a":  1.50e3, "b": "\\u00e9"}', b' {"a":1}\r', '{"a": "é\u2028"}'.encode()])
def test_a_line_stays_as_it_came(row):
    assert one_line(row) == row
    assert one_line(row + b"\n") == row


def test_breaks_inside_a_row_become_spaces_and_nothing_else_changes():
    row = b'{\n "big": 12345678901234567890123,\r\n "x": 1.50e3, "t": "a\\nb  c"\n}'
    assert one_line(row) == b'{  "big": 12345678901234567890123,   "x": 1.50e3, "t": "a\\nb  c" }'
    assert one_line(b'{"a":\r1}') == b'{"a": 1}'


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_one_line_is_one_line_of_the_same_value(value):
    row = json.dumps({"v": value}, indent=2).encode()
    line = one_line(row)
    assert b"\n" not in line and msgspec.json.decode(line) == msgspec.json.decode(row)


def test_rejects_are_one_line_each():
    assert one_line(b"{not\njson\r\n") == b"{not json\r"
    assert b"\n" not in one_line(b"\n\n\n")


def test_prefixes_read_the_rows_once(tmp_path):
    read = []

    def rows():
        for at in range(10):
            read.append(at)
            yield b"%d" % at

    paths = {n: tmp_path / name for n, name in selection_names((2, 5)).items()}
    assert write_prefixes(paths, rows()) == {2: 2, 5: 5}
    assert read == [0, 1, 2, 3, 4]
    assert (tmp_path / "selection_2.jsonl").read_bytes() == b"0\n1\n"
    assert (tmp_path / "selection_5.jsonl").read_bytes() == b"0\n1\n2\n3\n4\n"


def test_rows_that_run_out_are_no_error(tmp_path):
    assert write_prefixes({5: tmp_path / "a"}, iter([b"x"])) == {5: 1}
    assert write_lines(tmp_path / "none", []) == 0 and (tmp_path / "none").read_bytes() == b""


def test_one_budget_has_the_plain_name():
    assert selection_names((7,)) == {7: "selection.jsonl"}
