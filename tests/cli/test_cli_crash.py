"""kill -9 and Ctrl-C at any moment: the same command goes on and gives the bytes of a run that nobody disturbed."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import cli_pools
import pytest
from mig_command import Job, Server

pytestmark = pytest.mark.slow

N = 2_500
RESULT = ("selection.jsonl", "trace.parquet", "runners_up.parquet", "pool_stats.json", "dataset_info.json")
# Many full passes, many calls, a checkpoint after each: many places to be broken off at.
SETTINGS = ["engine.shortlist=64", "engine.picks_per_call=4", "engine.checkpoint_every=0"]


def result(out: Path) -> dict[str, bytes]:
    """What must be the same."""
    return {name: (out / name).read_bytes() for name in RESULT}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(pool, label graph)"""
    return cli_pools.large(tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="module")
def command(pool: tuple[Path, Path]) -> list[str]:
    """Without ``out``."""
    return ["select", str(pool[0]), f"graph.path={pool[1]}", f"n={N}", *SETTINGS]


@pytest.fixture(scope="module")
def undisturbed(server: Server, command: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The result of a run that nobody disturbs."""
    import json

    folder = tmp_path_factory.mktemp("undisturbed")
    done = server.run([*command, "out=run"], folder)
    assert done.code == 0 and "resuming" not in done.err, done
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert manifest["rounds"]["full_passes"] >= 20 and manifest["n"] == N
    return result(folder / "run")


def _until(job: Job, happens: Callable[[], bool]) -> bool:
    """Whether it happened before the job ended."""
    end = time.monotonic() + 120
    while job.poll() is None and time.monotonic() < end:
        if happens():
            return True
        time.sleep(0.001)
    return False


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again(
    server: Server, command: list[str], undisturbed: dict, tmp_path: Path, seed: int
) -> None:
    """Each time at a random moment after the first checkpoint of this life."""
    rng, partial = random.Random(seed), tmp_path / ".run.partial"
    checkpoint, killed = partial / "checkpoint" / "greedy.npz", 0
    for life in range(3):
        job = server.start([*command, "out=run"], tmp_path)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        if _until(job, lambda before=before: checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
            time.sleep(rng.uniform(0, 0.15))
            job.kill()
        done = job.wait()
        killed += done.code == -signal.SIGKILL
        assert not life or not killed or "note: resuming after " in done.err, done
        if done.code == 0:
            break
        assert not (tmp_path / "run").exists() and partial.exists()
    assert killed, "the run is too short to be killed"
    done = server.run([*command, "out=run"], tmp_path)
    assert done.code == 0, done
    assert result(tmp_path / "run") == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("written", ["selection.jsonl", "trace.parquet", "manifest.json"])
def test_killed_while_it_writes(
    server: Server, command: list[str], undisturbed: dict, tmp_path: Path, written: str
) -> None:
    """As soon as a file of the result appears in the staging folder."""
    file = tmp_path / ".run.partial" / "files" / written
    job = server.start([*command, "out=run"], tmp_path)
    assert _until(job, file.exists), job.wait()
    job.kill()
    code = job.wait().code
    assert code == -signal.SIGKILL or written == "manifest.json", (
        code
    )  # the last file may be followed by the end at once
    assert (tmp_path / "run").exists() == (code == 0)
    done = server.run([*command, "out=run"], tmp_path)
    assert done.code == 0 and (code == 0 or "note: resuming after 2," in done.err), done
    assert result(tmp_path / "run") == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_killed_before_the_first_checkpoint(server: Server, command: list[str], tmp_path: Path) -> None:
    """Nothing to go on from; nothing in the way either."""
    small = [argument for argument in command if not argument.startswith(("n=", "engine.checkpoint_every"))]
    small += ["n=300", "out=run"]
    job = server.start(small, tmp_path)
    assert _until(job, (tmp_path / ".run.partial" / "claim.json").exists), job.wait()
    job.kill()
    assert job.wait().code == -signal.SIGKILL
    done = server.run(small, tmp_path)
    assert done.code == 0 and "resuming" not in done.err, done
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_checkpoint_is_no_obstacle(
    server: Server, command: list[str], undisturbed: dict, tmp_path: Path
) -> None:
    checkpoint = tmp_path / ".run.partial" / "checkpoint" / "greedy.npz"
    job = server.start([*command, "out=run"], tmp_path)
    assert _until(job, checkpoint.exists), job.wait()
    job.kill()
    job.wait()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    done = server.run([*command, "out=run"], tmp_path)
    assert done.code == 0 and "resuming" not in done.err, done
    assert result(tmp_path / "run") == undisturbed


def test_another_run_replaces_one_that_was_never_finished(server: Server, command: list[str], tmp_path: Path) -> None:
    job = server.start([*command, "out=run"], tmp_path)
    assert _until(job, (tmp_path / ".run.partial" / "checkpoint" / "greedy.npz").exists), job.wait()
    job.kill()
    job.wait()
    done = server.run([*command, "n=20", "out=run"], tmp_path)
    assert done.code == 0 and "of another run, which was never finished" in done.err, done
    assert len((tmp_path / "run" / "selection.jsonl").read_bytes().splitlines()) == 20


def test_interrupted(server: Server, command: list[str], undisturbed: dict, tmp_path: Path) -> None:
    """Ctrl-C: exit code 130 and one line; then as after a crash."""
    job = server.start([*command, "out=run"], tmp_path)
    assert _until(job, (tmp_path / ".run.partial" / "checkpoint" / "greedy.npz").exists), job.wait()
    job.kill(signal.SIGINT)
    done = job.wait(60)
    assert done.code == 130 and done.out == "", done
    assert done.err == "mig-jax: interrupted; the same command resumes from the last checkpoint\n"
    done = server.run([*command, "out=run"], tmp_path)
    assert done.code == 0 and "note: resuming after " in done.err, done
    assert result(tmp_path / "run") == undisturbed
