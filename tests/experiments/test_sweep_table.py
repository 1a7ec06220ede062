"""The table and the plot of a sweep, from manifests made by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mig_jax.core.errors import UserError
from mig_jax.report.sweep import as_csv, load_sweep, markdown, write_sweep


def run(folder: Path, rows: list[int], *, objective: float = 10.0, **config) -> Path:
    """A finished run as far as a table reads it."""
    folder.mkdir(parents=True)
    n = str(len(rows))
    manifest = {
        "schema": 1,
        "run_key": "k",
        "n": len(rows),
        "budgets": [len(rows)],
        "objective": {n: objective},
        "random_objective": {n: 5.0},
        "certificate": {n: {"bound": 20.0, "ratio": objective / 20.0}},
        "labels": {"total": 100, "covered": 40},
        "graph": {"mean_degree": 3.5, "isolated_share": 0.25},
        "timings": {"select": 1.5, "export": 0.5, "embed": None},
        "config": {"out": str(folder), "n": len(rows), **config},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    pq.write_table(pa.table({"row": np.array(rows, np.int64)}), folder / "trace.parquet")
    return folder


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    for value, rows in ((0.9, [1, 2, 3, 4]), (0.8, [1, 2, 3, 5]), (0.86, [6, 7, 8, 9])):
        run(tmp_path / f"T={value}", rows, objective=10 * value, graph={"threshold": value, "path": None})
    return tmp_path


def test_rows_are_ordered_and_compared_with_the_reference(swept: Path):
    sweep = load_sweep(swept, "graph.threshold", 0.90, {"name": "paper's Avg", 0.8: 53.67, "0.90": 55.32})
    assert sweep.keys == ("graph.threshold",)
    assert [row["graph.threshold"] for row in sweep.rows] == [0.8, 0.86, 0.9]
    assert sweep.reference == 2
    assert [row["overlap"] for row in sweep.rows] == [3 / 5, 0.0, 1.0]  # 3 of {1, 2, 3, 4, 5} are in both
    assert [row["paper"] for row in sweep.rows] == [53.67, None, 55.32]
    first = sweep.rows[0]
    assert (first["mean_degree"], first["isolated"], first["labels_covered"], first["seconds"]) == (3.5, 0.25, 40, 2.0)
    assert first["times_random"] == pytest.approx(1.6)
    assert first["certificate"] == pytest.approx(0.4)


def test_markdown_is_aligned_and_csv_keeps_the_digits(swept: Path):
    sweep = load_sweep(swept, "graph.threshold", 0.9, {"name": "paper's Avg", 0.8: 53.67})
    table = markdown(sweep).split("\n\n")[0].splitlines()
    assert len(table) == 5
    assert len({len(line) for line in table}) == 1
    assert "paper's Avg" in table[0] and "53.67" in table[2] and "–" in table[3]
    rows = list(csv.DictReader(as_csv(sweep).splitlines()))
    assert [float(row["objective"]) for row in rows] == [8.0, 8.6, 9.0]
    assert rows[1]["paper"] == ""


def test_what_differs_is_found_without_being_told(tmp_path: Path):
    run(tmp_path / "a", [1], sampler={"name": "mig", "gain": "exact"}, seed=1, phi={"kind": "exp|log"})
    run(tmp_path / "b", [1, 2], sampler={"name": "random", "gain": "exact"}, seed=1, phi={"kind": "exp|log"})
    run(tmp_path / "c", [2], sampler={"name": "random", "gain": "exact"}, seed=1, phi={"kind": "x"})
    sweep = load_sweep(tmp_path)
    assert sweep.keys == ("n", "sampler.name", "phi.kind")
    assert "paper" not in sweep.columns
    assert "exp\\|log" in markdown(sweep)  # a bar of a value opens no column


def test_one_run_alone_is_named_by_its_folder(tmp_path: Path):
    run(tmp_path / "only", [1, 2])
    run(tmp_path / ".only.partial" / "files", [1])  # a run under way
    sweep = load_sweep(tmp_path)
    assert sweep.keys == ("run",)
    assert [row["run"] for row in sweep.rows] == ["only"]


def test_of_the_named_runs_only(swept: Path):
    run(swept / "deep" / "other", [1], seed=7)
    chosen = [swept / "T=0.86", swept / "T=0.8"]
    sweep = load_sweep(swept, reference=0.86, runs=chosen)
    assert sweep.keys == ("graph.threshold",)
    assert [row["graph.threshold"] for row in sweep.rows] == [0.8, 0.86]
    assert write_sweep(swept, reference=0.86, runs=chosen) == markdown(sweep)
    with pytest.raises(UserError, match="holds no folder of a finished run"):
        load_sweep(swept, runs=[])


def test_files_are_written_and_the_same_each_time(swept: Path):
    text = write_sweep(swept, "graph.threshold", 0.9, plot=["mean_degree", "overlap", "paper"])
    names = ("table.md", "table.csv", "plot.svg", "plot.png")
    before = {name: (swept / name).read_bytes() for name in names}
    assert text == (swept / "table.md").read_text(encoding="utf-8")
    assert before["plot.png"].startswith(b"\x89PNG")
    assert before["plot.svg"].count(b"overlap with graph.threshold=0.9") == 1
    write_sweep(swept, "graph.threshold", 0.9, plot=["mean_degree", "overlap", "paper"])
    assert before == {name: (swept / name).read_bytes() for name in names}


@pytest.mark.parametrize("value", ["auto", None, True, "$x_1$"])
def test_settings_that_are_no_numbers_are_drawn_too(tmp_path: Path, value):
    run(tmp_path / "a", [1, 2], graph={"threshold": value})
    run(tmp_path / "b", [1, 3], graph={"threshold": 0.5})
    write_sweep(tmp_path)
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_mistakes_are_told(tmp_path: Path, swept: Path):
    with pytest.raises(UserError, match="holds no folder of a finished run"):
        load_sweep(swept / "T=0.8")
    with pytest.raises(UserError, match=r"hydra.callbacks.sweep.plot=degre: must be one of mean_degree"):
        write_sweep(swept, plot=["degre"])
    (swept / "T=0.8" / "trace.parquet").unlink()
    with pytest.raises(UserError, match="is not a whole run"):
        load_sweep(swept)
