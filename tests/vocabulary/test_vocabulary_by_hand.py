"""All four steps on a pool small enough to follow with a pencil."""

import json
import random

import numpy as np
import pytest
from tag_rows import circle

from mig_jax.commands.vocabulary import Normalised, normalise, tags_of
from mig_jax.commands.vocabulary import steps as module
from mig_jax.commands.vocabulary.config import VocabularyOptions
from mig_jax.commands.vocabulary.steps import embeds
from mig_jax.config.check import part
from mig_jax.core.errors import UserError
from mig_jax.pool import load_pool

ROWS = [
    ["Web-Development", "web development", "python"],  # 0
    ["web development", "python", "pandas", "series"],  # 1
    ["web development", "python", "pandas", "series"],  # 2
    ["Web-Development", "python", "pandas", "series"],  # 3
    ["frontend work", "python", "pandas"],  # 4
    ["frontend work", "pandas"],  # 5
    ["site building", "c++", "animal"],  # 6
    ["site building", "c++", "C#", "animal"],  # 7
    ["web developments", "C#", "python", "anime"],  # 8
    ["web developments", "once", "once", "anime", ""],  # 9
]
"""Rows that carry each tag:

    python 6 (0 1 2 3 4 8)   pandas 5 (1 2 3 4 5)           series 3 (1 2 3)
    web development 3 (0 1 2)   Web-Development 2 (0 3)     web developments 2 (8 9)
    frontend work 2 (4 5)    site building 2 (6 7)          c++ 2 (6 7)   C# 2 (7 8)   once 1 (9)
    animal 2 (6 7)   anime 2 (8 9)
"""
ANGLES = {"web development": 0, "frontend work": 10, "site building": 20, "python": 90, "pandas": 130, "series": 170}
ANGLES |= {"c++": 220, "C#": 260, "web developments": 45, "animal": 300, "anime": 346}


def settings(**changes) -> VocabularyOptions:
    return part("vocabulary", "vocabulary", VocabularyOptions, **changes)


OPTIONS = settings(min_count=2, distance=0.02, support=3, confidence=0.8)


def record(tags) -> str:
    annotation = {"instag": {"content": tags}, "deita": {"quality_scores": [1.0], "complexity_scores": [1.0]}}
    dialog = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    return json.dumps({"dialogs": dialog, "annotation": annotation})


def made(tmp_path, rows, options=OPTIONS, angles=ANGLES) -> Normalised:
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(map(record, rows)) + "\n")
    return normalise(tags_of(load_pool(path)), options, circle(angles))


def test_four_steps(tmp_path):
    found = made(tmp_path, ROWS)
    frequency, rules, semantic, association = found.steps

    # 1. "once" is on one row, though twice in it; the empty tag never counts.
    assert (frequency.before, frequency.after) == (13, 12)
    assert frequency.dropped == [{"tag": "once", "rows": 1}] and frequency.merges == []

    # 2. The three spellings of web development are on the rows 0 1 2 3 8 9: row 0, with two of them, counts once.
    #    web developments has only the stem of the others, and is 45 degrees from them: a cosine of 0.71, just enough.
    #    animal and anime have one stem, too, and are 46 degrees apart, 0.69.
    assert (rules.before, rules.after, rules.merged) == (12, 10, 2)
    assert rules.settings == {"rules": "stem", "keep": "+#", "stem_cosine": 0.7}
    spelled = [{"tag": "web development", "rows": 3}, {"tag": "Web-Development", "rows": 2}]
    spelled += [{"tag": "web developments", "rows": 2, "cosine": 0.7071}]
    assert rules.merges == [{"label": "web development", "rows": 6, "tags": spelled}]

    # 3. Neighbours are at most 0.02 apart, which is 11.5 degrees: 0-10 and 10-20 are, 0-20 hang together by 10 alone.
    assert (semantic.before, semantic.after, semantic.merged) == (10, 8, 2)
    (cluster,) = semantic.merges
    assert [tag["tag"] for tag in cluster["tags"]] == ["web development", "frontend work", "site building"]
    assert cluster["rows"] == 10, "with rows 4 5 and 6 7 it is on every row"
    assert cluster["span"] == round(1 - np.cos(np.deg2rad(20)), 4)
    assert sorted(cluster["between"]) == ["site building", "web development"]
    (note,) = found.notes
    assert "'web development' with 3 tags" in note and "at distance 0.06" in note

    # 4. On 3 rows or more: series -> pandas 3/3, series -> python 3/3, series -> web 3/3, pandas -> python 4/5,
    #    pandas -> web 5/5, python -> web 6/6; python -> pandas has 4/6, pandas -> series 3/5, which is less than 0.8.
    #    series takes, of three that are on all its rows, the most frequent: web development; so do the others.
    assert (association.before, association.after, association.merged) == (8, 5, 3)
    (merge,) = association.merges
    assert merge["label"] == "web development" and merge["rows"] == 10
    rule = {"with": "web development", "confidence": 1.0}
    assert merge["tags"] == [
        {"tag": "web development", "rows": 10},
        {"tag": "python", "rows": 6, "both": 6, **rule},
        {"tag": "pandas", "rows": 5, "both": 5, **rule},
        {"tag": "series", "rows": 3, "both": 3, **rule},
    ]

    assert (found.labels, found.rows) == (("web development", "C#", "animal", "anime", "c++"), (10, 2, 2, 2, 2))
    aliases = ["Web-Development", "frontend work", "pandas", "python", "series", "site building", "web developments"]
    assert found.aliases == dict.fromkeys(aliases, "web development") and [*found.aliases] == aliases
    assert found.vocabulary.label_of("series") == "web development"
    assert found.vocabulary.label_of("once") is None


def test_each_step_works_on_what_the_one_before_left(tmp_path):
    """Without the semantic step web development is on 6 rows, and what is said with pandas and series is python."""
    found = made(tmp_path, ROWS, settings(distance=None, support=3, confidence=0.8))
    assert found.steps[2].settings is None and found.steps[2].after == found.steps[2].before == 10
    # series goes with python, web development and pandas alike: two are on 6 rows, and python comes first by name.
    # pandas: python 4 of 5 rows. python: web development 5 of 6, on as many rows, later by name: web development
    # merges into python, 5 of 6.
    expected = dict.fromkeys(["Web-Development", "web developments", "web development", "pandas", "series"], "python")
    assert found.aliases == expected
    assert found.labels == ("python", "C#", "animal", "anime", "c++", "frontend work", "site building")
    assert found.rows == (8, 2, 2, 2, 2, 2, 2)


def test_special_characters_that_make_another_language_stay_or_do_not(tmp_path):
    rows = [["C++ code"], ["C++ code"], ["c code"], ["c code"], ["C#  Codes"], ["C#  Codes"]]
    apart = made(tmp_path, rows, settings(distance=None), {})
    assert apart.labels == ("C#  Codes", "C++ code", "c code")
    one = made(tmp_path, rows, settings(distance=None, keep=""), {"C++ code": 0, "C#  Codes": 1})
    assert one.labels == ("C++ code",), "equals by name; one with stray white space is the last choice"
    assert one.aliases == {"C#  Codes": "C++ code", "c code": "C++ code"} and one.rows == (6,)


def test_the_order_of_rows_and_of_their_tags_decides_nothing(tmp_path):
    first = made(tmp_path, ROWS)
    for seed in range(5):
        draw = random.Random(seed)
        rows = [draw.sample(row, len(row)) for row in draw.sample(ROWS, len(ROWS))]
        assert made(tmp_path, rows) == first


def test_only_what_decides_something_is_embedded(tmp_path):
    asked = []

    def embed(names):
        asked.append(names)
        return circle(ANGLES)(names)

    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(map(record, ROWS)) + "\n")
    tags = tags_of(load_pool(path))
    stems = ["animal", "anime", "web development", "web developments"]
    left = ["C#", "animal", "anime", "c++", "frontend work", "pandas", "python", "series", "site building"]
    for options, expected in (
        (settings(rules="spelling", distance=None), []),
        (settings(rules=None, distance=None), []),
        (settings(distance=None), [stems]),
        (settings(stem_cosine=None, distance=None), []),
        (settings(min_count=3, distance=None), []),  # no two stems are equal
        (settings(), [stems, [*left, "web development"]]),
    ):
        asked.clear()
        normalise(tags, options, embed)
        assert [[*names] for names in asked] == expected and embeds(options) >= bool(expected)
    assert not embeds(settings(rules="spelling", distance=None))
    assert not embeds(settings(stem_cosine=None, distance=None))


def test_stems_as_published(tmp_path):
    found = made(tmp_path, ROWS, settings(stem_cosine=None, distance=None))
    assert found.steps[1].settings == {"rules": "stem", "keep": "+#", "stem_cosine": None}
    assert found.aliases["anime"] == "animal" and found.aliases["web developments"] == "web development"
    apart = made(tmp_path, ROWS, settings(stem_cosine=0.71, distance=None))
    assert set(apart.aliases) == {"Web-Development"}


def test_no_step_no_merge(tmp_path):
    off = settings(min_count=1, rules=None, distance=None, support=None)
    found = made(tmp_path, ROWS, off)
    assert len(found.labels) == 13 and not found.aliases
    assert found.labels[:3] == ("python", "pandas", "series") and found.rows[:3] == (6, 5, 3)


def test_what_cannot_become_a_vocabulary_says_why(tmp_path):
    with pytest.raises(UserError, match=r"vocabulary\.min_count=7: no tag .* 10 rows; .*'python', is on 6"):
        made(tmp_path, ROWS, settings(min_count=7))
    with pytest.raises(UserError, match=r"none of the pool's 2 annotated rows has a tag; .*pool\.fields\.tags"):
        made(tmp_path, [[], [""], None])


def test_missing_packages_are_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"snowballstemmer and scikit-learn: pip install 'mig_jax\[vocabulary\]'"):
        made(tmp_path, ROWS)
    with pytest.raises(UserError, match=r"needs scikit-learn: pip"):
        made(tmp_path, ROWS, settings(rules="spelling"))
    assert made(tmp_path, ROWS, settings(rules="spelling", distance=None)).labels
