"""The labels that come with the package: what a list of tags must keep to, however often it is edited."""

import importlib.resources
import json
import re
from collections import defaultdict
from pathlib import Path

from mig_jax.labels.valid_tags import read_valid_tags

DATA = Path(str(importlib.resources.files("mig_jax.assets")))
LABELS = json.loads((DATA / "vocabulary.json").read_text(encoding="utf-8"))
# Labels that are one word to a stemmer and two things to a reader; add a set only with its reason beside it.
SAME_FOLDED: list[set[str]] = []


def folded(label: str) -> str:
    """Plural and singular of each word alike, as a stemmer has it."""
    return " ".join(word.removesuffix("s") for word in label.split())


def alike(labels: list[str]) -> list[set[str]]:
    """The sets of labels that are equal once folded."""
    by_folded = defaultdict(set)
    for label in labels:
        by_folded[folded(label)].add(label)
    return [same for same in by_folded.values() if len(same) > 1]


def test_the_labels_are_distinct_sorted_and_as_many_as_told():
    assert len(set(LABELS)) == len(LABELS)
    assert sorted(LABELS) == LABELS
    told = re.search(r"`vocabulary.json`: ([\d,]+) labels", (DATA / "README.md").read_text(encoding="utf-8"))
    assert told
    assert int(told[1].replace(",", "")) == len(LABELS)
    assert 1000 <= len(LABELS) <= 1200


def test_a_label_is_a_few_lower_case_words():
    """Letters, digits and what language names and words need; single spaces; 2 to 40 characters."""
    wrong = [label for label in LABELS if not re.fullmatch(r"[a-z0-9][a-z0-9+#.'-]*( [a-z0-9][a-z0-9+#.'-]*)*", label)]
    assert not wrong
    assert not [label for label in LABELS if not 2 <= len(label) <= 40]


def test_no_two_labels_differ_by_a_plural_only():
    assert alike(LABELS) == SAME_FOLDED
    assert alike(["book review", "books reviews", "essay"]) == [{"book review", "books reviews"}]


def test_the_bundled_pools_tags_are_among_them():
    lines = (DATA / "pool.jsonl").read_text(encoding="utf-8").splitlines()
    tags = {tag for line in lines for tag in json.loads(line)["annotation"]["instag"]["content"]}
    assert len(tags) > 300
    assert tags <= set(LABELS)


def test_it_is_read_as_any_vocabulary_is():
    assert read_valid_tags(DATA / "vocabulary.json") == frozenset(LABELS)
