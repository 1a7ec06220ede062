"""Which score rows have: score.from and sampler.score as they are typed, and what the files tell of it."""

import csv
import json
from pathlib import Path

import cli_pools
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Mig


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Twelve rows with every score; only the last lacks IFD."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(12):
        numbers = {name: rng.uniform(1, 6, 1 + i % 3).round(3).tolist() for name in ("quality", "complexity")}
        row = cli_pools.row(i, ifd=None if i == 11 else round(float(rng.uniform(0.1, 1)), 3), **numbers)
        row["annotation"]["CaR"] = round(float(rng.uniform(1, 9)), 3)
        rows.append(row)
    return cli_pools.write(tmp_path / "pool.jsonl", rows)


def number(row: dict, name: str) -> float:
    """Of a record, by hand; the mean over its turns."""
    deita = row["annotation"]["deita"]
    quality, complexity = (np.array(deita[f"{name}_scores"]) for name in ("quality", "complexity"))
    return {
        "deita": lambda: (quality * complexity).mean(),
        "quality": lambda: quality.mean(),
        "ifd": lambda: row["ifd_score"]["content"],
        "car": lambda: row["annotation"]["CaR"],
        "annotation.CaR": lambda: row["annotation"]["CaR"],
    }[name]()


def manifest(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


@pytest.mark.parametrize(
    ("asked", "score"),
    [
        ("score.from=deita*ifd", "deita*ifd"),
        ("score.from=quality*annotation.CaR", "quality*annotation.CaR"),
        ("score.from=car", "car"),
    ],
)
def test_a_score_as_it_is_typed(mig: Mig, pool: Path, tmp_path: Path, asked: str, score: str) -> None:
    done = mig("select", pool, "n=5", "out=run", *asked.split())
    assert done.code == 0, done
    records = [json.loads(line) for line in pool.read_text().splitlines()]
    trace = pq.read_table(tmp_path / "run" / "trace.parquet")
    expected = [np.prod([number(records[r], name) for name in score.split("*")]) for r in trace["row"].to_pylist()]
    np.testing.assert_allclose(trace["score"].to_pylist(), expected, rtol=1e-12)
    told = manifest(tmp_path / "run")
    assert told["config"]["score"]["from"] == score
    assert told["dropped"] == ({"no ifd score": 1} if "ifd" in score else {})


def test_a_run_is_known_by_its_score(mig: Mig, pool: Path, tmp_path: Path) -> None:
    keys = set()
    for name, score in (("a", "quality"), ("b", "deita"), ("c", "ifd*deita")):
        assert mig("select", pool, "n=3", f"out={name}", f"score.from={score}").code == 0
        keys.add(manifest(tmp_path / name)["run_key"])
    assert len(keys) == 3
    again = mig("select", pool, "n=3", "out=a", "score.from=quality")
    assert again.code == 0 and "holds this very run already" in again.err


def test_a_sweep_is_named_by_its_score(mig: Mig, pool: Path, tmp_path: Path) -> None:
    done = mig("select", "-m", pool, "n=3", "score.from=deita,deita*ifd", "out=sweep")
    assert done.code == 0, done
    names = sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert names == ["0-score.from=deita", "1-score.from=deita_ifd"]
    assert "mig from=deita*ifd" in done.out, done.out


def test_a_sampler_may_rank_by_a_product(mig: Mig, pool: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in pool.read_text().splitlines()]
    np.save(tmp_path / "rows.npy", np.eye(12, dtype=np.float32))
    same = ["embeddings.path=rows.npy", "sampler=deita", "sampler.turns=mean"]
    for at, score in enumerate(("quality*ifd", "car")):
        done = mig("select", pool, "n=11", *same, f"sampler.score={score}", f"out=run{at}")
        assert done.code == 0, done
        rows = pq.read_table(tmp_path / f"run{at}" / "trace.parquet")["row"].to_pylist()
        has = [r for r in range(12) if score == "car" or r != 11]
        order = sorted(has, key=lambda r: -np.prod([number(records[r], name) for name in score.split("*")]))
        assert rows == order[:11]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("score.from=deita*", "score.from=deita*: must be deita, quality, complexity, ifd, car, the path of"),
        ("score.from=*ifd", "score.from=*ifd: must be"),
        ("score.from=deita**ifd", "score.from=deita**ifd: must be"),
        ("score.from=a..b", "score.from=a..b: must be"),
        ("sampler=qdit sampler.score=ifd*", "sampler.score=ifd*: must be"),
        ("score.from=qualty", "12 no number at qualty. score.from= may be deita, quality"),
        ("score.from=quality*no.such", "no usable row among 12: 12 no number at no.such"),
        ("sampler=ifd sampler.score=ifd*no.such", "no usable row among 12: 1 no ifd score, 11 no number at no.such"),
        ("score.from=3", "score.from=3: must be a text"),
    ],
)
def test_mistakes(mig: Mig, pool: Path, tmp_path: Path, asked: str, told: str) -> None:
    for command in ("select", "plan") if "must be" in told else ("select",):
        out = () if command == "plan" else ("out=run",)
        error = mig(command, pool, "n=3", *out, *asked.split()).error
        assert told in error and len(error) < 400, error
    assert not (tmp_path / "run").exists()


def test_the_other_commands_take_it(mig: Mig, pool: Path, tmp_path: Path) -> None:
    done = mig("plan", pool, "n=3", "score.from=quality*car")
    assert done.code == 0, done
    for name, asked in (("runs/a", "score.from=quality"), ("runs/b", "score.from=deita*ifd")):
        assert mig("select", pool, "n=3", f"out={name}", asked).code == 0
    done = mig("report", "runs")
    assert done.code == 0 and "scores of rows" in done.out, done
    with (tmp_path / "runs" / "comparison.csv").open(newline="") as file:
        assert [row["settings"] for row in csv.DictReader(file)] == ["score.from=quality", "score.from=deita*ifd"]
