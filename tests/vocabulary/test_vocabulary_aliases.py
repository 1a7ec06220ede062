"""A vocabulary where a list of tags was: aliases become their labels before a row's repeats collapse."""

import json
from itertools import pairwise

import cli_pools
import numpy as np
import pytest

from mig_jax import label_graph, select
from mig_jax.core.errors import UserError
from mig_jax.encode import encode
from mig_jax.labels.valid_tags import Vocabulary, labels_of, read_valid_tags
from mig_jax.pool import load_pool

ROWS = [["Maths", "poem", "maths"], ["poem", "Maths"], ["rhyme", "poem"], ["other"], []]
ALIASES = {"Maths": "maths", "rhyme": "poem", "unused": "maths"}


@pytest.fixture
def pool(tmp_path):
    return load_pool(cli_pools.write(tmp_path / "p.jsonl", [cli_pools.row(i, tags=row) for i, row in enumerate(ROWS)]))


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(frozenset({"maths", "poem", "nowhere"}), ALIASES)


def labels(encoded) -> list[list[str]]:
    return [[encoded.labels[i] for i in encoded.label_idx[a:b]] for a, b in pairwise(encoded.label_ptr)]


def test_rows_get_labels_for_their_aliases(pool, vocabulary):
    found = encode(pool, valid_tags=vocabulary)
    assert found.labels == ("maths", "poem"), "those that a row has"
    assert labels(found) == [["maths", "poem"], ["poem", "maths"], ["poem"], [], []]
    assert found.tag_count.tolist() == [3, 2, 2, 0, 0], "tags that count, repeats too: the reference's --norm"


def test_the_same_as_a_pool_written_with_the_labels(pool, vocabulary, tmp_path):
    written = [[vocabulary.label_of(tag) for tag in row if vocabulary.label_of(tag)] for row in ROWS]
    rows = [cli_pools.row(i, tags=row) for i, row in enumerate(written)]
    other = encode(load_pool(cli_pools.write(tmp_path / "other.jsonl", rows)), normalize=True)
    found = encode(pool, valid_tags=vocabulary, normalize=True)
    assert labels(found) == labels(other)
    np.testing.assert_array_equal(found.score, other.score)
    assert found.labels_digest() == other.labels_digest()


def test_the_digest_sees_every_change_of_a_row(pool, vocabulary):
    seen = {encode(pool, valid_tags=valid).labels_digest() for valid in (
        vocabulary,
        vocabulary.labels,
        Vocabulary(vocabulary.labels, {"Maths": "poem"}),
        Vocabulary(vocabulary.labels, {"other": "poem"}),
        Vocabulary(vocabulary.labels, {"other": "maths", "Maths": "maths"}),
        Vocabulary(vocabulary.labels, {"other": "poem", "Maths": "maths"}),
        Vocabulary(vocabulary.labels, {"Maths": "maths"}),
        None,
    )}  # fmt: skip
    assert len(seen) == 8
    # An alias of a tag that its row has anyway changes no label, but how many tags they came from.
    only = encode(pool, valid_tags=Vocabulary(frozenset({"poem"}), {"rhyme": "poem"}))
    assert labels(only) == labels(encode(pool, valid_tags=["poem"]))
    assert only.labels_digest() != encode(pool, valid_tags=["poem"]).labels_digest()


def test_from_python(pool, vocabulary, tmp_path):
    graph = label_graph(pool, valid_tags=vocabulary, embeddings=np.eye(2, dtype=np.float32))
    assert graph.labels == ("maths", "poem")
    picked = select(pool, 2, graph=graph, valid_tags=vocabulary)
    assert labels(picked.encoded)[0] == ["maths", "poem"] and picked.rows[0] in (0, 1)
    file = tmp_path / "v.json"
    file.write_text(json.dumps({"labels": sorted(vocabulary.labels), "aliases": ALIASES}))
    again = select(pool, 2, graph=graph, valid_tags=file)
    np.testing.assert_array_equal(again.rows, picked.rows)


def test_labels_of_tags(vocabulary):
    assert labels_of(["maths", "Maths", "x", ""], vocabulary) == ["maths", "maths", None, None]
    assert labels_of(["a", "b", ""], ["a", ""]) == ["a", None, None]
    assert labels_of(["a", ""], None) == ["a", None]


def test_the_file(tmp_path, vocabulary):
    file = tmp_path / "v.json"
    file.write_text(json.dumps({"labels": ["maths", "poem", "nowhere"], "aliases": ALIASES}))
    assert read_valid_tags(file) == vocabulary
    file.write_text('{"labels": ["a", "a"]}')
    assert read_valid_tags(str(file)) == Vocabulary(frozenset({"a"}))
    file.write_text('{"labels": ["a\\ud800"], "aliases": {"\\udc00": "a\\ud800"}}')
    assert read_valid_tags(file).label_of("\udc00") == "a\ud800"


BAD = [
    ('{"labels": ["a"], "aliases": {"b": "c"}}', "aliases: 'b' maps to 'c', which is not one of the labels"),
    ('{"labels": ["a", "b"], "aliases": {"b": "a"}}', "aliases: 'b' is a label itself"),
    ('{"labels": ["a", 7]}', r"labels\[1\]=7: must be a string"),
    ('{"labels": ["a"], "aliases": {"b": null}}', "aliases: 'b' maps to null, which must be a string"),
    ('{"labels": ["a"], "aliases": ["b"]}', "aliases: must be an object"),
    ('{"labels": [], "aliases": {}}', "labels: must be a list of strings, of one at least"),
    ('{"labels": {"a": 1}}', "labels: must be a list of strings, of one at least"),
    ('{"labels": ["a"], "alias": {}}', "alias: no such key; a vocabulary has labels and aliases"),
    ('{"labels": ["a", ""]}', "the empty text is not a tag"),
    ('{"labels": ["a"], "aliases": {"": "a"}}', "the empty text is not a tag"),
    ('{"aliases": {}}', "must hold a JSON list of strings, or one tag a line, or the object of a vocabulary.json"),
    ('{"labels": ["a"', "not JSON"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_file_that_is_none_names_the_key(tmp_path, text, message):
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(UserError, match=rf"pool\.valid_tags=.*v\.json: {message}"):
        read_valid_tags(tmp_path / "v.json")


def test_the_folder_of_a_run_is_told_its_file(tmp_path):
    (tmp_path / "vocabulary.json").touch()
    with pytest.raises(UserError, match=r"is a folder; .*vocabulary\.json is one"):
        read_valid_tags(tmp_path)
