"""``mig-jax select -m``: folders, what is shared between jobs, failures, and the comparison at the end."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mig_jax.cli.arguments import quoted
from mig_jax.cli.main import main
from mig_jax.config.compose import slug
from mig_jax.core.cache import ArrayCache, one_at_a_time
from mig_jax.models.inference.embed import Embedder
from mig_jax.pool import load as pool_load

JOBLIB = (
    "-m mig_jax.cli.main select -m hydra/launcher=joblib hydra.launcher.n_jobs=2"
    " n=10 mesh.rows=1 graph.threshold=0.6,0.7,2 out=sweep"
)
FILES = {"comparison.html", "comparison.csv"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder and a cache of one's own; compiled programs stay in the tests' common cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIG_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mig_jax.core.compile_cache.use_compile_cache", lambda cache: None)
    monkeypatch.setattr(sys, "argv", ["mig-jax"])
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_the_threshold_experiment_reads_and_embeds_once(place: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    embedded, read = [], []
    embed, read_source = Embedder.embed, pool_load._read
    monkeypatch.setattr(Embedder, "embed", lambda self, *a, **k: embedded.append(1) or embed(self, *a, **k))
    monkeypatch.setattr(pool_load, "_read", lambda *a: read.append(1) or read_source(*a))
    main(["select", "-m", "+experiment=threshold", "n=10", "mesh.rows=1", "out=runs/t"])
    assert (len(embedded), len(read)) == (1, 1)  # six selections

    out = place / "runs" / "t"
    jobs = {f"graph.threshold={value}" for value in ("0.8", "0.86", "0.88", "0.9", "0.92", "0.94")}
    assert names(out) == jobs | FILES
    assert names(place) == {"cache", "runs"}
    with (out / "comparison.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["graph.threshold"] for row in rows] == ["0.8", "0.86", "0.88", "0.9", "0.92", "0.94"]
    assert [row["paper"] for row in rows] == ["53.67", "54.41", "54.17", "55.32", "54.62", "53.71"]
    assert rows[3]["overlap"] == "1.0"
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("mig threshold=0.8 ") and "paper's Avg" in lines[0]
    assert lines[-2:] == ["report   runs/t/comparison.html", "table    runs/t/comparison.csv"]

    # Each job's command is one that makes it again: the same run is there already.
    command = json.loads((out / "graph.threshold=0.9" / "manifest.json").read_text())["command"]
    assert "-m" not in command.split()
    main(command.split()[1:])
    assert "holds this very run already" in capsys.readouterr().err


def test_a_mistake_in_one_job_leaves_the_others(place: Path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["select", "-m", "n=10", "mesh.rows=1", "graph.threshold=0.6,2", "out=sweep"])
    assert ended.value.code == 2
    told = capsys.readouterr()
    errors = [line for line in told.err.splitlines() if "error" in line.lower()]
    assert errors == ["mig-jax: error: 1-graph.threshold=2: graph.threshold=2.0: must be auto or a number from 0 to 1"]
    assert "0-graph.threshold=0.6" in (place / "sweep" / "comparison.csv").read_text(encoding="utf-8")
    assert names(place / "sweep") == FILES | {"0-graph.threshold=0.6"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pool.path=no/pool.jsonl", "seed=1,2"], "2 jobs failed\n  0-seed=1, 1-seed=2: no/pool.jsonl: no such file"),
        (["sampler=mig,rndom"], "sampler=rndom: must be one of"),
        (["grph.threshold=0.6,0.7"], "grph.threshold: no such key; did you mean graph.threshold?"),
        (["+experiment=thresold"], "experiment=thresold: must be one of"),
    ],
)
def test_a_sweep_that_cannot_be_leaves_nothing(place: Path, capsys, arguments: list[str], message: str):
    with pytest.raises(SystemExit) as ended:
        main(["select", "-m", "n=10", "out=runs/sweep", *arguments])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("mig-jax: error:") == 1
    assert not (place / "runs").exists()


def test_a_sweep_does_not_write_into_a_run(place: Path, capsys):
    (place / "run").mkdir()
    (place / "run" / "manifest.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main(["select", "-m", "n=10", "seed=1,2", "out=run"])
    assert ended.value.code == 2
    assert "out=run holds a run" in capsys.readouterr().err
    assert names(place / "run") == {"manifest.json"}


def foreign(out: Path) -> dict[str, bytes | None]:
    """Put a user's own things into ``out``, also where a sweep writes, and say what they are."""
    for folder in ("mine/deep", "empty", "deep/empty", ".hidden", "1-graph.threshold=2"):
        (out / folder).mkdir(parents=True)
    for name in ("error.txt", "multirun.yaml", "mine/error.txt", "mine/deep/multirun.yaml", ".hidden/0"):
        (out / name).write_text(f"my own {name}")
    for name in ("runs/other", "0-seed=9"):  # the second of an earlier sweep
        (out / name).mkdir(parents=True)
        (out / name / "manifest.json").write_text('{"schema": 1, "run_key": "k"}')
    return contents(out)


def contents(out: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(out)): path.read_bytes() if path.is_file() else None for path in out.rglob("*")}


def swept_only(out: Path, before: dict[str, bytes | None], jobs: set[str]) -> None:
    """All that was in ``out`` is as it was, and new is only what a sweep of ``jobs`` has to make."""
    after = contents(out)
    assert {name: after.get(name, b"gone") for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == FILES | jobs
    with (out / "comparison.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(jobs)
    assert "seed" not in rows[0]


def test_what_else_lies_in_the_folder_is_neither_touched_nor_read(place: Path, capsys):
    before = foreign(place / "sweep")
    arguments = ["select", "-m", "n=10", "mesh.rows=1", "graph.threshold=0.6,2,3", "out=sweep"]
    for _ in range(2):  # the second finds its run done, and has it in its table all the same
        with pytest.raises(SystemExit):
            main(arguments)
        swept_only(place / "sweep", before, {"0-graph.threshold=0.6"})
        told = capsys.readouterr()
        assert "2 jobs failed" in told.err
        assert told.out.endswith("report   sweep/comparison.html\ntable    sweep/comparison.csv\n")
    assert "holds this very run already" in told.err


def test_a_sweep_whose_jobs_all_fail_takes_no_other_run_for_its_own(place: Path, capsys):
    before = foreign(place / "sweep")
    with pytest.raises(SystemExit):
        main(["select", "-m", "n=10", "graph.threshold=2,3", "hydra.sweep.subdir=mine/${hydra:job.num}", "out=sweep"])
    told = capsys.readouterr()
    assert told.out == ""
    assert "mine/1: graph.threshold=3.0" in told.err
    left = contents(place / "sweep")
    assert {name: left.pop(name) for name in before} == before
    assert set(left) <= {"mine/0", "mine/1"}  # empty, in a folder that is not the sweep's


def test_an_interrupted_sweep_leaves_nothing_of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    before = foreign(place / "sweep")
    monkeypatch.setattr("mig_jax.commands.select.run.run_select", interrupted)
    for out in ("sweep", "new/sweep"):
        with pytest.raises(SystemExit) as ended:
            main(["select", "-m", "n=10", "mesh.rows=1", "graph.threshold=0.6,0.7", f"out={out}"])
        assert ended.value.code == 130
    assert contents(place / "sweep") == before
    assert not (place / "new").exists()


def test_any_name_of_the_folder_will_do(place: Path):
    for out in ("a b${c}", "d\\${e}'f", "g/../h"):
        with pytest.raises(SystemExit):
            main(["select", "-m", "n=10", "graph.threshold=2,3", f"out={quoted(out)}"])
    assert not [path for path in contents(place) if not path.startswith("cache")]


@pytest.mark.slow
def test_joblib_workers(place: Path):
    """In processes of their own: they know the resolvers, share the cold cache, and one failure is one message."""
    before = foreign(place / "sweep")
    done = subprocess.run(
        [sys.executable, *JOBLIB.split()],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"HYDRA_FULL_ERROR": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("mig-jax: error: 2-graph.threshold=2: graph.threshold=2.0: must be")
    assert "Traceback" not in done.stderr
    swept_only(place / "sweep", before, {"0-graph.threshold=0.6", "1-graph.threshold=0.7"})
    assert len(list((place / "cache" / "pools").glob("*-*"))) == 1
    assert len(list((place / "cache" / "label_embeddings").iterdir())) == 1
    assert done.stdout.splitlines()[1].startswith("mig threshold=0.6 ")


def test_of_workers_that_need_the_same_thing_one_makes_it(tmp_path: Path):
    made, together = [], threading.Barrier(4)

    def make():
        made.append(1)
        time.sleep(0.1)  # without the lock the others come meanwhile
        return {}

    def work():
        together.wait()
        with one_at_a_time(tmp_path, "labels"):
            ArrayCache(tmp_path).get("labels", "key", make)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(made) == 1


@pytest.mark.parametrize(
    ("value", "name"), [(0.9, "0.9"), (None, "null"), ("a/b c.jsonl", "a_b_c.jsonl"), ("..", "_"), ([10, 20], "10,_20")]
)
def test_a_value_makes_a_folder_name(value, name: str):
    assert slug(value) == name
