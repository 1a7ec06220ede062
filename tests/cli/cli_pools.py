"""Small pools in the MIG layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np

LABELS = ("algebra", "poetry", "sorting", "history", "recipes")


def row(i: int, **changes: Any) -> dict[str, Any]:
    """Row i; ``tags``, ``quality``, ``complexity``, ``ifd`` replace its own, and None takes the field away."""
    values = {
        "tags": [LABELS[i % 5], LABELS[(i * 3 + 1) % 4]],
        "quality": [3.0 + i % 3],
        "complexity": [2.0 + i % 2],
        "ifd": 0.4 + (i * 7 % 11) / 10,
    } | changes
    record: dict[str, Any] = {
        "_id": f"r{i}",
        "source": "ab"[i % 2],
        "dialogs": [{"role": "user", "content": f"Question {i} é"}, {"role": "assistant", "content": f"Answer {i}"}],
        "annotation": {"instag": {"content": values["tags"]}},
        "ifd_score": {"content": values["ifd"]},
    }
    deita = {"quality_scores": values["quality"], "complexity_scores": values["complexity"]}
    record["annotation"]["deita"] = {key: value for key, value in deita.items() if value is not None}
    if values["tags"] is None:
        del record["annotation"]["instag"]
    if values["ifd"] is None:
        del record["ifd_score"]
    return record


def write(path: Path, rows: list[Any]) -> Path:
    """Records, or lines as they are; the spacing differs from line to line, as bytes must survive."""
    lines = [
        r if isinstance(r, str) else json.dumps(r, ensure_ascii=bool(i % 2), separators=(",", ":") if i % 3 else None)
        for i, r in enumerate(rows)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def good(path: Path, count: int = 12) -> Path:
    """A pool without a fault."""
    return write(path, [row(i) for i in range(count)])


def large(folder: Path, rows: int = 6_000, labels: int = 400) -> tuple[Path, Path]:
    """A pool with the statistics of a real one and its label graph: (pool.jsonl, graph.npz)."""
    from experiments.synthetic import synthetic_pool

    encoded, graph = synthetic_pool(rows, labels, seed=7)
    rng = np.random.default_rng(7)
    out = []
    for i in range(rows):
        ids = encoded.label_idx[encoded.label_ptr[i] : encoded.label_ptr[i + 1]]
        quality = round(float(rng.uniform(1, 6)), 3)
        score = float(encoded.score[i])
        out.append(row(i, tags=[encoded.labels[k] for k in ids], quality=[quality], complexity=[score / quality]))
    graph.save(folder / "graph.npz")
    return write(folder / "pool.jsonl", out), folder / "graph.npz"
