"""The gain of one row in float32, as the full pass bounds it: the paper's number, within the slack of a bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mig_jax.engine.pool_in_memory import SLACK, ULP
from mig_jax.objective import make_phi
from mig_jax.objective.row_gain import exact_gain, first_order_sum

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
def test_a_gain_is_that_of_float64_up_to_what_a_bound_has_room_for(kind, width):
    """Rows of any number of labels, also padded to twice the width."""
    labels, part, score = rows(width, 2048)
    x = mass()
    if kind == "first_order":
        x[L] = 0
        one = jax.vmap(lambda t, p, s: first_order_sum(jnp.asarray(x), t) * s, in_axes=(1, 1, 0))
        right = x.astype(np.float64)[labels].sum(0) * score
        room = (width + 4) * ULP
    else:
        one = jax.vmap(lambda t, p, s: exact_gain(PHIS[kind], jnp.asarray(x), t, p, s), in_axes=(1, 1, 0))
        right = PHIS[kind].rise(x.astype(np.float64)[labels], part.astype(np.float64) * score).sum(0)
        room = SLACK
    np.testing.assert_allclose(np.asarray(jax.jit(one)(labels, part, score)), right, rtol=room)
    more = ((0, width), (0, 0))
    wide = jax.jit(one)(np.pad(labels, more, constant_values=L), np.pad(part, more), score)
    np.testing.assert_allclose(np.asarray(wide), right, rtol=room)


@pytest.mark.parametrize("phi", PHIS.values(), ids=PHIS)
def test_both_gains_by_hand(phi):
    x = mass()
    y = np.append(mass()[:L], 0).astype(np.float32)
    labels, part = np.array([3, 17, 9, L], np.int32), np.array([0.5, 0.25, 1.0, 0.0], np.float32)
    got = first_order_sum(jnp.asarray(y), jnp.asarray(labels)) * 2.5
    np.testing.assert_allclose(got, 2.5 * (float(y[3]) + float(y[17]) + float(y[9])), rtol=1e-6)
    x64 = x.astype(np.float64)
    expected = sum(
        float(phi.rise(x64[[k]], np.array([2.5 * p]))[0])
        for k, p in zip(labels[:3], part[:3].astype(float), strict=True)
    )
    got = exact_gain(phi, jnp.asarray(x), jnp.asarray(labels), jnp.asarray(part), jnp.float32(2.5))
    np.testing.assert_allclose(got, expected, rtol=5e-6)
