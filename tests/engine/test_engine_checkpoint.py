"""A snapshot comes back as it was, or not at all: damaged, of another kind, or of other arrays than its state has."""

import io
from typing import NamedTuple

import numpy as np
import pytest
from engine_cases import SHAPES, Size, assert_greedy, assert_same_bits, fill, run
from jaxtyping import Bool, Float64

from mig_jax.engine import Snapshot, State
from mig_jax.engine.checkpoint import Checkpoint, from_bytes, to_bytes
from mig_jax.engine.kernels import Exact, FirstOrder
from mig_jax.objective import make_phi


class Outer(NamedTuple):
    """A state that holds another."""

    taken: Bool[np.ndarray, " M"]
    bound: Float64[np.ndarray, " M"]
    engine: State


def snapshot(state) -> Snapshot:
    return Snapshot(np.array([3, 1, 2]), np.array([3.0, 2.0, 1.0]), state)


def first_order(labels: int = 5) -> FirstOrder:
    rng = np.random.default_rng(0)
    return FirstOrder(rng.random(labels), rng.random(labels))


def arrays_of(stored: Snapshot) -> list[np.ndarray]:
    import jax

    return jax.tree.leaves((stored.points, stored.gains, stored.state))


STATES = [
    (first_order(), State),
    (Exact(np.ones(2), np.zeros(2)), State),
    (Outer(np.array([True, False]), np.array([np.inf, -0.0]), first_order()), FirstOrder | Outer),
]


@pytest.mark.parametrize(("state", "schema"), STATES)
def test_a_snapshot_comes_back_bit_for_bit(state, schema):
    before = snapshot(state)
    after = from_bytes(to_bytes(before), schema)
    assert after is not None and type(after.state) is type(state)
    for a, b in zip(arrays_of(before), arrays_of(after), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_nothing_is_no_snapshot():
    assert to_bytes(None) == b""
    assert from_bytes(b"", State) is None
    assert from_bytes(to_bytes(snapshot(first_order())), None) is None


@pytest.mark.parametrize("cut", [slice(1), slice(-20), slice(20, None), slice(-1)])
def test_damaged_bytes_are_no_snapshot(cut):
    assert from_bytes(to_bytes(snapshot(first_order()))[cut], State) is None


@pytest.mark.parametrize(
    "state",
    [
        Exact(np.ones(2), np.zeros(2)),
        FirstOrder(np.ones(2, np.float32), np.ones(2)),
        FirstOrder(np.ones(2), np.ones(3)),
        FirstOrder(np.ones((2, 1)), np.ones((2, 1))),
        Outer(np.zeros(1, bool), np.zeros(1), first_order()),
    ],
    ids=["another kind", "another type", "unequal lengths", "another rank", "a state that holds it"],
)
def test_another_state_than_expected_is_refused(state):
    assert from_bytes(to_bytes(snapshot(state)), FirstOrder) is None


def test_the_state_inside_a_state_is_checked_too():
    flags = np.zeros(2, bool)
    assert from_bytes(to_bytes(snapshot(Outer(flags, np.zeros(2), first_order()))), Outer) is not None
    wrong = Outer(flags, np.zeros(2), FirstOrder(np.ones(2), np.ones(3)))
    assert from_bytes(to_bytes(snapshot(wrong)), Outer) is None


@pytest.mark.parametrize("changed", ["format", "state.slope", "kind", "points"])
def test_a_missing_entry_is_refused(changed):
    with np.load(io.BytesIO(to_bytes(snapshot(first_order())))) as stored:
        entries = {name: stored[name] for name in stored.files if name != changed}
    assert len(entries) == 5
    buffer = io.BytesIO()
    np.savez(buffer, **entries)
    assert from_bytes(buffer.getvalue(), State) is None


def test_no_pickle_is_loaded():
    before = snapshot(FirstOrder(np.array([{}, {}], object), np.ones(2)))
    buffer = io.BytesIO()
    np.savez(
        buffer, format=3, points=before.points, gains=before.gains, kind="FirstOrder",
        **{"state.x": before.state.x, "state.slope": before.state.slope},
    )  # fmt: skip
    assert from_bytes(buffer.getvalue(), State) is None


def test_a_run_resumes_from_its_file(tmp_path):
    drawn = fill(SHAPES["web"], 7, "real", make_phi(), 1.0, same_labels=False)
    size, checkpoint = Size(4, 9, 7), Checkpoint(tmp_path, every=0.0)
    assert checkpoint.load(State) is None
    half = run(drawn, 15, "first_order", size, on_snapshot=checkpoint)
    stored = checkpoint.load(State)
    assert stored is not None
    np.testing.assert_array_equal(stored.points, half.points)
    whole = run(drawn, 30, "first_order", size)
    assert_same_bits(whole, run(drawn, 30, "first_order", size, resume=stored))
    assert_greedy(drawn, whole, 30, "first_order")
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.path.name]
    with pytest.raises(ValueError, match="FirstOrder"):
        run(drawn, 30, "exact", size, resume=stored)


def test_a_checkpoint_waits_its_time(tmp_path):
    keep = Checkpoint(tmp_path / "missing", every=3600.0)  # no such folder: it would fail if it wrote
    keep(snapshot(first_order()))
    assert keep.load(State) is None
