"""One run on 1, 2, 4 and 8 devices, and as two processes: the same bytes."""

import socket
import time
from pathlib import Path

import cli_pools
import numpy as np
import pytest
from mig_command import Done, Server

pytestmark = pytest.mark.slow

RESULT = ("selection.jsonl", "trace.parquet", "runners_up.parquet", "pool_stats.json", "dataset_info.json")
SETTINGS = ["n=600", "engine.shortlist=128", "engine.picks_per_call=64"]


def devices(count: int) -> dict[str, str]:
    """The environment that simulates them."""
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def result(out: Path) -> dict[str, bytes]:
    """What must be the same."""
    return {name: (out / name).read_bytes() for name in RESULT}


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Without ``out``."""
    pool, graph = cli_pools.large(tmp_path_factory.mktemp("large"), rows=3_001)
    return ["select", str(pool), f"graph.path={graph}", *SETTINGS]


@pytest.fixture(scope="module")
def on_one(server: Server, command: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The result of one device."""
    folder = tmp_path_factory.mktemp("one")
    assert server.run([*command, "out=run"], folder, **devices(1)).code == 0
    return result(folder / "run")


@pytest.mark.parametrize("count", [2, 4, 8])
def test_devices(server: Server, command: list[str], on_one: dict, tmp_path: Path, count: int) -> None:
    done = server.run([*command, "out=run"], tmp_path, **devices(count))
    assert (done.code, done.err) == (0, ""), done
    assert result(tmp_path / "run") == on_one


def test_some_of_the_devices(server: Server, command: list[str], on_one: dict, tmp_path: Path) -> None:
    done = server.run([*command, "mesh.rows=3", "out=run"], tmp_path, **devices(8))
    assert (done.code, done.err) == (0, ""), done
    assert result(tmp_path / "run") == on_one


def two(server: Server, arguments: list[str], cwd: Path, limit: float = 120) -> tuple[list[Done], float]:
    """Two processes of four devices each; what they gave, and the seconds until both had ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mesh = [f"mesh.coordinator=127.0.0.1:{port}", "mesh.processes=2"]
    start = time.monotonic()
    jobs = [server.start([*arguments, *mesh, f"mesh.process={i}"], cwd, **devices(4)) for i in (0, 1)]
    done = [job.wait(limit) for job in jobs]
    return done, time.monotonic() - start


def test_two_processes(server: Server, command: list[str], on_one: dict, tmp_path: Path) -> None:
    (main, other), _ = two(server, [*command, "out=new/run"], tmp_path)
    assert (main.code, main.err) == (0, "") and "Picked 600 of 3,001 rows" in main.out, main
    assert other == Done(0, "", ""), other
    assert result(tmp_path / "new" / "run") == on_one
    (main, other), _ = two(server, [*command, "out=new/run"], tmp_path)
    assert main.code == 0 and "holds this very run already" in main.err
    assert other == Done(0, "", ""), other


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["out=other"], "other: is not empty and holds no finished run"),  # met by the main process alone
        (["n=3002", "out=run"], "n=3002: the pool has 3001 usable rows"),  # met by both
        (["graph.path=gone.npz", "out=run"], "gone.npz: no such label graph"),
        (["phi.exponent=2", "out=run"], "phi.exponent=2"),
        (["out=file/run"], "file is a file"),
        (["mesh.rows=4", "out=run"], "mesh.rows=4: several processes share all devices; must be all"),
    ],
)
def test_a_mistake_ends_both_processes(
    server: Server, command: list[str], tmp_path: Path, arguments: list[str], told: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    (main, other), seconds = two(server, [*command, *arguments], tmp_path, 60)
    assert told in main.error
    assert other.code == 2 and other.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]
    assert seconds < 40  # most of it imports; a wait for a process that is gone takes minutes


def test_two_processes_resume(server: Server, command: list[str], on_one: dict, tmp_path: Path) -> None:
    """One process is killed, the run goes on as two from its checkpoint."""
    arguments = [*command, "engine.checkpoint_every=0", "out=run"]
    job = server.start(arguments, tmp_path, **devices(1))
    checkpoint = tmp_path / ".run.partial" / "checkpoint" / "greedy.npz"
    while job.poll() is None and not checkpoint.exists():
        time.sleep(0.001)
    job.kill()
    assert job.wait().code < 0
    (main, other), _ = two(server, arguments, tmp_path)
    assert main.code == 0 and "note: resuming after " in main.err, main
    assert other == Done(0, "", ""), other
    assert result(tmp_path / "run") == on_one


def test_two_processes_need_stored_embeddings(server: Server, tmp_path: Path) -> None:
    pool = cli_pools.write(tmp_path / "pool.jsonl", [cli_pools.row(i) for i in range(30)])
    both, _ = two(server, ["select", str(pool), "n=9", "sampler=deita", "out=two"], tmp_path)
    assert all(done.code == 2 and "embeddings.path" in done.err for done in both), both


SYSTEMS = {
    "deita": ["sampler.threshold=0.6"],
    "car": [],
    "qdit": [],
    "zip": ["sampler.k1=40", "sampler.k2=12", "sampler.k3=4"],
    "instag": [],
    "mig": ["limits.sources={a:12}", "limits.tokens=3000", "limits.cost=chars"],
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_other_systems(server: Server, tmp_path: Path, name: str) -> None:
    """One device, eight, and two processes of four."""
    rows = [cli_pools.row(i) for i in range(90)]
    for i, row in enumerate(rows):
        row["annotation"]["CaR"] = [(i * 5 % 13) / 13]
    pool = cli_pools.write(tmp_path / "pool.jsonl", rows)
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((90, 8)).astype(np.float32))
    arguments = ["select", str(pool), "n=20", f"sampler={name}", "embeddings.path=rows.npy", *SYSTEMS[name]]
    for count in (1, 8):
        done = server.run([*arguments, f"out=on{count}"], tmp_path, **devices(count))
        assert done.code == 0, done
    (main, other), _ = two(server, [*arguments, "out=two"], tmp_path)
    assert main.code == other.code == 0, (main, other)
    assert result(tmp_path / "on1") == result(tmp_path / "on8") == result(tmp_path / "two")
