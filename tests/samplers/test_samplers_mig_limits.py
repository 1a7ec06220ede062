"""MIG under limits is the naive greedy of what they allow: quotas, minima, tokens, rows that are in or out."""

import importlib
from dataclasses import replace

import jax
import numpy as np
import pytest
from limits_cases import Quota, assert_limited_greedy, limits_of
from oracle import Data, Naive
from sampler_tasks import options, picked, task

from mig_jax.engine import pool_mesh
from mig_jax.engine.checkpoint import from_bytes, to_bytes
from mig_jax.objective import certify, curve, make_phi
from mig_jax.samplers import SAMPLERS
from mig_jax.samplers.limits import Gate, Limits
from mig_jax.samplers.mig_limited import GUARANTEE, _run

ROWS = 40
PHIS = {"power": make_phi(), "exp": make_phi("exp", alpha=0.05), "log": make_phi("log", c=0.5)}
GAINS = ("first_order", "exact")


def sources(rng, count: int) -> list[list[int]]:
    """Every point in one of ``count`` sources."""
    of = rng.integers(0, count, ROWS)
    return [np.flatnonzero(of == source).tolist() for source in range(count)]


def labels(data: Data, count: int) -> list[list[int]]:
    """The points of each label: they overlap."""
    return [[d for d, row in enumerate(data.labels) if label in row] for label in range(count)]


def drawn(kind: str, data: Data, seed: int):
    """(quotas, limits) of a kind."""
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(ROWS)
    first, banned, cost = order[:5].tolist(), order[5:14].tolist(), rng.integers(1, 9, ROWS)
    caps = tuple(Quota(rows, most=int(rng.integers(0, 6))) for rows in sources(rng, 5))
    minima = tuple(Quota(rows, least=int(rng.integers(0, 5))) for rows in sources(rng, 4))
    overlap = tuple(Quota(rows, int(rng.integers(0, 3)), int(rng.integers(2, 6))) for rows in labels(data, 5))
    some = {
        "caps": (caps, {}),
        "label caps": (overlap, {}),
        "minima": (minima, {}),
        "minima and caps": (minima + caps + overlap, {}),
        "first and banned": ((), {"first": first, "started": 2, "banned": banned}),
        "tokens": ((), {"cost": cost, "budget": 60.0}),
        "all": (minima + overlap, {"first": first, "banned": banned, "cost": cost, "budget": 80.0}),
    }
    quotas, more = some[kind]
    return quotas, limits_of(ROWS, quotas=quotas, **more)


KINDS = ("caps", "label caps", "minima", "minima and caps", "first and banned", "tokens", "all")

FEW = ("minima and caps", "all")  # what takes long is tried with these, and with the others where all tests run


def runs(t, n: int) -> list:
    """The greedies of a task, each with whether it goes by the gain per cost."""
    more = [(True, _run(t, n, t.limit.cost, None, None))] if t.limit.budget is not None else []
    return [(False, _run(t, n, None, None, None)), *more]


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_naive_greedy_under_limits(kind, gain):
    seen, phi = set(), "power" if gain == "first_order" else "log"
    for seed in range(4):  # one pool: few programs are compiled
        data, t = task(rows=ROWS, seed=0, phi=PHIS[phi])
        quotas, limits = drawn(kind, data, seed)
        t = replace(t, limits=limits, options=options("mig", gain=gain))
        for n in (ROWS, 17):
            for ratio, run in runs(t, n):
                seen |= {*assert_limited_greedy(data, t.phi, gain, n, limits, quotas, run, ratio=ratio)}
    assert "main" in seen
    assert ("minima" in seen) == ("minima" in limits.kinds)
    assert ("first" in seen) == ("first" in limits.kinds)


def test_it_is_the_naive_greedy_where_gains_die_out():
    """exp: the last rows of a minimum, and of the whole selection, gain nothing."""
    data, t = task(rows=ROWS, seed=1, phi=make_phi("exp", alpha=40.0))
    quotas, limits = drawn("minima and caps", data, 1)
    t = replace(t, limits=limits, options=options("mig"))
    run = runs(t, ROWS)[0][1]
    seen = {*assert_limited_greedy(data, t.phi, "first_order", ROWS, limits, quotas, run)}
    assert seen >= {"minima", "minima, without gain", "main, without gain"}


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("kind", [k if k in FEW else pytest.param(k, marks=pytest.mark.slow) for k in KINDS])
def test_devices_and_lengths_change_no_bit(kind, gain):
    """A list of 1 needs a full pass for nearly every pick, and every pick passes rows over."""
    data, t = task(rows=ROWS, seed=0, phi=PHIS["power" if gain == "first_order" else "log"])
    _, limits = drawn(kind, data, 3)
    t = replace(t, limits=limits)
    whole = picked("mig", t, 30, gain=gain)
    mesh = pool_mesh(jax.devices()[:8])
    for other in (
        replace(t, shortlist_size=1, picks_per_call=3),
        replace(t, shortlist_size=3, picks_per_call=3, mesh=mesh),
    ):
        same(whole, picked("mig", other, 30, gain=gain))


def same(a, b) -> None:
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(a.gains.view(np.int64), b.gains.view(np.int64))
    assert (a.why, a.notes) == (b.why, b.notes)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("kind", ["minima and caps", pytest.param("tokens", marks=pytest.mark.slow), "all"])
def test_from_every_snapshot_to_the_same_bytes(kind, gain):
    data, t = task(rows=ROWS, seed=4)
    _, limits = drawn(kind, data, 4)
    snapshots = []
    t = replace(t, limits=limits, picks_per_call=1, on_snapshot=snapshots.append)
    whole = picked("mig", t, 30, gain=gain)
    assert len(snapshots) >= 6
    if limits.budget is not None:
        assert {int(s.state.finished) for s in snapshots} == {0, 1}
    for snapshot in snapshots:
        resumed = replace(
            t, resume=from_bytes(to_bytes(snapshot), SAMPLERS["mig"].state), on_snapshot=None, picks_per_call=5
        )
        same(whole, picked("mig", resumed, 30, gain=gain))


def test_a_snapshot_of_a_token_budget_serves_no_other_n():
    data, t = task(rows=ROWS, seed=4)
    _, limits = drawn("tokens", data, 4)
    snapshots = []
    t = replace(t, limits=limits)
    picked("mig", replace(t, on_snapshot=snapshots.append), 9)
    same(picked("mig", t, 30), picked("mig", replace(t, resume=snapshots[-1]), 30))


@pytest.mark.parametrize("seed", range(4))
def test_mass_ties_bit_for_bit(seed):
    """Separate labels, whole scores, phi = log, costs of powers of two: each gain, and each gain per cost, is one
    rounded operation, so the naive greedy ties where the engine does, and the lowest row goes first in both."""
    rng, alike = np.random.default_rng(seed), np.random.default_rng(0)
    _, t = task(rows=ROWS, phi=make_phi("log", c=1.0))
    rows = tuple(tuple(alike.permutation(6)[: 1 + d % 2].tolist()) for d in range(ROWS))
    data = Data(rows, rng.integers(1, 3, ROWS).astype(float), np.eye(6, dtype=np.float32))
    ptr, idx = np.cumsum([0, *map(len, rows)]), np.array([label for row in rows for label in row], np.int32)
    encoded = replace(t.encoded, label_ptr=ptr, label_idx=idx, score=data.score)
    p = t.propagation._replace(ptr=np.arange(7), idx=np.arange(6, dtype=np.int32), val=np.ones(6))
    quotas = tuple(Quota(rows, least=2, most=8) for rows in sources(rng, 5))
    limits = limits_of(ROWS, quotas=quotas, first=[ROWS - 1], cost=2.0 ** rng.integers(0, 3, ROWS), budget=60.0)
    t = replace(t, encoded=encoded, propagation=p, limits=limits, shortlist_size=1 + 3 * (seed % 2))
    for ratio, run in runs(t, ROWS):
        phases = assert_limited_greedy(data, t.phi, "first_order", ROWS, limits, quotas, run, ratio=ratio, near=0)
        assert {"minima", "main"} <= {*phases}


@pytest.mark.parametrize("gain", GAINS)
def test_a_warm_start_goes_on_to_the_same_bits(gain):
    """The first rows of a selection, handed over as an earlier one, are followed by what followed them."""
    _, t = task(rows=ROWS, seed=6)
    whole = picked("mig", t, 35, gain=gain)
    for started in (1, 12, 35):
        limits = limits_of(ROWS, first=whole.points[:started].tolist(), started=started)
        found = picked("mig", replace(t, limits=limits), 35, gain=gain)
        np.testing.assert_array_equal(found.points, whole.points)
        np.testing.assert_array_equal(found.gains.view(np.int64), whole.gains.view(np.int64))
        assert list(found.why) == ["earlier selection"] * started + [found.reason] * (35 - started)
        assert found.notes == ()


def test_limits_that_bind_nothing_change_no_bit():
    _, t = task(rows=ROWS, seed=7)
    whole = picked("mig", t, 30)
    loose = limits_of(ROWS, quotas=(Quota([*range(ROWS)], most=ROWS),))
    found = picked("mig", replace(t, limits=loose), 30)
    np.testing.assert_array_equal(found.points, whole.points)
    np.testing.assert_array_equal(found.gains.view(np.int64), whole.gains.view(np.int64))
    assert whole.why == () and list(found.why) == ["first-order gain"] * 30
    same(whole, picked("mig", replace(t, limits=Limits.none(ROWS)), 30))


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("rows", [1, 2])
def test_the_smallest_pools(rows, gain):
    """Arrays of one number need no index, and the native function no parameter that only an index is made of."""
    data, t = task(rows=rows, seed=2)
    one = replace(t.encoded, label_ptr=np.arange(rows + 1), label_idx=np.zeros(rows, np.int32), score=np.ones(rows))
    data = Data(((0,),) * rows, np.ones(rows), data.w)
    quota = (Quota([0], least=1, most=1),)
    for more in ({"quotas": quota}, {"first": [0]}, {"cost": np.ones(rows), "budget": 2.0}, {"banned": [0]}):
        limits = limits_of(rows, **more)
        limited = replace(t, encoded=one, limits=limits, options=options("mig", gain=gain))
        for ratio, run in runs(limited, rows):
            assert_limited_greedy(data, t.phi, gain, rows, limits, more.get("quotas", ()), run, ratio=ratio)
            assert len(run.points) == rows - ("banned" in more)


@pytest.mark.parametrize("gain", GAINS)
def test_the_form_for_an_accelerator_picks_the_same(gain, monkeypatch):
    """On a CPU both forms are at hand: one native function, and the operations one by one."""
    data, t = task(rows=ROWS, seed=0)
    _, limits = drawn("all", data, 1)
    t = replace(t, limits=limits)
    native, asked = picked("mig", t, 25, gain=gain), []
    for where, name in (("greedy", "pick"), ("greedy", "label_gains"), ("warm_start", "absorb_all")):
        module = importlib.import_module(f"mig_jax.engine.{where}")
        whole = getattr(module, name)

        def plain(*args, native, whole=whole, **more):
            asked.append(native)
            return whole(*args, native=False, **more)

        monkeypatch.setattr(module, name, plain)
    found = picked("mig", t, 25, gain=gain)
    assert asked and all(asked)
    np.testing.assert_array_equal(native.points, found.points)
    np.testing.assert_allclose(native.gains, found.gains, rtol=1e-12)


def test_a_quota_counts_the_rows_that_are_in_and_names_itself():
    data, t = task(rows=ROWS, seed=8)
    bare = [d for d, row in enumerate(data.labels) if not row][:3]
    rest = [d for d in range(ROWS) if d not in bare]
    quotas = Quota(bare, least=2), Quota(rest[:20], least=3, most=4), Quota(rest[20:], most=5)
    limits = limits_of(ROWS, quotas=quotas, first=[bare[2], rest[0]], started=1)
    found = picked("mig", replace(t, limits=limits), 30)
    assert list(found.why[:2]) == ["earlier selection", "must include"]
    assert found.gains[0] == 0 < found.gains[1]
    assert sorted(found.why[2:5]) == ["minimum of quota 0", *["minimum of quota 1"] * 2]
    assert {*found.why[5:]} == {"first-order gain"}
    assert found.why[4] == "minimum of quota 0", "a row without labels gains nothing: it comes last of the minima"
    counts = [len(set(quota.points) & set(found.points.tolist())) for quota in quotas]
    assert counts == [3, 4, 5] and len(found) == 12
    assert (found.gains[5:-1] > 0).all() and found.gains[-1] == 0, (
        "what gains nothing waits until the minima are met, and then until the end"
    )
    assert_limited_greedy(data, t.phi, "first_order", 30, limits, quotas, found)
    assert not found.notes


def test_a_minimum_that_cannot_be_met_is_told():
    _, t = task(rows=ROWS, seed=8)
    limits = limits_of(ROWS, quotas=(Quota([1, 2], least=3),))
    found = picked("mig", replace(t, limits=limits), 30)
    assert limits.unmet(found.points) == ("quota 0: 2 rows, although at least 3 were asked for",)
    assert {1, 2} == {*found.points[:2].tolist()}


@pytest.mark.parametrize("kind", ["caps", "minima and caps", "first and banned"])
def test_budgets_are_prefixes_but_for_tokens(kind):
    data, t = task(rows=ROWS, seed=9)
    _, limits = drawn(kind, data, 9)
    t = replace(t, limits=limits)
    assert SAMPLERS["mig"].nested(t)
    whole = picked("mig", t, 30)
    for n in (1, 3, 11):
        np.testing.assert_array_equal(picked("mig", t, n).points, whole.points[:n])
    assert not SAMPLERS["mig"].nested(replace(t, limits=drawn("tokens", data, 9)[1]))


@pytest.mark.parametrize("gain", GAINS)
def test_of_two_greedies_the_better_is_kept(gain):
    _, t = task(rows=ROWS, seed=10)
    kept = set()
    for seed in range(8):
        cost = np.random.default_rng(seed).uniform(1, 30, ROWS)
        limits = limits_of(ROWS, cost=cost, budget=45.0)
        limited = replace(t, limits=limits, options=options("mig", gain=gain))
        worth = [curve(t.encoded, t.propagation, t.phi, run.points).objective[-1] for _, run in runs(limited, ROWS)]
        found = picked("mig", limited, ROWS, gain=gain)
        assert cost[found.points].sum() <= 45
        assert curve(t.encoded, t.propagation, t.phi, found.points).objective[-1] == max(worth)
        name = "the latter" if worth[1] > worth[0] else "the former"
        kept.add(name)
        assert f"; {name} is kept" in found.notes[0]
        assert (GUARANTEE in found.notes[0]) == (gain == "exact")
        assert all(f"{value:,.6g}" in found.notes[0] for value in worth)
    assert kept == {"the former", "the latter"}
    few = picked("mig", replace(limited, limits=replace(limits, budget=1e9)), 3, gain=gain)
    assert GUARANTEE not in few.notes[0], "n ends it"


def test_the_gate_s_three_answers_are_one():
    data, _ = task(rows=ROWS, seed=11)
    for kind in KINDS:
        _, limits = drawn(kind, data, 11)
        for minima in Gate(limits).phases:
            gate, order = Gate(limits), np.random.default_rng(1).permutation(ROWS)
            gate.minima, out = minima, gate.out.copy()
            for point in order.tolist():
                each = [gate.allows(d) for d in range(ROWS)]
                np.testing.assert_array_equal(gate.open(), each)
                if each[point]:
                    gate.take(point)
            taken = [*limits.first, *(d for d in order if gate.out[d] and not out[d])]
            again = Gate(limits, np.array(taken))
            np.testing.assert_array_equal(again.counts, gate.counts)
            assert again.spent == gate.spent


def best_within(data: Data, phi, n: int, limits: Limits, quotas) -> float:
    """The largest E of any selection within the limits, minima left out; by trying all. A quota that the rows that are
    in overfill takes no more."""
    count = len(data.labels)
    every = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    fits = (every.sum(1) <= n) & every[:, limits.first].all(1) & ~every[:, limits.banned].any(1)
    for quota in quotas:
        inside = sum(point in quota.points for point in limits.first)
        fits &= every[:, quota.points].sum(1) <= max(quota.most, inside)
    if limits.budget is not None:
        fits &= every @ limits.cost <= limits.budget
    reach = data.score[:, None] * (data.v @ data.matrix(1.0))
    return float(phi.value(every[fits] @ reach).sum(1).max())


@pytest.mark.parametrize("kind", ["caps", "overlap", "first and banned", "tokens", "tokens and n", "all"])
def test_no_selection_within_limits_beats_the_certificate(kind):
    """Against the true optimum, for MIG's selection and for any other, at every prefix."""
    tight = []
    for seed in range(4):
        phi = PHIS["log"]
        rng = np.random.default_rng([seed, 3])
        data, t = task(rows=10, count=6, seed=5, phi=phi)  # one pool: few programs are compiled
        order = rng.permutation(10).tolist()
        parts = tuple(Quota(order[i::3], most=int(rng.integers(1, 4))) for i in range(3))
        cross = tuple(Quota(rng.permutation(10)[:5].tolist(), most=int(rng.integers(1, 4))) for _ in range(3))
        in_out = {"first": order[:2], "banned": order[2:4]}
        tokens = {"cost": rng.integers(1, 6, 10), "budget": 11.0}
        n = 10 if kind == "tokens" else 4
        quotas = {"caps": parts, "overlap": cross, "all": cross}.get(kind, ())
        more = {"first and banned": in_out, "tokens": tokens, "tokens and n": tokens, "all": in_out | tokens}.get(
            kind, {}
        )
        limits = limits_of(10, quotas=quotas, **more)
        best = best_within(data, phi, n, limits, quotas)
        for gain, points in [("exact", None), ("any", rng.permutation(10)[:5].astype(np.int64))]:
            if points is None:
                points = picked("mig", replace(t, limits=limits), n, gain=gain).points
            objective = curve(t.encoded, t.propagation, phi, points).objective
            for prefixes in (None, (0,), tuple(range(len(points) + 1))):
                found = certify(t.encoded, t.propagation, phi, points, objective, prefixes, limits.feasible(n))
                assert found.bound >= best * (1 - 1e-12)
                assert gain == "any" or best >= found.objective * (1 - 1e-12)
                assert found.objective == (objective[-1] if len(points) else 0.0)
            tight.append(found.bound / best)
    assert min(tight) < 1.2
    assert np.mean(tight) < 2


def test_the_certificate_by_hand():
    """Every row has a label to itself, so E is a sum, and the bound at the empty set is the sum that limits allow."""
    data, t = task(rows=5)
    data = Data(tuple((d,) for d in range(5)), np.array([2.0, 12.0, 3.0, 9.0, 1.0]), np.eye(5, dtype=np.float32))
    encoded = replace(
        t.encoded,
        label_ptr=np.arange(6),
        label_idx=np.arange(5, dtype=np.int32),
        score=data.score,
        labels=tuple("abcde"),
    )
    p = t.propagation._replace(ptr=np.arange(6), idx=np.arange(5, dtype=np.int32), val=np.ones(5))
    gain = Naive(data, t.phi.kind, t.phi.a, t.phi.eps, 1.0, "exact").gains()
    cost = np.array([1.0, 10.0, 50.0, 50.0, 50.0])
    full_quota = limits_of(5, quotas=(Quota([0, 2, 3], most=2),), first=[0])
    cases = [
        (limits_of(5, cost=cost, budget=10.0), 5, gain[0] + 0.9 * gain[1]),  # row 1 does not fit beside row 0: cut
        (limits_of(5, cost=cost, budget=11.0), 1, gain[1]),
        (full_quota, 5, gain[[0, 3, 1, 4]].sum()),
        (full_quota, 2, gain[[0, 1]].sum()),
        (limits_of(5, quotas=(Quota([0, 1, 3], most=2), Quota([1, 3], most=1))), 5, gain[[0, 1, 2, 4]].sum()),
        (limits_of(5, banned=[1]), 2, gain[[3, 2]].sum()),
    ]
    one = np.array([4])
    objective = curve(encoded, p, t.phi, one).objective
    for limits, n, bound in cases:
        found = certify(encoded, p, t.phi, one, objective, (0,), limits.feasible(n))
        np.testing.assert_allclose(found.bound, bound, rtol=1e-9)


def test_the_certificate_without_limits_is_looser():
    data, t = task(rows=ROWS, seed=12)
    _, limits = drawn("caps", data, 12)
    found = picked("mig", replace(t, limits=limits), 30)
    objective = curve(t.encoded, t.propagation, t.phi, found.points).objective
    whole = certify(t.encoded, t.propagation, t.phi, found.points, objective)
    within = certify(t.encoded, t.propagation, t.phi, found.points, objective, limits=limits.feasible(30))
    assert within.bound < 0.999 * whole.bound
    assert Limits.none(ROWS).feasible(30) is None


def test_the_certificate_of_nothing_at_all():
    """Nothing fits: what could fit, had it been picked?"""
    data, t = task(rows=ROWS, seed=12)
    limits = limits_of(ROWS, cost=np.full(ROWS, 5.0), budget=4.0)
    found = picked("mig", replace(t, limits=limits), 30)
    assert len(found) == 0
    empty = np.zeros(0, np.int64)
    assert certify(t.encoded, t.propagation, t.phi, empty, np.zeros(0), limits=limits.feasible(30)) == (0, 0, 1)
    room = replace(limits, budget=5.0).feasible(30)
    alone = Naive(data, t.phi.kind, t.phi.a, t.phi.eps, 1.0, "exact").gains().max()
    bound = certify(t.encoded, t.propagation, t.phi, empty, np.zeros(0), limits=room).bound
    np.testing.assert_allclose(bound, alone, rtol=1e-9)
