"""Every system by its name, on one pool in one sweep; raw pools; limits as they are typed."""

import json
from pathlib import Path

import cli_pools
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Mig

from mig_jax.samplers import SAMPLERS

ROWS = 40
NEEDS_VECTORS = {name for name, sampler in SAMPLERS.items() if "vectors" in sampler.needs}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    rows = [cli_pools.row(i) for i in range(ROWS)]
    for i, row in enumerate(rows):
        row["annotation"]["CaR"] = [(i * 5 % 13) / 13]
        row["tokens"] = 20 + i
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((ROWS, 8)).astype(np.float32))
    return cli_pools.write(tmp_path / "pool.jsonl", rows)


def test_all_systems_in_one_sweep(mig: Mig, pool: Path, tmp_path: Path) -> None:
    done = mig("select", "-m", pool, "n=6", f"sampler={','.join(SAMPLERS)}", "embeddings.path=rows.npy", "out=all")
    assert done.code == 0, done
    lines = pool.read_bytes().splitlines(keepends=True)
    for name in SAMPLERS:
        (out,) = (tmp_path / "all").glob(f"*sampler={name}")
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["config"]["sampler"]["name"] == name
        assert manifest["n"] == (ROWS if name == "pool" else 6)
        assert 0 < manifest["certificate"][str(manifest["n"])]["ratio"] <= 1
        trace = pq.read_table(out / "trace.parquet")
        rows = trace["row"].to_pylist()
        assert len(set(rows)) == len(rows)
        assert (out / "selection.jsonl").read_bytes() == b"".join(lines[row] for row in rows)
        assert all(trace["reason"].to_pylist())
    told = mig("report", "all", "out=compare.html")
    assert told.code == 0 and all(name in told.out for name in SAMPLERS), told
    assert "<script src" not in (tmp_path / "compare.html").read_text()


@pytest.mark.parametrize("name", ["random", "zip", "pool"])
def test_a_raw_pool(mig: Mig, tmp_path: Path, name: str) -> None:
    rows = [{"instruction": f"do {i}", "output": "word " * i} for i in range(9)]
    cli_pools.write(tmp_path / "raw.jsonl", rows)
    done = mig("select", "raw.jsonl", "n=3", f"sampler={name}", "out=a")
    assert done.code == 0 and "E(D) is not known" in done.out, done
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["labels"]["total"] == 0 and manifest["certificate"] == {}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mig", "no usable row among 2: 2 no tags"),
        ("instag", "no usable row among 2: 2 no tags"),
        ("ifd", "no usable row among 2: 2 no ifd score"),
        ("car", "none of the 2 usable rows has the score that it ranks by, sampler.score=annotation.CaR"),
        ("deita", "no usable row among 2: 2 no deita score"),
    ],
)
def test_what_a_raw_pool_lacks_for_a_system(mig: Mig, tmp_path: Path, name: str, told: str) -> None:
    cli_pools.write(tmp_path / "raw.jsonl", [{"instruction": "do", "output": "it"}] * 2)
    done = mig("select", "raw.jsonl", "n=1", f"sampler={name}", "out=a")
    assert done.code == 2 and told in done.err and not (tmp_path / "a").exists(), done


def test_limits_as_they_are_typed(mig: Mig, pool: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("r7\nr3\n")
    (tmp_path / "out.json").write_text('["r0", "r1"]')
    more = ["limits.include=in.txt", "limits.exclude=out.json", "limits.sources={a:4,*:3}"]
    for name in ("mig", "random", "deita", "qdit", "instag"):
        done = mig("select", pool, "n=7", f"sampler={name}", "embeddings.path=rows.npy", *more, f"out=runs/{name}")
        assert done.code == 0, done
        rows = pq.read_table(tmp_path / "runs" / name / "trace.parquet")["row"].to_pylist()
        assert rows[:2] == [7, 3] and not {0, 1} & set(rows) and len(rows) == 7
        assert sum(row % 2 == 0 for row in rows) == 4 and sum(row % 2 for row in rows) == 3
        limits = json.loads((tmp_path / "runs" / name / "manifest.json").read_text())["limits"]
        assert limits["must include"] == 2 and limits["excluded"] == 2
        assert [(q["name"], q["picked"]) for q in limits["quotas"]] == [("source a", 4), ("source b", 3)]
    done = mig("select", pool, "n=9", "sampler=mig", "limits.warm_start=runs/mig", "out=runs/warm")
    assert done.code == 0, done
    warm = pq.read_table(tmp_path / "runs" / "warm" / "trace.parquet")
    earlier = pq.read_table(tmp_path / "runs" / "mig" / "trace.parquet")
    assert warm["row"].to_pylist()[:7] == earlier["row"].to_pylist()
    assert warm["reason"].to_pylist()[:7] == ["earlier selection"] * 7


@pytest.mark.parametrize("name", ["mig", "qdit", "random"])
def test_a_budget_of_tokens(mig: Mig, pool: Path, tmp_path: Path, name: str) -> None:
    done = mig("select", pool, "n=null", f"sampler={name}", "embeddings.path=rows.npy", "limits.tokens=300", "out=a")
    assert done.code == 0 and "of 300 (" in done.out, done
    rows = pq.read_table(tmp_path / "a" / "trace.parquet")["row"].to_pylist()
    spent = sum(20 + row for row in rows)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert 240 < spent <= 300 and manifest["limits"]["tokens"] == {"budget": 300.0, "spent": spent}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("sampler=car limits.tokens=100", "limits.tokens: sampler=car cannot have it"),
        ("sampler=pool limits.include=in.txt", "sampler=pool cannot have it: it takes everything"),
        ("sampler=deita sampler.threshold=2", "sampler.threshold=2: must be a number"),
        ("sampler=deita sampler.alpha=0.5", "sampler.alpha: not a key of the sampler chosen; sampler=qdit has it"),
        ("sampler=qdit sampler.alpha=-1", "sampler.alpha=-1: must be a number"),
        ("limits.tokens=100 limits.cost=nothing", "limits.cost=nothing"),
        ("sampler=deita embeddings.path=nowhere.npy", "embeddings.path=nowhere.npy: no such file"),
        ("sampler=qdit embeddings.path=short.npy", "holds 3 vectors, and the pool has 40 rows"),
        ("n=null", "n: must be given, as n=..., or a budget of tokens"),
    ],
)
def test_mistakes(mig: Mig, pool: Path, tmp_path: Path, arguments: str, told: str) -> None:
    (tmp_path / "in.txt").write_text("r7\n")
    np.save(tmp_path / "short.npy", np.ones((3, 2), np.float32))
    done = mig("select", pool, "n=5", "out=a", *arguments.split())
    assert done.code == 2 and told in done.err and len(done.err.splitlines()) == 1, done
    assert not (tmp_path / "a").exists()
