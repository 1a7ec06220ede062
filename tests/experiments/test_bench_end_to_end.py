"""The benchmark of the whole command: its pool is a pool, and its table adds up."""

import json

import numpy as np
import pytest

from experiments import bench_end_to_end as bench
from mig_jax.encode import encode
from mig_jax.labels import LabelGraph
from mig_jax.pool import load_pool
from mig_jax.pool.configured import bundled_pool


def test_the_pool_is_the_same_again_and_made_of_real_rows(tmp_path):
    pool, graph = bench.make_pool(tmp_path / "a", 2_500, bundled_pool())
    again, _ = bench.make_pool(tmp_path / "b", 2_500, bundled_pool())
    assert pool.read_bytes() == again.read_bytes()
    assert 2_800 < pool.stat().st_size / 2_500 < 3_700
    read = load_pool(pool)
    encoded = encode(read)
    assert len(encoded) == len(read) == len({read.id(row) for row in range(len(read))}) == 2_500
    LabelGraph.load(graph).restrict(encoded.labels)
    assert 3 < len(encoded.label_idx) / len(encoded) < 5
    real = load_pool(bundled_pool())
    texts = {text for dialog in real.dialogs(np.arange(len(real))) for _, text in dialog}
    assert {text for dialog in read.dialogs(np.arange(50)) for _, text in dialog} <= texts


@pytest.mark.slow
def test_the_table_adds_up(tmp_path, capsys):
    work, out = tmp_path / "work", tmp_path / "out"
    bench.main(["--rows", "1500", "--picks", "40", "--work", str(work), "--out", str(out)])
    found = json.loads((out / "results.json").read_text())
    text = (out / "table.md").read_text()
    assert capsys.readouterr().out == text
    assert found["same"]
    for name, ran in found["runs"].items():
        stages = ran["stages"]
        assert {"start", "read pool", "encode", "select", "judge", "rows", "export", "report"} <= set(stages), name
        assert abs(stages["not counted"]) < 1.0
        assert sum(stages.values()) == pytest.approx(ran["wall"])
        assert all(seconds >= 0 for stage, seconds in stages.items() if stage != "not counted")
        assert ran["peak_bytes"] > 1e8
        assert f"**{ran['wall']:.2f}**" in text
    assert found["runs"]["cold"]["stages"]["compile"] > 0
    assert not list(work.iterdir())
