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

from mig_jax.cli.arguments import prepare
from mig_jax.cli.help import command_help
from mig_jax.commands.call import Call
from mig_jax.commands.registry import COMMANDS
from mig_jax.commands.report.config import ReportConfig
from mig_jax.commands.report.run import find_runs, natural, run
from mig_jax.core.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "select"))
from fake_annotation import annotation, counted, helped, row, tagged
from fake_run import finished_run, run_facts

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A finished run at a path below the test's folder."""

    def write(where: str, system: str = "mig", points=(7, 0, 11, 3, 5), html: str = "<p>") -> Path:
        selection = replace(run_facts().selection, points=np.array(points))
        finished_run(
            tmp_path / where,
            page=lambda _: html,
            config={"sampler": {"name": system}},
            selection=selection,
            name=Path(where).name,
        )
        return tmp_path / where

    return write


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208


def report_of(folder: Path, *runs: str, **more) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = ReportConfig(**{"runs": runs, "out": None, "overwrite": False} | more)
        return run(config, Call("", width=120))


def test_a_sweep_is_compared_in_its_folder(mig: Mig, make: Make, tmp_path: Path):
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


def test_one_run_is_summarised_and_its_page_written_again(mig: Mig, make: Make, tmp_path: Path):
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
            report_of(tmp_path, "a", "b")
        assert names(tmp_path) == ["a", "b", name] and (tmp_path / name).read_text() == "run,system\nmine"
        report_of(tmp_path, "a", "b", overwrite=True)
        report_of(tmp_path, "a", "b")  # ours now
        for made in ("comparison.html", "comparison.csv"):
            (tmp_path / made).unlink()


def test_a_run_inside_a_run_is_not_written_into(make: Make, tmp_path: Path):
    outer, inner = make("runs/a"), make("runs/a/inner")
    before = names(outer)
    assert "report   runs/comparison.html" in report_of(tmp_path, "runs/a", str(inner))
    assert names(outer) == before


def test_runs_are_found_in_natural_order(make: Make, tmp_path: Path):
    for at in (10, 9, 100):
        make(f"s/{at}-n")
    (tmp_path / "s/other").mkdir()
    (tmp_path / "s/other/manifest.json").write_text('{"name": "an app"}')
    (tmp_path / "s/embeddings").mkdir()
    (tmp_path / "s/embeddings/manifest.json").write_text('{"schema": 1, "run_key": "k", "kind": "embed"}')
    assert [run.name for run in find_runs([str(tmp_path / "s")]).folders] == ["9-n", "10-n", "100-n"]
    assert sorted(["b10", "b9", "a", "10", "9", ""], key=natural) == ["", "9", "10", "a", "b9", "b10"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the runs: mig-jax report RUN"),
        (("nowhere",), "nowhere: there is no such folder"),
        (("empty",), "empty holds no finished selection"),
        (("a/selection.jsonl",), "is not the folder of a run, nor its manifest.json; a is one"),
        (("sample.jsonl",), "sample.jsonl.run is one"),
        (("note.txt",), "note.txt is not the folder of a run, nor its manifest.json"),
        (("broken",), "not a readable manifest"),
        (("inside",), "no run in inside can be read: inside/broken/manifest.json is not a readable manifest"),
        (
            ("annotated",),
            "annotated holds no finished selection, neither itself nor in the folders inside it; name annotated/rows",
        ),
        (("a", "newer"), "has schema 99; this mig_jax reads schema 1"),
        (("a", "embeddings"), "embeddings holds a run of mig-jax embed, not of mig-jax select"),
        (("a", "b", "out=x.txt"), "out=x.txt: must be a file that ends in .html"),
        (("a", "b", "out=no/x.html"), "there is no folder no"),
        (("a", "b", "outt=x.html"), "outt: no such key; did you mean out?"),
        (("a", "runs=[b]"), "name the runs in one way"),
        (("a", "b", "-m"), "writes one page; -m belongs to mig-jax select"),
        (("runs=3",), "runs=3: must be a list"),
        (("gone",), "report.html is gone; out=gone/report.html writes it again"),
        (("a", "torn"), "torn is not a whole run"),
        (("torn",), "torn is not a whole run"),
        (("a", "annotated/rows"), "annotated/rows holds a run of mig-jax annotate, not of mig-jax select"),
        (("annotated/rows",), "required field `name`"),
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
        ("newer", '{"schema": 99, "kind": "select", "run_key": "k"}'),
        ("embeddings", '{"schema": 1, "run_key": "k", "kind": "embed", "command": "mig-jax embed x"}'),
        (
            "annotated/rows",
            '{"schema": 1, "run_key": "k", "kind": "annotate", "command": "mig-jax annotate x", "annotators": {}}',
        ),
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text(text)
    before = names(tmp_path)
    assert message in mig("report", *arguments).error
    assert names(tmp_path) == before


def test_runs_of_a_folder_that_cannot_be_read_are_left_out(mig: Mig, make: Make, tmp_path: Path):
    """Each with what is wrong with it, in one note; a run that is named is an error still."""
    for at in range(3):
        make(f"s/{at}", ("mig", "random", "ifd")[at])
    broken = {
        "10-torn": ("trace.parquet", b"PAR1", "Parquet"),
        "11-gone": ("trace.parquet", None, "No such file or directory"),
        "12-cut": ("pool_stats.json", b'{"rows": 3', "Expecting"),
        "13-other": ("pool_stats.json", b"[]", "pool_stats.json lacks rows, usable"),
        "14-manifest": ("manifest.json", b"{", "not a readable manifest"),
        "15-newer": ("manifest.json", b'{"schema": 99, "kind": "select", "run_key": "k"}', "has schema 99"),
        "16-little": ("manifest.json", b'{"schema": 1, "kind": "select", "run_key": "k"}', "required field `name`"),
    }  # fmt: skip
    for name, (file, content, _) in broken.items():
        target = make(f"s/{name}") / file
        target.unlink() if content is None else target.write_bytes(content)
    fewer = make("s/17-fewer") / "manifest.json"
    fewer.write_text(fewer.read_text().replace('"n": 5,', '"n": 9,', 1))
    done = mig("report", "s")
    assert done.code == 0 and done.err == "", done
    assert [line.split()[0] for line in done.out.splitlines()[1:4]] == ["mig", "random", "ifd"]
    [note] = [line for line in done.out.splitlines() if line.startswith("note: 8 runs are left out: ")]
    page = (tmp_path / "s/comparison.html").read_text()
    assert "3 selections compared" in page and page.count("8 runs are left out") == 1
    expected = [(name, wrong) for name, (_, _, wrong) in broken.items()]
    expected.append(("17-fewer", "trace.parquet has 5 picks, manifest.json says 9"))
    starts = [note.index(f"s/{name}") for name, _ in expected]
    for start, end, (name, wrong) in zip(starts, [*starts[1:], len(note)], expected, strict=True):
        assert wrong in note[start:end] and f"s/{name}" in page, name
    assert len((tmp_path / "s/comparison.csv").read_text().splitlines()) == 4
    for named in (("s/10-torn",), ("s", "s/10-torn"), ("s/10-torn", "s")):
        assert "s/10-torn is not a whole run" in mig("report", *named).error


def test_one_run_that_can_be_read_beside_one_that_cannot(make: Make, tmp_path: Path):
    make("s/a")
    (make("s/b") / "trace.parquet").unlink()
    text = report_of(tmp_path, "s")
    assert "Picked 5 of 12 rows" in text and "note: One run is left out: s/b is not a whole run" in text
    assert "note: One run is left out" in report_of(tmp_path, "s", out="page.html")
    (tmp_path / "s/a/manifest.json").write_text("{")
    with pytest.raises(
        UserError, match=r"no run in s can be read: s/a/manifest\.json is not .*; s/b is not a whole run"
    ):
        report_of(tmp_path, "s")


def test_annotated_rows_are_summarised_and_their_page_written_again(mig: Mig, tmp_path: Path):
    said = {"tags": [tagged("law")] * 3, "ifd": [helped(0.5 + at) for at in range(3)]}
    folder = annotation(tmp_path / "runs/rows", map(row, range(3)), said)
    done = mig("report", "runs/rows")
    assert done.code == 0 and "tags: 3 of 3 rows\nifd: 3 of 3 rows\nruns/rows/report.html" in done.out, done
    again = mig("report", "runs/rows/manifest.json", "out=page.html")
    assert again.out == "report  page.html\n"
    assert (tmp_path / "page.html").read_text() == (folder / "report.html").read_text()
    assert "out=page.html: exists; overwrite=true" in mig("report", "runs/rows", "out=page.html").error
    (folder / "report.html").unlink()
    assert "report.html is gone; out=runs/rows/report.html writes it again" in mig("report", "runs/rows").error
    assert mig("report", "runs/rows", "out=runs/rows/report.html").code == 0
    assert (tmp_path / "page.html").read_text() == (folder / "report.html").read_text()


def test_a_vocabulary_is_summarised_again(mig: Mig, make: Make, tmp_path: Path):
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [
        {"dialogs": said, "annotation": {"instag": {"content": tags}}}
        for tags in (["law", "Law"], ["law"], ["Law", "war"])
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    alone = ("vocabulary.rules=spelling", "vocabulary.distance=null")  # no embedder
    made = mig("vocabulary", "p.jsonl", *alone, "out=runs/words")
    assert made.code == 0 and made.out.splitlines()[-1].startswith("mig-jax select p.jsonl pool.valid_tags="), made
    for name in ("runs/words", "runs/words/manifest.json"):
        done = mig("report", name)
        assert (done.code, done.out) == (0, made.out), done
    assert (
        "holds the files of mig-jax vocabulary, which have no page"
        in mig("report", "runs/words", "out=page.html").error
    )
    assert not (tmp_path / "page.html").exists()
    assert "; name runs/words itself to see what mig-jax vocabulary made" in mig("report", "runs").error
    make("runs/a")
    assert "Picked 5 of 12 rows" in report_of(tmp_path, "runs"), "among selections it does not disturb"
    error = mig("report", "runs/a", "runs/words").error
    assert "runs/words holds a run of mig-jax vocabulary, not of mig-jax select" in error
    for broken, wrong in (("[{}]", "steps.json lacks 'step'"), ("{", "Expecting"), (None, "No such file")):
        file = tmp_path / "runs/words/steps.json"
        file.unlink() if broken is None else file.write_text(broken)
        error = mig("report", "runs/words").error
        assert "runs/words is not a whole run: " in error and wrong in error


def test_annotated_rows_among_selections_do_not_disturb(make: Make, tmp_path: Path):
    make("runs/a")
    make("runs/b", "random")
    before = report_of(tmp_path, "runs")
    (tmp_path / "runs/comparison.html").unlink()
    annotation(tmp_path / "runs/rows", [row(0)], {"tokens": [counted(3)]})
    assert report_of(tmp_path, "runs") == before and "left out" not in before


def test_arguments_are_runs():
    assert prepare(["a b", "it's", "out=x.html"], "report") == ["runs=['a b','it\\'s']", "out=x.html"]
    assert prepare(["runs=[a,b]"], "report") == ["runs=[a,b]"]


def test_help_names_the_keys():
    text = command_help(COMMANDS["report"])
    for words in ("mig-jax report RUN", "runs: []", "out: null", "overwrite: false", "mig-jax report runs/all"):
        assert words in text
    assert "hydra" not in text


@pytest.mark.parametrize("arguments", [["a", "b"], ["rows"], ["rows", "out=page.html"]])
def test_a_report_waits_for_none_of_the_large_libraries(make: Make, tmp_path: Path, arguments: list[str]):
    make("a")
    make("b")
    annotation(tmp_path / "rows", [row(0)], {"tokens": [counted(3)]})
    code = f"""
import sys
from mig_jax.cli.main import main
main(["report", *{arguments}])
print(json.dumps([name for name in ("jax", "matplotlib", "pandas", "scipy") if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import json{code}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
