"""A job's batches computed by several processes and attempts: each once, and together the results of one."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from index_job import IndexJob, expected, lengths, results_of

from mig_jax.batch import BatchRun, ProcessGroup, partition_done, process_group
from mig_jax.batch import run as run_module
from mig_jax.batch import shards as shards_module
from mig_jax.config.check import part
from mig_jax.config.mesh import MeshConfig
from mig_jax.core import files as files_module
from mig_jax.core.errors import UserError
from mig_jax.core.progress import silent

ALONE = ProcessGroup(0, 1)


def prepared() -> IndexJob:
    job = IndexJob(lengths())
    job.prepare()
    return job


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def assembled(run: BatchRun, out: Path) -> np.ndarray:
    run.assemble(out, silent)
    return np.load(out)


def test_processes_and_attempts_compute_each_batch_once(folder, tmp_path):
    runs, notes = [], []
    for process in (2, 0, 1):
        run = BatchRun(prepared(), folder)
        assert run.compute(ProcessGroup(process, 3), 0.0, silent, notes.append)
        runs.append(run)
    assert sum(run.computed for run in runs) == lengths().sum()
    assert runs[0].flops == sum(batch.rows * batch.width for batch in list(runs[0].job.plan)[2::3])
    assert [note.startswith("resuming: ") for note in notes] == [True, True]
    np.testing.assert_array_equal(assembled(runs[-1], tmp_path / "all.npy"), expected())
    again = BatchRun(prepared(), folder)
    assert again.compute(ALONE, 0.0, silent, notes.append) and again.computed == 0 and len(notes) == 2
    assert again.job.loads == 0, "the model is not loaded where nothing is left to compute"


def test_a_damaged_shard_is_computed_again_by_a_released_job(folder, tmp_path):
    run = BatchRun(prepared(), folder)
    run.compute(ALONE, 0.0, silent, lambda note: None)
    assert (run.job.prepared, run.job.loads) == (1, 1)
    file = folder / "00000003-00000003-1.npz"
    file.write_bytes(file.read_bytes()[:-30])
    np.testing.assert_array_equal(assembled(run, tmp_path / "all.npy"), expected())
    assert (run.job.prepared, run.job.loads) == (2, 2)


def test_progress_counts_tokens_and_those_of_previous_attempts(folder):
    job = prepared()
    first = BatchRun(job, folder)
    first.shards.write(range(0, 2), [results_of(batch) for batch in job.plan[:2]])
    calls = []
    first.compute(ALONE, 0.0, lambda *call: calls.append(call), lambda note: None)
    total = int(lengths().sum())
    assert calls[0] == ("index", job.tokens_of([0, 1]), total, "tokens")
    assert calls[-1] == ("index", total, total, "tokens")


@pytest.mark.parametrize("moment", ["before", "written", "synced"])
def test_a_helper_without_a_folder_returns_false(folder, monkeypatch, moment):
    """Process 0 has published the results and removed the folder."""
    run = BatchRun(prepared(), folder)
    if moment == "before":
        shutil.rmtree(folder)
    else:
        owner, name = {"written": (shards_module.np, "savez"), "synced": (files_module, "sync")}[moment]
        known = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (shutil.rmtree(folder, ignore_errors=True), known(*a, **k)))
    assert not run.compute(ProcessGroup(1, 2), 0.0, silent, lambda note: None)
    assert BatchRun(prepared(), folder / "no/parent").compute(ProcessGroup(1, 2), 0.0, silent, print) is False


def test_the_main_process_without_a_folder_fails(folder):
    run = BatchRun(prepared(), folder)
    shutil.rmtree(folder)
    with pytest.raises(UserError) as error:
        run.compute(ALONE, 0.0, silent, lambda note: None)
    assert error.value.where == folder
    with pytest.raises(UserError):
        run.wait(ALONE, silent, lambda note: None)


def test_missing_processes_are_named_once(folder, monkeypatch):
    run = BatchRun(prepared(), folder)
    clock, notes, last = [0.0], [], len(run.job.plan) - 1
    monkeypatch.setattr(run_module.time, "monotonic", lambda: clock[0])

    def save(first: int, end: int = last + 1) -> None:
        for number in range(first, end, 3):
            run.shards.write(range(number, number + 1), [results_of(run.job.plan[number])])

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] == 8.0:
            save(1, 2)
        if clock[0] == 60.0:
            save(4), save(2)

    monkeypatch.setattr(run_module.time, "sleep", sleep)
    save(0)
    run.wait(ProcessGroup(0, 3), silent, lambda text: notes.append((clock[0], text)))
    assert run.shards.saved().all() and len(notes) == 1
    when, text = notes[0]
    assert when == 18.0  # ten seconds after the last batch came
    assert text.startswith("waiting for processes 1, 2 of 3: ") and "start processes 1, 2, or stop this one" in text


def test_a_failed_process_ends_the_wait(folder):
    run = BatchRun(prepared(), folder)
    (folder / "failed-1").touch()
    with pytest.raises(UserError, match="process 1 of 2 has stopped"):
        run.wait(ProcessGroup(0, 2), silent, lambda note: None)


def test_partitions_are_all_batches_once():
    for processes in (1, 2, 5):
        parts = [ProcessGroup(p, processes).partition(17) for p in range(processes)]
        assert sorted(number for part in parts for number in part) == list(range(17))
    assert [ProcessGroup(p, 3).is_main for p in range(3)] == [True, False, False]


def test_the_summary_of_a_helper(folder):
    run = BatchRun(prepared(), folder)
    count = len(run.job.plan)
    text = partition_done([run], ProcessGroup(1, 3))
    assert text.startswith("process 1 of 3: its batches are done (")
    assert f"({len(range(1, count, 3))} of {count} batches of index)" in text
    assert "no model ran" in partition_done([], ProcessGroup(1, 2))


def mesh(**changes: int) -> MeshConfig:
    return part("base", "mesh", MeshConfig, **changes)


def test_the_group_of_a_configuration():
    assert process_group(mesh()) == ALONE
    assert process_group(mesh(processes=3, process=2)) == ProcessGroup(2, 3)
    for wrong, key in (
        ({"processes": 2}, "mesh.processes"),
        ({"process": 0}, "mesh.processes"),
        ({"processes": 2, "process": 2}, "mesh.process"),
    ):
        with pytest.raises(UserError) as error:
            process_group(mesh(**wrong))
        assert error.value.key == key
