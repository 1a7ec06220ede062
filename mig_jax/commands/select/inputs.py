"""From a configuration to the inputs of a selection."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np
from jaxtyping import Float64

from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.limits import check_refused, limits_of
from mig_jax.commands.select.row_embeddings import RowEmbeddings, checked, row_embeddings, vectors_of
from mig_jax.commands.select.solve import budgets_of
from mig_jax.config.mesh import MeshConfig
from mig_jax.core import processes
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress
from mig_jax.core.timing import Stopwatch
from mig_jax.core.version import VERSION
from mig_jax.encode import Encoded, RankingSource, columns_read, encode, factor_names, scores
from mig_jax.encode.config import ScoreConfig
from mig_jax.encode.score import ALLOWED, NONE
from mig_jax.engine import pool_mesh
from mig_jax.labels import LabelGraph
from mig_jax.labels.configured import graph_of
from mig_jax.labels.valid_tags import ValidTags, read_valid_tags
from mig_jax.objective import Phi, make_phi
from mig_jax.objective.config import PhiConfig
from mig_jax.pool import PRESENT, Pool
from mig_jax.pool.configured import pool_of
from mig_jax.samplers import Sampler, SamplingTask, find_sampler
from mig_jax.samplers.task import texts_of_points


class Inputs(NamedTuple):
    """What a selection starts from. ``embeddings_sha256``: of the file of row embeddings; None: none are needed."""

    sampler: Sampler
    pool: Pool
    encoded: Encoded
    graph: LabelGraph
    task: SamplingTask
    budgets: tuple[int, ...]
    embeddings_sha256: str | None = None


class InMemory(NamedTuple):
    """Objects of a Python program that take the place of what the configuration names; None: the configuration counts.

    Args:
      pool: instead of reading ``pool.path``.
      valid_tags: instead of the file ``pool.valid_tags``.
      graph: instead of ``graph.*``; it may have more labels than the pool.
      embeddings: instead of ``embeddings.path``; float ``[R, d]``, one vector for each row of the pool.
    """

    pool: Pool | None = None
    valid_tags: ValidTags | None = None
    graph: LabelGraph | None = None
    embeddings: np.ndarray | None = None


NOTHING = InMemory()


def prepare(
    config: SelectConfig,
    *,
    in_memory: InMemory = NOTHING,
    watch: Stopwatch,
    progress: Progress,
    notify: Callable[[str], None],
) -> Inputs:
    """Read, encode and embed; every mistake in the input is met here.

    Args:
      config: checked.
      in_memory: objects of a Python program.
      watch: gets the seconds of each stage.
      notify: called with notes for the user.

    Raises:
      UserError: names the key or the row.
    """
    inputs = processes.together(lambda: _read(config, in_memory, watch, progress))
    if "vectors" not in inputs.sampler.needs:
        return inputs
    with watch.stage("row embeddings"):
        if in_memory.embeddings is None:
            stored = row_embeddings(config, inputs.pool, progress, notify)
        else:
            array = checked(in_memory.embeddings, "embeddings", inputs.pool)
            stored = RowEmbeddings(array, hashlib.sha256(np.ascontiguousarray(array).data).hexdigest())
        vectors = processes.together(lambda: vectors_of(stored.array, inputs.pool, inputs.encoded, progress))
    return inputs._replace(task=replace(inputs.task, vectors=vectors), embeddings_sha256=stored.sha256)


def notes_of(config: SelectConfig, inputs: Inputs) -> list[str]:
    """Notes for the user about the inputs."""
    hint = [config.pool.note] if config.pool.note and config.pool.valid_tags is None else []
    of_score = [
        *_lacking(inputs.pool, inputs.encoded, config.score),
        *_misaligned(inputs.pool, inputs.encoded, config.score.source),
    ]
    notes = [*hint, *of_score, *inputs.graph.warnings()]
    if rejected := rejected_rows(inputs):
        rows = "1 faulty row was" if len(rejected) == 1 else f"{len(rejected):,} faulty rows were"
        notes.append(f"{rows} passed over; see rejects.jsonl and rejects.txt")
    return notes


def _lacking(pool: Pool, encoded: Encoded, config: ScoreConfig) -> list[str]:
    """Which tags and scores the usable rows lack, where the sampler does without them."""
    notes = []
    untagged = int((pool.tag_state[encoded.row] != PRESENT).sum())
    if not encoded.labels:
        notes.append("the pool has no tags: labels, E(D) and what follows from it are not known")
    elif untagged:
        notes.append(f"{untagged:,} usable rows have no tags: they add nothing to E(D)")
    if not encoded.scored:
        none = "every row counts 1" if config.source == NONE else "no row has a score"
        notes.append(f"score.from={config.source}: {none}, and none is better than another")
    elif unscored := int(scores(pool, config.source, config.turns)[1][encoded.row].sum()):
        notes.append(f"{unscored:,} usable rows have no score (score.from={config.source}): they add nothing to E(D)")
    return notes


def _misaligned(pool: Pool, encoded: Encoded, score: str) -> list[str]:
    """That an IFD above 1 is no merit, where the score makes one of it."""
    above = int((pool.ifd[encoded.row] > 1).sum()) if "ifd" in factor_names(score) else 0
    count = f"{above:,} of {len(encoded):,} rows have an IFD above 1: their instruction does not help with the answer"
    return [f"{count}. IFD's own selection leaves such rows out; this score ranks them high"] if above else []


def rejected_rows(inputs: Inputs) -> dict[int, str]:
    """The rows that would have stopped the run without pool.on_error=skip, and why."""
    faulty = {int(row): "its score is negative or not a usable number" for row in inputs.encoded.faulty}
    return dict(sorted((faulty | inputs.pool.no_objects()).items()))


def run_key(config: SelectConfig, inputs: Inputs) -> str:
    """sha256 of what decides the files: settings, contents of the inputs, version."""
    decides = {
        "version": VERSION,
        "config": config.decides(),
        "files": [source.sha256 for source in inputs.pool.sources],
        "labels": inputs.encoded.labels_digest(),  # what pool.valid_tags and its aliases made of the rows' tags
        "graph": inputs.graph.digest(),
        "limits": inputs.task.limit.digest(),
        "embeddings": inputs.embeddings_sha256,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def _read(config: SelectConfig, in_memory: InMemory, watch: Stopwatch, progress: Progress) -> Inputs:
    """All inputs but the embeddings of rows."""
    sampler = find_sampler(config.sampler.name)
    mesh, phi = mesh_of(config.mesh), _phi(config.phi)
    cache = cache_of(config)
    with watch.stage("read pool"):
        pool = in_memory.pool
        if pool is None:
            pool = pool_of(config.pool, columns_of(config), cache, progress)
    with watch.stage("encode"):
        encoded = encoded_of(pool, config, valid_tags=in_memory.valid_tags)
    budgets = budgets_of(sampler, config.budgets, encoded, len(pool))
    limits = limits_of(config.limits, pool, encoded, budgets if config.budgets and not sampler.takes_all else ())
    check_refused(sampler, config.sampler.name, limits)
    ranking = ranking_of(config.sampler, config.score, pool, encoded)
    with watch.stage("label graph"):
        if in_memory.graph is None:
            graph = graph_of(encoded.labels, config.graph, config.embedder, cache, progress, config.mesh)
        else:
            graph = in_memory.graph.restrict(encoded.labels)
    task = SamplingTask(
        encoded,
        graph.propagation(config.graph.propagation),
        phi,
        config.sampler,
        ranking=ranking,
        rows=texts_of_points(pool, encoded) if "rows" in sampler.needs else None,
        limits=limits,
        seed=config.seed,
        mesh=mesh,
        shortlist_size=config.engine.shortlist,
        picks_per_call=config.engine.picks_per_call,
        heap_device=config.engine.heap_device,
        progress=progress,
    )
    return Inputs(sampler, pool, encoded, graph, task, budgets)


def cache_of(config: SelectConfig) -> Path | None:
    """The folder of the caches; None: nothing is cached."""
    return Path(config.cache).expanduser() if config.cache else None


def columns_of(config: SelectConfig) -> tuple[str, ...]:
    """The paths of the numbers that a selection reads besides the usual ones."""
    limits = config.limits
    asked = [*columns_read(config.score.source)]
    own = getattr(config.sampler, "score", None)
    asked += [] if own is None else columns_read(own, "sampler.score")
    asked += [limits.cost] if limits.tokens is not None and limits.cost not in ("tokens", "chars") else []
    return tuple(dict.fromkeys(asked))


def ranking_source(options: Any, score: ScoreConfig) -> RankingSource | None:
    """What the sampler ranks by: the score that its options name, else the pool's; None: it ranks by none."""
    if not hasattr(options, "score"):
        return None
    turns = getattr(options, "turns", score.turns)
    if options.score is None:
        return RankingSource(score.source, turns, "score.from")
    return RankingSource(options.score, turns, "sampler.score")


def ranking_of(options: Any, score: ScoreConfig, pool: Pool, encoded: Encoded) -> Float64[np.ndarray, " M"] | None:
    """That number of each point, NaN where it has none.

    Raises:
      UserError: no point has one; it is of a column that was not read.
    """
    asked = ranking_source(options, score)
    if asked is None:
        return None
    if options.score is None and asked.turns == score.turns:
        return encoded.score
    value, missing, wrong = (found[encoded.row] for found in scores(pool, *asked))
    if (missing | wrong).all():
        message = (
            f"none of the {len(encoded)} usable rows has the score that it ranks by, {asked.key}={asked.source};"
            f" sampler.score may be {ALLOWED}"
        )
        raise UserError(message, key="sampler", value=options.name)
    return np.where(missing | wrong, np.nan, value)


def encoded_of(pool: Pool, config: SelectConfig, *, valid_tags: ValidTags | None = None, skip: bool = False) -> Encoded:
    """The rows that the sampler can use.

    Args:
      valid_tags: instead of the file that the configuration names.
      skip: as with pool.on_error=skip.
    """
    if valid_tags is None and config.pool.valid_tags is not None:
        valid_tags = read_valid_tags(config.pool.valid_tags)
    return encode(
        pool,
        valid_tags=valid_tags,
        score=config.score.source,
        turns=config.score.turns,
        normalize=config.score.normalize,
        on_error="skip" if skip else config.pool.on_error,
        needs=find_sampler(config.sampler.name).needs_of(config.sampler),
        ranking=ranking_source(config.sampler, config.score),
    )


def mesh_of(config: MeshConfig):
    """The devices that share the rows."""
    devices = jax.devices()
    if config.rows == "all":
        return pool_mesh(devices)
    if config.rows > len(devices):
        allowed = f"all, or at most {len(devices)}, the number of devices"
        raise UserError(key="mesh.rows", value=config.rows, allowed=allowed)
    if jax.process_count() > 1:
        raise UserError("several processes share all devices", key="mesh.rows", value=config.rows, allowed="all")
    return pool_mesh(devices[: config.rows])


def _phi(config: PhiConfig) -> Phi:
    return make_phi(**msgspec.structs.asdict(config))
