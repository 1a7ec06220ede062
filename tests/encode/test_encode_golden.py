"""The border from strings to arrays against the reference's own (yichengchen24/MIG @969eb53) on the recorded pool."""

import json

import numpy as np
import pytest

from mig_jax.encode import encode
from mig_jax.pool import load_pool


@pytest.fixture(scope="module")
def pool(shared):
    return load_pool(shared / "golden" / "public" / "pool.jsonl.gz")


@pytest.fixture(scope="module")
def recorded(shared):
    folder = shared / "golden" / "public" / "mig"
    return json.loads((folder / "labels.json").read_text()), dict(np.load(folder / "points.npz"))


def test_rows_labels_and_scores(pool, recorded):
    labels, points = recorded
    ours = encode(pool, valid_tags=labels)
    assert list(ours.labels) == labels
    np.testing.assert_array_equal(ours.row, points["kept_rows"])
    np.testing.assert_array_equal(ours.score, points["score"])
    for d, (a, b) in enumerate(zip(points["label_ptr"][:-1], points["label_ptr"][1:], strict=True)):
        expected = list(dict.fromkeys(points["label_idx"][a:b].tolist()))
        assert ours.label_idx[ours.label_ptr[d] : ours.label_ptr[d + 1]].tolist() == expected, d
    assert sum(ours.dropped.values()) + len(ours) == len(pool)


def test_norm_divides_by_tags_with_their_repeats(pool, recorded):
    labels, points = recorded
    ours = encode(pool, valid_tags=labels, normalize=True)
    tags = np.diff(points["label_ptr"])
    assert (np.diff(ours.label_ptr) < tags).any(), "the pool has repeated tags, or this test says nothing"
    np.testing.assert_array_equal(ours.score, points["score"] / np.maximum(tags, 1))


def test_a_score_of_one_turn_is_its_mean_and_its_sum(pool, recorded):
    """The recorded pool is single-turn."""
    labels, points = recorded
    np.testing.assert_array_equal(encode(pool, valid_tags=labels, turns="sum").score, points["score"])
