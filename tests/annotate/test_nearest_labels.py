"""The nearest labels of texts against a NumPy oracle, where ties and thresholds make rounding visible too."""

from collections import Counter
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_jax.commands.annotate import nearest_labels as module
from mig_jax.commands.annotate.nearest_labels import NO_LABEL, SPARE, nearest_labels

FUNCTION = "jit(_candidates)"


def oracle(vector_nxD, label_LxD, threshold, most):
    """Every cosine in float64, one text after the other, sorted by (cosine down, number up)."""
    label = np.full((len(vector_nxD), most), -1, np.int32)
    cosine = np.zeros((len(vector_nxD), most), np.float32)
    for n, text in enumerate(vector_nxD):
        found = []
        for number, other in enumerate(label_LxD):
            if text.any() and other.any():
                one, two = ((v / np.sqrt((v.astype(float) ** 2).sum())).astype(np.float32) for v in (text, other))
                near = np.float32(np.clip((one.astype(float) * two).sum(), -1, 1))
                if near >= np.float32(threshold):
                    found.append((-near, number))
        for c, (less, number) in enumerate(sorted(found)[:most]):
            label[n, c], cosine[n, c] = number, -less
    return label, cosine


def drawn(seed: int, n: int, labels: int, dim: int, *, few: bool):
    """Vectors of any length; ``few``: numbers of {-1, 0, 1}, so that ties and zero vectors abound."""
    rng = np.random.default_rng(seed)
    if few:
        return rng.integers(-1, 2, (n, dim)).astype(np.float32), rng.integers(-1, 2, (labels, dim)).astype(np.float32)
    texts, others = rng.normal(size=(n, dim)) * rng.uniform(0.1, 9, (n, 1)), rng.normal(size=(labels, dim))
    return texts.astype(np.float32), others.astype(np.float32)


def equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize(("n", "labels", "dim"), [(1, 1, 1), (17, 40, 3), (40, 200, 24), (9, 300, 384), (5, 3, 4)])
@pytest.mark.parametrize(("threshold", "most"), [(0.3, 5), (0.0, 1), (-1.0, 7), (0.99, 3)])
def test_it_finds_what_the_oracle_finds(few, n, labels, dim, threshold, most):
    texts, others = drawn(n + labels, n, labels, dim, few=few)
    found = nearest_labels(texts, others, threshold=threshold, most=most, block=16)
    equal(found, oracle(texts, others, threshold, most))


@given(st.integers(0, 10**6), st.integers(0, 9), *map(st.sampled_from, ((5, 60), (1, 3), (1, 4))))
@settings(max_examples=25, deadline=None)
def test_ties_by_the_dozen(seed, n, labels, dim, most):
    """Few numbers in few dimensions: far more labels lie equally near than the list of candidates has room for."""
    texts, others = drawn(seed, n, labels, dim, few=True)
    threshold = np.random.default_rng(seed).choice([-1.0, 0.0, 0.5, 2**-0.5, 1.0])
    found = nearest_labels(texts, others, threshold=threshold, most=most, block=4)
    equal(found, oracle(texts, others, threshold, most))


def test_equal_labels_come_in_the_order_of_their_numbers_wherever_they_stand():
    rng = np.random.default_rng(0)
    same, texts = rng.normal(size=384).astype(np.float32), rng.normal(size=(6, 384)).astype(np.float32)
    labels = rng.normal(size=(531, 384)).astype(np.float32) - texts.mean(axis=0)
    places = [3, 17, 64, 129, 130, 255, 256, 300, 511, 512, 513, 528, 529, 530]  # more than most + SPARE
    labels[places] = same
    texts += same
    assert len(places) > 5 + SPARE
    found, cosine = nearest_labels(texts, labels, threshold=0.3, most=5)
    assert (found == places[:5]).all()
    assert (cosine == cosine[:, :1]).all()


def test_the_float64_sum_decides_not_the_devices(monkeypatch):
    """A device may round as it likes, within the bound: here always down, and so that near ties are shuffled. Each kind
    of label comes 40 times, so the list of candidates lacks some that belong to the first."""
    rng = np.random.default_rng(2)
    texts = rng.normal(size=(30, 48)).astype(np.float32)
    base = rng.normal(size=(6, 48)).astype(np.float32)
    others = np.concatenate([base * (1 + 1e-7 * rng.normal(size=base.shape)) for _ in range(40)]).astype(np.float32)
    others = others[rng.permutation(len(others))]
    expected = oracle(texts, others, 0.1, 6)
    equal(nearest_labels(texts, others, threshold=0.1, most=6, block=8), expected)

    def rough(unit_BxD, unit_LxD, *, keep):
        cosine = np.asarray(unit_BxD) @ np.asarray(unit_LxD).T
        cosine = cosine - rng.uniform(0, module.slack(48), cosine.shape).astype(np.float32)
        label = np.argsort(-cosine, axis=1)[:, :keep].astype(np.int32)
        return module.Candidates(label, np.take_along_axis(cosine, label, axis=1))

    monkeypatch.setattr(module, "_candidates", rough)
    equal(nearest_labels(texts, others, threshold=0.1, most=6, block=8), expected)


def test_a_cosine_at_the_threshold_counts():
    labels = np.array([[0.6, 0.8], [0.8, 0.6], [-1, 0], [1, 1]], np.float32)
    text = np.array([[1, 0]], np.float32)

    def at(threshold):
        return nearest_labels(text, labels, threshold=threshold, most=4)[0][0].tolist()

    assert at(0.6) == [1, 3, 0, -1]
    assert at(np.nextafter(np.float32(0.6), np.float32(1))) == [1, 3, -1, -1]
    assert at(0.8) == [1, -1, -1, -1]
    assert at(0.81) == [-1] * 4
    assert at(-1.0) == [1, 3, 0, 2]
    found, cosine = nearest_labels(text, labels, threshold=0.6, most=4)
    np.testing.assert_array_equal(cosine, np.float32([[0.8, 2**-0.5, 0.6, 0]]))
    assert (found.dtype, cosine.dtype) == (np.int32, np.float32)


def test_more_than_there_are_is_padded():
    found, cosine = nearest_labels(np.eye(3, dtype=np.float32), np.eye(2, 3, dtype=np.float32), threshold=0, most=4)
    assert found.tolist() == [[0, 1, -1, -1], [1, 0, -1, -1], [0, 1, -1, -1]]
    assert cosine.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_vectors_of_zeros_are_near_nothing():
    """Their cosine is 0 by convention, which a threshold of 0 or less would let pass."""
    texts, labels = np.array([[0, 0], [1, 0]], np.float32), np.array([[0, 0], [1, 1], [-1, 0]], np.float32)
    found, cosine = nearest_labels(texts, labels, threshold=-1, most=3)
    assert found.tolist() == [[NO_LABEL] * 3, [1, 2, NO_LABEL]]
    assert cosine[0].tolist() == [0, 0, 0]


def test_no_texts_and_wrong_arguments():
    nothing, labels = np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32)
    assert [one.shape for one in nearest_labels(nothing, labels, threshold=0.5, most=2)] == [(0, 2), (0, 2)]
    with pytest.raises(ValueError, match="most=0"):
        nearest_labels(nothing, labels, threshold=0.5, most=0)
    with pytest.raises(ValueError, match="vectors of 3 numbers, labels of 2"):
        nearest_labels(nothing, labels[:, :2], threshold=0.5, most=1)


def test_lengths_blocks_and_neighbours_do_not_count():
    texts, labels = drawn(5, 50, 120, 33, few=False)
    whole = nearest_labels(texts, labels, threshold=0.4, most=4, block=64)
    assert (whole[0] >= 0).any()
    assert (whole[0] < 0).any()
    equal(nearest_labels(texts * np.float32(8), labels / np.float32(4), threshold=0.4, most=4, block=7), whole)
    for n in (0, 31, 49):
        equal(nearest_labels(texts[n : n + 1], labels, threshold=0.4, most=4), [one[n : n + 1] for one in whole])


def test_texts_on_disk_are_read_in_blocks(tmp_path, monkeypatch):
    texts, labels = drawn(6, 20, 30, 8, few=False)
    np.save(tmp_path / "texts.npy", texts)
    read, unit = [], module._unit
    monkeypatch.setattr(module, "_unit", lambda block: read.append(len(block)) or unit(block))
    found = nearest_labels(np.load(tmp_path / "texts.npy", mmap_mode="r"), labels, threshold=0.2, most=3, block=8)
    assert read == [30, 8, 8, 4]
    equal(found, oracle(texts, labels, 0.2, 3))


@pytest.fixture
def compiled() -> Iterator[Counter]:
    """How often the device function was compiled since the test began."""
    count: Counter = Counter()

    def hear(event: str, duration_secs: float, **more: str | int) -> None:
        if event.endswith("backend_compile_duration") and more["fun_name"] == FUNCTION:
            count[FUNCTION] += 1

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(hear)
    yield count
    jax.monitoring.unregister_event_duration_listener(hear)


def test_it_compiles_once_whatever_the_texts_the_labels_and_the_threshold(compiled):
    """A closure would make the labels a constant, and compile for each vocabulary and each pool."""
    for n, seed, threshold in ((5, 0, 0.3), (16, 1, 0.3), (33, 2, 0.5), (1, 3, -1.0)):
        texts, labels = drawn(seed, n, 40, 8, few=False)
        nearest_labels(texts, labels, threshold=threshold, most=3, block=16)
    assert compiled == {FUNCTION: 1}


def test_an_accelerator_is_told_not_to_round_the_factors():
    """That it lowers for one at all is held by the list in tests/engine/test_engine_export.py."""
    arrays = np.zeros((16, 8), np.float32), np.zeros((40, 8), np.float32)
    exported = jax.export.export(module._candidates, platforms=("cuda", "tpu"))(*arrays, keep=3)
    assert "precision = [HIGHEST, HIGHEST]" in exported.mlir_module()
