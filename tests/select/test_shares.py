"""Labels that earned a gain, as arrays and as lists; and trace.parquet made of them."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_run import run_facts

from mig_jax import label_graph, load_pool, select
from mig_jax.commands.select.shares import LabelShares, biggest
from mig_jax.commands.select.trace import write_trace


def random_rows(seed: int, names: list[str], rows: int = 40) -> list[list[tuple[str, float]]]:
    rng = np.random.default_rng(seed)
    return [
        [(names[i], float(rng.integers(0, 4))) for i in rng.permutation(len(names))[: rng.integers(0, 14)]]
        for _ in range(rows)
    ]


NAMES = [f"label {i:02d}" for i in range(18)] + ["é", "\ud800"]


def test_lists_and_back():
    rows = random_rows(0, NAMES)
    shares = LabelShares.of(rows)
    assert len(shares) == len(rows)
    for got, row in zip(shares, rows, strict=True):
        assert got == sorted(row, key=lambda share: -share[1])
    assert shares[2:5] == [shares[2], shares[3], shares[4]]
    assert shares[-1] == shares[39]
    assert LabelShares.of(shares) is shares
    assert len(LabelShares.of([])) == 0


def test_the_biggest_of_all_are_the_biggest_of_each():
    for seed in range(20):
        rows = random_rows(seed, NAMES)
        found = LabelShares.of(rows).biggest()
        assert [list(row) for row in found] == [biggest(row) for row in rows]
        assert np.diff(found.ptr).max() == 8


def test_the_trace_says_what_the_lists_say(tmp_path):
    rows = random_rows(1, NAMES, 5)
    rows[3] = []
    facts = run_facts()
    args = (
        facts.encoded.row[facts.selection.points],
        facts.selection.gains,
        facts.rise,
        facts.objective,
        ["w"],
        np.arange(5.0),
    )
    write_trace(tmp_path / "a", facts.pool, *args, rows)
    write_trace(tmp_path / "b", facts.pool, *args, LabelShares.of(rows))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = pq.read_table(tmp_path / "a").to_pylist()
    assert [[(one["label"], one["share"]) for one in row["labels"]] for row in read] == [biggest(row) for row in rows]
    assert [row["id"] for row in read] == [facts.pool.id(int(at)) for at in args[0]]
    assert None in [row["id"] for row in read]
    assert [row["tokens"] for row in read] == [None if t < 0 else t for t in facts.pool.tokens[args[0]].tolist()]


def test_no_pandas_for_a_trace(tmp_path):
    """Where it is installed, Arrow imports it to ask whether a list is one of its: seconds of a run."""
    code = f"""
import sys
sys.path.insert(0, "tests/select")
import numpy as np
from pathlib import Path
from fake_run import run_facts
from mig_jax.commands.select.trace import write_trace, write_runners_up
facts = run_facts()
rows = facts.encoded.row[facts.selection.points]
path, curves = Path({str(tmp_path)!r}) / "t", (facts.rise, facts.rise, facts.objective)
write_trace(path, facts.pool, rows, *curves, ["w"], facts.objective, facts.labels_earned)
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("gain", ["first_order", "exact"])
def test_shares_and_rises_of_a_run(tmp_path, gain):
    """A label's share is a part of its pick's gain; the rises of the picks sum to E(D)."""
    rng = np.random.default_rng(0)
    tags = [f"t{at:02d}" for at in range(14)]
    with (tmp_path / "pool.jsonl").open("w") as file:
        for at in range(40):
            instag = [tags[i] for i in rng.permutation(len(tags))[: rng.integers(1, 13)]]
            scores = {"quality_scores": [float(rng.integers(1, 6))], "complexity_scores": [2.0]}
            turns = [{"role": "user", "content": f"{at}?"}, {"role": "assistant", "content": "!"}]
            file.write(
                json.dumps({"dialogs": turns, "annotation": {"instag": {"content": instag}, "deita": scores}}) + "\n"
            )
    pool = load_pool(tmp_path / "pool.jsonl")
    unit = rng.normal(size=(len(tags), 5)).astype(np.float32)
    graph = label_graph(pool, embeddings=unit / np.linalg.norm(unit, axis=1, keepdims=True), threshold=0.3)
    run = select(pool, 20, gain=gain, graph=graph).write(tmp_path / "run")
    trace = pq.read_table(run / "trace.parquet").to_pylist()
    shares = [[label["share"] for label in row["labels"]] for row in trace]
    shown = json.loads((run / "pool_stats.json").read_bytes())
    shares += [[share for _, share in row["labels"]] for row in shown["picks"] + shown["runners_up"]]
    shares += [
        [label["share"] for label in row["labels"]] for row in pq.read_table(run / "runners_up.parquet").to_pylist()
    ]
    assert max(map(len, shares)) == 8  # some rows have more labels
    for row in shares:
        assert min(row) >= 0 and sum(row) <= 1 + 1e-12
        assert len(row) == 8 or sum(row) == pytest.approx(1)
    rises = np.array([row["rise"] for row in trace])
    np.testing.assert_allclose(np.cumsum(rises), [row["objective"] for row in trace], rtol=1e-12)
    gains = np.array([row["gain"] for row in trace])
    assert (rises < gains).all() if gain == "first_order" else np.allclose(rises, gains)
