"""A row is left out only if it lacks what its sampler needs."""

import json
from pathlib import Path

import numpy as np
import pytest

from mig_jax import select
from mig_jax.labels import LabelGraph
from mig_jax.pool import Pool, load_pool

# Which of the rows below a sampler can use. Each row lacks one thing; row 0 lacks nothing.
COMPLETE, NO_TAGS, NO_SCORE, NO_IFD, NO_CAR, BAD_TAGS = range(6)
USABLE = {
    "mig": {COMPLETE, NO_IFD, NO_CAR},
    "instag": {COMPLETE, NO_SCORE, NO_IFD, NO_CAR},
    "deita": {COMPLETE, NO_TAGS, NO_IFD, NO_CAR, BAD_TAGS},
    "qdit": {COMPLETE, NO_TAGS, NO_IFD, NO_CAR, BAD_TAGS},
    "ifd": {COMPLETE, NO_TAGS, NO_SCORE, NO_CAR, BAD_TAGS},
    "car": set(range(6)),
    "random": set(range(6)),
    "zip": set(range(6)),
    "pool": set(range(6)),
}
VECTORS = np.eye(6, dtype=np.float32)


def record(lacks: int) -> dict:
    row = {
        "dialogs": [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"{lacks}"}],
        "annotation": {
            "instag": {"content": "a" if lacks == BAD_TAGS else ["a", "b"][: 1 + lacks % 2]},
            "deita": {"quality_scores": [1.0 + lacks], "complexity_scores": [2.0]},
            "CaR": 0.1 * lacks,
        },
        "ifd_score": {"content": 0.1 * lacks},
    }
    if lacks in (NO_TAGS, NO_SCORE, NO_CAR):
        del row["annotation"][{NO_TAGS: "instag", NO_SCORE: "deita", NO_CAR: "CaR"}[lacks]]
    if lacks == NO_IFD:
        del row["ifd_score"]
    return row


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(record(lacks)) + "\n" for lacks in range(6)))
    return load_pool(tmp_path / "pool.jsonl", columns=["annotation.CaR"])


def no_edges(*names: str) -> LabelGraph:
    empty = np.zeros(0, np.int32)
    return LabelGraph(names, np.ones(len(names), np.float32), empty, empty, np.zeros(0, np.float32), 1.0)


@pytest.mark.parametrize("name", USABLE)
def test_which_rows_a_sampler_can_use(pool: Pool, name: str) -> None:
    usable = USABLE[name]
    found = select(pool, len(usable) - (name == "car"), sampler=name, graph=no_edges("a", "b"), embeddings=VECTORS)
    assert set(found.encoded.row.tolist()) == usable
    assert sum(found.encoded.dropped.values()) == len(pool) - len(usable)


def test_deita_ranks_rows_without_tags(pool: Pool) -> None:
    found = select(pool, 5, sampler="deita", graph=no_edges("a", "b"), embeddings=VECTORS)
    assert found.rows.tolist() == [5, 4, 3, 1, 0]  # by score; 2 has none


def test_rows_without_labels_or_without_a_score_add_nothing(pool: Pool) -> None:
    found = select(pool, 6, sampler="random", graph=no_edges("a", "b"))
    rise = dict(zip(found.rows.tolist(), np.diff(found.objective, prepend=0.0), strict=True))
    assert rise[NO_TAGS] == rise[BAD_TAGS] == rise[NO_SCORE] == 0
    assert rise[COMPLETE] > 0 and rise[NO_IFD] > 0


def test_the_reference_s_draw_needs_what_its_loader_needs(pool: Pool) -> None:
    found = select(pool, 3, sampler="random", compat=True, graph=no_edges("a", "b"))
    assert set(found.rows.tolist()) == USABLE["mig"]
