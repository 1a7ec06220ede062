"""kill -9 at any moment, several processes, damaged shards: the bytes of a run that nobody disturbed, nothing twice."""

import json
import random
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import cli_pools
import numpy as np
import pytest
from mig_command import Done, Job, Server

from mig_jax.batch.shards import Shards
from mig_jax.commands.embed.texts import BETWEEN
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.inference.embed import load_embedder

pytestmark = pytest.mark.slow

ROWS = 700
LONG = 5 * ROWS  # where seconds between shards count: a fast machine must not be done before the kill
SETTINGS = ["embed.batch_tokens=64", "embed.save_every=0"]  # a shard for each of some 350 batches
SHARDS = ".run.partial/checkpoint"


@pytest.fixture
def command(with_tiny: list[str], tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """Without ``out``; of ``ROWS`` rows, or as many as a test asks for."""
    cli_pools.good(tmp_path / "p.jsonl", getattr(request, "param", ROWS))
    return ["embed", "p.jsonl", *with_tiny, *SETTINGS]


@pytest.fixture
def undisturbed(server: Server, command: list[str], tmp_path: Path) -> bytes:
    """The matrix of a run that nobody disturbs."""
    done = server.run([*command, "out=whole"], tmp_path)
    assert done.code == 0 and notes(done) == [], done
    return (tmp_path / "whole/embeddings.npy").read_bytes()


def shards_of(tmp_path: Path) -> tuple[Shards, np.ndarray]:
    """The shards of the broken run, and the tokens of each batch of its plan."""
    spec = EmbedderSpec(name="tiny", path=tmp_path / "tiny", max_length=64)
    embedder = load_embedder(spec, batch_tokens=64)
    rows = (tmp_path / "p.jsonl").read_bytes().count(b"\n")
    tokens = embedder.tokenize([BETWEEN.join((f"Question {i} é", f"Answer {i}")) for i in range(rows)])
    plan = embedder.plan(tokens)
    return Shards(tmp_path / SHARDS, plan, 24), np.array([tokens.length[batch.text].sum() for batch in plan])


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Each shard and which writing of it this is."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.npz")}


def notes(done: Done) -> list[str]:
    """What it said beside its progress."""
    return [line for line in done.err.splitlines() if not re.match(r"(embed|tokenize|write|other processes): ", line)]


def until(job: Job, happens: Callable[[], bool]) -> bool:
    """Whether it happened before the job ended."""
    end = time.monotonic() + 120
    while job.poll() is None and time.monotonic() < end:
        if happens():
            return True
        time.sleep(0.001)
    return False


def broken_off(server: Server, command: list[str], tmp_path: Path, shards: int, wait: float = 0.0) -> int:
    """Kill a run when it has added so many shards; how many there are."""
    folder = tmp_path / SHARDS
    before = len(files(folder)) if folder.exists() else 0
    job = server.start([*command, "out=run"], tmp_path)
    assert until(job, lambda: folder.exists() and len(files(folder)) >= before + shards), job.wait()
    time.sleep(wait)
    job.kill()
    assert job.wait().code == -signal.SIGKILL, "the run is too short to be killed"
    assert not (tmp_path / "run").exists()
    return len(files(folder))


def finished(server: Server, command: list[str], tmp_path: Path) -> tuple[Done, dict]:
    """The same command once more, to its end: what it said and its manifest."""
    done = server.run([*command, "out=run"], tmp_path)
    assert done.code == 0, done
    assert not (tmp_path / ".run.partial").exists()
    return done, json.loads((tmp_path / "run/manifest.json").read_text())


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again(server, command, undisturbed, tmp_path, seed) -> None:
    rng, kept = random.Random(seed), {}
    for _ in range(3):
        broken_off(server, command, tmp_path, rng.randint(1, 40), rng.uniform(0, 0.05))
        now = files(tmp_path / SHARDS)
        assert kept.items() <= now.items(), "a shard was written twice"
        kept = now
    shards, tokens = shards_of(tmp_path)
    saved = shards.saved()
    assert 3 <= saved.sum() < len(saved) and saved.sum() == len(kept)  # a batch is in one shard
    done, manifest = finished(server, command, tmp_path)
    assert f"note: resuming: {saved.sum()} of {len(saved)} batches are there" in done.err
    assert manifest["computed"] == tokens[~saved].sum() and manifest["tokens"] == tokens.sum()
    assert (tmp_path / "run/embeddings.npy").read_bytes() == undisturbed


@pytest.mark.parametrize("command", [LONG], indirect=True)
def test_killed_between_two_shards(server, command, undisturbed, tmp_path) -> None:
    """Only the batches since the last shard are computed again; how old that is, test_embed_shards tells."""
    slow = [*command, "embed.save_every=0.05"]
    broken_off(server, slow, tmp_path, 3, 0.02)
    shards, tokens = shards_of(tmp_path)
    saved = shards.saved()
    assert len(files(tmp_path / SHARDS)) < saved.sum() < len(saved)  # a shard has several
    assert not saved[np.flatnonzero(~saved)[0] :].any()
    _, manifest = finished(server, slow, tmp_path)
    assert manifest["computed"] == tokens[~saved].sum()
    assert (tmp_path / "run/embeddings.npy").read_bytes() == undisturbed


def test_killed_while_all_is_put_together(server, command, undisturbed, tmp_path) -> None:
    for _ in range(5):  # it may come to its end before the signal does
        job = server.start([*command, "out=run", "overwrite=true"], tmp_path)
        until(job, (tmp_path / ".run.partial/files/embeddings.npy").exists)
        job.kill()
        if job.wait().code == -signal.SIGKILL and (tmp_path / SHARDS).exists():
            break
    else:
        pytest.fail("the run was never killed in time")
    done, manifest = finished(server, [*command, "overwrite=true"], tmp_path)
    assert manifest["computed"] == 0 and " s (" not in done.out, done
    assert (tmp_path / "run/embeddings.npy").read_bytes() == undisturbed


def test_damaged_shards_are_computed_again(server, command, undisturbed, tmp_path) -> None:
    """One cut short, one whose bytes differ: of a large one this only shows when all is put together."""
    broken_off(server, command, tmp_path, 20)
    first, second, *_ = sorted((tmp_path / SHARDS).glob("*.npz"))
    first.write_bytes(first.read_bytes()[:-10])
    raw = second.read_bytes()
    second.write_bytes(raw[:250] + bytes([raw[250] ^ 255]) + raw[251:])
    shards, tokens = shards_of(tmp_path)
    saved = shards.saved()
    assert not saved[0] and not saved[1]
    _, manifest = finished(server, command, tmp_path)
    assert manifest["computed"] == tokens[~saved].sum()
    assert (tmp_path / "run/embeddings.npy").read_bytes() == undisturbed


def test_unfinished_work_of_another_run_is_not_mixed_in_nor_thrown_away(server, command, tmp_path) -> None:
    count = broken_off(server, command, tmp_path, 5)
    for change in ("embed.batch_tokens=32", "embedder.pooling=cls"):
        done = server.run([*command, change, "out=run"], tmp_path)
        assert "holds another run's unfinished work" in done.error and "overwrite=true" in done.error
    assert len(files(tmp_path / SHARDS)) == count
    done = server.run([*command, "embedder.pooling=cls", "overwrite=true", "out=run"], tmp_path)
    assert done.code == 0 and "resuming" not in done.err, done
    assert json.loads((tmp_path / "run/manifest.json").read_text())["config"]["embedder"]["pooling"] == "cls"


def test_a_second_run_beside_the_first_is_refused(server, command, tmp_path) -> None:
    job = server.start([*command, "out=run"], tmp_path)
    assert until(job, lambda: bool((tmp_path / SHARDS).exists() and files(tmp_path / SHARDS)))
    assert "is writing this out" in server.run([*command, "out=run"], tmp_path).error
    assert job.wait().code == 0


@pytest.mark.parametrize("command", [LONG], indirect=True)
def test_interrupted(server, command, undisturbed, tmp_path) -> None:
    """Ctrl-C: exit code 130, one line, and what is done is saved, whatever save_every says."""
    slow = [*command, "embed.save_every=0.05"]
    job = server.start([*slow, "out=run"], tmp_path)
    assert until(job, lambda: (tmp_path / SHARDS).exists() and bool(files(tmp_path / SHARDS))), job.wait()
    job.kill(signal.SIGINT)
    done = job.wait(60)
    assert done.code == 130 and done.out == "", done
    assert notes(done) == ["mig-jax: interrupted; the same command resumes from the last checkpoint"]
    assert all(path.suffix == ".npz" for path in (tmp_path / SHARDS).iterdir())
    assert "resuming" in finished(server, slow, tmp_path)[0].err
    assert (tmp_path / "run/embeddings.npy").read_bytes() == undisturbed


def start_two(server: Server, command: list[str], tmp_path: Path, *more: str, order=(0, 1)) -> list[Job]:
    return [
        server.start([*command, *more, "mesh.processes=2", f"mesh.process={i}", "out=run"], tmp_path) for i in order
    ]


def test_two_processes_of_one_job(server, command, undisturbed, tmp_path) -> None:
    """jax.distributed; then both again, then one alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    at = f"mesh.coordinator=127.0.0.1:{port}"
    main, other = (job.wait(120) for job in start_two(server, command, tmp_path, at))
    assert (main.code, notes(main)) == (0, []) and f"{ROWS} rows -> 24 numbers each" in main.out, main
    assert other == Done(0, "", ""), other
    assert (tmp_path / "run/embeddings.npy").read_bytes() == undisturbed
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert 0.4 < manifest["computed"] / manifest["tokens"] < 0.6
    main, other = (job.wait(120) for job in start_two(server, command, tmp_path, at))
    assert main.code == 0 and "holds this very run already" in main.err, main
    assert other.code == 0, other


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_independent_processes(server, command, undisturbed, tmp_path, order) -> None:
    """They share a folder and nothing else, in whatever order they begin."""
    done = dict(zip(order, start_two(server, command, tmp_path, order=order), strict=True))
    main, other = (done[i].wait(120) for i in (0, 1))
    assert main.code == 0 and f"{ROWS} rows -> 24 numbers each" in main.out, main
    assert other.code == 0, other
    assert "process 1 of 2: its batches are done" in other.out or "holds this very run" in other.err, other
    assert (tmp_path / "run/embeddings.npy").read_bytes() == undisturbed
    assert not (tmp_path / ".run.partial").exists()


def test_one_of_two_processes_then_a_single_run(server, command, undisturbed, tmp_path) -> None:
    """What the helper left is taken up; another run's settings are refused by a helper, too."""
    helper = [*command, "mesh.processes=2", "mesh.process=1", "out=run"]
    done = server.run(helper, tmp_path)
    assert (
        done.code == 0
        and "process 1 of 2: its batches are done" in done.out
        and "process 0 writes the results" in done.out
    ), done
    assert "unfinished work" in server.run([*helper, "embedder.pooling=cls"], tmp_path).error
    shards, tokens = shards_of(tmp_path)
    saved = shards.saved()
    assert np.flatnonzero(saved).tolist() == list(range(1, len(saved), 2))
    done, manifest = finished(server, command, tmp_path)
    assert "resuming" in done.err and manifest["computed"] == tokens[~saved].sum()
    assert (tmp_path / "run/embeddings.npy").read_bytes() == undisturbed


def test_a_helper_that_comes_too_late(server, command, undisturbed, tmp_path) -> None:
    """A finished run is not begun anew, and nothing is left beside it."""
    before = sorted(path.name for path in tmp_path.iterdir())
    for more in ([], ["overwrite=true"]):
        done = server.run([*command, "mesh.processes=2", "mesh.process=1", "out=whole", *more], tmp_path)
        assert done.code == 0 and "only process 0 can do it again" in done.err, done
        assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_eight_devices_give_the_same_to_rounding(server, command, undisturbed, tmp_path) -> None:
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    whole = np.load(tmp_path / "whole/embeddings.npy")
    for mesh in (["mesh.data=auto"], ["mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"]):
        done = server.run([*command, *mesh, "out=run", "overwrite=true"], tmp_path, **devices)
        assert done.code == 0, done
        # Float32 sums over cut axes, of unit vectors.
        np.testing.assert_allclose(np.load(tmp_path / "run/embeddings.npy"), whole, atol=1e-5)
        made = json.loads((tmp_path / "run/manifest.json").read_text())["devices"]
        assert made["count"] == 8 and np.prod(list(made["mesh"].values())) == 8
