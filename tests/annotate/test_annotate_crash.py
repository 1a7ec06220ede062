"""kill -9 at any moment, two processes, damaged shards: the bytes of a run that nobody disturbed."""

import json
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import annotate_cases as cases
import pytest
from mig_command import Done, Job, Server

pytestmark = pytest.mark.slow

ROWS = 60
KILLS = 10
PARTIAL = ".run.partial"
FILES = ("pool.jsonl", "refused.jsonl", "annotation_stats.json")


@pytest.fixture
def command(settings: list[str], tmp_path: Path) -> list[str]:
    """Without ``out``: many small batches, each in a shard of its own."""
    rows = [cases.raw(i) for i in range(ROWS)] + list(cases.AWKWARD.values())
    random.Random(3).shuffle(rows)
    cases.write(tmp_path / "p.jsonl", rows)
    small = ["annotate.batch_tokens=512", "annotate.save_every=0"]
    return ["annotate", "p.jsonl", "annotators=[tags,deita,ifd,tokens]", *settings, *small]


@pytest.fixture
def undisturbed(server: Server, command: list[str], tmp_path: Path) -> list[bytes]:
    done = server.run([*command, "out=whole"], tmp_path)
    assert done.code == 0, done
    return files(tmp_path / "whole")


def files(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def shards(tmp_path: Path) -> dict[str, tuple[int, int]]:
    """Each shard of the unfinished run, and which writing of it this is."""
    folder = tmp_path / PARTIAL / "checkpoint"
    found = {}
    for path in folder.rglob("*.npz"):
        status = path.stat()
        found[str(path.relative_to(folder))] = status.st_ino, status.st_mtime_ns
    return found


def finished(server: Server, command: list[str], tmp_path: Path) -> tuple[Done, dict]:
    done = server.run([*command, "out=run"], tmp_path)
    assert done.code == 0, done
    assert not (tmp_path / PARTIAL).exists()
    return done, json.loads((tmp_path / "run/manifest.json").read_text())


def test_killed_at_ten_moments(server, command, undisturbed, tmp_path):
    """Anywhere: while models are loaded, in each pass, while the rows are written. No shard is written twice."""
    start = time.monotonic()
    server.run([*command, "out=timed"], tmp_path)
    whole = time.monotonic() - start
    rng, kept, killed = random.Random(1), {}, 0
    for _ in range(3 * KILLS):
        job = server.start([*command, "out=run"], tmp_path)
        # A resumed run has less to do: what is left of it is guessed from what there is.
        time.sleep(rng.uniform(0.2, 0.9) * whole)
        job.kill()
        killed += job.wait().code == -signal.SIGKILL
        if (tmp_path / "run").exists():  # it was done, or nearly: the folder appears all at once
            finished(server, command, tmp_path)
            assert files(tmp_path / "run") == undisturbed
            shutil.rmtree(tmp_path / "run")  # and once more from the start
            kept = {}
        else:
            now = shards(tmp_path)
            assert kept.items() <= now.items(), "a shard was written twice"
            kept = now
        if killed == KILLS:
            break
    assert killed == KILLS
    finished(server, command, tmp_path)
    assert files(tmp_path / "run") == undisturbed


def test_an_interrupted_run_goes_on(server, command, undisturbed, tmp_path):
    job = server.start([*command, "out=run"], tmp_path)
    end = time.monotonic() + 60
    while not any(name.startswith("deita") for name in shards(tmp_path)) and time.monotonic() < end:
        time.sleep(0.005)
    job.kill(signal.SIGINT)
    done = job.wait()
    assert done.code == 130 and "the same command resumes" in done.err
    done, manifest = finished(server, command, tmp_path)
    assert files(tmp_path / "run") == undisturbed
    job = manifest["annotators"]["tags"]["jobs"]["tags"]
    assert job["computed"] == 0 and "computed by previous attempts" in done.out


def test_a_damaged_shard_is_computed_again(server, command, undisturbed, tmp_path):
    job = server.start([*command, "out=run"], tmp_path)
    end = time.monotonic() + 60
    while len([name for name in shards(tmp_path) if name.startswith("ifd")]) < 2 and time.monotonic() < end:
        time.sleep(0.005)
    job.kill()
    assert job.wait().code == -signal.SIGKILL
    folder = tmp_path / PARTIAL / "checkpoint"
    for name in sorted(shards(tmp_path))[::3]:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :])
    finished(server, command, tmp_path)
    assert files(tmp_path / "run") == undisturbed


def two(server: Server, command: list[str], tmp_path: Path, *more: str) -> list[Job]:
    return [
        server.start([*command, *more, "mesh.processes=2", f"mesh.process={i}", "out=run"], tmp_path) for i in (0, 1)
    ]


def test_two_processes_of_one_job(server, command, undisturbed, tmp_path):
    """jax.distributed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    main, other = (job.wait(200) for job in two(server, command, tmp_path, f"mesh.coordinator=127.0.0.1:{port}"))
    assert main.code == 0 and other.code == 0, (main, other)
    assert files(tmp_path / "run") == undisturbed
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    for facts in manifest["annotators"].values():
        for one in facts["jobs"].values():
            assert 0.3 < one["computed"] / one["tokens"] < 0.7


def test_two_processes_that_share_a_disk(server, command, undisturbed, tmp_path):
    main, other = (job.wait(200) for job in two(server, command, tmp_path))
    assert main.code == 0 and other.code == 0, (main, other)
    assert "process 1 of 2: its batches are done" in other.out or "holds this very run" in other.err, other
    assert files(tmp_path / "run") == undisturbed
    assert not (tmp_path / PARTIAL).exists()


def test_a_helper_alone_then_a_single_run(server, command, undisturbed, tmp_path):
    done = server.run([*command, "mesh.processes=2", "mesh.process=1", "out=run"], tmp_path)
    assert done.code == 0 and "process 0 writes the results" in done.out, done
    done, _ = finished(server, command, tmp_path)
    assert "resuming" in done.err
    assert files(tmp_path / "run") == undisturbed


def test_eight_devices_say_the_same(server, command, undisturbed, tmp_path):
    """To rounding: scores to 1e-4; tags but for near ties, of which there are none here."""
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = server.run([*command, "out=run"], tmp_path, **devices)
    assert done.code == 0, done
    both = (cases.lines(tmp_path / folder / "pool.jsonl") for folder in ("run", "whole"))
    for row, alone in zip(*both, strict=True):
        for of in ("complexity_scores", "quality_scores"):
            values = [one.get("annotation", {}).get("deita", {}).get(of, []) for one in (row, alone)]
            assert values[0] == pytest.approx(values[1], abs=1e-4)
        assert row.get("annotation", {}).get("instag") == alone.get("annotation", {}).get("instag")
        scores = [(one.get("ifd_score") or {}).get("content") for one in (row, alone)]
        assert scores[0] == (None if scores[1] is None else pytest.approx(scores[1], rel=1e-4))
