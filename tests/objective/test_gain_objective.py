"""E(D), curves, shares and the certificate: against the naive state of tests/oracle.py, step by step."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Data, Naive, random_labels, random_scores, random_w

from mig_jax.encode import Encoded
from mig_jax.labels import LabelGraph
from mig_jax.objective import certify, curve, make_phi
from mig_jax.objective.pool_gains import exact_gains, gains_and_tag_gains

PHIS = {"power": make_phi(), "exp": make_phi("exp", alpha=0.3), "log": make_phi("log", c=2.0)}
each_phi = pytest.mark.parametrize("phi", PHIS.values(), ids=PHIS)
each_kind = pytest.mark.parametrize("kind", ["first_order", "exact"])
MANY = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32)


def as_arrays(data: Data, alpha: float = 1.0):
    names = tuple(f"{i:03d}" for i in range(len(data.w)))
    p, q = np.nonzero(np.triu(data.w, 1))
    graph = LabelGraph(names, np.diag(data.w).copy(), p.astype(np.int32), q.astype(np.int32), data.w[p, q], 0.3)
    ptr = np.cumsum([0, *map(len, data.labels)]).astype(np.int64)
    idx = np.array([label for row in data.labels for label in row], np.int32)
    return Encoded(np.arange(len(data.labels)), ptr, idx, data.score, names, {}), graph.propagation(alpha)


def pool(seed: int, rows: int = 40, labels: int = 12, most: int = 5) -> tuple[Data, Encoded, object]:
    rng = np.random.default_rng(seed)
    pairs = np.argwhere(np.triu(rng.random((labels, labels)) < rng.choice([0.0, 0.2, 1.0]), 1))
    tags = rng.integers(0, most + 1, rows)
    tags[0] = 1
    score = random_scores(rng, str(rng.choice(["ties", "real"])), rows) * (rng.random(rows) < 0.9)
    data = Data(random_labels(rng, tags, labels), score, random_w(rng, pairs, labels))
    return data, *as_arrays(data)


def oracle(data: Data, phi, kind: str) -> Naive:
    return Naive(data, phi.kind, phi.a, phi.eps, 1.0, kind)


@each_phi
@MANY
@given(seed=seeds)
def test_the_curve_is_the_step_by_step_computation(phi, seed):
    data, points, p = pool(seed)
    order = np.random.default_rng(seed).permutation(len(points))[:25].astype(np.int64)
    c = curve(points, p, phi, order)
    first, exact = oracle(data, phi, "first_order"), oracle(data, phi, "exact")
    for step, d in enumerate(order.tolist()):
        # Sums in another order: a few 2^-53, which the steep phi' of power at 1e-6 can raise tenfold.
        np.testing.assert_allclose(c.first_order[step], first.gains()[d], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(c.exact[step], exact.gains()[d], rtol=1e-9, atol=1e-9)
        first.pick(d)
        exact.pick(d)
        np.testing.assert_allclose(c.objective[step], exact.objective(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(c.x, exact.x, rtol=1e-12, atol=1e-12)


@each_kind
@each_phi
@MANY
@given(seed=seeds)
def test_shares_sum_to_the_gain_and_name_the_row_s_own_labels(phi, kind, seed):
    data, points, p = pool(seed)
    order = np.random.default_rng(seed).permutation(len(points))[:25].astype(np.int64)
    c = curve(points, p, phi, order, kind)
    gain = c.first_order if kind == "first_order" else c.exact
    for step, d in enumerate(order.tolist()):
        own = slice(c.tag_ptr[step], c.tag_ptr[step + 1])
        assert tuple(c.tag_label[own].tolist()) == data.labels[d]
        assert (c.tag_gain[own] >= 0).all()
        np.testing.assert_allclose(c.tag_gain[own].sum(), gain[step], rtol=1e-9, atol=1e-12)


@each_kind
@each_phi
def test_gains_at_a_state_are_the_oracle_s(phi, kind):
    data, points, p = pool(11)
    state = oracle(data, phi, kind)
    for d in (0, 5, 7):
        state.pick(d)
    everyone = np.arange(len(points))
    gain, ptr, label, share = gains_and_tag_gains(points, p, phi, state.x, everyone, kind)
    state.left[:] = True
    np.testing.assert_allclose(gain, state.gains(), rtol=1e-9, atol=1e-9)
    assert len(label) == len(share) == ptr[-1] == len(points.label_idx)
    if kind == "exact":
        np.testing.assert_allclose(exact_gains(points, p, phi, state.x), gain, rtol=1e-9, atol=1e-12)


@each_phi
@MANY
@given(seed=seeds)
def test_gains_only_fall_and_the_first_order_is_never_below_the_exact(phi, seed):
    data, points, p = pool(seed)
    everyone, x = np.arange(len(points)), np.zeros(len(points.labels))
    before = {kind: np.full(len(points), np.inf) for kind in ("first_order", "exact")}
    for d in np.random.default_rng(seed).permutation(len(points))[:12]:
        now = {kind: gains_and_tag_gains(points, p, phi, x, everyone, kind)[0] for kind in before}
        for kind, gain in now.items():
            assert (gain <= before[kind] * (1 + 1e-12)).all()
            assert (gain >= 0).all()
        assert (now["first_order"] >= now["exact"] * (1 - 1e-12)).all()
        before = now
        x = x + data.score[d] * (data.v[d] @ data.matrix(1.0))


@each_phi
def test_a_shuffled_pool_has_the_same_gains(phi):
    data, points, p = pool(3)
    order = np.random.default_rng(0).permutation(len(points))
    shuffled, _ = as_arrays(Data(tuple(data.labels[d] for d in order), data.score[order], data.w))
    x = np.random.default_rng(1).uniform(0, 9, len(points.labels))
    everyone = np.arange(len(points))
    for kind in ("first_order", "exact"):
        a, b = (gains_and_tag_gains(e, p, phi, x, everyone, kind)[0] for e in (points, shuffled))
        np.testing.assert_allclose(b, a[order], rtol=1e-13)
    whole = [curve(e, p, phi, everyone).objective[-1] for e in (points, shuffled)]
    np.testing.assert_allclose(*whole, rtol=1e-12)


def test_the_first_order_gain_is_linear_in_the_score():
    data, points, p = pool(4)
    x = np.random.default_rng(1).uniform(0, 9, len(points.labels))
    tripled, _ = as_arrays(Data(data.labels, 3 * data.score, data.w))
    a, b = (
        gains_and_tag_gains(e, p, PHIS["power"], x, np.arange(len(points)), "first_order")[0] for e in (points, tripled)
    )
    np.testing.assert_allclose(b, 3 * a, rtol=1e-12)


@each_phi
@MANY
@given(seed=seeds, n=st.integers(1, 4))
def test_no_selection_beats_its_certificate(phi, seed, n):
    """Against the true optimum by brute force; the selection is any at all, in any order."""
    data, points, p = pool(seed, rows=9, labels=5, most=3)
    v, a = data.v * data.score[:, None], data.matrix(1.0)

    def objective(rows):
        return phi.value(v[list(rows)].sum(axis=0) @ a).sum()

    best = max(objective(rows) for rows in combinations(range(9), n))
    order = np.random.default_rng(seed).permutation(9)[:n].astype(np.int64)
    c = curve(points, p, phi, order)
    for prefixes in (None, (0,), (n,), tuple(range(n + 1))):
        found = certify(points, p, phi, order, c.objective, prefixes)
        assert found.bound >= best * (1 - 1e-12)
        assert found.objective == c.objective[-1]
        assert 0 <= found.ratio <= 1
        np.testing.assert_allclose(found.ratio * found.bound, found.objective, rtol=1e-12, atol=1e-300)


@each_phi
@MANY
@given(seed=seeds, n=st.integers(1, 30))
def test_the_bound_needs_few_exact_gains_and_has_the_n_largest(phi, seed, n):
    """Against all of them; the masses of a long selection bring first-order and exact gains close."""
    _, points, p = pool(seed)
    order = np.random.default_rng(seed).permutation(len(points))[:n].astype(np.int64)
    c = curve(points, p, phi, order)
    for length in (0, n // 2, n):
        x = curve(points, p, phi, order[:length]).x
        gains = exact_gains(points, p, phi, x)
        gains[order[:length]] = 0.0
        before = c.objective[length - 1] if length else 0.0
        want = max(before + np.sort(gains)[-n:].sum(), c.objective[-1])
        np.testing.assert_allclose(certify(points, p, phi, order, c.objective, (length,)).bound, want, rtol=1e-12)


@each_phi
def test_a_pick_of_score_0_leaves_no_trace(phi):
    """Not even the rounding of a sum: the picks after it have the gains that they have without it."""
    data, points, p = pool(5)
    data.score[:10] = 0.0
    order = np.random.default_rng(2).permutation(len(points))[:25].astype(np.int64)
    c, kept = curve(points, p, phi, order), data.score[order] > 0
    np.testing.assert_array_equal(c.first_order[kept], curve(points, p, phi, order[kept]).first_order)
    assert (~kept).any()
    assert (c.first_order[~kept] == 0).all()


@each_phi
def test_everything_is_the_best_of_everything(phi):
    _, points, p = pool(6)
    order = np.random.default_rng(0).permutation(len(points)).astype(np.int64)
    found = certify(points, p, phi, order, curve(points, p, phi, order).objective)
    assert found.ratio == pytest.approx(1.0, abs=1e-12)


def test_the_bound_of_no_rows_at_all():
    _, points, p = pool(6)
    nothing = np.zeros(0, np.int64)
    assert curve(points, p, PHIS["log"], nothing).objective.shape == (0,)
    assert certify(points, p, PHIS["log"], nothing, np.zeros(0)) == (0.0, 0.0, 1.0)


def test_blocks_change_nothing(monkeypatch):
    """Pools larger than a block are cut; here a block is 7."""
    _, points, p = pool(9)
    order = np.arange(25)
    whole = curve(points, p, PHIS["power"], order, "exact"), exact_gains(points, p, PHIS["power"], np.ones(12))
    monkeypatch.setattr("mig_jax.objective.pool_gains.TAG_BLOCK", 7)
    monkeypatch.setattr("mig_jax.objective.pool_gains.BLOCK", 7)
    np.testing.assert_array_equal(curve(points, p, PHIS["power"], order, "exact").tag_gain, whole[0].tag_gain)
    np.testing.assert_array_equal(exact_gains(points, p, PHIS["power"], np.ones(12)), whole[1])
