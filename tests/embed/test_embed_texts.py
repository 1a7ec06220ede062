"""Which texts: rows with all their turns, labels, lines of a file; and what is no text."""

import gzip
import json
from pathlib import Path

import cli_pools
import numpy as np
import pytest

from mig_jax.commands.embed.config import EmbedConfig
from mig_jax.commands.embed.texts import texts_of
from mig_jax.core.errors import UserError


def config(path: Path | list[str], **embed) -> EmbedConfig:
    from mig_jax.cli.arguments import quoted
    from mig_jax.commands.registry import compose

    valid = embed.pop("valid_tags", None)
    paths = quoted(str(path)) if isinstance(path, Path) else "[" + ",".join(map(quoted, path)) + "]"
    overrides = [f"pool.path={paths}", *(f"embed.{key}={value}" for key, value in embed.items())]
    overrides += [f"pool.valid_tags={quoted(str(valid))}"] if valid else []
    return compose("embed", [*overrides, "pool.on_error=skip"])


def test_a_row_is_all_its_turns_and_a_row_without_a_dialog_is_no_text(tmp_path):
    rows = [cli_pools.row(0), '{"dialogs": [', {"dialogs": []}, cli_pools.row(3), "[1]"]
    rows[3]["dialogs"] = [{"role": "user", "content": x} for x in ("a", "", "b\n", "日")]
    texts = texts_of(config(cli_pools.write(tmp_path / "p.jsonl", rows)), None)
    assert (texts.target, texts.count) == ("rows", 5)
    assert texts.without.tolist() == [False, True, True, False, True]
    found = list(texts.each())
    assert found == ["Question 0 é\n\nAnswer 0", "", "", "a\n\n\n\nb\n\n\n日", ""]
    assert list(texts.each()) == found


@pytest.mark.parametrize("kind", ["jsonl.gz", "json"])
def test_other_formats_of_a_pool(tmp_path, kind):
    rows = [cli_pools.row(i) for i in range(5)]
    file = tmp_path / f"p.{kind}"
    file.write_bytes(
        json.dumps(rows).encode() if kind == "json" else gzip.compress("\n".join(map(json.dumps, rows)).encode())
    )
    assert list(texts_of(config(file), None).each()) == [f"Question {i} é\n\nAnswer {i}" for i in range(5)]


def test_labels_are_the_sorted_distinct_tags_that_are_valid(tmp_path):
    rows = [cli_pools.row(0, tags=["b", "a", "", "b"]), cli_pools.row(1, tags=None), cli_pools.row(2, tags=["é", "A"])]
    pool = cli_pools.write(tmp_path / "p.jsonl", rows)
    texts = texts_of(config(pool, target="labels"), None)
    assert texts.names == ("A", "a", "b", "é") and list(texts.each()) == ["A", "a", "b", "é"] and texts.count == 4
    (tmp_path / "tags.json").write_text('["b", "é", "other"]')
    assert texts_of(config(pool, target="labels", valid_tags=tmp_path / "tags.json"), None).names == ("b", "é")
    (tmp_path / "tags.json").write_text('["other"]')
    with pytest.raises(UserError, match=r"embed\.target=labels: none of the pool's 5 distinct tags counts as a label"):
        texts_of(config(pool, target="labels", valid_tags=tmp_path / "tags.json"), None)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a\nb", ["a", "b"]),
        (b"a\nb\n", ["a", "b"]),
        (b"\n\n", ["", ""]),
        (b"\xef\xbb\xbf\n", [""]),
        (b"\xef\xbb\xbf\na", ["", "a"]),
        (b"a\n\xef\xbb\xbf", ["a", "\ufeff"]),
        (b"\xef\xbb\xbfa\r\n\xc3\xa9\r\n", ["a", "é"]),
        ("a\x0b\x1c\u2028b\n".encode(), ["a\x0b\x1c\u2028b"]),  # what str.splitlines would cut
    ],
)
def test_lines_of_a_file(tmp_path, raw, expected):
    (tmp_path / "t.txt").write_bytes(raw)
    texts = texts_of(config(tmp_path / "t.txt"), None)
    assert (texts.target, texts.count, list(texts.each())) == ("texts", len(expected), expected)


def test_a_list_of_strings(tmp_path):
    file = tmp_path / "t.json"
    file.write_text(' [\n "a\\nb", "", "é"]')
    texts = texts_of(config(file), None)
    assert list(texts.each()) == ["a\nb", "", "é"] and texts.target == "texts"
    file.write_text('["a", "\\ud800 x"]')
    texts = texts_of(config(file), None)
    assert (texts.count, list(texts.each())) == (2, ["a", "\ud800 x"])


@pytest.mark.parametrize(
    ("name", "raw", "options", "told"),
    [
        ("t.txt", b"a\n\xff\n", {}, r"t\.txt:2: not UTF-8"),
        ("t.txt", b"", {}, r"t\.txt: holds no text"),
        ("t.txt", b"\xef\xbb\xbf", {}, r"t\.txt: holds no text"),
        ("t.json", b'["\\ud800", 3]', {}, r"t\.json: must be a list of strings"),
        ("t.json", b"[]", {}, r"t\.json: holds no text"),
        ("t.json", b'["a", 3]', {}, r"t\.json: must be a list of strings, as it begins, or a pool: Expected `str`"),
        ("t.json", b'["a",', {}, r"t\.json: must be a list of strings"),
        ("t.txt", b"a", {"target": "labels"}, r"embed\.target=labels: .*t\.txt holds texts"),
        ("t.csv", b"a", {}, r"t\.csv: unknown suffix"),
    ],
)
def test_what_is_no_file_of_texts(tmp_path, name, raw, options, told):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=told):
        texts_of(config(tmp_path / name, **options), None)


def test_contents_decide_and_a_change_is_noticed(tmp_path):
    for name, text in (("a", "x\n"), ("b", "x\n"), ("c", "y\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    a, b, c = (texts_of(config(tmp_path / f"{name}.txt"), None) for name in "abc")
    assert a.decides == b.decides != c.decides
    a.check()
    (tmp_path / "a.txt").write_text("longer\n")
    with pytest.raises(UserError, match="changed since it was read"):
        a.check()


def test_golden_rows_are_the_texts_of_the_golden_embeddings(golden):
    texts = texts_of(config(golden / "pool.jsonl.gz"), None)
    stored = np.load(golden / "embeddings.npy", mmap_mode="r")
    assert texts.count == len(stored) and not texts.without.any()
    with gzip.open(golden / "pool.jsonl.gz", "rt") as stream:
        for text, line in zip(texts.each(), stream, strict=True):
            assert text == "\n\n".join(turn["content"] for turn in json.loads(line)["dialogs"])
