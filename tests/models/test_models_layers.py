"""Attention against a softmax written out in float64, in parts and whole, and the layout that cuDNN is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mig_jax.core.errors import UserError
from mig_jax.models.networks import layers
from mig_jax.models.networks.layers import attend
from mig_jax.models.networks.sharding import model_mesh


def case(B=2, L=300, H=6, G=2, K=16, *, scale=1.0, seed=0):
    """Queries, keys, values, and a mask of two texts and padding, causal within each; numbers of a normal law."""
    rng = np.random.default_rng(seed)
    q, k, v = (scale * rng.normal(size=(B, L, heads, K)) for heads in (H, G, G))
    segment = np.repeat([1, 2, 0], [L // 3, L // 2, L - L // 3 - L // 2])
    mask = (segment[:, None] == segment) & (np.arange(L)[:, None] >= np.arange(L))
    return q, k, v, np.broadcast_to(mask, (B, L, L))


def by_hand(q, k, v, mask, bias=None):
    """One head at a time: the formula."""
    out = np.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            g = h // (q.shape[2] // k.shape[2])
            score = q[b, :, h] @ k[b, :, g].T / np.sqrt(q.shape[3]) + (0 if bias is None else bias[h])
            weight = np.where(mask[b], np.exp(score - score.max(1, keepdims=True)), 0)
            out[b, :, h] = weight / weight.sum(1, keepdims=True) @ v[b, :, g]
    return out


def run(q, k, v, mask, dtype=jnp.float32, **options):
    q, k, v = (jnp.asarray(x, dtype) for x in (q, k, v))
    return np.asarray(jax.jit(lambda *args: attend(*args, **options))(q, k, v, mask), np.float64)


@pytest.mark.parametrize("length", [1, 7, 128, 129, 300, 1030])
def test_parts_are_the_whole(length):
    """Of 128 queries, or of an eighth; the last may be shorter. float32: sums over up to 1,030 weights."""
    q, k, v, mask = case(1, length)
    expected = by_hand(q, k, v, mask)
    for causal in (False, True):
        np.testing.assert_allclose(run(q, k, v, mask, causal=causal), expected, atol=5e-6)


def test_a_bias_is_cut_with_its_queries_and_keys():
    q, k, v, mask = case(2, 200, 4, 4)
    bias = np.random.default_rng(1).normal(size=(4, 200, 200))
    np.testing.assert_allclose(
        run(q, k, v, mask, bias_HxLxS=jnp.asarray(bias, jnp.float32)), by_hand(q, k, v, mask, bias), atol=5e-6
    )


def test_a_token_that_sees_nothing_gives_a_number():
    q, k, v, mask = case(1, 150)
    found = run(q, k, v, mask & (np.arange(150) != 140)[:, None], causal=True)
    assert np.isfinite(found).all()
    rest = np.arange(150) != 140
    np.testing.assert_allclose(found[:, rest], by_hand(q, k, v, mask)[:, rest], atol=5e-6)


def test_bfloat16_rounds_what_it_is_given_and_no_more():
    """128 ** -0.5 is no power of two: queries scaled in bfloat16 were off by 0.18. What is left is the rounding of
    weights and of the result: half a step of numbers from 8 to 16 is 0.03."""
    q, k, v, mask = case(2, 256, 4, 2, 128, scale=3)
    rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in (q, k, v)]
    error = np.abs(run(*rounded, mask, jnp.bfloat16, causal=True) - by_hand(*rounded, mask))
    assert error.max() < 0.04
    assert error.mean() < 3e-3


def test_fused_attention_is_refused_where_there_is_none():
    with pytest.raises(UserError, match="attention=fused: needs an NVIDIA GPU"):
        run(*case(1, 8), how="fused")


@pytest.fixture
def cudnn(monkeypatch):
    """jax.nn.dot_product_attention as cuDNN is called, computed by XLA: what it was given, by shapes."""
    calls, real = [], jax.nn.dot_product_attention

    def pretend(q, k, v, *, bias, mask, implementation):
        assert implementation == "cudnn"
        calls.append((q.shape, k.shape))
        return real(q, k, v, bias=bias, mask=mask, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", pretend)
    monkeypatch.setattr(layers, "_can_fuse", lambda q: True)
    return calls


def test_what_cudnn_is_given_means_the_same(cudnn):
    q, k, v, mask = case(2, 64, 8, 2)
    bias = np.random.default_rng(1).normal(size=(8, 64, 64))
    found = run(q, k, v, mask, causal=True, bias_HxLxS=jnp.asarray(bias, jnp.float32))
    np.testing.assert_allclose(found, by_hand(q, k, v, mask, bias), atol=5e-6)
    assert cudnn == [((2, 64, 8, 16), (2, 64, 2, 16))]


def test_keys_are_repeated_where_the_mesh_cuts_queries_alone(cudnn):
    """cuDNN's partitioning refuses queries and keys that are cut differently: 2 key heads on 4 devices."""
    q, k, v, mask = case(2, 64, 8, 2)
    with jax.set_mesh(model_mesh(1, 1, 4)):
        np.testing.assert_allclose(run(q, k, v, mask), by_hand(q, k, v, mask), atol=5e-6)
    with jax.set_mesh(model_mesh(1, 1, 2)):
        np.testing.assert_allclose(run(q, k, v, mask), by_hand(q, k, v, mask), atol=5e-6)
    assert [keys[2] for _, keys in cudnn] == [8, 2]
