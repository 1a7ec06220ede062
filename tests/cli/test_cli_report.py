"""``mig-jax report``: one run again, several compared; what it finds, what it writes, what it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Mig

from mig_jax.config import ReportConfig
from mig_jax.errors import UserError
from mig_jax.export import write_run
from mig_jax.help import report_help
from mig_jax.overrides import prepare
from mig_jax.reports import find_runs, natural, run_report

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
from fake_run import run_facts

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A finished run at a path below the test's folder."""

    def write(where: str, system: str = "mig", points=(7, 0, 11, 3, 5), html: str = "<p>") -> Path:
        facts = run_facts(name=Path(where).name, config={"sampler": {"name": system}})
        facts = replace(facts, selection=replace(facts.selection, points=np.array(points)))
        (tmp_path / where).mkdir(parents=True)
        write_run(tmp_path / where, facts, lambda _: html)
        return tmp_path / where

    return write


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208


def told(folder: Path, *runs: str, **more) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_report(ReportConfig(runs=runs, **more), 120)


def test_a_sweep_is_compared_where_it_lies(mig: Mig, make: Make, tmp_path: Path):
    for at, system in enumerate(("mig", "random", "ifd")):
        make(f"runs/all/{at}-sampler={system}", system)
    make("runs/all/.3-sampler=zip.partial/files", "zip")  # under way
    done = mig("report", "runs/all")
    assert done.code == 0 and done.err == "", done
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["mig", "random", "ifd"]
    assert lines[-2:] == ["report   runs/all/comparison.html", "table    runs/all/comparison.csv"]
    page = (tmp_path / "runs/all/comparison.html").read_text()
    assert "3 selections compared" in page and 'href="./1-sampler%3Drandom/report.html"' in page
    before = [(tmp_path / "runs/all" / name).read_bytes() for name in ("comparison.html", "comparison.csv")]
    again = mig("report", "runs/all")  # a comparison is made again over itself
    assert again == done
    assert before == [(tmp_path / "runs/all" / name).read_bytes() for name in ("comparison.html", "comparison.csv")]


def test_runs_by_name_in_their_common_folder(mig: Mig, make: Make, tmp_path: Path):
    make("my runs/b,1")
    make("my runs/deep/a", "random", (7, 0, 1, 2, 4))
    first = mig("report", "my runs/b,1", "my runs/deep/a/manifest.json", "my runs/b,1")
    assert first.code == 0 and "report   my runs/comparison.html" in first.out, first
    assert len((tmp_path / "my runs/comparison.csv").read_text().splitlines()) == 3  # each run once
    second = mig("report", "runs=['my runs/b,1','my runs/deep/a']", "out=both.html")
    assert second.code == 0 and second.out.replace("both", "my runs/comparison") == first.out
    assert {"both.html", "both.csv"} <= set(names(tmp_path))


def test_one_run_is_told_and_written_again(mig: Mig, make: Make, tmp_path: Path):
    run = make("runs/one", html="old")
    done = mig("report", "runs")
    assert done.code == 0 and "Picked 5 of 12 rows" in done.out and "runs/one/report.html" in done.out, done
    assert (run / "report.html").read_text() == "old" and names(tmp_path) == ["runs"]
    again = mig("report", "runs/one", "out=page.html")
    assert again.out == "report  page.html\n" and "What this selection adds" in (tmp_path / "page.html").read_text()
    assert "out=page.html: exists; overwrite=true" in mig("report", "runs/one", "out=page.html").error


def test_files_of_others_are_left_alone(make: Make, tmp_path: Path):
    make("a")
    make("b")
    for name in ("comparison.html", "comparison.csv"):
        (tmp_path / name).write_text("run,system\nmine")
        with pytest.raises(UserError, match=rf"{name} exists and is no comparison of mig-jax; overwrite=true"):
            told(tmp_path, "a", "b")
        assert names(tmp_path) == ["a", "b", name] and (tmp_path / name).read_text() == "run,system\nmine"
        told(tmp_path, "a", "b", overwrite=True)
        told(tmp_path, "a", "b")  # ours now
        for made in ("comparison.html", "comparison.csv"):
            (tmp_path / made).unlink()


def test_a_run_inside_a_run_is_not_written_into(make: Make, tmp_path: Path):
    outer, inner = make("runs/a"), make("runs/a/inner")
    before = names(outer)
    assert "report   runs/comparison.html" in told(tmp_path, "runs/a", str(inner))
    assert names(outer) == before


def test_runs_are_found_in_natural_order(make: Make, tmp_path: Path):
    for at in (10, 9, 100):
        make(f"s/{at}-n")
    (tmp_path / "s/other").mkdir()
    (tmp_path / "s/other/manifest.json").write_text('{"name": "an app"}')
    (tmp_path / "s/embeddings").mkdir()
    (tmp_path / "s/embeddings/manifest.json").write_text('{"schema": 1, "run_key": "k", "kind": "embed"}')
    assert [run.name for run in find_runs([str(tmp_path / "s")])] == ["9-n", "10-n", "100-n"]
    assert sorted(["b10", "b9", "a", "10", "9", ""], key=natural) == ["", "9", "10", "a", "b9", "b10"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the runs: mig-jax report RUN"),
        (("nowhere",), "nowhere: there is no such folder"),
        (("empty",), "empty holds no finished run"),
        (("a/selection.jsonl",), "is not the folder of a run, nor its manifest.json; a is one"),
        (("sample.jsonl",), "sample.jsonl.run is one"),
        (("note.txt",), "note.txt is not the folder of a run, nor its manifest.json"),
        (("broken",), "not a readable manifest"),
        (("inside",), "not a readable manifest"),
        (("a", "newer"), "has schema 99; this mig_jax reads up to 1"),
        (("a", "embeddings"), "embeddings holds no selection: mig-jax embed x made it"),
        (("a", "b", "out=x.txt"), "out=x.txt: must end in .html"),
        (("a", "b", "out=no/x.html"), "there is no folder no"),
        (("a", "b", "outt=x.html"), "outt: no such key; did you mean out?"),
        (("a", "runs=[b]"), "name the runs in one way"),
        (("a", "b", "-m"), "writes one page; -m belongs to mig-jax select"),
        (("runs=3",), "runs=3: must be a list"),
        (("gone",), "report.html is gone; out=gone/report.html writes it again"),
        (("a", "torn"), "torn is not a whole run"),
    ],
)
def test_mistakes_are_one_message(mig: Mig, make: Make, tmp_path: Path, arguments: tuple[str, ...], message: str):
    make("a")
    make("b")
    (make("gone") / "report.html").unlink()
    (make("torn") / "trace.parquet").write_bytes(b"PAR1")
    make("sample.jsonl.run")
    (tmp_path / "sample.jsonl").write_text("{}")
    (tmp_path / "note.txt").write_text("note")
    (tmp_path / "empty").mkdir()
    for name, text in (
        ("broken", "{"),
        ("inside/broken", "{"),
        ("newer", '{"schema": 99, "run_key": "k"}'),
        ("embeddings", '{"schema": 1, "run_key": "k", "kind": "embed", "command": "mig-jax embed x"}'),
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text(text)
    before = names(tmp_path)
    assert message in mig("report", *arguments).error
    assert names(tmp_path) == before


def test_arguments_are_runs():
    assert prepare(["a b", "it's", "out=x.html"], "report") == ["out=x.html", "runs=['a b','it\\'s']"]
    assert prepare(["runs=[a,b]"], "report") == ["runs=[a,b]"]


def test_help_names_the_keys():
    text = report_help()
    for words in ("mig-jax report RUN", "runs: []", "out: null", "overwrite: false", "mig-jax report runs/all"):
        assert words in text
    assert "hydra" not in text


def test_a_comparison_waits_for_none_of_the_large_libraries(make: Make, tmp_path: Path):
    make("a")
    make("b")
    code = """
import sys
from mig_jax.cli import main
main(["report", "a", "b"])
print(json.dumps([name for name in ("jax", "matplotlib", "pandas", "scipy") if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import json{code}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
