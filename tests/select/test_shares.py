"""Labels that earned a gain, as arrays and as lists; and trace.parquet made of them."""

import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
from fake_run import run_facts

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
    args = (facts.encoded.row[facts.selection.points], facts.selection.gains, facts.objective, ["w"], np.arange(5.0))
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
write_trace(Path({str(tmp_path)!r}) / "t", facts.pool, rows, facts.objective, facts.objective, ["w"], facts.objective,
            facts.labels_earned)
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
