"""mig-jax plan: a pool, a pool that does not exist, and what cannot be planned."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cli_pools
import jax
import numpy as np
import pytest
from mig_command import Server

from experiments.synthetic import synthetic_pool
from mig_jax.commands.plan.memory import host_limit, memory_of
from mig_jax.commands.plan.run import Stage, verdict_of
from mig_jax.commands.plan.sizes import Sizes
from mig_jax.commands.select.solve import solve
from mig_jax.encode import encode
from mig_jax.engine import make_problem, pool_mesh
from mig_jax.objective import make_phi
from mig_jax.pool import load_pool
from mig_jax.samplers import Order, Sampler, SamplingTask
from mig_jax.samplers.mig import MIG

STAGES = ["start", "read pool", "encode", "label graph", "compile", "select", "judge", "write"]
ROWS = 3_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a pool and its graph; plans do not change it."""
    folder = tmp_path_factory.mktemp("plan")
    cli_pools.large(folder, ROWS, 200)
    (folder / "note.txt").write_text("a note")
    yield folder


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan_cache")


def _plan(server: Server, place: Path, cache: Path, *more: str) -> tuple[str, dict[str, Any]]:
    out = cache / "plan.json"
    arguments = ["plan", "graph.path=graph.npz", "n=300", f"plan.out={out}", *more]
    done = server.run(arguments, place, cache)
    assert done.code == 0, done
    return done.out, json.loads(out.read_text())


def test_a_pool_is_planned_and_the_constants_are_stored(server: Server, place: Path, own_cache: Path) -> None:
    before = sorted(path.name for path in place.iterdir())
    text, plan = _plan(server, place, own_cache, "pool.jsonl")
    assert [stage["name"] for stage in plan["stages"]] == STAGES
    for stage in STAGES:
        assert f"\n{stage} " in text
    assert (plan["sizes"]["rows"], plan["n"]) == (ROWS, [300])
    rows = [json.loads(line) for line in (place / "pool.jsonl").read_text().splitlines()]
    labels = {tag for row in rows for tag in row["annotation"]["instag"]["content"]}
    assert plan["sizes"]["labels"] == len(labels)
    assert plan["sizes"]["bytes"] == (place / "pool.jsonl").stat().st_size
    cold, cached = (sum(stage[key] for stage in plan["stages"]) for key in ("cold", "cached"))
    assert cached < cold and plan["total"] == plan["total"] | {"cold": cold, "cached": cached}
    assert plan["total"]["peak"] == max(stage["peak"] for stage in plan["stages"]) > 5e7
    assert plan["fits"] is True and f"host:    {plan['verdict']}" in text
    # Again: nothing is measured; a larger budget takes the same constants.
    stored = {path: path.read_bytes() for path in (own_cache / "plan").iterdir()}
    assert stored
    _, again = _plan(server, place, own_cache, "pool.jsonl", "n=600")
    assert again["rates"] == plan["rates"]
    assert {path: path.read_bytes() for path in (own_cache / "plan").iterdir()} == stored
    assert sorted(path.name for path in place.iterdir()) == before


def test_a_pool_that_does_not_exist(server: Server, place: Path, own_cache: Path) -> None:
    keys = ["plan.rows=4000", "plan.labels=150", "plan.tags=3", "plan.bytes=1500"]
    text, plan = _plan(server, place, own_cache, *keys)
    assert plan["sizes"] == plan["sizes"] | {"rows": 4000, "bytes": 6_000_000, "labels": 150, "tags": 3.0}
    assert text.startswith("4,000 rows (0.01 GB), 150 labels, 3.0 a row")


# Arguments of plan, and the parts of the message, in this order.
CASES = [
    ("plan.rows=0", ["plan.rows=0: must be a whole number >= 1 or null"]),
    ("plan.rows=many", ["plan.rows=many: must be a whole number >= 1 or null"]),
    ("plan.tags=0.5", ["plan.tags=0.5: must be a number >= 1 or null"]),
    ("plan.measure=maybe", ["plan.measure=maybe: must be true or false"]),
    ("plan.out=plan.txt", ["plan.out=plan.txt: must be a file that ends in .json"]),
    ("plan.out=gone/plan.json", ["plan.out=gone/plan.json: there is no folder gone"]),
    ("plan.rosw=5", ["plan.rosw: no such key"]),
    ("plan.rows=100 n=101", ["n=101: the plan is of 100 usable rows"]),
    ("plan.rows=100 n=[]", ["n=[]: must be a whole number >= 1, or a list"]),
    ("nofile.jsonl", ["nofile.jsonl: no such file"]),
    ("note.txt", ["note.txt: unknown suffix; known"]),
    ("hf:org/name", ["hf:org/name: a plan does not download data sets", "plan.rows="]),
    ("pool.jsonl graph.path=gone.npz", ["gone.npz: no such label graph"]),
    ("pool.jsonl sampler=mgi", ["sampler=mgi: must be one of car, ", "mig, pool, ", "; did you mean mig?"]),
    ("pool.jsonl mesh.rows=3", ["mesh.rows=3: must be all, or at most 1"]),
    ("pool.jsonl mesh.processes=2", ["mesh.coordinator: a plan is made by one process"]),
    ("pool.jsonl n=1,2 -m", ["mig-jax plan: plans one selection"]),
]


@pytest.mark.parametrize(("command", "parts"), CASES, ids=[case[0] for case in CASES])
def test_a_mistake_is_one_line(server: Server, place: Path, own_cache: Path, command: str, parts: list[str]) -> None:
    names = sorted(path.name for path in place.iterdir())
    error = server.run(["plan", *command.split(" ")], place, own_cache).error
    at = 0
    for part in parts:
        assert part in error[at:], (part, error)
        at = error.index(part, at) + len(part)
    assert sorted(path.name for path in place.iterdir()) == names


def test_help_lists_its_keys(server: Server, place: Path) -> None:
    done = server.run(["plan", "--help"], place)
    assert done.code == 0
    for key in ("rows", "labels", "tags", "bytes", "measure", "out"):
        assert f"\n  {key}: " in done.out


@pytest.mark.parametrize("gain", ["first_order", "exact"])
@pytest.mark.parametrize("degree", [4.0, 12.0])
def test_the_bytes_are_those_of_the_arrays(gain: str, degree: float) -> None:
    """Queues, buckets and the temporary arrays of the stages, beside what numpy held: within 30 %."""
    encoded, graph = synthetic_pool(60_000, 1_000, degree=degree, seed=3)
    p, phi, picks = graph.propagation(), make_phi(), 3_000
    distinct = len({tuple(encoded.label_idx[a:b]) for a, b in pairwise(encoded.label_ptr.tolist())}) / len(encoded)
    tags = len(encoded.label_idx) / len(encoded)
    sizes = Sizes(
        len(encoded), len(encoded), 0, len(encoded.labels), tags, distinct, 0.0, 0, "", encoded.label_count[:5_000]
    )
    memory = memory_of(sizes, gain, graph.facts()["mean_degree"], picks, 2_048, 1, 0.0, 0.0)
    live = memory.stages["graph"]
    problem, layout = traced(lambda: make_problem(encoded, p, phi, gain, 1))
    arrays = [*problem.groups, *jax.tree.leaves((problem.buckets, problem.column, problem.reach))]
    assert memory.parts["queues and buckets"] == approx(sum(a.nbytes for a in arrays if a is not None))
    assert memory.stages["layout"] - live == approx(layout)
    assert memory.queues == approx(problem.groups.num_groups)
    points = np.random.default_rng(0).permutation(len(encoded))[:picks]
    known = Sampler(lambda task, n: Order(points, np.zeros(n), "", {}), by_labels=True)
    task = SamplingTask(
        encoded, p, phi, MIG.options(name="mig", gain=gain, compat=False), mesh=pool_mesh(jax.devices()[:1])
    )
    _, judge = traced(lambda: solve(known, task, (picks,), 50))
    assert memory.stages["judge"] - live == approx(judge)


def test_encoding_takes_the_bytes_that_it_is_said_to(tmp_path: Path) -> None:
    path, _ = cli_pools.large(tmp_path, 20_000, 400)
    pool = load_pool(path)
    encoded, encoding = traced(lambda: encode(pool))
    sizes = Sizes(len(pool), len(encoded), 0, 400, len(encoded.label_idx) / len(pool), 1.0, 0.0, 0, "", np.ones(1))
    memory = memory_of(sizes, "first_order", 0.0, 1, 1, 1, 0.0, 0.0)
    assert memory.stages["encode"] == approx(encoding)


def traced(work: Callable[[], Any]) -> tuple[Any, int]:
    """(the result, the most bytes that numpy held for it at once)."""
    work()  # what is imported or compiled once does not count
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def approx(value: float) -> Any:
    return pytest.approx(value, rel=0.3)


def test_the_verdict() -> None:
    stages = [Stage("select", 1, 1, 10**10, ""), Stage("judge", 1, 1, 2 * 10**9, "")]
    fits, verdict = verdict_of(stages, (16 * 10**9, "the machine's memory"), 0, 0, "exact", 1)
    assert fits is True and verdict == "fits: 10.00 GB (select) of 16.0 GB, the machine's memory"
    fits, verdict = verdict_of(stages, (8 * 10**9, "the limit"), 0, 0, "exact", 1)
    assert (
        fits is False and "needs 10.00 GB (select) of 8.0 GB" in verdict and "use sampler.gain=first_order" in verdict
    )
    fits, verdict = verdict_of(stages, (16 * 10**9, "x"), 9e9, 8 * 10**9, "exact", 2)
    assert fits is False and verdict.endswith("use at least 3 devices")
    assert verdict_of(stages, (0, "unknown"), 0, 0, "exact", 1)[0] is None
    assert host_limit()[0] > 1e8


def test_a_pool_beyond_the_memory_is_refused(server: Server, place: Path, own_cache: Path) -> None:
    text, plan = _plan(server, place, own_cache, "plan.rows=30_000_000_000")
    assert plan["fits"] is False and plan["total"]["peak"] > 1e12
    assert "does not fit: needs " in text
