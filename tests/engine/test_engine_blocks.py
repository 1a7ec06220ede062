"""Blocks on disk give the picks of the pool in memory, bit for bit, and are read only where they may matter."""

from pathlib import Path

import jax
import numpy as np
import pytest
from engine_cases import SHAPES, Case, assert_greedy, assert_same_bits, case, fill
from engine_property import STYLES, phis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mig_jax.core.errors import UserError
from mig_jax.engine import BlockWriter, greedy, greedy_from_disk, make_problem, pool_mesh
from mig_jax.engine.pool_on_disk import DATA, INDEX
from mig_jax.objective import make_phi

QUICK = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def write(drawn: Case, folder: Path, chunk: int = 7, block: int = 16) -> Path:
    """The case's rows, ``chunk`` of them at a time."""
    encoded = drawn.encoded
    with BlockWriter(folder, len(encoded.labels), block) as out:
        for start in range(0, len(encoded), chunk):
            ptr = encoded.label_ptr[start : start + chunk + 1]
            out.add(ptr - ptr[0], encoded.label_idx[ptr[0] : ptr[-1]], encoded.score[start : start + chunk])
    return folder


def in_memory(drawn: Case, n: int):
    problem = make_problem(drawn.encoded, drawn.graph.propagation(drawn.alpha), drawn.phi)
    return greedy(problem, n, pool_mesh(jax.devices()[:1]))


def from_disk(drawn: Case, folder: Path, n: int, **more):
    return greedy_from_disk(folder, drawn.graph.propagation(drawn.alpha), drawn.phi, n, **more)


@pytest.mark.parametrize(("name", "kind"), [("web", "power"), ("separate", "exp"), ("one label", "log")])
@QUICK
@given(st.data())
def test_the_picks_are_those_of_the_pool_in_memory(tmp_path_factory, name, kind, data):
    style = data.draw(st.sampled_from(STYLES))
    drawn = fill(SHAPES[name], data.draw(st.integers(0, 2**32)), style, data.draw(phis(kind)), 1.0, same_labels=False)
    folder = write(drawn, tmp_path_factory.mktemp("pool_on_disk"), chunk=data.draw(st.sampled_from([1, 7, 1_000])))
    snapshots = []
    found = from_disk(drawn, folder, drawn.candidates, shortlist_size=5, picks_per_call=4, on_snapshot=snapshots.append)
    assert_greedy(drawn, found, drawn.candidates, "first_order")
    assert_same_bits(in_memory(drawn, drawn.candidates), found)
    resumed = from_disk(drawn, folder, drawn.candidates, shortlist_size=9, resume=data.draw(st.sampled_from(snapshots)))
    assert_same_bits(found, resumed)


def large(integer: bool = False) -> Case:
    """4,000 rows of unequal weight."""
    rng = np.random.default_rng(3)
    labels = tuple(tuple(sorted(rng.choice(60, 1 + d % 6, replace=False).tolist())) for d in range(4_000))
    score = rng.integers(1, 4, 4_000).astype(float) if integer else rng.lognormal(0, 1, 4_000)
    w = np.eye(60, dtype=np.float32)
    w[0, 1] = w[1, 0] = w[5, 9] = w[9, 5] = 0.8
    return case(labels, score, w, make_phi(), 1.0)


@pytest.mark.parametrize("integer", [False, True], ids=["any score", "mass ties"])
def test_light_blocks_are_never_read(tmp_path, integer):
    drawn = large(integer)
    folder = write(drawn, tmp_path, chunk=500, block=64)
    found = from_disk(drawn, folder, 200, shortlist_size=50)
    assert_same_bits(in_memory(drawn, 200), found)
    with np.load(folder / INDEX) as index:
        blocks = len(index["size"])
    passes = found.counts["full_passes"]
    assert passes > 2
    assert found.counts["blocks_read"] < blocks * passes * (0.9 if integer else 0.5)
    assert found.counts["bytes_read"] < passes * (folder / DATA).stat().st_size


def test_the_bounds_hold_even_where_they_are_tight(tmp_path, monkeypatch):
    """A pass that trusted a bound one part in a thousand too low would make other picks here."""
    drawn = large()
    folder = write(drawn, tmp_path, chunk=500, block=64)
    right = from_disk(drawn, folder, 400, shortlist_size=20)
    assert_same_bits(in_memory(drawn, 400), right)
    monkeypatch.setattr("mig_jax.engine.pool_on_disk.BOUND_SLACK", 0.9)
    wrong = from_disk(drawn, folder, 400, shortlist_size=20)
    assert not np.array_equal(right.points, wrong.points)


def test_labels_beyond_16_bits(tmp_path):
    count = 2**16 + 5
    rng = np.random.default_rng(0)
    ptr, idx = np.arange(0, 603, 3), np.concatenate([rng.choice(count, 3, replace=False) for _ in range(200)])
    idx[-3:] = count - 1, count - 2, 0
    with BlockWriter(tmp_path, count) as out:
        out.add(ptr, idx.astype(np.int32), np.r_[np.ones(199), 9.0])
    from mig_jax.labels.label_graph import Propagation

    p = Propagation(np.arange(count + 1), np.arange(count, dtype=np.int32), np.ones(count))
    found = greedy_from_disk(tmp_path, p, make_phi(), 5)
    assert found.points[0] == 199


def test_a_pool_without_a_usable_row(tmp_path):
    with BlockWriter(tmp_path, 4) as out:
        out.add(np.array([0, 0, 1]), np.array([2], np.int32), np.array([1.0, 0.0]))
    drawn = case(((0,),), np.ones(1), np.eye(4, dtype=np.float32), make_phi(), 1.0)
    assert len(from_disk(drawn, tmp_path, 3).points) == 0


def test_what_is_no_whole_set_of_blocks_is_refused(tmp_path):
    drawn = large()
    with pytest.raises(UserError, match="no blocks of a pool"):
        from_disk(drawn, tmp_path / "nowhere", 3)
    folder = write(drawn, tmp_path / "pool_on_disk", chunk=500)
    smaller = case(((0,),), np.ones(1), np.eye(4, dtype=np.float32), make_phi(), 1.0)
    with pytest.raises(UserError, match="blocks of 60 labels, a graph of 4"):
        from_disk(smaller, folder, 3)
    data = (folder / DATA).read_bytes()
    (folder / DATA).write_bytes(data[:-8])
    with pytest.raises(UserError, match="only in part"):
        from_disk(drawn, folder, 3)


def test_a_writer_that_fails_leaves_no_blocks(tmp_path):
    with pytest.raises(ZeroDivisionError), BlockWriter(tmp_path, 4) as out:
        out.add(np.array([0, 1]), np.array([2], np.int32), np.ones(1))
        _ = 1 / 0
    assert not (tmp_path / INDEX).exists()
    assert not (tmp_path / DATA).exists()


@pytest.mark.parametrize("count", [255, 256, 300])
def test_equal_rows_that_fill_their_blocks_exactly(tmp_path, count):
    """All gains are as large as the list's last bound: with the whole pool listed there is nothing it could cut off."""
    drawn = case(((0,),) * count, np.ones(count), np.eye(2, dtype=np.float32), make_phi(), 1.0)
    found = from_disk(drawn, write(drawn, tmp_path, chunk=1_000, block=256), count)
    np.testing.assert_array_equal(found.points, np.arange(count))


def test_of_scores_one_bit_apart_the_higher_goes_first_wherever_the_pool_is(tmp_path):
    """Times y they may round to one gain."""
    low = np.array([3.3, 2.9, 1.7, 5.1])
    score = np.stack([low, np.nextafter(low, 9)], 1).ravel()
    drawn = case(((0,),) * 8, score, np.eye(2, dtype=np.float32), make_phi(), 1.0)
    found = from_disk(drawn, write(drawn, tmp_path), 8)
    assert_same_bits(in_memory(drawn, 8), found)
    np.testing.assert_array_equal(found.points, np.argsort(-score))


@pytest.mark.parametrize("shortlist_size", [1, 2, 3, 100])
def test_a_wide_row_in_a_block_that_is_skipped_still_counts(tmp_path, shortlist_size):
    """Its bound is a float32 sum of 512 terms, and lacks more than those of the rows on the list."""
    rng = np.random.default_rng(0)
    w = np.eye(600, dtype=np.float32)
    for seed in range(6):
        wide = tuple(range(512))
        others = tuple((512 + i,) for i in range(8))
        y = 1.0  # of phi = log, c = 1, at x = 0
        score = np.r_[1.0, 512 * y * (1 + rng.uniform(-40, 40, 8) * 2.0**-24)]
        drawn = case((wide, *others), score, w, make_phi("log"), 1.0)
        folder = write(drawn, tmp_path / f"{seed}", block=1)
        assert_same_bits(in_memory(drawn, 9), from_disk(drawn, folder, 9, shortlist_size=shortlist_size))


def test_who_is_called_back_computes_in_float32(tmp_path):
    drawn = fill(SHAPES["full"], 0, "real", make_phi(), 1.0, same_labels=True)
    kinds = []
    from_disk(drawn, write(drawn, tmp_path), 5, on_snapshot=lambda _: kinds.append(jax.numpy.ones(2).dtype))
    assert kinds == [np.float32]
