"""What the label graph takes: nothing where it is given, a load where it is cached, else embedding and cosines."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mig_jax.commands.plan.engine import fastest
from mig_jax.commands.select.config import SelectConfig
from mig_jax.core.errors import UserError
from mig_jax.labels import LabelGraph, label_graph
from mig_jax.models.configured import spec_of

LABELS = 2_048  # of the graph that is measured: one tile
TEXTS = 128
FEW_TILES = 2  # tiles of a side of the larger measured graph


def given_graph(config: SelectConfig) -> LabelGraph | None:
    """The graph of graph.path; UserError as in a run."""
    return None if config.graph.path is None else LabelGraph.load(config.graph.path)


def embedder_missing(config: SelectConfig) -> str:
    """Why the labels cannot be embedded without the network; "" where they can."""
    from mig_jax.models.inference.embed import find_embedder

    try:
        find_embedder(_offline(config))
    except UserError as error:
        return str(error)
    return ""


def _offline(config: SelectConfig) -> Any:
    """The embedder's spec without the hub: a plan downloads nothing."""
    return spec_of(msgspec.structs.replace(config.embedder, hub=None))


def measure_embedding(config: SelectConfig) -> dict[str, Any]:
    """Seconds of loading (with compilation), a label and a pair of labels; tokens a label."""
    from mig_jax.models.inference.embed import find_embedder

    texts = _texts()
    first, embedder = fastest(1, lambda: find_embedder(_offline(config))[1]())
    compiled, _ = fastest(1, lambda: embedder.embed(texts))
    again, vectors = fastest(2, lambda: embedder.embed(texts))
    tokens = int(np.sum(embedder.tokenizer(texts).length))
    return {
        "load": first,
        "compile": max(0.0, compiled - again),
        "label": again / len(texts),
        "tokens_per_s": tokens / again,
        "tokens_a_label": tokens / len(texts),
        "dim": int(vectors.shape[1]),
    }


def measure_cosines(dim: int, degree: float) -> dict[str, Any]:
    """Seconds of a tile of the label graph (TILE x TILE pairs) and of what every graph takes."""
    rng = np.random.default_rng(2504)
    seconds = []
    for side in (1, FEW_TILES):
        vectors = rng.normal(size=(side * LABELS, dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        names = tuple(f"{i:06d}" for i in range(len(vectors)))
        label_graph(names, vectors, threshold="auto", degree=degree)
        seconds.append(fastest(2, lambda n=names, v=vectors: label_graph(n, v, threshold="auto", degree=degree))[0])
    tiles = FEW_TILES * (FEW_TILES + 1) // 2
    tile = max(seconds[1] - seconds[0], 0.0) / (tiles - 1)
    return {"tile": tile, "fixed": max(0.0, seconds[0] - tile)}


def _texts() -> list[str]:
    """Short texts as labels are: the bundled pool's."""
    from mig_jax.pool import load_pool
    from mig_jax.pool.configured import bundled_pool

    names = [name for name in load_pool(bundled_pool()).tag_names if name]
    return (names * (TEXTS // len(names) + 1))[:TEXTS]


def tiles(labels: int) -> int:
    """Tiles of the upper triangle."""
    side = -(-labels // LABELS)
    return side * (side + 1) // 2


def is_cached(config: SelectConfig, names: list[str], cache: Path | None) -> bool:
    """Whether a run finds the embeddings of these labels; False where the rows decide which labels count."""
    from mig_jax.labels.configured import embed_labels
    from mig_jax.labels.valid_tags import labels_of, read_valid_tags

    if cache is None:
        return False
    valid = None if config.pool.valid_tags is None else read_valid_tags(config.pool.valid_tags)
    labels = sorted({name for name in labels_of(names, valid) if name is not None})
    with suppress(UserError, _NotThere):
        embed_labels(labels, _offline(config), cache, _refuse)
        return True
    return False


class _NotThere(Exception):
    """Embedding has begun: the cache did not have it."""


def _refuse(stage: str, done: int, total: int | None) -> None:
    raise _NotThere
