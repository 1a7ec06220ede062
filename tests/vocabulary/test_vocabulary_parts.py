"""Each step alone, against something that does the same otherwise."""

from itertools import permutations

import numpy as np
import pytest
from tag_rows import circle, merges, tags

from mig_jax.commands.registry import compose
from mig_jax.commands.vocabulary.association import associated, rules_of
from mig_jax.commands.vocabulary.rules import frequent, spellings
from mig_jax.commands.vocabulary.semantic import near, nearest, span
from mig_jax.core.errors import UserError

SPELLINGS = [
    ("Machine Learning", "machine-learning"),
    ("machine_learning", "MACHINE  learnings!"),
    ("problem solving", "Problem Solve"),
    ("ﬁle handling", "file handling"),  # a ligature
    ("caf\u00e9 culture", "cafe\u0301 Culture"),  # composed or not
    ("हिन्दी व्याकरण", " हिन्दी, व्याकरण"),  # vowel signs are marks, not letters
    ("C++", "c++ "),
]
APART = ["c", "c++", "c#", "cafe culture", "café culture", "हिन्दी", "ह न द", "!?", "!!", "日本語", "日本"]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_spellings_that_are_one_tag(one, other):
    """The more frequent is the label, unless it has stray white space."""
    found = tags([[one], [other], [other]])
    label, alias = (other, one) if other == " ".join(other.split()) else (one, other)
    assert merges(found, spellings(found, True, "+#").into) == {alias: label}


def test_tags_that_stay_apart():
    found = tags([[tag] for tag in APART])
    assert merges(found, spellings(found, True, "+#").into) == {}


def test_stems_only_where_asked():
    found = tags([["counting"], ["counting"], ["count"], ["Count"]])
    assert merges(found, spellings(found, True, "").into) == {"count": "counting", "Count": "counting"}
    assert merges(found, spellings(found, False, "").into) == {"count": "Count"}  # equals by name


# rows: politeness 4, political 3, politics 2, Politics 1, police 1; the last is another stem
STEMS = [["politeness"]] * 4 + [["political"]] * 3 + [["politics"]] * 2 + [["Politics"], ["police"]]
STEM_ANGLES = {"politeness": 0.0, "political": 50.0, "politics": 70.0}
NEAR = {"politics": "political", "Politics": "political"}
STEM_CASES = [
    ("near to the second", STEM_ANGLES, 0.9, NEAR, {"politics": 0.9397}),
    ("to none", STEM_ANGLES, 0.95, {"Politics": "politics"}, {}),
    ("to the first", STEM_ANGLES | {"politics": -20.0}, 0.9, dict.fromkeys(NEAR, "politeness"), {"politics": 0.9397}),
    # 20 degrees from politics, which is taken by then; 40 from the first
    ("taken", STEM_ANGLES | {"political": 40.0, "politics": 20.0}, 0.9, dict.fromkeys(NEAR, "politeness"),
     {"politics": 0.9397}),
    ("as published", None, None, dict.fromkeys(["political", *NEAR], "politeness"), {}),
]  # fmt: skip


@pytest.mark.parametrize(("why", "angles", "least", "expected", "cosines"), STEM_CASES, ids=[c[0] for c in STEM_CASES])
def test_equal_stems_are_one_only_where_they_are_near(why, angles, least, expected, cosines):
    """Each is tried with the most frequent first; what is left, with the next. Spellings go along."""
    found = tags(STEMS)
    merging = spellings(found, True, "", least, None if angles is None else circle(angles))
    assert merges(found, merging.into) == expected
    assert {found.names[at]: told["cosine"] for at, told in merging.of_tag.items()} == cosines


def test_the_guard_lets_all_pass_where_all_are_near():
    """The same tags, labels and stray white space included, as without it."""
    rng = np.random.default_rng(0)
    words = ["count", "counting", "Count", " counts", "map", "mapping", "Maps ", "game", "C++", "c++ "]
    for _ in range(20):
        found = tags([[words[at]] for at in rng.integers(0, len(words), 30)])
        same = spellings(found, True, "+", -1.1, lambda names: rng.normal(size=(len(names), 2)) / 9)
        np.testing.assert_array_equal(same.into, spellings(found, True, "+").into)


@pytest.mark.slow
def test_the_border_between_stems_under_minilm():
    """Those that a reader found to be one or not, by the embedder that the border was chosen for."""
    from mig_jax.labels.configured import embed_labels
    from mig_jax.models.configured import spec_of

    one = ["counting count", "pricing price", "proportion proportionality", "politics political"]
    two = ["animal anime", "celebrity celebration", "conversation conversion", "terminal termination"]
    two += ["politeness political", "function functionality"]
    config = compose("vocabulary", ["out=any"])
    spec = spec_of(config.embedder)
    for pair in one + two:
        found = tags([[tag] for tag in pair.split()])
        into = spellings(
            found, True, "+#", config.vocabulary.stem_cosine, lambda names: embed_labels(names, spec, None)[0]
        ).into
        assert (len(set(into.tolist())) == 1) == (pair in one), pair


def test_frequency_counts_rows():
    found = tags([["a", "b"], ["a", "b"], ["a"], ["c"]])
    assert merges(found, frequent(found, 2).into) == {"c": None}
    assert merges(found, frequent(found, 3).into) == {"b": None, "c": None}


def clustered(rng, count: int, dims: int, width: float) -> np.ndarray:
    """Unit vectors around a third as many centres."""
    centres = rng.normal(size=(count // 3, dims))
    vectors = centres[rng.integers(0, len(centres), count)] + width * rng.normal(size=(count, dims))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("count", "min_samples"), [(300, 1), (300, 2), (300, 3), (300, 5), (2_100, 3)])
def test_clusters_are_those_of_dbscan_on_the_dense_matrix(count, min_samples):
    """2,100 tags are more than one tile. No distance lies within rounding of eps, which the test checks."""
    from sklearn.cluster import DBSCAN

    rng, eps = np.random.default_rng(count), 0.05
    vectors = clustered(rng, count, 12, 0.16)
    found = tags([[f"t{i:04d}"] for i in range(count)])
    dense = np.clip(1.0 - vectors.astype(np.float64) @ vectors.T.astype(np.float64), 0.0, None)
    assert np.abs(dense - eps).min() > 3e-7
    np.fill_diagonal(dense, 0.0)
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(dense).labels_
    assert count / 20 < labels.max() and (min_samples == 1 or (labels < 0).sum() > 20)
    expected = {
        frozenset(np.flatnonzero(labels == label).tolist()) for label in range(labels.max() + 1)
    } | {frozenset([at]) for at in np.flatnonzero(labels < 0).tolist()}  # fmt: skip
    into = near(found, vectors, eps, min_samples).into
    assert {frozenset(np.flatnonzero(into == at).tolist()) for at in set(into.tolist())} == expected


def test_the_most_frequent_tag_of_a_cluster_stays():
    found = tags([["a"], ["b", "c"], ["b", "c"], ["d"], ["e"]])
    angles = {"a": 0.0, "b": 1.0, "c": 2.0, "d": 90.0, "e": 90.0}  # d and e at distance 0: neighbours, not unknown
    merging = near(found, circle(angles)(found.names), 0.001, 2)
    assert merges(found, merging.into) == {"a": "b", "c": "b", "e": "d"}
    assert merging.notes == ()


def test_nothing_is_near():
    """A note says how near the nearest are; of several settings, that which kept them apart."""
    found = tags([["a"], ["b"], ["c"]])
    vectors = circle({"a": 0.0, "b": 60.0, "c": 37.0})(found.names)
    merging = near(found, vectors, 0.05, 2, embedder="minilm")
    assert merges(found, merging.into) == {}
    assert merging.notes == (
        "semantic: no two tags are within vocabulary.distance=0.05 under minilm; the nearest are 'b' and 'c' at 0.0795",
    )
    merging = near(found, vectors, 0.1, 3, embedder="minilm")
    assert merges(found, merging.into) == {}
    assert merging.notes == (
        "semantic: no tag has vocabulary.min_samples=3 neighbours, itself counted, within vocabulary.distance=0.1"
        " under minilm; 1 pair of tags is as near",
    )
    (note,) = near(found, vectors, 0.201, 4).notes
    assert note.endswith("within vocabulary.distance=0.201 under the embedder; 1 pair of tags is as near")
    (note,) = near(found, vectors, 0.202, 4).notes  # 37 degrees are 0.2014
    assert note.endswith("; 2 pairs of tags are as near")
    alone = tags([["a"]])
    merging = near(alone, np.ones((1, 1), np.float32), 0.5, 2)
    assert merges(alone, merging.into) == {} and merging.notes == ()


def test_too_many_neighbours_name_the_setting(monkeypatch):
    monkeypatch.setattr("mig_jax.labels.cosine.MOST_EDGES", 2)
    found = tags([["a"], ["b"], ["c"]])
    with pytest.raises(UserError, match=r"vocabulary\.distance=0\.5: .*3 tags .*a smaller distance"):
        near(found, np.ones((3, 1), np.float32), 0.5, 2)


@pytest.mark.parametrize("block", [1 << 24, 40, 1])
def test_the_span_of_a_cluster(block, monkeypatch):
    monkeypatch.setattr("mig_jax.commands.vocabulary.semantic._BLOCK", block)
    vectors = clustered(np.random.default_rng(1), 30, 4, 1.0)
    members = np.arange(0, 30, 2)
    cosine = vectors[members] @ vectors[members].T
    far = span(vectors, members)
    at = np.unravel_index(cosine.argmin(), cosine.shape)
    assert {far.one, far.other} == set(members[list(at)].tolist()) and far.one < far.other
    assert far.distance == pytest.approx(1 - cosine.min(), abs=1e-6)  # float32


@pytest.mark.parametrize("block", [1 << 24, 70, 1])
@pytest.mark.parametrize("count", [2, 30])
def test_the_nearest_two(block, count, monkeypatch):
    monkeypatch.setattr("mig_jax.commands.vocabulary.semantic._BLOCK", block)
    for seed in range(5):
        vectors = clustered(np.random.default_rng(seed), 30, 4, 1.0)[:count]
        cosine = vectors @ vectors.T
        cosine[np.tril_indices(count)] = -np.inf
        close = nearest(vectors)
        assert (close.one, close.other) == np.unravel_index(cosine.argmax(), cosine.shape)
        assert close.distance == pytest.approx(1 - cosine.max(), abs=1e-6)


def random_rows(seed: int) -> list[list[str]]:
    """Tags of which some bring others along, nearly always."""
    rng = np.random.default_rng(seed)
    brings = {f"t{i}": f"t{rng.integers(0, 30)}" for i in range(0, 30, 2)}
    rows = []
    for _ in range(400):
        row = {f"t{i}" for i in rng.integers(0, 30, rng.integers(0, 5))}
        rows.append(sorted(row | {brings[tag] for tag in row if tag in brings and rng.random() < 0.95}))
    return rows


def counted(rows: list[list[str]], support: int, confidence: float) -> dict[tuple[str, str], tuple[int, float]]:
    """The rules, by looking at every row for every pair."""
    sets = [set(row) for row in rows]
    found = {}
    for one, other in permutations(sorted(set().union(*sets)), 2):
        alone = sum(one in row for row in sets)
        both = sum(one in row and other in row for row in sets)
        if both >= support and both / alone >= confidence:
            found[one, other] = both, both / alone
    return found


def told(found, rules) -> dict[tuple[str, str], tuple[int, float]]:
    return {
        (found.names[a], found.names[b]): (n, c)
        for a, b, n, c in zip(*(part.tolist() for part in rules), strict=True)
    }  # fmt: skip


@pytest.mark.parametrize("block", [1024, 7])
@pytest.mark.parametrize("seed", range(3))
def test_rules_are_those_of_a_plain_count(seed, block, monkeypatch):
    monkeypatch.setattr("mig_jax.commands.vocabulary.association._BLOCK", block)
    rows = random_rows(seed)
    found = tags(rows)
    for support, confidence in ((10, 0.9), (1, 0.5), (20, 0.5), (1_000, 0.01)):
        expected = counted(rows, support, confidence)
        assert told(found, rules_of(found, support, confidence)) == expected
        assert bool(expected) == (support < 1_000)


def test_rules_are_those_of_fp_growth():
    """mlxtend's, with the supports as the shares of rows that it takes."""
    import pandas as pd
    from mlxtend.frequent_patterns import association_rules, fpgrowth

    rows = random_rows(7)
    found = tags(rows)
    table = np.zeros((len(rows), len(found)), bool)
    table[found.owner, found.tag] = True
    frame = pd.DataFrame(table, columns=[*found.names])
    sets = fpgrowth(frame, min_support=10 / len(rows), use_colnames=True, max_len=2)
    rules = association_rules(sets, metric="confidence", min_threshold=0.8)
    expected = {
        (*a, *b): round(support * len(rows))
        for a, b, support in zip(rules["antecedents"], rules["consequents"], rules["support"], strict=True)
    }
    ours = told(found, rules_of(found, 10, 0.8))
    assert {pair: both for pair, (both, _) in ours.items()} == expected and len(expected) > 5


def times(*counts: tuple[int, str]) -> list[list[str]]:
    """(3, "a b"): three rows of a and b."""
    return [names.split() for count, names in counts for _ in range(count)]


MERGES = [
    # a on 4 rows, all with b: a merges; b is on 8 and stays.
    ("one way", times((4, "a b"), (4, "b")), 4, 0.99, {"a": "b"}),
    ("too few rows", times((4, "a b"), (4, "b")), 5, 0.99, {}),
    # 99 of 100 are enough at 0.99, 98 of 99 are not.
    ("just enough", times((99, "a b"), (1, "a"), (5, "b")), 40, 0.99, {"a": "b"}),
    ("just not", times((98, "a b"), (1, "a"), (5, "b")), 40, 0.99, {}),
    # Each implies the other: on as many rows, the first by name stays; else the more frequent.
    ("a circle of equals", times((9, "a b")), 4, 0.9, {"b": "a"}),
    ("a circle", times((9, "a b"), (1, "b")), 4, 0.9, {"a": "b"}),
    # 19 of a's 20 rows have b, 19 of b's 19 rows have a: only the less frequent, b, may merge.
    ("the rarer one merges", times((19, "a b"), (1, "a")), 4, 0.9, {"b": "a"}),
    # a -> b -> c, where a -> c does not hold by itself: 8 of 10.
    ("a chain", times((8, "a b c"), (2, "a b"), (12, "b c"), (10, "c")), 4, 0.9, {"a": "c", "b": "c"}),
    # a is on 10 rows, all with c, 9 with b: c, although b is more frequent.
    ("the surest of two", times((9, "a b c"), (1, "a c"), (9, "b"), (3, "c")), 4, 0.9, {"a": "c"}),
    ("of sure ones the frequent", times((9, "a b c"), (9, "c"), (3, "b")), 4, 0.9, {"a": "c"}),
    ("of frequent ones the first", times((9, "a b c"), (9, "c"), (9, "b")), 4, 0.9, {"a": "b"}),
]


@pytest.mark.parametrize(("why", "rows", "support", "confidence", "expected"), MERGES, ids=[case[0] for case in MERGES])
def test_who_merges_into_whom(why, rows, support, confidence, expected):
    found = tags(rows)
    assert merges(found, associated(found, support, confidence).into) == expected


@pytest.mark.parametrize("seed", range(3))
def test_nobody_merges_into_one_that_has_merged(seed):
    found = tags(random_rows(seed))
    into = associated(found, 5, 0.5).into
    np.testing.assert_array_equal(into[into], into)
    assert (found.rank[into] <= found.rank).all() and (into != np.arange(len(into))).any()
