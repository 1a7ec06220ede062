"""Pools as training data: order, counts, roles."""

import dataclasses

import numpy as np
import pytest

from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.checkpoint import SMOLLM2_135M, find_checkpoint
from mig_jax.models.tokenizers.text_tokenizer import TextTokenizer, load_text_tokenizer
from mig_jax.training.conversations import NO_ASSISTANT, NO_TRAINED_TOKEN, NO_TURN
from mig_jax.training.data import encode_rows


@pytest.fixture(scope="module")
def smollm2() -> TextTokenizer:
    try:
        return load_text_tokenizer(find_checkpoint(SMOLLM2_135M).tokenizer_source)
    except UserError as error:
        pytest.skip(f"SmolLM2 is not on this machine: {error}")


DIALOGS = [
    [("user", "q"), ("assistant", "a")],
    [],
    [("user", "only asked")],
    [("user", "call it"), ("function_call", "f()"), ("tool", "1"), ("assistant", "one")],
    [("user", "word " * 90), ("assistant", "late")],
    [("user", "q"), ("assistant", "word " * 90)],
]


def test_every_row_is_used_or_counted(smollm2):
    data = encode_rows(DIALOGS, smollm2, max_length=64)
    assert data.pool_row.tolist() == [0, 3, 5]
    assert data.skipped == {NO_TURN: [1], NO_ASSISTANT: [2], NO_TRAINED_TOKEN: [4]}
    assert data.counts == {"cut at max_length": 1, NO_TURN: 1, NO_ASSISTANT: 1, NO_TRAINED_TOKEN: 1}
    assert len(data) + sum(map(len, data.skipped.values())) == len(DIALOGS)
    assert (data.rows.tokens.length <= 64).all()
    texts = [smollm2.decode(data.rows.tokens.id[a:b][data.rows.trained[a:b]].tolist()) for a, b in spans(data)]
    assert texts[1] == "f()one"  # a call of a function is the assistant's


def spans(data):
    ptr = data.rows.tokens.ptr
    return zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)


def test_no_row_can_be_used(smollm2):
    data = encode_rows([[]], smollm2, max_length=64)
    assert len(data) == 0 and data.rows.tokens.ptr.tolist() == [0]
    np.testing.assert_array_equal(data.rows.trained, [])


def test_a_tokenizer_that_does_not_know_positions(smollm2):
    old = dataclasses.replace(smollm2, offsets=None)
    with pytest.raises(UserError, match="positions of tokens"):
        encode_rows(DIALOGS, old, max_length=64)
