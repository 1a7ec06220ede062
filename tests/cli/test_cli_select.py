"""``mig-jax select`` as somebody uses it who has read the help: every file, every form of the arguments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cli_pools
import pyarrow.parquet as pq
import pytest
from conftest import Mig
from mig_command import Server, environment, finish, start

FILES = {
    "selection.jsonl",
    "trace.parquet",
    "runners_up.parquet",
    "pool_stats.json",
    "manifest.json",
    "report.html",
    "dataset_info.json",
}
MIG_LAYOUT = {
    "file_name": "selection.jsonl",
    "formatting": "sharegpt",
    "columns": {"messages": "dialogs"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def names(folder: Path) -> list[str]:
    """What lies in it, hidden things too."""
    return sorted(os.listdir(folder))  # noqa: PTH208


def rows_of(out: Path, pool: Path, selection: str = "selection.jsonl") -> list[int]:
    """The rows of the trace, after checking that the selection holds just their bytes, in this order."""
    lines = pool.read_bytes().splitlines(keepends=True)
    rows = pq.read_table(out / "trace.parquet")["row"].to_pylist()
    picked = (out / selection).read_bytes().splitlines(keepends=True)
    assert picked == [lines[i] for i in rows[: len(picked)]]
    return rows


@pytest.mark.slow
def test_alone_in_a_new_interpreter(cache: Path, tmp_path: Path) -> None:
    """No arguments: the bundled pool. By the installed script, as a user has it."""
    done = finish(start(["select"], tmp_path, environment(cache)))
    assert (done.code, done.err) == (0, ""), done
    assert "Picked 50 of 463 rows" in done.out and "runs/demo-mig/report.html" in done.out
    assert names(tmp_path) == ["runs"] and names(tmp_path / "runs") == ["demo-mig"]
    out = tmp_path / "runs" / "demo-mig"
    assert set(names(out)) == FILES
    from mig_jax.pool.configured import bundled_pool

    rows = rows_of(out, bundled_pool())
    assert len(set(rows)) == 50
    info = json.loads((out / "dataset_info.json").read_text())
    assert info == {"demo": MIG_LAYOUT}
    trace = pq.read_table(out / "trace.parquet").to_pydict()
    assert trace["rank"] == list(range(1, 51))
    assert trace["objective"] == sorted(trace["objective"]) and min(trace["gain"]) > 0
    near = pq.read_table(out / "runners_up.parquet").to_pydict()
    assert len(near["row"]) == 50 and not set(near["row"]) & set(rows)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["n"] == 50 and manifest["command"].startswith("mig-jax select")
    assert set(manifest["files"]) == FILES - {"manifest.json", "report.html"}
    assert "<html" in (out / "report.html").read_text()[:200]


@pytest.mark.parametrize("module", [["-m", "mig_jax.cli.main"], ["-c", "from mig_jax.cli.main import main; main()"]])
def test_help_from_a_new_interpreter(cache: Path, tmp_path: Path, module: list[str]) -> None:
    """It does not wait for JAX, and needs no cache."""
    command = [sys.executable, *module, "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(cache), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("mig-jax: select the rows") and done.stderr == ""


@pytest.mark.slow
def test_help_version_and_configuration(mig: Mig, tmp_path: Path) -> None:
    for words in ([], ["-h"], ["--help"], ["help"]):
        assert mig(*words).out.startswith("mig-jax: select the rows")
    assert mig("--version").out == "0.1.0\n"
    told = mig("select", "--help").out
    for key in (
        "checkpoint_every",
        "propagation",
        "on_error",
        "runners_up",
        "coordinator",
        "first_order: the published gain; exact",
        "phi(x) = log(1 + x / c)",
        "+experiment=NAME",
    ):
        assert key in told
    for words in (["--cfg", "job"], ["-c", "job"], ["p.jsonl", "--cfg", "job", "n=7"], ["p.jsonl", "n=7", "--cfg=job"]):
        done = mig("select", *words)
        assert (done.code, done.err) == (0, ""), done
        assert ("p.jsonl" in words) == ("path: p.jsonl" in done.out) == ("'n': 7" in done.out)
    assert mig("select", "--info", "searchpath", "n=3").code == 0
    assert mig("select", "phi=log", "--cfg", "job", "--package", "phi").out.split() == [
        "#",
        "@package",
        "phi",
        *["kind:", "log", "c:", "1.0"],
    ]
    assert names(tmp_path) == []


AWKWARD = [
    "two words.jsonl",
    "a=b,c (1) [2] {3} ~x & y.jsonl",
    'it\'s "quoted" \\ twice\\\\.jsonl',
    "${oc.env:HOME} ${n}.jsonl",
    "\\${n}$.jsonl",
    "größe 数据 😀.jsonl",
    "./-n=5.jsonl",
    "n=5.jsonl",
    "~n.jsonl",
    "#1; echo 100% :colon!.jsonl",
    "2024",
]


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names(mig: Mig, tmp_path: Path, name: str) -> None:
    """As the pool, and as ``out``; 2024 is a folder that reads like a number."""
    pool = tmp_path / name
    cli_pools.good(pool if name.endswith("l") else pool / "pool.jsonl")
    # In key=value an interpolation stays one unless a file of that name exists; no ``out`` of that name does.
    out = "20_25" if "${" in name or name == "2024" else f"{Path(name).stem}.d"
    words = [name] if AWKWARD.index(name) % 2 else [f"pool.path={name}"]
    done = mig("select", *words, "n=3", f"out={out}", "sampler=random")
    assert (done.code, done.err) == (0, ""), done
    assert sorted(names(tmp_path)) == sorted([Path(name).name, out])
    rows_of(tmp_path / out, pool if name.endswith("l") else pool / "pool.jsonl")
    (source,) = json.loads((tmp_path / out / "manifest.json").read_text())["inputs"]
    assert (tmp_path / source["path"]).is_file()


def test_the_command_in_the_manifest_runs_again(mig: Mig, server: Server, tmp_path: Path) -> None:
    import shlex

    cli_pools.good(tmp_path / "it's a (pool), ${x}.jsonl")
    assert mig("select", "it's a (pool), ${x}.jsonl", "n=3", "out=a b", "sampler=random").code == 0
    command = shlex.split(json.loads((tmp_path / "a b" / "manifest.json").read_text())["command"])
    assert command[0] == "mig-jax"
    again = server.run(command[1:], tmp_path)
    assert again.code == 0 and "holds this very run already" in again.err, again


@pytest.mark.slow
def test_several_files_in_their_order(mig: Mig, tmp_path: Path) -> None:
    for name, rows in {"b.jsonl": range(6), "a,1.jsonl": range(6, 12)}.items():
        cli_pools.write(tmp_path / "pool" / name, [cli_pools.row(i) for i in rows])
    assert mig("select", "pool", "n=12", "out=folder", "sampler=random").code == 0
    assert mig("select", "pool/*.jsonl", "n=12", "out=glob", "sampler=random").code == 0
    listed = mig("select", "pool.path=['pool/a,1.jsonl',pool/b.jsonl]", "n=12", "out=list", "sampler=random")
    assert listed.code == 0, listed
    folder, glob, several = ((tmp_path / out / "selection.jsonl").read_bytes() for out in ("folder", "glob", "list"))
    assert folder == glob == several
    assert names(tmp_path) == ["folder", "glob", "list", "pool"]


def test_budgets(mig: Mig, tmp_path: Path) -> None:
    pool = cli_pools.good(tmp_path / "pool.jsonl")
    assert mig("select", "pool.jsonl", "n=[5,2,5]", "out=new/run").code == 0
    out = tmp_path / "new" / "run"
    assert {"selection_2.jsonl", "selection_5.jsonl"} <= set(names(out)) and "selection.jsonl" not in names(out)
    assert len(rows_of(out, pool, "selection_5.jsonl")) == 5
    rows_of(out, pool, "selection_2.jsonl")
    info = json.loads((out / "dataset_info.json").read_text())
    assert info == {f"pool_{n}": MIG_LAYOUT | {"file_name": f"selection_{n}.jsonl"} for n in (2, 5)}
    assert list(json.loads((out / "manifest.json").read_text())["objective"]) == ["2", "5"]


@pytest.fixture(scope="module")
def variants(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """The rows that each setting selects of one pool."""
    folder = tmp_path_factory.mktemp("variants")
    pool = cli_pools.good(folder / "pool.jsonl", 60)
    settings = {
        "mig": [],
        "exact": ["sampler.gain=exact"],
        "exp": ["phi=exp", "phi.alpha=0.01"],
        "log": ["phi=log"],
        "random": ["sampler=random"],
        "ifd": ["sampler=ifd"],
        "one": ["pool.valid_tags=tags.txt"],
    }
    (folder / "tags.txt").write_text("algebra\n")
    found = {}
    for name, words in settings.items():
        done = server.run(["select", "pool.jsonl", "n=10", f"out={name}", *words], folder)
        assert (done.code, done.err) == (0, ""), done
        assert set(names(folder / name)) == FILES
        found[name] = rows_of(folder / name, pool)
    return found


@pytest.mark.slow
def test_settings_matter(variants: dict[str, list[int]]) -> None:
    assert all(len(set(rows)) == 10 for rows in variants.values())
    ifd = [0.4 + (i * 7 % 11) / 10 for i in range(60)]
    assert variants["ifd"] == sorted((i for i in range(60) if ifd[i] <= 1), key=lambda i: (-ifd[i], i))[:10]
    assert variants["random"] != variants["mig"] != variants["ifd"] and variants["one"] != variants["mig"]
    assert all(i % 5 == 0 or (i * 3 + 1) % 4 == 0 for i in variants["one"])


def test_export_converts(mig: Mig, tmp_path: Path) -> None:
    cli_pools.good(tmp_path / "pool.jsonl")
    assert mig("select", "pool.jsonl", "n=3", "out=run", "export.layout=sharegpt", "sampler=random").code == 0
    for line in (tmp_path / "run" / "selection.jsonl").read_text().splitlines():
        assert {turn["from"] for turn in json.loads(line)["conversations"]} == {"human", "gpt"}
    info = json.loads((tmp_path / "run" / "dataset_info.json").read_text())
    assert info["pool"]["columns"] == {"messages": "conversations"}


def test_fields_are_mapped(mig: Mig, tmp_path: Path) -> None:
    """Tags and the score where this pool has them; both forms of the keys."""
    rows = [
        {"messages": r["dialogs"], "meta": {"t": r["annotation"]["instag"]["content"]}, "s": 1.0 + i}
        for i, r in enumerate(map(cli_pools.row, range(8)))
    ]
    cli_pools.write(tmp_path / "pool.jsonl", rows)
    one = mig("select", "pool.jsonl", "n=3", "pool.fields.tags=meta.t", "score.from=s", "out=one")
    two = mig("select", "pool.jsonl", "n=3", "pool.fields={tags: meta.t}", "score.from=s", "out=two")
    assert one.code == two.code == 0, (one, two)
    assert (tmp_path / "one" / "selection.jsonl").read_bytes() == (tmp_path / "two" / "selection.jsonl").read_bytes()


@pytest.mark.slow
def test_two_runs_at_once(server: Server, tmp_path: Path) -> None:
    """On one ``out`` the second is refused; with one cold cache both are right."""
    pool, graph = (
        cli_pools.large(tmp_path / "large", 3_000, 200) if (tmp_path / "large").mkdir() is None else (None, None)
    )
    long = ["select", str(pool), f"graph.path={graph}", "n=1500", "engine.shortlist=64", "engine.picks_per_call=32"]
    first = server.start([*long, "out=run"], tmp_path)
    while first.poll() is None and not (tmp_path / ".run.partial" / "claim.json").exists():
        pass
    second = server.start([*long, "out=run"], tmp_path).wait()
    assert first.wait().code == 0
    if second.code == 2:
        assert "another process" in second.error and "is writing this out" in second.error
    else:  # it came when the first had ended
        assert second.code == 0 and "holds this very run already" in second.err
    cli_pools.good(tmp_path / "pool.jsonl", 40)
    cold = tmp_path / "cold"
    words = ["select", "pool.jsonl", "n=7"]
    jobs = [server.start([*words, f"out={out}"], tmp_path, cold) for out in ("a", "b")]
    for job in jobs:
        done = job.wait()
        assert (done.code, done.err) == (0, ""), done
    a, b = ((tmp_path / out / "selection.jsonl").read_bytes() for out in ("a", "b"))
    assert a == b
    assert names(tmp_path) == ["a", "b", "cold", "large", "pool.jsonl", "run"]


def test_without_a_cache(mig: Mig, server: Server, tmp_path: Path) -> None:
    cli_pools.good(tmp_path / "pool.jsonl")
    assert mig("select", "pool.jsonl", "n=3", "out=a", "sampler=random", "cache=null").code == 0
    before = names(tmp_path)
    assert before == ["a", "pool.jsonl"]
