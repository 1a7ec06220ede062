"""The Python API is the same path as ``mig-jax select``: the same settings, the same bytes."""

import json
from pathlib import Path

import numpy as np
import pytest

from mig_jax import label_graph, load_pool, select
from mig_jax.commands.registry import compose
from mig_jax.commands.select.run import run_select
from mig_jax.core.errors import UserError
from mig_jax.objective import make_phi

ROWS = 24


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for at in range(ROWS):
        tags = [f"tag {k}" for k in rng.integers(0, 9, at % 4).tolist()]
        scores = {"quality_scores": [float(rng.integers(1, 6))], "complexity_scores": [float(rng.integers(1, 6))]}
        turns = [{"role": "user", "content": f"question {at}"}, {"role": "assistant", "content": "word " * (at % 5)}]
        annotation = {"instag": {"content": tags}, "deita": scores, "CaR": [float(rng.uniform(0, 1))]}
        row = {"dialogs": turns, "_id": f"r{at}", "source": ["web", "code"][at % 2 :][:1], "annotation": annotation}
        rows.append(row | {"ifd_score": {"content": float(rng.uniform(0, 1.2))}, "tokens": 10 + at})
    rows[3]["annotation"].pop("instag")
    np.save(tmp_path / "rows.npy", rng.standard_normal((ROWS, 5)).astype(np.float32))
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "pool.jsonl"


@pytest.mark.parametrize(
    ("overrides", "arguments"),
    [
        ([], {}),
        (["sampler.gain=exact", "phi=log", "phi.c=2.5"], {"gain": "exact", "phi": make_phi("log", c=2.5)}),
        (["score.from=quality", "score.normalize=true"], {"score": "quality", "normalize": True}),
        (["limits.tokens=90"], {"limits": {"tokens": 90}}),
        (["sampler=random", "seed=7", "limits.exclude=out.txt"], {"sampler": "random", "seed": 7, "limits": ...}),
        (["sampler=ifd"], {"sampler": "ifd"}),
        (["sampler=zip", "sampler.k3=2"], {"sampler": "zip", "settings": {"k3": 2}}),
        (["sampler=deita", "embeddings.path=rows.npy"], {"sampler": "deita", "embeddings": ...}),
        (["sampler=car", "embeddings.path=rows.npy"], {"sampler": "car", "embeddings": ...}),
        (["sampler=qdit", "graph.propagation=0.5"], {"sampler": "qdit", "propagation": 0.5}),
    ],
)
def test_the_bytes_of_the_command(file: Path, tmp_path: Path, monkeypatch, overrides, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.txt").write_text("r1\nr2\n")
    if arguments.get("limits") is ...:
        arguments = arguments | {"limits": {"exclude": np.array([1, 2])}}
    if "embeddings" in arguments:
        arguments = arguments | {"embeddings": np.load("rows.npy")}
    config = compose("select", ["pool.path=pool.jsonl", "n=9", "out=command", *overrides])
    command = run_select(config, "mig-jax select")
    assert command is not None
    columns = ["annotation.CaR"] if "sampler=car" in overrides else []
    made = select(load_pool("pool.jsonl", columns=columns), 9, **arguments)
    python = made.write("python")
    for name in ("selection.jsonl", "trace.parquet", "runners_up.parquet", "pool_stats.json"):
        assert (python / name).read_bytes() == (command / name).read_bytes(), name
    keys = [json.loads((folder / "manifest.json").read_text())["run_key"] for folder in (command, python)]
    assert (keys[0] == keys[1]) == ("embeddings" not in arguments)  # an array and its file have different digests


def test_a_graph_may_have_more_labels_than_a_sampler_reads(file: Path) -> None:
    pool = load_pool(file)
    graph = label_graph(pool, sampler="random", threshold=0.7)
    assert graph.threshold == 0.7
    few = select(pool, 3, graph=graph, valid_tags=frozenset(graph.labels[:2]))
    assert few.graph.labels == graph.labels[:2] and len(few) == 3


def test_mistakes_name_the_key(file: Path) -> None:
    pool = load_pool(file)
    for arguments, key in (
        ({"sampler": "mgi"}, "sampler"),
        ({"gain": "second"}, "sampler.gain"),
        ({"settings": {"thresh": 1}}, "sampler.thresh"),
        ({"limits": {"exclud": []}}, "limits.exclud"),
        ({"limits": "ids.txt"}, "limits"),
        ({"score": "a..b"}, "score.from"),
        ({"overrides": ["graph.threshold=2"]}, "graph.threshold"),
        ({"seed": "x"}, "seed"),
    ):
        with pytest.raises(UserError) as error:
            select(pool, 3, **arguments)
        assert error.value.key == key, error.value
    with pytest.raises(UserError) as error:
        select(pool, 3.0)  # type: ignore[arg-type]
    assert error.value.key == "n"
    with pytest.raises(TypeError, match="scroe"):
        select(pool, 3, scroe="ifd")
