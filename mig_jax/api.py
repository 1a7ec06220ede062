"""mig_jax from Python: load_pool, label_graph, select. Each builds the settings of ``mig-jax select`` and does part of
its run, with the same caches and the same results.

Further settings are given as on the command line: ``overrides=["graph.threshold=0.8", "embedder.path=DIR"]``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.inputs import InMemory, cache_of, encoded_of, prepare
from mig_jax.commands.select.selection import Selection
from mig_jax.commands.select.solve import solve
from mig_jax.config.compose import compose, stem
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress, silent
from mig_jax.core.timing import Stopwatch
from mig_jax.labels import LabelGraph
from mig_jax.labels import label_graph as build_graph
from mig_jax.labels.configured import graph_of
from mig_jax.labels.valid_tags import ValidTags
from mig_jax.objective import Phi
from mig_jax.pool import Pool
from mig_jax.pool.configured import BUNDLED, pool_of
from mig_jax.samplers import find_sampler

OPTIONS = {"score": "score.from", "turns": "score.turns", "normalize": "score.normalize", "on_error": "pool.on_error"}


def load_pool(
    path: str | Path | Sequence[str | Path] = BUNDLED,
    *,
    columns: Sequence[str] = (),
    progress: Progress = silent,
    **options: Any,
) -> Pool:
    """Read a pool.

    Args:
      path: files, folders, globs or ``hf:org/name``; by default the bundled pool.
      columns: paths of further numbers to read, for scores and costs.
      options: ``layout``, ``fields``, ``on_error``: as ``pool.*`` of the command.
    """
    paths = [str(path)] if isinstance(path, str | Path) else [*map(str, path)]
    keys = {f"pool.{name}": value for name, value in options.items()}
    config = compose("select", (), SelectConfig, {"pool.path": paths, "pool.name": stem(paths), **keys})
    return pool_of(config.pool, columns, cache_of(config), progress)


def label_graph(
    pool: Pool,
    *,
    sampler: str = "mig",
    valid_tags: ValidTags | str | Path | None = None,
    embedder: str = "minilm",
    embeddings: np.ndarray | None = None,
    threshold: float | str | None = None,
    degree: float | None = None,
    overrides: Sequence[str] = (),
    progress: Progress = silent,
    **options: Any,
) -> LabelGraph:
    """The graph of the labels of the rows that a sampler can use.

    Args:
      valid_tags: the tags that count, or a file of them or of a vocabulary; None: every tag.
      embedder: the name of a file in conf/embedder; it embeds the labels.
      embeddings: unit embeddings of the labels in sorted order instead; float ``[L, d]``.
      threshold: a number from 0 to 1, or "auto": the one that gives ``degree`` neighbours on average.
      options: ``score``, ``turns``, ``normalize``, ``on_error``: they decide which rows are usable.
    """
    keys = {"graph.threshold": threshold, "graph.degree": degree}
    config, tags = _config(pool, valid_tags, options, [f"embedder={embedder}", *overrides], sampler, keys)
    labels = encoded_of(pool, config, valid_tags=tags).labels
    if embeddings is not None:
        graph = config.graph
        return build_graph(labels, embeddings, threshold=graph.threshold, degree=graph.degree, progress=progress)
    return graph_of(labels, config.graph, config.embedder, cache_of(config), progress, config.mesh)


def select(
    pool: Pool,
    n: int,
    *,
    sampler: str = "mig",
    graph: LabelGraph | None = None,
    phi: Phi | None = None,
    gain: str | None = None,
    propagation: float | None = None,
    compat: bool | None = None,
    valid_tags: ValidTags | str | Path | None = None,
    seed: int | None = None,
    runners_up: int | None = None,
    settings: Mapping[str, Any] | None = None,
    embeddings: np.ndarray | None = None,
    limits: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    progress: Progress = silent,
    **options: Any,
) -> Selection:
    """Select n rows of a pool. An argument that is None has the default of the command.

    Args:
      n: at most the number of usable rows.
      sampler: a name of ``mig_jax.samplers.SAMPLERS``.
      graph: the label graph; None: that of ``label_graph(pool)``. One with more labels than the pool is restricted.
      phi: ``mig_jax.objective.make_phi(...)``.
      gain: "first_order" (the published gain) or "exact"; of mig.
      propagation: alpha.
      compat: the reference's behaviour where ours differs.
      valid_tags: as in ``label_graph``.
      settings: further settings of the sampler, as conf/sampler/NAME.yaml has them: {"threshold": 0.8}.
      embeddings: one vector for each row of the pool, float ``[R, d]``, for deita, car and qdit; None: the rows are
        embedded by all-MiniLM-L6-v2.
      limits: ``limits.*`` of the command: {"exclude": "ids.txt", "sources": {"gsm8k": 100}, "tokens": 1_000_000}. Rows
        may also be row numbers, ids, or a Selection.
      options: ``score``, ``turns``, ``normalize``, ``on_error``, as ``score.*`` and ``pool.on_error`` of the command.

    Raises:
      UserError: names what is wrong.
    """
    if type(n) is not int:
        raise UserError("select is called once for each budget", key="n", value=n, allowed="a whole number")
    if limits is not None and not isinstance(limits, Mapping):
        raise UserError(key="limits", value=limits, allowed="a mapping, as {'exclude': 'ids.txt'}")
    keys = {"n": n, "seed": seed, "graph.propagation": propagation, "export.runners_up": runners_up}
    keys |= {"sampler.gain": gain, "sampler.compat": compat}
    keys |= {f"sampler.{name}": value for name, value in (settings or {}).items()}
    keys |= {f"limits.{name}": _rows(value) for name, value in (limits or {}).items()}
    if phi is not None:
        overrides = [f"phi={phi.kind}", *overrides]
        keys |= {f"phi.{name}": value for name, value in phi.settings.items()}
    config, tags = _config(pool, valid_tags, options, overrides, sampler, keys)
    in_memory = InMemory(pool, tags, graph, embeddings)
    inputs = prepare(config, in_memory=in_memory, watch=Stopwatch(), progress=progress, notify=lambda note: None)
    return Selection(config, inputs, solve(inputs.sampler, inputs.task, inputs.budgets, config.export.runners_up))


def _config(
    pool: Pool,
    valid_tags: ValidTags | str | Path | None,
    options: Mapping[str, Any],
    overrides: Sequence[str],
    sampler: str,
    keys: Mapping[str, Any],
) -> tuple[SelectConfig, ValidTags | None]:
    """The settings, and the valid tags where they are not a file."""
    if unknown := options.keys() - OPTIONS.keys():
        raise TypeError(f"unexpected keyword argument: {', '.join(sorted(unknown))}; there are {', '.join(OPTIONS)}")
    find_sampler(sampler)
    paths = [str(source.path) for source in pool.sources]
    values = {"pool.path": paths, "pool.name": stem(paths), "pool.fields": dict(pool.fields)}
    values |= {OPTIONS[name]: value for name, value in options.items()}
    values |= {key: value for key, value in keys.items() if value is not None}
    if isinstance(valid_tags, str | Path):
        values["pool.valid_tags"], valid_tags = str(valid_tags), None
    return compose("select", [f"sampler={sampler}", *overrides], SelectConfig, values), valid_tags


def _rows(value: Any) -> Any:
    """Rows of an array or a Selection as a list; other limits as they are."""
    rows = value.rows if isinstance(value, Selection) else value
    return rows.tolist() if isinstance(rows, np.ndarray) else rows
