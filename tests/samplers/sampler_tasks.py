"""Tasks that the samplers' tests share: a small pool with labels, points that are vectors alone, the recorded pool."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from oracle import Data, random_labels, random_w

from mig_jax.encode import Encoded, encode
from mig_jax.engine import pool_mesh
from mig_jax.labels import LabelGraph
from mig_jax.objective import make_phi
from mig_jax.pool import Pool, load_pool
from mig_jax.samplers import Order, Rows, SamplingTask, find_sampler
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.configured import sampler_options
from mig_jax.vectors.vectors import Vectors


def options(name: str, **given: Any) -> SamplerOptions:
    """A sampler's settings."""
    return sampler_options(name, given)


def picked(name: str, task: SamplingTask, n: int, **given: Any) -> Order:
    """What a sampler with these settings picks."""
    return find_sampler(name).sample(replace(task, options=options(name, **given)), n)


def task(rows: int = 40, count: int = 6, seed: int = 0, phi=None, **changes) -> tuple[Data, SamplingTask]:
    """A pool with a few labels and its dense twin; ``changes`` are fields of SamplingTask."""
    rng = np.random.default_rng(seed)
    data = Data(
        random_labels(rng, rng.integers(0, 4, rows), count),
        rng.integers(0, 4, rows) * 2.5,
        random_w(rng, np.array([(0, 1), (1, 2), (4, 5)]), count),
    )
    names = tuple(f"{i:03d}" for i in range(count))
    p, q = np.nonzero(np.triu(data.w, 1))
    graph = LabelGraph(names, np.diag(data.w).copy(), p.astype(np.int32), q.astype(np.int32), data.w[p, q], 0.3)
    ptr = np.cumsum([0, *map(len, data.labels)]).astype(np.int64)
    idx = np.array([label for row in data.labels for label in row], np.int32)
    encoded = Encoded(np.arange(rows), ptr, idx, data.score, names, {})
    settings = {
        "ranking": rng.uniform(-0.2, 1.2, rows),
        "mesh": pool_mesh(jax.devices()[:1]),
        "shortlist_size": 16,
    } | changes
    return data, SamplingTask(
        encoded, graph.propagation(), phi or make_phi(), settings.pop("options", options("mig")), **settings
    )


def vectors_task(
    vectors: np.ndarray, ranking: np.ndarray | None = None, devices: int = 1, **changes: Any
) -> SamplingTask:
    """Points with an embedding each, one label for all, and what they are ranked by."""
    count = len(vectors)
    scores = np.ones(count) if ranking is None else np.nan_to_num(ranking)
    encoded = Encoded(
        np.arange(count), np.arange(count + 1), np.zeros(count, np.int32), np.maximum(scores, 0.0), ("all",), {}
    )
    graph = _no_edges(encoded)
    return SamplingTask(
        encoded,
        graph.propagation(),
        make_phi(),
        options("random"),
        ranking=ranking,
        vectors=Vectors(vectors, encoded.row),
        mesh=pool_mesh(jax.devices()[:devices]),
        **changes,
    )


def golden_task(shared: Path) -> tuple[Pool, SamplingTask]:
    """The recorded pool: its usable rows (``task.encoded.row``) with their stored embeddings and their texts."""
    pool, encoded = _golden(shared)
    array = np.load(shared / "golden" / "public" / "embeddings.npy")
    rows = Rows(
        lambda points: pool.read_rows(encoded.row[points]), lambda points: pool.each_dialog(encoded.row[points])
    )
    graph = _no_edges(encoded)
    return pool, SamplingTask(
        encoded, graph.propagation(), make_phi(), options("random"), vectors=Vectors(array, encoded.row), rows=rows,
        mesh=pool_mesh(jax.devices()[:1]),
    )  # fmt: skip


@cache
def _golden(shared: Path) -> tuple[Pool, Encoded]:
    pool = load_pool(shared / "golden" / "public" / "pool.jsonl.gz", columns=["annotation.CaR"])
    return pool, encode(pool)


def _no_edges(encoded: Encoded) -> LabelGraph:
    count, empty = len(encoded.labels), np.zeros(0, np.int32)
    return LabelGraph(encoded.labels, np.ones(count, np.float32), empty, empty, np.zeros(0, np.float32), 1.0)
