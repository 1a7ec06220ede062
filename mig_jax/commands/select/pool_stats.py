"""pool_stats.json: what a report needs of the pool, so that it never opens the pool again. Same run, same bytes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.commands.select.shares import Shares, biggest
from mig_jax.core.bins import BINS, log_edges
from mig_jax.core.json_files import clean_text
from mig_jax.pool.view import PoolView, source_name

if TYPE_CHECKING:  # its package reads pools, which a reader of finished runs does not need
    from mig_jax.encode.encoded import Encoded

POOL_STATS = "pool_stats.json"
TOP_LABELS = 200
TOP_SOURCES = 50
MISSED_LABELS = 20
SHOWN_PICKS = 20
SHOWN_RUNNERS_UP = 10
SNIPPET = 600
MOST_TURNS = 16


def pool_stats(
    pool: PoolView,
    encoded: "Encoded",
    points: Int64[np.ndarray, " n"],
    gains: Float64[np.ndarray, " n"],
    why: Sequence[str],
    labels_earned: Sequence[Shares],
    runners_up: Int64[np.ndarray, " r"],
    runner_gains: Float64[np.ndarray, " r"],
    runner_labels: Sequence[Shares],
) -> dict[str, Any]:
    """The content of pool_stats.json; "pool" means the usable rows, "selected" the largest budget's."""
    rows, chosen = encoded.row, encoded.row[points]
    first, near = points[:SHOWN_PICKS], runners_up[:SHOWN_RUNNERS_UP]
    shown = encoded.row[np.concatenate([first, near])]
    dialogs = pool.dialogs(shown) if len(shown) else []  # one call: each reads a compressed file from its start
    return {
        "schema": 1,
        "rows": len(pool),
        "usable": len(encoded),
        "selected": len(points),
        "sources": _sources(pool, rows, chosen),
        "labels": _labels(encoded, points),
        "score": _histogram(encoded.score, points, None),
        "chars": _histogram(pool.chars[rows], points, log_edges(pool.chars[rows])),
        "tokens": _known_histogram(pool.tokens[rows], points),
        "turns": _histogram(pool.turns[rows], points, np.arange(0.5, MOST_TURNS + 1)),
        "picks": _shown(pool, encoded, first, dialogs[: len(first)], gains, why, labels_earned),
        "runners_up": _shown(pool, encoded, near, dialogs[len(first) :], runner_gains, (), runner_labels),
    }


def covered_labels(encoded: "Encoded", points: Int64[np.ndarray, " n"]) -> int:
    """How many labels a selected row has."""
    return int(np.count_nonzero(_label_counts(encoded, points)))


def _sources(pool: PoolView, rows: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """Counts per source, biggest first; rows without a source count under null."""
    size = len(pool.source_names) + 1  # index -1 lands at 0
    usable = np.bincount(pool.source_idx[rows] + 1, minlength=size)
    selected = np.bincount(pool.source_idx[chosen] + 1, minlength=size)
    names = [None, *(clean_text(name) for name in pool.source_names)]
    order = sorted(np.flatnonzero(usable).tolist(), key=lambda at: (-usable[at], names[at] or ""))
    return {
        "total": len(order),
        "top": [
            {"name": names[at], "pool": int(usable[at]), "selected": int(selected[at])} for at in order[:TOP_SOURCES]
        ],
    }


def _label_counts(encoded: "Encoded", points: np.ndarray) -> np.ndarray:
    """Selected rows of each label; int64 ``[L]``. Gathers the picks' labels, does not scan the pool's."""
    starts, counts = encoded.label_ptr[points], encoded.label_count[points]
    first = np.cumsum(counts) - counts
    at = np.arange(counts.sum()) + np.repeat(starts - first, counts)
    return np.bincount(encoded.label_idx[at], minlength=len(encoded.labels))


def _labels(encoded: "Encoded", points: np.ndarray) -> dict[str, Any]:
    in_pool = np.bincount(encoded.label_idx, minlength=len(encoded.labels))
    in_selection = _label_counts(encoded, points)
    order = np.lexsort((np.arange(len(in_pool)), -in_pool))

    def entries(ids: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"name": clean_text(encoded.labels[at]), "pool": int(in_pool[at]), "selected": int(in_selection[at])}
            for at in ids.tolist()
        ]

    return {
        "total": len(in_pool),
        "covered": int(np.count_nonzero(in_selection)),
        "assignments": {"pool": int(in_pool.sum()), "selected": int(in_selection.sum())},
        "entropy": {"pool": _entropy(in_pool), "selected": _entropy(in_selection)},
        "top": entries(order[:TOP_LABELS]),
        "missed": entries(order[(in_selection[order] == 0) & (in_pool[order] > 0)][:MISSED_LABELS]),
    }


def _entropy(counts: np.ndarray) -> float | None:
    """H = -sum_l p_l log2 p_l of the label assignments, p_l = counts_l / sum(counts), in bits; None without any."""
    positive = counts[counts > 0].astype(np.float64)
    if not len(positive):
        return None
    p = positive / positive.sum()
    return abs(float(-(p * np.log2(p)).sum()))  # one label alone: 0, not -0


def _histogram(values: np.ndarray, points: np.ndarray, edges: np.ndarray | None) -> dict[str, Any] | None:
    """Counts of all ``values`` and of those at ``points`` in the same bins, with means, medians and, of whole numbers,
    sums; None for an empty pool. Values above the last edge count in the last bin."""
    if len(values) == 0:
        return None
    if edges is None:
        low, high = float(values.min()), float(values.max())
        edges = np.linspace(low, high, BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])
    both = {"pool": values, "selected": values[points]}
    facts: dict[str, Any] = {"edges": edges.tolist()}
    facts |= {name: np.histogram(np.minimum(some, edges[-1]), edges)[0].tolist() for name, some in both.items()}
    facts["mean"] = {name: float(some.mean(dtype=np.float64)) if len(some) else None for name, some in both.items()}
    facts["median"] = {name: float(np.median(some)) if len(some) else None for name, some in both.items()}
    if values.dtype.kind in "iu":
        facts["sum"] = {name: int(some.sum(dtype=np.int64)) for name, some in both.items()}
    return facts


def _known_histogram(values: np.ndarray, points: np.ndarray) -> dict[str, Any] | None:
    """As ``_histogram`` over the rows where the value is known (>= 0); None where it is known nowhere."""
    known = values >= 0
    if not known.any():
        return None
    at = np.cumsum(known) - 1
    return _histogram(values[known], at[points[known[points]]], log_edges(values[known]))


def _shown(
    pool: PoolView,
    encoded: "Encoded",
    points: np.ndarray,
    dialogs: Sequence[Sequence[tuple[str, str]]],
    gains: np.ndarray,
    why: Sequence[str],
    labels: Sequence[Shares],
) -> list[dict[str, Any]]:
    """The rows that a report shows, with the start of their texts."""
    rows = encoded.row[points].tolist()
    shown = []
    for at, (row, dialog) in enumerate(zip(rows, dialogs, strict=True)):
        name = pool.id(row)
        shown.append(
            {
                "row": row,
                "where": clean_text(pool.where(row)),
                "id": None if name is None else clean_text(name),
                "source": source_name(pool, row),
                "gain": float(gains[at]),
                "reason": clean_text(why[at]) if len(why) else None,
                "score": float(encoded.score[points[at]]),
                "labels": biggest(labels[at]) if len(labels) else [],
                "turns": len(dialog),
                "dialog": _snippets(dialog),
            }
        )
    return shown


def _snippets(dialog: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The first user turn and the answer to it, cut; without a user turn the first two turns."""
    first = next((at for at, (role, _) in enumerate(dialog) if role == "user"), 0)
    return [[clean_text(role), _cut(clean_text(text))] for role, text in dialog[first : first + 2]]


def _cut(text: str) -> str:
    return text if len(text) <= SNIPPET else text[:SNIPPET].rstrip() + " …"
