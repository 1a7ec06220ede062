"""What the compiled engine is made of: it lowers for every backend, finds candidates by TopK, and compiles once."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_cases import FLOAT32, SHAPES, Size, assert_same_bits, fill, naive, run

import mig_jax
from mig_jax.engine import make_problem, pool_mesh
from mig_jax.engine.full_pass import BLOCK, full_pass
from mig_jax.engine.greedy import _alive, _place
from mig_jax.engine.inner_pass import inner_pass
from mig_jax.engine.kernels import KERNELS, State
from mig_jax.gain import make_phi
from mig_jax.gain.gain import label_value

ROWS, C1, C2, SEGMENT = 6_016, 640, 48, 16
ROOT = Path(mig_jax.__file__).parent


def arguments(kind: str, shards: int, phi=None):
    """(of full_pass, of inner_pass) on a pool with two buckets."""
    shape = SHAPES["web"]._replace(tags=(1, 2, 9, 3) * (ROWS // 4), zero=())
    drawn = fill(shape, 0, "real", phi or make_phi(), 1.0, same_labels=True)
    problem = make_problem(drawn.encoded, drawn.graph.propagation(), drawn.phi, kind, shards)
    mesh = pool_mesh(jax.devices()[:shards])
    state = jax.jit(KERNELS[kind].init, static_argnums=2)(problem.labels, problem.phi, problem.num_labels)
    buckets, where = _place(problem, mesh)
    plain = jax.tree.map(np.asarray, state)
    full = (problem.phi, plain, buckets, where, _alive(problem, mesh, []), np.full(C1, -1, np.int32))
    static = {"kind": kind, "c1": C1, "mesh": mesh}
    return problem, state, (full, static)


def inner_arguments(problem, state, found):
    return (problem.labels, problem.phi, state, found, jnp.int32(5)), {"kind": problem.kind, "c2": C2, "size": SEGMENT}


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.parametrize("kind", KERNELS)
def test_every_entry_lowers_for_every_backend(kind, shards, platform):
    problem, state, (full, static) = arguments(kind, shards)
    lowered = full_pass.trace(*full, **static).lower(lowering_platforms=(platform,))
    assert "chlo.top_k" in lowered.as_text() or "top_k" in lowered.as_text().lower()
    if shards == 1:
        found = jax.eval_shape(lambda *a: full_pass(*a, **static), *full)[1]
        args, more = inner_arguments(problem, state, found)
        assert inner_pass.trace(*args, **more).lower(lowering_platforms=(platform,)).as_text()


def sorted_sizes(text: str) -> set[int]:
    """Lengths of the arrays that a compiled program sorts."""
    return {
        int(size)
        for line in text.splitlines()
        if re.search(r"\bsort\(", line)
        for size in re.findall(r"\[(\d+)", line.split("sort(")[0])
    }


@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.parametrize("kind", KERNELS)
def test_the_full_pass_finds_its_candidates_by_top_k(kind, shards):
    """Sorting all N gains takes nine times the time; the C1 candidates are sorted by row, which is meant to be."""
    _, _, (full, static) = arguments(kind, shards)
    text = full_pass.lower(*full, **static).compile().as_text()
    assert re.search(r'custom_call_target="TopK"|topk\(', text), "no TopK"
    assert max(sorted_sizes(text), default=0) <= C1 < ROWS // shards
    gathers = [line for line in text.splitlines() if re.search(r"\ball-(gather|reduce)(-start)?\(", line)]
    assert not any("all-reduce" in line for line in gathers), "a sum over devices would depend on their number"
    assert bool(gathers) == (shards > 1)


@pytest.mark.parametrize("kind", KERNELS)
def test_the_inner_pass_neither_sorts_the_candidates_nor_communicates(kind):
    problem, state, (full, static) = arguments(kind, 1)
    found = full_pass(*full, **static)[1]
    args, more = inner_arguments(problem, state, found)
    text = inner_pass.lower(*args, **more).compile().as_text()
    assert re.search(r'custom_call_target="TopK"|topk\(', text), "no TopK"
    assert max(sorted_sizes(text), default=0) <= C2 < C1
    assert not re.search(r"\ball-(gather|reduce)|collective-permute|all-to-all", text)


def test_exact_gains_in_overlapping_blocks_are_those_of_one_block(monkeypatch):
    """A pool of 1.2 blocks, all in one bucket: the last block overlaps the first."""
    rows = int(1.2 * BLOCK)
    shape = SHAPES["full"]._replace(tags=(1, 2, 3) * (rows // 3), zero=())
    drawn = fill(shape, 0, "real", make_phi(), 1.0, same_labels=True)
    problem = make_problem(drawn.encoded, drawn.graph.propagation(), drawn.phi, "exact")
    assert [bucket.labels.shape[1] > BLOCK for bucket in problem.buckets] == [True]
    blocks = run(drawn, 60, "exact", Size(1, C1, C2, SEGMENT))
    monkeypatch.setattr("mig_jax.engine.full_pass.BLOCK", rows)
    jax.clear_caches()
    whole = run(drawn, 60, "exact", Size(1, C1, C2, SEGMENT))
    jax.clear_caches()
    assert_same_bits(blocks, whole)
    best = naive(drawn, "exact").gains()
    assert blocks.points[0] in np.flatnonzero(best > best.max() * (1 - FLOAT32))


@pytest.mark.parametrize("kind", KERNELS)
def test_other_numbers_on_equal_shapes_do_not_compile_again(kind):
    size = Size(2, 11, 5, 6)

    def once(seed, n, exponent, alpha, style):
        phi = make_phi(exponent=exponent)
        return run(fill(SHAPES["full"], seed, style, phi, alpha, same_labels=True), n, kind, size)

    once(0, 9, 0.8, 1.0, "real")
    traces = full_pass._cache_size(), inner_pass._cache_size()
    once(1, 14, 0.8, 1.0, "ties")
    once(2, 20, 0.3, 0.4, "wide")
    assert (full_pass._cache_size(), inner_pass._cache_size()) == traces


@pytest.mark.parametrize("name", ["web", "full"])
def test_the_state_that_picks_leave_is_the_one_computed_anew(name):
    """After every segment slope = phi'(x) and y = P slope in every entry, to the last bit: nothing is left stale, and
    the update of a few labels computes what the start computes for all."""
    drawn = fill(SHAPES[name], 12, "real", make_phi(), 1.0, same_labels=False)
    labels = make_problem(drawn.encoded, drawn.graph.propagation(), drawn.phi).labels

    @jax.jit
    def anew(phi, x):
        slope = phi.slope(x)
        y = jnp.zeros_like(x)
        for hop in labels.hops:
            value = jax.vmap(label_value, in_axes=(None, 1, 1))(slope, jnp.asarray(hop.idx), jnp.asarray(hop.val))
            y = y.at[hop.label].set(value)
        return slope, y

    snapshots = []
    run(drawn, 20, "first_order", Size(1, 64, 16, 2), on_snapshot=snapshots.append)
    assert len(snapshots) >= 10
    for snapshot in snapshots:
        x, slope, y = State(*snapshot.state)
        expected = anew(drawn.phi, x)
        np.testing.assert_array_equal(slope[:-1], np.asarray(expected[0])[:-1])
        np.testing.assert_array_equal(y[:-1], np.asarray(expected[1])[:-1])
        assert y[-1] == 0, "padding must gain nothing"
        picked = [
            drawn.data.labels[d] for d in np.flatnonzero(drawn.encoded.label_count * drawn.encoded.score)[snapshot.rows]
        ]
        score = drawn.data.score[np.flatnonzero(drawn.encoded.label_count * drawn.encoded.score)[snapshot.rows]]
        mass = sum(s * drawn.data.matrix(1.0)[list(row)].sum(axis=0) for row, s in zip(picked, score, strict=True))
        np.testing.assert_allclose(x[:-1], mass, rtol=1e-5, atol=1e-6)


ORDER = ("pool", "encode", "graph", "gain", "engine", "samplers", "export", "report")
FREE = {"runtime", "errors", "config"}


def imported(path: Path) -> set[str]:
    """The parts of mig_jax that a file names in any import, also inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            own = node.module == "mig_jax"
            modules = [f"mig_jax.{alias.name}" if own else node.module or "" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in modules if name.startswith("mig_jax.")}
    return found


@pytest.mark.parametrize("part", [*ORDER, "models", "runtime"])
def test_a_module_imports_only_from_its_left(part):
    """The data flows one way: pool, encode, graph, gain, engine, samplers, export, report. A file that is nobody's part
    (the command line, the API) stands at the edge: it may import all, and none of these may import it."""
    allowed = FREE | {part} | (set(ORDER[: ORDER.index(part)]) if part in ORDER else set())
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(ROOT)): bad for path in files if (bad := imported(path) - allowed)}
    assert not wrong


def test_errors_import_nothing_and_the_free_modules_nothing_of_the_parts():
    assert imported(ROOT / "errors.py") == set()
    assert imported(ROOT / "config.py") <= {"errors"}
