"""The plan of batches: every text in exactly one place, few shapes, little padding, and the same plan every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_jax.models.inference.packing import fill, plan_batches, widths_upto
from mig_jax.models.tokenizers.tokens import Tokens


def tokens_of(length: np.ndarray) -> Tokens:
    ptr = np.concatenate([[0], np.cumsum(length)])
    return Tokens(np.arange(1, ptr[-1] + 1, dtype=np.int32), ptr)  # every token of the input has its own id


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 100), max_size=300), st.sampled_from([1, 32, 100, 400]))
def test_every_token_is_in_one_place(lengths, batch_tokens):
    tokens = tokens_of(np.array(lengths, np.int64))
    plan = plan_batches(tokens.length, max_length=100, batch_tokens=batch_tokens)
    seen, texts = [], []
    for batch in plan:
        id_BxL, segment_BxL = fill(batch, tokens)
        assert id_BxL.shape == (max(1, batch_tokens // batch.width), batch.width)
        assert batch.slot.max() < batch.slots
        for n, row, start, slot in zip(batch.text, batch.row, batch.start, batch.slot, strict=True):
            place = slice(start, start + tokens.length[n])
            np.testing.assert_array_equal(id_BxL[row, place], tokens.id[tokens.ptr[n] : tokens.ptr[n + 1]])
            np.testing.assert_array_equal(
                np.flatnonzero(segment_BxL[row] == slot + 1), np.arange(place.start, place.stop)
            )
        assert ((id_BxL > 0) == (segment_BxL > 0)).all()
        seen.append(id_BxL[id_BxL > 0])
        texts.append(batch.text)
    np.testing.assert_array_equal(np.sort(np.concatenate([[], *seen])), tokens.id)
    np.testing.assert_array_equal(np.sort(np.concatenate([[], *texts])), np.flatnonzero(lengths))


def test_plan_is_a_function_of_the_lengths():
    length = np.random.default_rng(0).integers(2, 257, 3000)
    one, two = (plan_batches(length, max_length=256, batch_tokens=1024) for _ in range(2))
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for mine, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(mine, other)
    as_list = plan_batches(length.tolist(), max_length=256, batch_tokens=1024)
    np.testing.assert_array_equal(as_list[7].text, one[7].text)


def test_few_shapes_and_little_padding():
    """Padding is under 3 % for labels and under 8 % for texts of any length, in at most 4 shapes."""
    rng = np.random.default_rng(1)
    for length, most in ((rng.integers(3, 9, 1711), 0.03), (rng.integers(2, 257, 5000), 0.08)):
        plan = plan_batches(length, max_length=256, batch_tokens=1024)
        assert len({(b.rows, b.width) for b in plan}) <= len(widths_upto(256)) == 4
        rows = sum(len(np.unique(b.row)) * b.width for b in plan)  # the last batch of a width may have empty rows
        assert 1 - length.sum() / rows < most
    assert {b.width for b in plan_batches(rng.integers(3, 9, 1711), max_length=256, batch_tokens=1024)} == {32}


def test_one_long_text_among_few_short_ones_costs_one_shape():
    plan = plan_batches([3] * 50 + [200], max_length=256, batch_tokens=1024)
    assert [b.width for b in plan] == [256]


def test_texts_of_one_token_find_slots():
    """A tokenizer without special tokens: a row has more tokens than slots."""
    plan = plan_batches([1] * 100, max_length=256, batch_tokens=64)
    assert max(batch.slot.max() for batch in plan) == 15
    assert sum(len(batch.text) for batch in plan) == 100


def test_nothing_to_do():
    assert plan_batches([], max_length=256, batch_tokens=1024) == ()
    assert plan_batches([0, 0], max_length=256, batch_tokens=1024) == ()


@pytest.mark.parametrize(("longest", "widths"), [(8, (32,)), (100, (32, 64, 100)), (512, (32, 64, 128, 256, 512))])
def test_widths(longest, widths):
    assert widths_upto(longest) == widths
