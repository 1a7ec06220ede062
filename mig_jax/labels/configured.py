"""The label graph of the configuration: ``graph.*`` and ``embedder.*``."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from mig_jax.config.mesh import MeshConfig
from mig_jax.config.struct import key_of
from mig_jax.core.cache import ArrayCache, one_at_a_time
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.labels import LabelGraph, label_graph
from mig_jax.labels.config import GraphConfig
from mig_jax.labels.label_graph import check_threshold
from mig_jax.models.checkpoints.checkpoint import EmbedderSpec
from mig_jax.models.config import EmbedderConfig
from mig_jax.models.configured import models_mesh, spec_of
from mig_jax.models.inference.fingerprint import check_embedder

GRAPH_FIELDS = ("diagonal", "source", "target", "weight", "threshold", "automatic")


def graph_of(
    labels: Sequence[str],
    graph: GraphConfig,
    embedder: EmbedderConfig,
    cache: Path | None,
    progress: Progress = silent,
    mesh: MeshConfig | None = None,
) -> LabelGraph:
    """The label graph: the one stored in ``graph.path``, or W from the cosines of the labels' embeddings, cached."""
    if not labels:
        return no_graph()
    if graph.path is not None:
        return LabelGraph.load(graph.path).restrict(tuple(labels))
    if graph.threshold != "auto":
        check_threshold(graph.threshold)  # before the labels are embedded
    devices = None if mesh is None else models_mesh(mesh, alone=True)
    vectors, key = embed_labels(labels, spec_of(embedder), cache, progress, devices)

    def build() -> dict[str, np.ndarray]:
        made = label_graph(labels, vectors, threshold=graph.threshold, degree=graph.degree, progress=progress)
        return {name: np.asarray(getattr(made, name)) for name in GRAPH_FIELDS}

    stored, _ = ArrayCache(cache).get("label_graphs", [*key, key_of(graph, without=("propagation",))], build)
    threshold, automatic = float(stored.pop("threshold")), bool(stored.pop("automatic"))
    return LabelGraph(tuple(labels), **stored, threshold=threshold, automatic=automatic)


def no_graph() -> LabelGraph:
    """The graph of no labels."""
    weights, ends = np.zeros(0, np.float32), np.zeros(0, np.int32)
    return LabelGraph((), weights, ends, ends, weights, 1.0)


def embed_labels(
    labels: Sequence[str],
    spec: EmbedderSpec,
    cache: Path | None,
    progress: Progress = silent,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Unit embeddings of the labels, no prefix, float32 ``[L, d]``; and what names them in the cache."""
    spec = replace(spec, instruction=None)
    fingerprint = check_embedder(spec, cache=cache).fingerprint
    if not spec.normalize:
        raise UserError("a label graph needs unit embeddings", key="embedder.normalize", value=False)
    digest = hashlib.sha256("\0".join(labels).encode("utf-8", "surrogatepass")).hexdigest()
    key = [fingerprint, digest, jax.__version__, jax.default_backend()]
    if mesh is not None:  # other sums in another order
        key.append(str(dict(mesh.shape)))

    def embed() -> dict[str, np.ndarray]:
        from mig_jax.models.inference.embed import load_embedder  # Flax: half a second, not needed where cached

        return {"vectors": load_embedder(spec, mesh=mesh, cache=cache).embed(labels, progress=progress)}

    with one_at_a_time(cache, f"label embeddings {digest}"):
        arrays, _ = ArrayCache(cache).get("label_embeddings", key, embed)
    return arrays["vectors"], key
