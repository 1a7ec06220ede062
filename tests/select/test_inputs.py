"""From a configuration to the inputs of a selection: what is read, and how often."""

import json
from pathlib import Path

import pytest

import mig_jax.pool.load
from mig_jax.commands.registry import compose
from mig_jax.commands.select.inputs import prepare
from mig_jax.core.timing import Stopwatch


def pool_file(folder: Path) -> Path:
    rows = [
        {
            "messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}],
            "annotation": {"instag": {"content": ["a", "b"][: 1 + i % 2]}, "CaR": float(i)},
            "mine": i + 1.0,
        }
        for i in range(6)
    ]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pool.jsonl"


@pytest.mark.parametrize("cache", ["null", "cache"])
def test_a_pool_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    """Also where the sampler needs embeddings of the rows and ranks by a column."""
    parses = []

    class Counted(mig_jax.pool.load.Builder):
        def __init__(self, *args, **kwargs):
            parses.append(args)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(mig_jax.pool.load, "Builder", Counted)
    where = "null" if cache == "null" else tmp_path / cache
    overrides = [f"pool.path={pool_file(tmp_path)}", "sampler=car", "score.from=mine", "n=2", f"cache={where}"]
    inputs = prepare(compose("select", overrides), watch=Stopwatch(), progress=lambda *_: None, notify=print)
    assert inputs.task.vectors is not None and len(inputs.task.vectors) == 6
    assert len(parses) == 1
