"""From strings to arrays: which rows count, which labels, which score; and mistakes named with file and line."""

import json
from itertools import pairwise

import numpy as np
import pytest

from mig_jax.core.errors import UserError
from mig_jax.encode import RankingSource, encode
from mig_jax.labels.valid_tags import read_valid_tags
from mig_jax.pool import load_pool


def record(tags=("a", "b"), quality=(4.0,), complexity=(2.5,), **more) -> dict:
    annotation = {}
    if tags is not None:
        annotation["instag"] = {"content": list(tags) if isinstance(tags, tuple) else tags}
    if quality is not None:
        annotation["deita"] = {"quality_scores": list(quality), "complexity_scores": list(complexity)}
    dialog = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    return {"dialogs": dialog, "source": ["s"], "_id": "x", "annotation": annotation, **more}


def pool(tmp_path, *records, **settings):
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\n", encoding="utf-8")
    return load_pool(path, **settings)


def labels_of(encoded) -> list[list[str]]:
    ptr = encoded.label_ptr
    return [[encoded.labels[i] for i in encoded.label_idx[a:b]] for a, b in pairwise(ptr)]


def test_labels_are_sorted_names_and_rows_keep_their_order_without_repeats(tmp_path):
    found = encode(pool(tmp_path, record(("b", "é", "b", "a", "b")), record(("Z",)), record(("", "a"))))
    assert found.labels == ("Z", "a", "b", "é")
    assert labels_of(found) == [["b", "é", "a"], ["Z"], ["a"]]
    assert found.label_count.tolist() == [3, 1, 1]
    assert found.label_idx.dtype == np.int32


def test_only_exact_matches_of_the_vocabulary_are_labels(tmp_path):
    found = encode(pool(tmp_path, record(("a", "A", "a ")), record(("x",))), valid_tags={"a", "unused", ""})
    assert found.labels == ("a",)
    assert labels_of(found) == [["a"], []], "a row whose tags are all unknown stays, with gain 0"


def test_the_score_is_the_mean_over_turns_of_quality_times_complexity(tmp_path):
    rows = pool(tmp_path, record(quality=(4.0, 2.0), complexity=(3.0, 5.0)), record())
    np.testing.assert_allclose(encode(rows).score, [(12 + 10) / 2, 10])
    np.testing.assert_allclose(encode(rows, turns="sum").score, [22, 10])


def test_norm_counts_valid_tags_with_repeats(tmp_path):
    rows = pool(tmp_path, record(("a", "a", "b", "no")), record(("no",)))
    np.testing.assert_allclose(encode(rows, valid_tags={"a", "b"}, normalize=True).score, [10 / 3, 10])


def test_rows_without_annotation_are_counted_by_reason(tmp_path):
    found = encode(pool(tmp_path, record(), record(None), record(quality=None), record(()), record("text")))
    assert found.row.tolist() == [0, 3]
    assert found.dropped == {"no tags": 1, "no deita score": 1, "tags are not a list of strings": 1}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"quality": (-1.0,)}, r"quality \[-1\.0\] x complexity \[2\.5\]"),
        ({"quality": (1.0, 2.0)}, "2 quality scores but 1 complexity"),
        ({"quality": (3.0, -1.0), "complexity": (3.0, 1.0)}, "quality"),
    ],
)
def test_a_wrong_score_names_its_line_or_is_left_out(tmp_path, bad, message):
    rows = pool(tmp_path, record(), record(**bad))
    with pytest.raises(UserError, match=rf"pool\.jsonl.*2.*{message}") as error:
        encode(rows)
    assert "pool.on_error=skip" in str(error.value)
    found = encode(rows, on_error="skip")
    assert found.row.tolist() == [0]
    assert sum(found.dropped.values()) == 1


def test_other_scores(tmp_path):
    rows = pool(
        tmp_path,
        record(ifd_score={"content": 0.5}, mine=3),
        record(mine=4),
        record(ifd_score={"content": 0.0}, mine=0),
        columns=["mine"],
    )
    np.testing.assert_array_equal(encode(rows, score="ifd").score, [0.5, 0.0])
    np.testing.assert_array_equal(encode(rows, score="mine").score, [3, 4, 0])
    with pytest.raises(UserError, match=r"score\.from=other: not a column"):
        encode(rows, score="other")


def test_a_pool_that_cannot_be_used_says_why(tmp_path):
    with pytest.raises(UserError, match=r"no usable row among 2: 2 no tags"):
        encode(pool(tmp_path, record(None), record(None)))
    with pytest.raises(UserError, match=r"no row of the pool has a valid tag .*'a'"):
        encode(pool(tmp_path, record()), valid_tags={"x"})


def test_a_vocabulary_from_either_kind_of_file(tmp_path):
    (tmp_path / "tags.json").write_text('["a", "b c", "a"]')
    (tmp_path / "tags.txt").write_text("a\nb c\n\n")
    expected = frozenset({"a", "b c"})
    assert read_valid_tags(tmp_path / "tags.json") == read_valid_tags(tmp_path / "tags.txt") == expected
    for text in ('{"a": 1}', "[1, 2]", "[", ""):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(UserError, match=r"pool\.valid_tags="):
            read_valid_tags(tmp_path / "bad")
    with pytest.raises(UserError, match="no such file"):
        read_valid_tags(tmp_path / "none.json")


def test_a_raw_pool_is_usable_where_neither_tags_nor_scores_are_needed(tmp_path):
    raw = pool(tmp_path, record(None, None), record(None, None), "no record", on_error="skip")
    found = encode(raw, needs=())
    assert (found.labels, found.score.tolist(), found.label_count.tolist()) == ((), [1.0, 1.0], [0, 0])
    assert not found.scored


def test_a_row_is_left_out_only_for_what_is_needed(tmp_path):
    half = pool(tmp_path, record(), record(None), record(("a",), None), record("text"))
    for needs, rows, score in (
        (("labels", "score"), [0], [10.0]),
        (("labels",), [0, 2], [10.0, 0.0]),
        (("score",), [0, 1, 3], [10.0, 10.0, 10.0]),
        ((), [0, 1, 2, 3], [10.0, 10.0, 0.0, 10.0]),
    ):
        found = encode(half, needs=needs)
        assert (found.row.tolist(), found.score.tolist()) == (rows, score)
        assert labels_of(found) == [[["a", "b"], [], ["a"], []][row] for row in rows]
        assert sum(found.dropped.values()) == 4 - len(rows)


def test_a_needed_ranking_decides_which_rows_are_usable(tmp_path):
    rows = pool(tmp_path, record(mine=-1), record(None, mine=2), record(), columns=["mine"])
    found = encode(rows, needs=("ranking",), ranking=RankingSource("mine", "mean", "sampler.score"))
    assert (found.row.tolist(), found.dropped) == ([0, 1], {"no number at mine": 1})
    bad = pool(tmp_path, record(mine=1), record(mine="x"), columns=["mine"])
    with pytest.raises(UserError, match=r"pool\.jsonl:2: mine=nan"):
        encode(bad, needs=("ranking",), ranking=RankingSource("mine", "mean", "sampler.score"))
    found = encode(bad, needs=("ranking",), ranking=RankingSource("mine", "mean", "sampler.score"), on_error="skip")
    assert (found.row.tolist(), found.faulty.tolist()) == ([0], [1])
