"""The gain of one row: its bits do not depend on what is computed beside it, and it is the paper's number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mig_jax.gain import make_phi
from mig_jax.gain.gain import exact_gain, first_order_gain, information, label_value, tree_sum

L = 300
PHIS = {"power": make_phi(), "exp": make_phi("exp", alpha=0.1), "log": make_phi("log")}


def rows(width: int, count: int):
    rng = np.random.default_rng(width)
    labels = np.argsort(rng.random((count, L)), axis=1)[:, :width].T.astype(np.int32)
    labels[rng.integers(1, width + 1, count) <= np.arange(width)[:, None]] = L
    part = np.where(labels < L, rng.uniform(0.05, 1, labels.shape), 0).astype(np.float32)
    return labels, part, rng.uniform(0.5, 30, count).astype(np.float32)


def mass():
    x = np.random.default_rng(0).uniform(0, 40, L + 1).astype(np.float32)
    x[::7] = 0
    return x  # float32 [L + 1]; callers make it JAX's


@pytest.mark.parametrize("width", [4, 16, 32])
@pytest.mark.parametrize("kind", ["first_order", *PHIS])
def test_a_gain_has_the_same_bits_in_a_batch_of_any_size(kind, width):
    """A full pass over a shard and a pass over a handful must agree in every bit, or the first row of a list might not
    be the first of the pool. 8,192 is the block of the full pass."""
    labels, part, score = rows(width, 8192)
    x = mass()
    if kind == "first_order":
        x[L] = 0
        one = jax.jit(jax.vmap(lambda t, p, s: first_order_gain(jnp.asarray(x), t, s), in_axes=(1, 1, 0)))
    else:
        one = jax.jit(jax.vmap(lambda t, p, s: exact_gain(PHIS[kind], jnp.asarray(x), t, p, s), in_axes=(1, 1, 0)))
    whole = np.asarray(one(labels, part, score))
    for size in (1, 7, 256):
        for start in (0, 1000, 8192 - size):
            at = slice(start, start + size)
            np.testing.assert_array_equal(np.asarray(one(labels[:, at], part[:, at], score[at])), whole[at])


@pytest.mark.parametrize("kind", ["first_order", *PHIS])
def test_padding_to_a_wider_bucket_changes_no_bit(kind):
    labels, part, score = rows(4, 257)
    x = mass()
    if kind == "first_order":
        x[L] = 0
        one = jax.vmap(lambda t, p, s: first_order_gain(jnp.asarray(x), t, s), in_axes=(1, 1, 0))
    else:
        one = jax.vmap(lambda t, p, s: exact_gain(PHIS[kind], jnp.asarray(x), t, p, s), in_axes=(1, 1, 0))
    narrow = np.asarray(jax.jit(one)(labels, part, score))
    for width in (8, 32, 64):
        more = ((0, width - 4), (0, 0))
        wide = jax.jit(one)(np.pad(labels, more, constant_values=L), np.pad(part, more), score)
        np.testing.assert_array_equal(np.asarray(wide), narrow)


def test_a_label_s_value_has_the_same_bits_alone_and_among_others():
    labels, part, _ = rows(16, 1024)
    slope = np.asarray(make_phi().slope(jnp.asarray(mass())))
    one = jax.jit(jax.vmap(label_value, in_axes=(None, 1, 1)))
    whole = np.asarray(one(slope, labels, part))
    for size in (1, 7, 100):
        np.testing.assert_array_equal(np.asarray(one(slope, labels[:, :size], part[:, :size])), whole[:size])
    np.testing.assert_array_equal(
        np.asarray(one(slope, np.pad(labels, ((0, 16), (0, 0))), np.pad(part, ((0, 16), (0, 0))))), whole
    )


def test_tree_sum_ignores_zeros_after_it_and_refuses_odd_widths():
    terms = np.random.default_rng(1).uniform(0, 1, 8).astype(np.float32) * 10.0 ** np.arange(-4, 4, dtype=np.float32)
    bits = np.asarray(tree_sum(jnp.asarray(terms)))
    for width in (16, 64, 1024):
        np.testing.assert_array_equal(np.asarray(tree_sum(jnp.pad(jnp.asarray(terms), (0, width - 8)))), bits)
    np.testing.assert_allclose(bits, terms.astype(np.float64).sum(), rtol=3e-7)
    with pytest.raises(ValueError, match="not a power of two"):
        tree_sum(jnp.ones(6))


@pytest.mark.parametrize("phi", PHIS.values(), ids=PHIS)
def test_both_gains_by_hand(phi):
    x = mass()
    y = np.append(mass()[:L], 0).astype(np.float32)
    labels, part = np.array([3, 17, 9, L], np.int32), np.array([0.5, 0.25, 1.0, 0.0], np.float32)
    got = first_order_gain(jnp.asarray(y), jnp.asarray(labels), jnp.float32(2.5))
    np.testing.assert_allclose(got, 2.5 * (float(y[3]) + float(y[17]) + float(y[9])), rtol=1e-6)
    x64 = x.astype(np.float64)
    expected = sum(
        float(phi.rise(x64[[k]], np.array([2.5 * p]))[0])
        for k, p in zip(labels[:3], part[:3].astype(float), strict=True)
    )
    got = exact_gain(phi, jnp.asarray(x), jnp.asarray(labels), jnp.asarray(part), jnp.float32(2.5))
    np.testing.assert_allclose(got, expected, rtol=5e-6)
    np.testing.assert_allclose(information(phi, jnp.asarray(x)), phi.value(x64).sum(), rtol=1e-6)
