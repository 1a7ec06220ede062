"""The loss, the schedule, the plan of updates: against formulas."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mig_jax.models.tokenizers.tokens import Tokens
from mig_jax.training.loss import summed_nll
from mig_jax.training.packing import Rows, arrays, epoch_order, plan_update, update_rows, updates_per_epoch
from mig_jax.training.schedule import make_schedule


def plain_nll(x, kernel, position, target):
    logits = (x @ kernel)[position]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), target[:, None], axis=1).sum()


@pytest.mark.parametrize("at_once", [None, 1, 3, 8, 16])
@pytest.mark.parametrize("count", [0, 1, 7, 12])
def test_the_loss_and_its_gradients_are_the_formula_s(at_once, count):
    rng = np.random.default_rng(0)
    x, kernel = jnp.asarray(rng.normal(size=(20, 6)), jnp.float32), jnp.asarray(rng.normal(size=(6, 11)), jnp.float32)
    position, target = rng.integers(0, 20, 12), rng.integers(0, 11, 12)
    padded = np.where(np.arange(12) < count, position, 0)  # what follows must not matter

    def ours(x, kernel):
        return 3 * summed_nll(x, kernel, jnp.asarray(padded), jnp.asarray(target), jnp.int32(count), at_once)

    def wanted(x, kernel):
        return 3 * plain_nll(x, kernel, position[:count], target[:count])

    with jax.default_matmul_precision("float32"):
        loss, gradients = jax.value_and_grad(ours, (0, 1))(x, kernel)
        reference, references = jax.value_and_grad(wanted, (0, 1))(x, kernel)
        np.testing.assert_allclose(ours(x, kernel), reference, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(loss, reference, rtol=1e-6, atol=1e-6)
    for found, reference in zip(gradients, references, strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-5)  # sums of a dozen float32 products


def test_no_array_of_all_logits_exists():
    """A vocabulary of 131,072 at 4,096 positions would be 2 GiB."""
    x, kernel = jax.ShapeDtypeStruct((4096, 64), jnp.bfloat16), jax.ShapeDtypeStruct((64, 131_072), jnp.bfloat16)
    whole = jax.ShapeDtypeStruct((4096,), jnp.int32)
    lowered = jax.jit(jax.grad(summed_nll, (0, 1))).lower(x, kernel, whole, whole, jax.ShapeDtypeStruct((), jnp.int32))
    text = lowered.as_text()
    assert "tensor<4096x131072x" not in text
    assert "tensor<128x131072xf32>" in text  # a chunk


def rows_of(lengths, trained_share=0.5, seed=0) -> Rows:
    rng = np.random.default_rng(seed)
    ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(1, 50, ptr[-1]).astype(np.int32)
    trained = rng.random(ptr[-1]) < trained_share
    return Rows(Tokens(ids, ptr), trained)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("micro_batch", [None, 1, 3])
def test_every_trained_token_is_predicted_once_from_its_own_row(packing, micro_batch):
    data = rows_of([5, 1, 17, 32, 9, 2, 30, 8])
    row = np.array([6, 0, 2, 7, 1, 4])
    planned = plan_update(data, row, max_length=32, micro_batch=micro_batch, packing=packing)
    assert sorted(np.concatenate([batch.text for batch in planned]).tolist()) == sorted(row.tolist())
    predicted = []
    for batch in planned:
        made = arrays(batch, data)
        position, target = made.position_P[: made.count], made.target_P[: made.count]
        ids, segments = made.id_BxL.ravel(), made.segment_BxL.ravel()
        assert (ids[position + 1] == target).all()
        assert (segments[position] == segments[position + 1]).all() and (segments[position] > 0).all()
        assert (position // batch.width == (position + 1) // batch.width).all()
        predicted += target.tolist()
    wanted = [
        int(token)
        for n in row
        for token, counts in itertools.islice(
            zip(
                data.tokens.id[data.tokens.ptr[n] : data.tokens.ptr[n + 1]],
                data.trained[data.tokens.ptr[n] : data.tokens.ptr[n + 1]],
                strict=True,
            ),
            1,
            None,
        )
        if counts
    ]
    assert sorted(predicted) == sorted(wanted)


def test_epochs_and_the_last_smaller_update():
    assert updates_per_epoch(10, 4) == 3
    seen = [update_rows(10, 4, n, seed=1, shuffle=True) for n in range(6)]
    assert [epoch for epoch, _ in seen] == [0, 0, 0, 1, 1, 1]
    assert [len(row) for _, row in seen] == [4, 4, 2, 4, 4, 2]
    for first in (0, 3):
        assert sorted(np.concatenate([row for _, row in seen[first : first + 3]])) == list(range(10))
    assert (epoch_order(10, 1, 0, True) != epoch_order(10, 1, 1, True)).any()
    np.testing.assert_array_equal(epoch_order(10, 1, 1, True), epoch_order(10, 1, 1, True))
    np.testing.assert_array_equal(epoch_order(4, 1, 1, False), [0, 1, 2, 3])


def test_schedules_count_updates():
    linear = make_schedule(1.0, "linear", 8, warmup_ratio=0.03)
    assert [linear(n) for n in range(9)] == pytest.approx([0, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7, 0])
    cosine = make_schedule(2.0, "cosine", 8, warmup_steps=2)
    assert [cosine(n) for n in (0, 1, 2, 5, 8)] == pytest.approx([0, 1, 2, 1, 0])
    constant = make_schedule(3.0, "constant", 8)
    assert [constant(n) for n in (0, 7)] == [3.0, 3.0]
