"""What compiles anew and what does not: a sweep must not pay for each of its runs.

Compilations are counted, not entries of ``_cache_size()``: an argument on the host and one on a device make two entries
of one program.
"""

from collections import Counter
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from engine_cases import SHAPES, Size, case, fill, run
from oracle import random_labels, random_w

from mig_jax.engine.problem import power_of_two
from mig_jax.objective import make_phi

KINDS = ["first_order", "exact"]
ONCE = {
    "first_order": {"jit(pick)": 1, "jit(full_pass)": 1, "jit(label_gains)": 1},
    "exact": {"jit(pick)": 1, "jit(full_pass)": 1, "jit(exact_bounds)": 1, "jit(label_gains)": 1},
}


@pytest.fixture
def compiled() -> Iterator[Counter]:
    """How often each of the engine's functions was compiled since the test began."""
    count: Counter = Counter()

    def hear(event: str, duration_secs: float, **more: str | int) -> None:
        if event.endswith("backend_compile_duration") and more["fun_name"] in ENGINE:
            count[str(more["fun_name"])] += 1

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(hear)
    yield count
    jax.monitoring.unregister_event_duration_listener(hear)


ENGINE = set().union(*ONCE.values())


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_other_numbers_on_equal_shapes_do_not_compile_again(kind, shards, compiled):
    """n, alpha, phi's numbers and the scores: a sweep over them compiles once. Lists here take several calls."""

    def once(seed, n, phi, alpha, style):
        found = run(fill(SHAPES["full"], seed, style, phi, alpha, same_labels=True), n, kind, Size(shards, 11, 6))
        return found.counts

    counts = once(0, 20, make_phi(exponent=0.8), 1.0, "real")
    assert counts["calls"] > counts["full_passes"]
    assert compiled == ONCE[kind]
    once(1, 14, make_phi(exponent=0.8), 1.0, "ties")
    once(2, 9, make_phi(exponent=0.3, eps=1e-3), 0.4, "wide")
    once(0, 1, make_phi(exponent=0.5), 2.0, "real")
    assert compiled == ONCE[kind]
    once(0, 20, make_phi("log"), 1.0, "real")
    assert compiled == {name: 1 + (name in ("jit(pick)", "jit(exact_bounds)")) for name in ONCE[kind]}


def test_a_run_from_a_snapshot_compiles_nothing(compiled):
    drawn = fill(SHAPES["full"], 0, "real", make_phi(), 1.0, same_labels=True)
    size, snapshots = Size(2, 11, 6), []
    run(drawn, 20, "first_order", size, on_snapshot=snapshots.append)
    before = compiled.copy()
    run(drawn, 20, "first_order", size, resume=snapshots[0])
    assert compiled == before


def test_a_sweep_over_the_graph_s_threshold_compiles_once_for_each_doubling(compiled):
    """Edges at least T heavy, T falling, on one pool of 40 labels: 40 to 1,600 numbers in P."""
    rng = np.random.default_rng(0)
    labels = random_labels(rng, (1, 2, 3, 4) * 30, 40)
    score = rng.uniform(1, 36, len(labels))
    pairs = np.argwhere(np.triu(np.ones((40, 40)), 1))
    w = random_w(rng, pairs, 40)
    sizes = set()
    for t in np.linspace(1.0, 0.4, 25):
        drawn = case(labels, score, np.where((w >= t) | np.eye(40, dtype=bool), w, 0), make_phi(), 1.0)
        sizes.add(int(power_of_two(len(drawn.graph.propagation().idx))))
        run(drawn, 15, "first_order", Size(1, 20, 8))
        assert compiled["jit(pick)"] <= len(sizes)
    assert len(sizes) >= 5
    assert compiled == {"jit(pick)": len(sizes), "jit(full_pass)": 1, "jit(label_gains)": len(sizes)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_list_of_a_run_compiles_to_one_program(kind, compiled):
    """Lists of narrow rows and of wide ones, and the last one, half empty."""
    drawn = fill(SHAPES["web"], 3, "real", make_phi(), 1.0, same_labels=True)
    found = run(drawn, drawn.candidates, kind, Size(1, 16, 2))
    assert found.counts["full_passes"] > 2
    assert compiled == ONCE[kind]
