"""The property that both gains' files test: one naive greedy, whatever the way there."""

import numpy as np
from engine_cases import SHAPES, Size, assert_greedy, assert_same_bits, case, fill, run
from hypothesis import strategies as st
from oracle import random_labels, random_scores, random_w

from mig_jax.engine import State
from mig_jax.engine.checkpoint import from_bytes, to_bytes
from mig_jax.objective import make_phi

PLAIN = Size(1, 16_384, 1_024)
SIZES = {
    "separate": (PLAIN, Size(2, 5, 3)),
    "web": (PLAIN, Size(4, 9, 7), Size(8, 3, 7)),
    "full": (PLAIN, Size(8, 1, 3)),
    "one label": (PLAIN, Size(8, 4, 3)),
    "one row": (PLAIN, Size(8, 1, 3)),
}
STYLES = ("ties", "real", "wide")


def phis(kind: str):
    """phi with drawn numbers, from the gentle to the extreme."""
    if kind == "power":
        return st.builds(
            lambda b, e: make_phi("power", exponent=b, eps=e), st.floats(0.05, 0.95), st.sampled_from([1e-6, 1e-2, 1.0])
        )
    if kind == "exp":
        return st.builds(lambda a: make_phi("exp", alpha=a), st.sampled_from([1e-3, 0.02, 1.0, 5.0]))
    return st.builds(lambda c: make_phi("log", c=c), st.sampled_from([1e-3, 0.5, 1.0, 40.0]))


def check(kind, name, phi, alpha, seed, style, data) -> None:
    """Equal to the oracle; equal bits for every size, and from any snapshot of one on another."""
    drawn = fill(SHAPES[name], seed, style, phi, alpha, same_labels=kind == "exact" and SHAPES[name].edges != ())
    n = drawn.candidates if data.draw(st.booleans(), "all") else data.draw(st.integers(1, drawn.candidates), "n")
    first = run(drawn, n, kind, PLAIN)
    assert_greedy(drawn, first, n, kind)
    snapshots, heard = [], []
    for size in SIZES[name][1:]:
        more = {"on_snapshot": snapshots.append, "progress": lambda *a: heard.append(a)}
        assert_same_bits(first, run(drawn, n, kind, size, **more))
    assert [a[0] for a in heard] == ["select"] * len(snapshots)
    assert all(done == len(s.points) and total == n for (_, done, total), s in zip(heard, snapshots, strict=True))
    if snapshots:
        stored = from_bytes(to_bytes(data.draw(st.sampled_from(snapshots), "snapshot")), State)
        for size in (SIZES[name][-1], PLAIN):
            assert_same_bits(first, run(drawn, n, kind, size, resume=stored))


def anything(kind, seed) -> None:
    """A pool whose shape is drawn as well: each costs compilations, so there are few of these."""
    rng = np.random.default_rng(seed)
    count, rows = int(rng.integers(1, 14)), int(rng.integers(1, 60))
    pairs = np.argwhere(np.triu(rng.random((count, count)) < rng.choice([0.0, 0.1, 0.5, 1.0]), 1))
    tags = rng.integers(0, min(count, int(rng.choice([1, 3, 14]))) + 1, rows)
    score = random_scores(rng, str(rng.choice(STYLES)), rows) * (rng.random(rows) < 0.9)
    phi = [make_phi("power"), make_phi("exp", alpha=0.1), make_phi("log", c=2.0)][int(rng.integers(3))]
    alpha = float(rng.choice([0.0, 0.3, 1.0, 2.0]))
    drawn = case(random_labels(rng, tags, count), score, random_w(rng, pairs, count), phi, alpha)
    n = max(1, drawn.candidates)
    size = Size(int(rng.choice([1, 2, 4, 8])), int(rng.integers(1, 40)), int(rng.integers(1, 9)))
    first = run(drawn, n, kind, PLAIN)
    assert_greedy(drawn, first, n, kind)
    assert_same_bits(first, run(drawn, n, kind, size))
