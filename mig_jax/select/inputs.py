"""From a configuration to the inputs of a selection: pool, label ids, label graph; each from the cache where it can."""

import hashlib
import importlib.resources
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float64

from mig_jax.config import (
    EmbedderConfig,
    GraphConfig,
    MeshConfig,
    ModelConfig,
    PoolConfig,
    SamplerOptions,
    ScoreConfig,
    SelectConfig,
)
from mig_jax.encode import Encoded, columns_read, encode, read_valid_tags, scores
from mig_jax.encode.score import ALLOWED
from mig_jax.engine import pool_mesh
from mig_jax.errors import UserError
from mig_jax.graph import LabelGraph, label_graph
from mig_jax.graph.label_graph import check_threshold
from mig_jax.models.checkpoint import EmbedderSpec, ModelSpec, find_place
from mig_jax.models.sentence_folder import folder_says
from mig_jax.pool import Pool, load_pool
from mig_jax.runtime.cache import ArrayCache, one_at_a_time
from mig_jax.runtime.progress import Progress, silent

BUNDLED = "bundled"
ONE_PROCESS = MeshConfig()
_FOLDER_KEYS = ("pooling", "max_length", "append_eos")  # null: as the checkpoint's folder says
_OF_OTHERS = ("threshold", "tag_threshold")  # what it is to the graph and to the tags, which the embedder need not know
GRAPH_FIELDS = ("diagonal", "source", "target", "weight", "threshold", "automatic")


def pool_of(config: PoolConfig, columns: Sequence[str], cache: Path | None, progress: Progress = silent) -> Pool:
    """Read the pool; the path "bundled" is the one that comes with mig_jax. ``columns``: further numbers to read."""
    paths = [str(bundled_pool()) if path == BUNDLED else path for path in config.paths]
    with one_at_a_time(cache, f"pool {paths}"):
        return load_pool(
            paths,
            layout=config.layout,
            fields=config.fields,
            columns=columns,
            on_error=config.on_error,
            cache_dir=cache / "pools" if cache else None,
            progress=progress,
        )


def bundled_pool() -> Path:
    """Where the bundled pool lies."""
    return Path(str(importlib.resources.files("mig_jax.data") / "pool.jsonl"))


def columns_of(config: SelectConfig) -> tuple[str, ...]:
    """The paths of the numbers that a selection reads besides the usual ones."""
    limits = config.limits
    asked = [*columns_read(config.score.source)]
    own = getattr(config.sampler, "score", None)
    asked += [] if own is None else columns_read(own, "sampler.score")
    asked += [limits.cost] if limits.tokens is not None and limits.cost not in ("tokens", "chars") else []
    return tuple(dict.fromkeys(asked))


def ranking_of(
    options: SamplerOptions, score: str, turns: str, pool: Pool, encoded: Encoded
) -> Float64[np.ndarray, " M"] | None:
    """What the sampler ranks by: the score that its options name, or else the pool's; NaN where a point has none.

    Args:
      score, turns: the pool's (``score.from``, ``score.turns``).

    Raises:
      UserError: no point has one; it is of a column that was not read.
    """
    if not hasattr(options, "score"):
        return None
    asked, own = getattr(options, "score", None), getattr(options, "turns", turns)
    if asked is None and own == turns:
        return encoded.score
    source, key = (score, "score.from") if asked is None else (asked, "sampler.score")
    value, missing, wrong = (found[encoded.row] for found in scores(pool, source, own, key))
    if (missing | wrong).all():
        raise UserError(
            f"sampler={options.name}: none of the {len(encoded)} usable rows has the score that it ranks by,"
            f" {key}={source}; sampler.score may be {ALLOWED}"
        )
    return np.where(missing | wrong, np.nan, value)


def encoded_of(pool: Pool, config: PoolConfig, score: ScoreConfig, bare: bool = False) -> Encoded:
    """The usable rows, under the configured vocabulary and score; ``bare``: of a pool without tags or scores too."""
    return encode(
        pool,
        valid_tags=None if config.valid_tags is None else read_valid_tags(config.valid_tags),
        score=score.source,
        turns=score.turns,
        normalize=score.normalize,
        on_error=config.on_error,
        bare=bare,
    )


def spec_of(config: EmbedderConfig) -> EmbedderSpec:
    """The embedder as mig_jax.models knows it. A folder of one's own is not held to the published checksum.

    Raises:
      UserError: something is left to the checkpoint's folder, which cannot be found; see ``folder_says``.
    """
    plain: dict[str, Any] = {
        k: v for k, v in msgspec.structs.asdict(config).items() if k not in (*_OF_OTHERS, *_left_open(config))
    }
    said = _folder_of(config)
    usual: dict[str, Any] = {"pooling": "last"} if said.get("group") == "decoder" and config.pooling is None else {}
    return EmbedderSpec(**plain | _own(config) | usual | folder_decides(config))


def folder_decides(config: EmbedderConfig) -> dict[str, Any]:
    """What the configuration leaves open of pooling, max_length and append_eos and the checkpoint's folder says."""
    said = {key: value for key, value in _folder_of(config).items() if key in _left_open(config)}
    return {key: value in (True, "true") if key == "append_eos" else value for key, value in said.items()}


def _left_open(config: EmbedderConfig) -> list[str]:
    return [key for key in _FOLDER_KEYS if getattr(config, key) is None]


def _folder_of(config: EmbedderConfig) -> dict[str, Any]:
    """What ``folder_says`` says, where it is asked at all: the checkpoint may have to be fetched for it."""
    if not _left_open(config):
        return {}
    where = {key: getattr(config, key) for key in ("name", "wheel", "hub", "revision")}
    return folder_says(find_place(EmbedderSpec(**where | _own(config)))[0])


def _own(config: EmbedderConfig | ModelConfig) -> dict[str, Any]:
    return {} if config.path is None else {"path": Path(config.path), "sha256": None}


def model_spec_of(config: ModelConfig, place: str = "model") -> ModelSpec:
    """The language model as mig_jax.models knows it; a checkpoint of one's own as above.

    Args:
      place: see ``ModelSpec``.
    """
    return ModelSpec(**msgspec.structs.asdict(config) | _own(config), place=place)


def graph_of(
    labels: Sequence[str],
    graph: GraphConfig,
    embedder: EmbedderConfig,
    cache: Path | None,
    progress: Progress = silent,
    mesh: MeshConfig = ONE_PROCESS,
) -> LabelGraph:
    """The label graph: a stored one, or cosines of the labels' embeddings."""
    if not labels:
        weights, ends = np.zeros(0, np.float32), np.zeros(0, np.int32)
        return LabelGraph((), weights, ends, ends, weights, 1.0)
    if graph.path is not None:
        return LabelGraph.load(graph.path).restrict(tuple(labels))
    if graph.threshold != "auto":
        check_threshold(graph.threshold)  # before the labels are embedded
    vectors, key = embed_labels(labels, spec_of(embedder), cache, progress, models_mesh(mesh, alone=True))

    def build() -> dict[str, np.ndarray]:
        made = label_graph(labels, vectors, threshold=graph.threshold, degree=graph.degree, progress=progress)
        return {name: np.asarray(getattr(made, name)) for name in GRAPH_FIELDS}

    stored, _ = ArrayCache(cache).get("label_graphs", [*key, str(graph.threshold), graph.degree], build)
    threshold, automatic = float(stored.pop("threshold")), bool(stored.pop("automatic"))
    return LabelGraph(tuple(labels), **stored, threshold=threshold, automatic=automatic)


def embed_labels(
    labels: Sequence[str],
    spec: EmbedderSpec,
    cache: Path | None,
    progress: Progress = silent,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Unit embeddings of the labels, no prefix, float32 ``[L, d]``; and what names them in the cache."""
    from mig_jax.models.embed import find_embedder  # Flax: half a second that a stored graph need not wait for

    fingerprint, load = find_embedder(replace(spec, instruction=None), mesh=mesh)
    if not spec.normalize:
        raise UserError("embedder.normalize=false: a label graph needs unit embeddings")
    digest = hashlib.sha256("\0".join(labels).encode("utf-8", "surrogatepass")).hexdigest()
    key = [fingerprint, digest, jax.__version__, jax.default_backend()]
    if mesh is not None:  # other sums in another order
        key.append(str(dict(mesh.shape)))
    with one_at_a_time(cache, f"label embeddings {digest}"):
        arrays, _ = ArrayCache(cache).get(
            "label_embeddings", key, lambda: {"vectors": load().embed(labels, progress=progress)}
        )
    return arrays["vectors"], key


def models_mesh(config: MeshConfig, *, alone: bool) -> Mesh | None:
    """The devices of this process that run the models; None: one, the default.

    Args:
      alone: mesh.data=auto means one device, so that the numbers do not depend on the machine; else all of them.
    """
    if config.data == "auto" and config.fsdp == config.tensor == 1 and (alone or jax.local_device_count() == 1):
        return None
    from mig_jax.models.sharding import model_mesh  # Flax, as above

    return model_mesh(None if config.data == "auto" else config.data, config.fsdp, config.tensor)


def mesh_of(config: MeshConfig):
    """The devices that share the rows."""
    devices = jax.devices()
    if config.pool == "all":
        return pool_mesh(devices)
    if config.pool > len(devices):
        raise UserError(f"mesh.pool={config.pool}: must be all, or at most {len(devices)}, the devices there are")
    if jax.process_count() > 1:
        raise UserError(f"mesh.pool={config.pool}: with several processes it must be all")
    return pool_mesh(devices[: config.pool])
