"""The label graph: the right edges of any embeddings, whatever the tile; an automatic threshold that keeps its word."""

import inspect
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_jax.core.errors import UserError
from mig_jax.labels import LabelGraph, label_graph
from mig_jax.labels import cosine as module
from mig_jax.labels.cosine import cosine_edges, densest_edges


def units(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    v = np.random.default_rng(seed).normal(size=(count, dim))
    return (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)


def names(count: int) -> tuple[str, ...]:
    return tuple(f"{i:05d}" for i in range(count))


def dense(graph: LabelGraph) -> np.ndarray:
    w = np.diag(graph.diagonal).astype(np.float64)
    w[graph.source, graph.target] = w[graph.target, graph.source] = graph.weight
    return w


def dense_p(p, count: int) -> np.ndarray:
    out = np.zeros((count, count))
    out[np.repeat(np.arange(count), np.diff(p.ptr)), p.idx] = p.val
    return out


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.7])
def test_edges_are_the_cosines_at_or_above_the_threshold(threshold):
    v = units(150)
    graph = label_graph(names(150), v, threshold=threshold)
    cosine = v.astype(np.float64) @ v.T.astype(np.float64)
    assert np.abs(cosine - threshold).min() > 1e-6, "an entry on the threshold would make this a test of rounding"
    p, q = np.nonzero(np.triu(cosine >= threshold, 1))
    np.testing.assert_array_equal(graph.source, p)
    np.testing.assert_array_equal(graph.target, q)
    np.testing.assert_allclose(graph.weight, cosine[p, q], atol=1e-6)
    np.testing.assert_allclose(graph.diagonal, 1, atol=1e-6)
    np.testing.assert_array_equal(graph.degree, (cosine >= threshold).sum(axis=1) - 1)
    assert not graph.automatic


@pytest.mark.parametrize("count", [1, 2, 11, 3000])
@pytest.mark.parametrize("degree", [0.0, 1.0, 4.0])
def test_the_automatic_threshold_has_the_degree_that_was_asked_for(count, degree):
    v = units(count, 32)
    graph = label_graph(names(count), v, threshold="auto", degree=degree)
    mean = graph.facts()["mean_degree"]
    possible = min(degree, count - 1)
    assert mean <= possible
    cosine = (v @ v.T)[np.triu_indices(count, 1)]
    # What rounding T up to four decimals may leave out, and the negative cosines, which never are edges.
    positive = 2 * (cosine > 0).sum() / count
    lost = 2 * ((cosine >= graph.threshold - 1.01e-4) & (cosine < graph.threshold)).sum() / count
    assert mean >= min(possible, positive) - lost - 2 / count
    assert 0 <= graph.threshold <= 1
    # The number printed gives the same graph.
    again = label_graph(names(count), v, threshold=graph.threshold)
    np.testing.assert_array_equal(graph.source, again.source)
    np.testing.assert_array_equal(graph.weight, again.weight)


@pytest.mark.parametrize("tile", [8, 32, 64])
def test_the_tile_changes_no_edge(tile):
    v = units(150)
    for a, b in zip(cosine_edges(v, 0.3), cosine_edges(v, 0.3, tile=tile), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    whole, tiled = densest_edges(v, 6.0), densest_edges(v, 6.0, tile=tile)
    assert whole[0] == tiled[0]
    np.testing.assert_array_equal(whole[1], tiled[1])
    np.testing.assert_array_equal(whole[2], tiled[2])


def test_the_cut_that_rises_while_tiles_pass_loses_nothing(monkeypatch):
    """With many equal cosines and a small memory for edges: the result is that of all edges."""
    v = np.repeat(units(40, 8), 10, axis=0)
    expected = densest_edges(v, 12.0)
    calls = []
    largest = module._largest
    monkeypatch.setattr(module, "_largest", lambda edges, count: calls.append(len(edges)) or largest(edges, count))
    source = inspect.getsource(densest_edges).replace("1_000_000", "10")
    scope = dict(vars(module))
    exec(source, scope)
    found = scope["densest_edges"](v, 12.0, tile=16)
    assert len(calls) > 3
    assert found[0] == expected[0]
    for a, b in zip(found[1:3], expected[1:3], strict=True):
        np.testing.assert_array_equal(a, b)


def test_threshold_zero_and_one():
    v = np.eye(4, dtype=np.float32)
    v = np.concatenate([v, v[:1], -v[1:2]])
    full = label_graph(names(6), v, threshold=0.0)
    assert (dense(full) >= 0).all()
    p = dense_p(full.propagation(), 6)
    np.testing.assert_allclose(p.sum(axis=0), 1)
    assert np.count_nonzero(p) == 6 + 2, "a cosine of exactly 0 is no edge"
    equal = label_graph(names(6), v, threshold=1.0)
    assert list(zip(equal.source.tolist(), equal.target.tolist(), strict=True)) == [(0, 4)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.__setitem__((3, 1), np.nan), "label embedding 3 .*nan"),
        (lambda v: v.__setitem__(3, 0), "label embedding 3 has squared length 0"),
        (lambda v: v.__setitem__((3, 1), np.inf), "label embedding 3 .*inf"),
        (lambda v: v.__imul__(2), "label embedding 0 .*10 of 10"),
    ],
)
def test_what_is_no_direction_is_refused(change, message):
    v = units(10)
    change(v)
    for threshold in ("auto", 0.5):
        with pytest.raises(UserError, match=message):
            label_graph(names(10), v, threshold=threshold)


def test_arguments_are_checked_by_name():
    v = units(3)
    with pytest.raises(UserError, match="3 labels, but 2"):
        label_graph(names(3), v[:2])
    with pytest.raises(UserError, match="twice"):
        label_graph(("a", "b", "a"), v)
    for bad in (-0.1, 1.1, float("nan"), "many"):
        with pytest.raises(UserError, match=r"graph\.threshold="):
            label_graph(names(3), v, threshold=bad)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"graph\.degree="):
            label_graph(names(3), v, degree=bad)
        with pytest.raises(UserError, match=r"graph\.propagation="):
            label_graph(names(3), v).propagation(bad)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(count=st.integers(1, 20), seed=st.integers(0, 1000), threshold=st.floats(0, 1), alpha=st.floats(0, 5))
def test_columns_of_the_propagation_sum_to_one(count, seed, threshold, alpha):
    graph = label_graph(names(count), units(20, 4, seed)[:count], threshold=threshold)
    p = graph.propagation(alpha)
    w = dense(graph)
    a = np.diag(np.diag(w)) + alpha * (w - np.diag(np.diag(w)))
    got = dense_p(p, count)
    np.testing.assert_allclose(got, a / a.sum(axis=0), rtol=1e-12, atol=0)
    np.testing.assert_allclose(got.sum(axis=0), 1, rtol=1e-12)
    assert (p.val > 0).all()
    assert all((np.diff(p.idx[a:b]) > 0).all() for a, b in zip(p.ptr[:-1], p.ptr[1:], strict=True))
    if alpha == 0:
        np.testing.assert_array_equal(got, np.eye(count))


def test_alpha_zero_is_the_identity():
    p = label_graph(names(30), units(30, 3), threshold=0.1).propagation(0.0)
    np.testing.assert_array_equal(p.idx, np.arange(30))
    np.testing.assert_array_equal(p.val, np.ones(30))


def test_a_nearly_empty_and_a_nearly_full_graph_are_told():
    v = units(40, 64)
    assert "isolates" in label_graph(names(40), v, threshold=0.95).warnings()[0]
    near = np.abs(units(40, 4)) + 1
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    assert "nearly full" in label_graph(names(40), near.astype(np.float32), threshold=0.1).warnings()[0]
    assert label_graph(names(40), units(40, 3), degree=4.0).warnings() == []


ODD = (
    "",
    " ",
    "tab\t",
    "line\nbreak",
    "é",
    "e\u0301",
    "日本語",
    "😀",
    "\u202eright",
    "\ud800 alone",
    "a" * 5000,
    '"[1]',
)


def test_a_saved_graph_comes_back_without_pickle(tmp_path):
    graph = label_graph(ODD, units(len(ODD), 4), threshold=0.2)
    graph.save(tmp_path / "graph.npz")
    with np.load(tmp_path / "graph.npz", allow_pickle=False) as stored:
        assert all(stored[key].dtype.kind != "O" for key in stored.files)
    back = LabelGraph.load(tmp_path / "graph.npz")
    assert back.labels == ODD
    assert back.digest() == graph.digest()
    assert (back.threshold, back.automatic) == (graph.threshold, graph.automatic)
    np.testing.assert_array_equal(back.weight, graph.weight)


def test_the_digest_sees_every_part():
    graph = label_graph(names(12), units(12, 4), threshold=0.2)
    other = label_graph((*names(11), "x"), units(12, 4), threshold=0.2)
    higher = label_graph(names(12), units(12, 4), threshold=0.3)
    assert len({graph.digest(), other.digest(), higher.digest()}) == 3


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "text", "cut", "flipped", "other arrays", "short", "format", "folder"]
)
def test_a_damaged_file_is_a_user_error(tmp_path, damage):
    path = tmp_path / "graph.npz"
    graph = label_graph(names(50), units(50, 4), threshold=0.2)
    graph.save(path)
    data = path.read_bytes()
    with np.load(path) as z:
        arrays = dict(z)
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not a graph")
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        at = data.index(graph.weight.tobytes()) + 5
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    elif damage == "other arrays":
        np.savez(path, embeddings=np.zeros(3))
    elif damage == "short":
        np.savez(path, **(arrays | {"diagonal": arrays["diagonal"][:9]}))
    elif damage == "format":
        np.savez(path, **(arrays | {"format": np.int64(99)}))
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(UserError, match="graph"):
        LabelGraph.load(path)


def test_restricting_is_building_from_those_labels():
    v = units(60, 8)
    graph = label_graph(names(60), v, threshold=0.3)
    some = np.sort(np.random.default_rng(0).permutation(60)[:25])
    part = graph.restrict(tuple(names(60)[i] for i in some))
    built = label_graph(tuple(names(60)[i] for i in some), v[some], threshold=0.3)
    for field in ("labels", "source", "target"):
        np.testing.assert_array_equal(getattr(part, field), getattr(built, field))
    np.testing.assert_allclose(part.weight, built.weight, atol=1e-6)
    assert graph.restrict(graph.labels) is graph
    with pytest.raises(UserError, match="lacks 1 of the pool's 2 labels"):
        graph.restrict(("00001", "unknown"))


@pytest.mark.slow
def test_twenty_thousand_labels_need_no_square_of_memory():
    """A dense float32 [L, L] would be 1.6 GB; a tile and the edges are under 200 MB. About 10 s on two cores."""
    count = 20_000
    v = units(count, 64)
    tracemalloc.start()
    graph = label_graph(names(count), v, degree=4.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 3.5 < graph.facts()["mean_degree"] <= 4
    assert peak < 400e6, peak
