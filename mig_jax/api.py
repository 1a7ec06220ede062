"""mig_jax from Python: load_pool, label_graph, select."""

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.commands.embed.texts import BETWEEN
from mig_jax.commands.select.config import limits_config
from mig_jax.commands.select.facts import facts_of
from mig_jax.commands.select.files import RunFacts, write_run
from mig_jax.commands.select.inputs import ranking_of, ranking_source
from mig_jax.commands.select.limits import check_refused, limits_of
from mig_jax.commands.select.row_embeddings import checked, vectors_of
from mig_jax.commands.select.solve import Solved, budgets_of, solve
from mig_jax.core.errors import UserError
from mig_jax.core.html import Described
from mig_jax.core.progress import Progress, silent
from mig_jax.encode import Encoded, encode
from mig_jax.encode.config import ScoreConfig
from mig_jax.labels import LabelGraph
from mig_jax.labels import label_graph as build_graph
from mig_jax.labels.configured import no_graph
from mig_jax.labels.valid_tags import ValidTags, read_valid_tags
from mig_jax.models.checkpoints.checkpoint import MINILM, EmbedderSpec
from mig_jax.models.inference.embed import load_embedder
from mig_jax.objective import Certificate, Phi, make_phi
from mig_jax.pool import Pool
from mig_jax.pool import load_pool as read_pool
from mig_jax.pool.configured import BUNDLED, bundled_pool
from mig_jax.report import page
from mig_jax.runs.run import Run
from mig_jax.samplers import SamplingTask, find_sampler
from mig_jax.samplers.configured import sampler_options
from mig_jax.samplers.task import texts_of_points


@dataclass(frozen=True, repr=False)
class Selection(Described):
    """n rows of a pool in the order they were picked.

    Args:
      rows: index of each picked row in the pool; int64 ``[n]``.
      gains: what each pick gained when it was taken, by the sampler's own measure; float64 ``[n]``.
      objective: E(D) after each pick, E(empty) = 0; float64 ``[n]``.
      certificate: how far from the best n rows these can be at most.
      pool, encoded, graph: what they were picked from.
      solved: everything else that is known of the picks.
    """

    rows: Int64[np.ndarray, " n"]
    gains: Float64[np.ndarray, " n"]
    objective: Float64[np.ndarray, " n"]
    certificate: Certificate
    pool: Pool
    encoded: Encoded
    graph: LabelGraph
    solved: Solved
    facts: RunFacts
    settings: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def _facts(self) -> dict[str, str]:
        system = self.facts.config.get("sampler", {})
        facts = {"rows": f"{len(self):,} of {len(self.encoded):,}", "sampler": str(system.get("name", ""))}
        if len(self.encoded.labels) and len(self):
            reached, ratio = f"{self.objective[-1]:,.4g}", self.certificate._facts()["ratio"]
            facts |= {"objective": reached, "of_the_optimum": f"at least {ratio}"}
        return facts

    def texts(self, count: int | None = None) -> list[list[tuple[str, str]]]:
        """The dialogs of the first ``count`` picks: (role, content) of every turn."""
        return self.pool.dialogs(self.rows[:count])

    def write(self, folder: str | Path) -> Path:
        """Write the files of ``mig-jax select`` into a new or empty folder."""
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty")
        with Run(folder, "python: mig_jax.select", self.settings, name="selection") as run:
            run.claim(uuid.uuid4().hex)
            write_run(run, self.facts)
            run.write_report(page(run.files))
            run.publish()
        return folder

    def report(self, path: str | Path | None = None) -> str:
        """The report as one HTML page; written to ``path`` if given."""
        with tempfile.TemporaryDirectory() as folder:
            html = page(self.write(Path(folder) / "selection"))
        if path is not None:
            Path(path).write_text(html, encoding="utf-8")
        return html


def load_pool(path: str | Path | Sequence[str | Path] = BUNDLED, **options) -> Pool:
    """Read a pool: files, folders, globs or ``hf:org/name``; alone, the bundled one. Options: ``mig_jax.pool``'s."""
    return read_pool(bundled_pool() if path == BUNDLED else path, **options)


def label_graph(
    pool: Pool,
    *,
    valid_tags: ValidTags | str | Path | None = None,
    embedder: EmbedderSpec = MINILM,
    embeddings: np.ndarray | None = None,
    threshold: float | str = "auto",
    degree: float = 4.0,
    progress: Progress = silent,
    **options,
) -> LabelGraph:
    """The graph of the labels that the pool's usable rows carry.

    Args:
      pool: as loaded.
      valid_tags: the tags that count, a ``mig_jax.encode.Vocabulary``, or a file of either; None: every tag.
      embedder: embeds the labels (all-MiniLM-L6-v2).
      embeddings: unit embeddings of the labels in sorted order instead; float ``[L, d]``.
      threshold: a number from 0 to 1, or "auto": the one that gives ``degree`` neighbours on average.
      options: score, turns, ... of ``mig_jax.encode.encode``: they decide which rows are usable.
    """
    labels = encode(pool, valid_tags=_tags(valid_tags), **options).labels
    return _graph_of(labels, embedder, embeddings, threshold, degree, progress)


def _graph_of(labels, embedder, embeddings, threshold, degree, progress) -> LabelGraph:
    if not labels:
        return no_graph()
    if embeddings is None:
        embeddings = load_embedder(embedder).embed(labels, progress=progress)
    return build_graph(labels, embeddings, threshold=threshold, degree=degree, progress=progress)


def select(
    pool: Pool,
    n: int,
    *,
    sampler: str = "mig",
    graph: LabelGraph | None = None,
    phi: Phi | None = None,
    gain: str | None = None,
    propagation: float = 1.0,
    compat: bool | None = None,
    valid_tags: ValidTags | str | Path | None = None,
    seed: int = 42,
    runners_up: int = 50,
    progress: Progress = silent,
    settings: Mapping[str, Any] | None = None,
    embeddings: np.ndarray | None = None,
    limits: Mapping[str, Any] | None = None,
    **options,
) -> Selection:
    """Select n rows of a pool.

    Args:
      pool: as loaded.
      n: how many, at most the usable rows.
      sampler: a name of ``mig_jax.samplers.SAMPLERS``.
      graph: the label graph; None: ``label_graph(pool)``. One of more labels than the pool's is restricted to them.
      phi: ``mig_jax.objective.make_phi(...)``; None: x^0.8.
      gain: "first_order" (the published one; the default) or "exact"; of mig.
      propagation: alpha.
      compat: the reference's behaviour where ours differs.
      valid_tags: the tags that count, as in ``label_graph``.
      settings: more of the sampler's own, as conf/sampler/NAME.yaml has them: {"threshold": 0.8}.
      embeddings: one vector a row of the pool, float ``[R, d]``, for the samplers that need them (deita, car, qdit);
        None: they are embedded by all-MiniLM-L6-v2.
      limits: ``limits.*`` of the command: {"exclude": "ids.txt", "sources": {"gsm8k": 100}, "tokens": 1_000_000}; rows
        also as row numbers, ids, or (``start``) a Selection.
      options: score, turns, ... of ``mig_jax.encode.encode``.

    Raises:
      UserError: names what is wrong.
    """
    if type(n) is not int:
        raise UserError(f"n={n}: must be a whole number; select is called once for each budget")
    chosen = find_sampler(sampler)
    own = {"gain": gain, "compat": compat}
    own = {key: value for key, value in own.items() if value is not None} | dict(settings or {})
    asked = sampler_options(sampler, own)
    if limits is not None and not isinstance(limits, Mapping):
        raise UserError(f"limits={limits}: must be a mapping, as {{'exclude': 'ids.txt'}}")
    bounds = limits_config({key: _plain(value) for key, value in (limits or {}).items()})
    score = ScoreConfig(options.get("score", "deita"), options.get("turns", "mean"), False)
    source = ranking_source(asked, score)
    encoded = encode(pool, valid_tags=_tags(valid_tags), needs=chosen.needs_of(asked), ranking=source, **options)
    budget = budgets_of(chosen, (n,), encoded, len(pool))[0]
    if graph is None:
        graph = _graph_of(encoded.labels, MINILM, None, "auto", 4.0, progress)
    graph = graph.restrict(encoded.labels)
    allowed = limits_of(bounds, pool, encoded, () if chosen.takes_all else (n,))
    check_refused(chosen, sampler, allowed)
    vectors = None
    if "vectors" in chosen.needs:
        array = load_embedder(MINILM).embed(_texts(pool), progress=progress) if embeddings is None else embeddings
        vectors = vectors_of(checked(array, "embeddings", pool), pool, encoded, progress)
    task = SamplingTask(
        encoded,
        graph.propagation(propagation),
        phi or make_phi(),
        asked,
        ranking=ranking_of(asked, score, pool, encoded),
        vectors=vectors,
        rows=texts_of_points(pool, encoded),
        limits=allowed,
        seed=seed,
        progress=progress,
    )
    solved = solve(chosen, task, (budget,), runners_up)
    said = {"n": n, "sampler": msgspec.to_builtins(asked), "propagation": propagation, "seed": seed}
    facts = facts_of(pool, task, graph, chosen, solved, (budget,))
    points = facts.selection.points
    return Selection(
        encoded.row[points],
        facts.selection.gains,
        solved.curve.objective,
        solved.certificate.get(budget, Certificate(0.0, 0.0, 1.0)),
        pool,
        encoded,
        graph,
        solved,
        facts,
        said,
    )


def _plain(value: Any) -> Any:
    """Rows as an array or a Selection, as a list."""
    rows = value.rows if isinstance(value, Selection) else value
    return rows.tolist() if isinstance(rows, np.ndarray) else rows


def _texts(pool: Pool) -> list[str]:
    return [BETWEEN.join(text for _, text in turns) for turns in pool.each_dialog(np.arange(len(pool)))]


def _tags(valid_tags: ValidTags | str | Path | None) -> ValidTags | None:
    return read_valid_tags(valid_tags) if isinstance(valid_tags, str | Path) else valid_tags
