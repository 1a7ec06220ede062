"""mig-jax plan: what it says of a pool, of one that does not exist, and of what cannot be planned."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli_pools
import jax
import numpy as np
import pytest
from mig_command import Server

from mig_jax.commands.plan import engine as engines
from mig_jax.commands.plan.engine import Shape, fitted, measure_engine, rehearse, synthetic
from mig_jax.commands.plan.memory import host_limit
from mig_jax.commands.plan.predict import Stage, engine_seconds, queues_of
from mig_jax.commands.plan.run import _verdict
from mig_jax.engine import greedy, make_problem, pool_mesh
from mig_jax.objective import make_phi

STAGES = ["start", "parse", "encode", "graph", "layout", "compile", "full passes", "heap", "judge", "write"]
ROWS = 3_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a pool and its graph; plans leave it as it is."""
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


def test_a_pool_is_planned_and_the_measurements_are_kept(server: Server, place: Path, own_cache: Path) -> None:
    before = sorted(path.name for path in place.iterdir())
    text, told = _plan(server, place, own_cache, "pool.jsonl")
    assert [stage["name"] for stage in told["stages"]] == STAGES
    for stage in STAGES:
        assert f"\n{stage} " in text
    assert (told["sizes"]["rows"], told["n"]) == (ROWS, [300])
    rows = [json.loads(line) for line in (place / "pool.jsonl").read_text().splitlines()]
    labels = {tag for row in rows for tag in row["annotation"]["instag"]["content"]}
    assert told["sizes"]["labels"] == len(labels)
    assert told["sizes"]["bytes"] == (place / "pool.jsonl").stat().st_size
    cold, cached = (sum(stage[key] for stage in told["stages"]) for key in ("cold", "cached"))
    assert cached < cold and told["total"] == told["total"] | {"cold": cold, "cached": cached}
    assert told["total"]["peak"] == max(stage["peak"] for stage in told["stages"]) > 5e7
    assert told["fits"] is True and f"host:    {told['verdict']}" in text
    assert "measured now: pool, engine, judge, rehearsal" in text
    # Again: nothing is measured, and nothing but the start of the process is another number.
    text, again = _plan(server, place, own_cache, "pool.jsonl")
    assert "measured before" in text
    assert again["counts"] == told["counts"]
    assert [s["cold"] for s in again["stages"][1:]] == [s["cold"] for s in told["stages"][1:]]
    # A run has read the pool since: its rows are known.
    assert server.run(["select", "pool.jsonl", "graph.path=graph.npz", "n=5", "out=run"], place, own_cache).code == 0
    shutil.rmtree(place / "run")
    _, known = _plan(server, place, own_cache, "pool.jsonl")
    assert known["sizes"]["cached"] and known["sizes"]["how"].startswith("exact rows")
    assert known["sizes"]["rows"] == ROWS
    assert sorted(path.name for path in place.iterdir()) == before


def test_a_pool_that_does_not_exist(server: Server, place: Path, own_cache: Path) -> None:
    keys = ["plan.rows=4000", "plan.labels=150", "plan.tags=3", "plan.bytes=1500"]
    text, told = _plan(server, place, own_cache, *keys)
    assert told["sizes"] == told["sizes"] | {"rows": 4000, "bytes": 6_000_000, "labels": 150, "tags": 3.0}
    assert text.startswith("4,000 rows (0.01 GB), 150 labels, 3.0 a row")


# Arguments of plan, and what the message must hold, in this order.
CASES = [
    ("plan.rows=0", ["plan.rows=0: must be a whole number >= 1 or null"]),
    ("plan.rows=many", ["plan.rows=many: must be a whole number >= 1 or null"]),
    ("plan.tags=0.5", ["plan.tags=0.5: must be a number >= 1 or null"]),
    ("plan.measure=maybe", ["plan.measure=maybe: must be true or false"]),
    ("plan.out=plan.txt", ["plan.out=plan.txt: must be a file that ends in .json"]),
    ("plan.out=gone/plan.json", ["plan.out=gone/plan.json: there is no folder gone"]),
    ("plan.rosw=5", ["plan.rosw: no such key"]),
    ("plan.rows=100 n=101", ["n=101: the plan is of 100 usable rows"]),
    ("plan.rows=100 n=[]", ["n=[]: must be a whole number >= 1"]),
    ("nofile.jsonl", ["nofile.jsonl: no such file"]),
    ("note.txt", ["note.txt: the suffix is not one that is known"]),
    ("hf:org/name", ["hf:org/name: a plan reads no data set of the hub", "plan.rows="]),
    ("pool.jsonl graph.path=gone.npz", ["gone.npz: no such label graph"]),
    ("pool.jsonl sampler=mgi", ["sampler=mgi: must be one of car, ", "mig, pool, ", "; did you mean mig?"]),
    ("pool.jsonl mesh.rows=3", ["mesh.rows=3: must be all, or at most 1"]),
    ("pool.jsonl mesh.processes=2", ["a plan measures one process"]),
    ("pool.jsonl n=1,2 -m", ["mig-jax plan: plans one selection"]),
]


@pytest.mark.parametrize(("command", "told"), CASES, ids=[case[0] for case in CASES])
def test_a_mistake_is_told_in_one_line(
    server: Server, place: Path, own_cache: Path, command: str, told: list[str]
) -> None:
    names = sorted(path.name for path in place.iterdir())
    error = server.run(["plan", *command.split(" ")], place, own_cache).error
    at = 0
    for part in told:
        assert part in error[at:], (part, error)
        at = error.index(part, at) + len(part)
    assert sorted(path.name for path in place.iterdir()) == names


def test_its_keys_are_told(server: Server, place: Path) -> None:
    done = server.run(["plan", "--help"], place)
    assert done.code == 0
    for key in ("rows", "labels", "tags", "bytes", "measure", "out"):
        assert f"\n  {key}: " in done.out


@pytest.mark.parametrize("gain", ["first_order", "exact"])
def test_a_rehearsal_counts_what_the_whole_run_does(gain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Self-similarity: a fourth and an eighth of the pool say what all of it takes. 25 %: the drift is drawn on."""
    monkeypatch.setattr(engines, "REHEARSED", 6_000)
    monkeypatch.setattr(engines, "FEWEST_LABELS", 60)
    shape, picks, mesh = Shape(24_000, 480, 4.0, 4.0, gain, 2_048), 3_000, pool_mesh(jax.devices()[:1])
    told = rehearse(shape, picks, make_phi(), mesh)
    assert told["scale"] == 4
    encoded, p = synthetic(shape)
    met = greedy(make_problem(encoded, p, make_phi(), gain, 1), picks, mesh, shortlist_size=shape.c1).counts
    assert told["passes"] == pytest.approx(met["full_passes"], rel=0.25, abs=1)
    assert told["looks"] == pytest.approx(met["looks"], rel=0.25)


def test_the_bytes_are_those_of_the_arrays() -> None:
    shape, mesh = Shape(8_000, 300, 4.0, 4.0, "first_order", 1_024), pool_mesh(jax.devices()[:1])
    told = measure_engine(shape, make_phi(), mesh, "auto")
    problem = make_problem(*synthetic(shape), make_phi(), "first_order", 1)
    assert queues_of(told, shape.rows) == pytest.approx(problem.groups.many)
    held = sum(bucket.labels.nbytes for bucket in problem.buckets) + problem.where.nbytes
    assert told["device_bytes"] * problem.groups.many == pytest.approx(held)
    assert told["layout_bytes"] * shape.rows > held  # numpy held at least what came out of it
    more = engine_seconds(told, {"passes": 20, "looks": 2e5}, 8_000, 800, 1_024)
    less = engine_seconds(told, {"passes": 10, "looks": 1e5}, 8_000, 800, 1_024)
    assert sum(more) > sum(less) > 0


def test_factors_are_found_again() -> None:
    rng = np.random.default_rng(0)
    lines = rng.uniform(1, 100, (12, 4)) * [1, 1e5, 1e-3, 10]
    true = np.array([0.1, 2e-6, 0.0, 0.03])
    assert fitted(lines, lines @ true) == pytest.approx(true.tolist(), rel=1e-6, abs=1e-12)


def test_the_verdict() -> None:
    found = [Stage("layout", 1, 1, 10**10, ""), Stage("judge", 1, 1, 2 * 10**9, "")]
    fits, said = _verdict(10**10, (16 * 10**9, "the machine's memory"), 0, 0, found, "exact", 1)
    assert fits is True and said == "fits: 10.00 GB (layout) of 16.0 GB, the machine's memory"
    fits, said = _verdict(10**10, (8 * 10**9, "the limit"), 0, 0, found, "exact", 1)
    assert fits is False and "needs 10.00 GB (layout) of 8.0 GB" in said and "use sampler.gain=first_order" in said
    fits, said = _verdict(10**10, (16 * 10**9, "x"), 9e9, 8 * 10**9, found, "exact", 2)
    assert fits is False and said.endswith("use at least 3 devices")
    assert _verdict(10**10, (0, "unknown"), 0, 0, found, "exact", 1)[0] is None
    assert host_limit()[0] > 1e8
