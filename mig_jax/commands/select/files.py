"""The files of ``mig-jax select``, written into the staging folder of its run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from mig_jax.commands.select.pool_stats import POOL_STATS, covered_labels, pool_stats
from mig_jax.commands.select.shares import Shares
from mig_jax.commands.select.trace import write_runners_up, write_trace
from mig_jax.core.json_files import write_json
from mig_jax.core.lines import one_line, selection_names, write_lines, write_prefixes
from mig_jax.pool.convert import check_layout, converted_line
from mig_jax.pool.dataset_info import dataset_info, describable
from mig_jax.pool.view import PoolView
from mig_jax.runs.manifest import SampleFile, SelectManifest, file_facts, sources_of
from mig_jax.runs.rejects import write_rejects
from mig_jax.runs.run import Run

if TYPE_CHECKING:  # their packages import JAX, which a reader of finished runs does not need
    from mig_jax.encode.encoded import Encoded
    from mig_jax.samplers.order import Order

TRACE = "trace.parquet"
RUNNERS_UP = "runners_up.parquet"
DATASET_INFO = "dataset_info.json"
DIALOGS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class RunnersUp:
    """The rows with the largest gains that were not picked, descending.

    Args:
      points: index into ``Encoded``; int64 ``[r]``.
      gains: the gain each would add to the finished selection; float64 ``[r]``.
      labels: the labels that would earn it, (label, share of the gain) each; r of them, or none at all.
    """

    points: Int64[np.ndarray, " r"]
    gains: Float64[np.ndarray, " r"]
    labels: Sequence[Shares] = ()

    @classmethod
    def none(cls) -> "RunnersUp":
        """For a system that ranks nothing."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float64))


@dataclass(frozen=True)
class RunFacts:
    """The content of a run's files. n picks.

    Args:
      pool: the pool.
      encoded: its usable rows.
      selection: the picks of the largest budget.
      budgets: of the configuration, ascending; each is a prefix of ``selection`` unless ``orders`` has it.
      objective: E(D) after each pick, E(empty) = 0; float64 ``[n]``.
      rise: of E(D) by each pick; float64 ``[n]``.
      random_objective: rows -> E(D) of a random pick of as many (the more, the better the curve).
      certificate: budget -> {"bound", "ratio"}.
      labels_earned: per pick, (label, share of the gain); empty where the system does not rank by labels.
      runners_up: the best rows that were not picked.
      graph, limits (what bounded the picks): facts for the manifest, plain.
      export_layout: mig, sharegpt, openai or alpaca; None writes rows as they came.
      rejected: pool row -> what is wrong with it, of rows that could not be used.
      orders: points of budgets that are no prefix (CaR, ZIP, token budgets).
      order_objective: E(D) of each budget in ``orders``.
    """

    pool: PoolView
    encoded: "Encoded"
    selection: "Order"
    budgets: tuple[int, ...]
    objective: Float64[np.ndarray, " n"]
    rise: Float64[np.ndarray, " n"]
    random_objective: Mapping[int, float] = field(default_factory=dict)
    certificate: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    labels_earned: Sequence[Shares] = ()
    runners_up: RunnersUp = field(default_factory=RunnersUp.none)
    graph: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    export_layout: str | None = None
    rejected: Mapping[int, str] = field(default_factory=dict)
    orders: Mapping[int, Int64[np.ndarray, " m"]] = field(default_factory=dict)
    order_objective: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.selection)
        check_layout(self.export_layout)
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets={self.budgets}: ascending and without repeats")
        for name, length in (
            ("objective", len(self.objective)),
            ("rise", len(self.rise)),
            ("labels_earned", len(self.labels_earned) or n),
            ("selection.why", len(self.selection.why) or n),
        ):
            if length != n:
                raise ValueError(f"{name} has {length} entries for {n} picks")

    def points(self, budget: int) -> Int64[np.ndarray, " m"]:
        """The picks of a budget."""
        return self.orders.get(budget, self.selection.points[:budget])

    @property
    def judged(self) -> bool:
        """Whether E(D) is known: a pool without labels has no information to add."""
        return len(self.encoded.labels) > 0

    def reached(self, budget: int) -> float | None:
        """E(D) of a budget's selection; None where it is not known."""
        if not self.judged:
            return None
        if budget in self.orders:
            return self.order_objective.get(budget, float("nan"))
        n = min(budget, len(self.selection))
        return float(self.objective[n - 1]) if n else 0.0


def write_run(run: Run, facts: RunFacts) -> SelectManifest:
    """Write all files of a claimed run but the page of the report, which is made from them; the manifest.

    Raises:
      UserError: a row cannot be written in ``export_layout``.
    """
    folder, encoded = run.files, facts.encoded
    with run.stage("rows"):
        selections = _write_selections(run, facts)
    with run.stage("export"):
        _write_explanations(folder, facts)
        layout = facts.export_layout or _pool_layout(facts.pool)
        if layout is None:
            run.notes.append(
                "no dataset_info.json: the pool mixes layouts or nests its fields; export.layout= converts the rows"
            )
        else:
            converted = facts.export_layout is not None
            keys = None if converted else facts.pool.fields
            write_json(folder / DATASET_INFO, dataset_info(selections, layout, converted, keys))
    return run.write_manifest(
        SelectManifest,
        inputs=sources_of(facts.pool),
        n=len(facts.selection),
        budgets=facts.budgets,
        gain_meaning=facts.selection.reason,
        objective={n: facts.reached(n) for n in facts.budgets},
        random_objective=dict(sorted(facts.random_objective.items())) if facts.judged else {},
        certificate=dict(sorted(facts.certificate.items())) if facts.judged else {},
        pool={"rows": len(facts.pool), "usable": len(encoded)},
        dropped=dict(sorted(encoded.dropped.items())),
        labels={"total": len(encoded.labels), "covered": covered_labels(encoded, facts.selection.points)},
        graph=facts.graph,
        rounds=facts.selection.rounds,
        limits=facts.limits,
        layout=layout,
        sample_file=_sample_facts(run),
    )


def _write_explanations(folder: Path, facts: RunFacts) -> None:
    """trace, runners-up, pool statistics and rejects."""
    encoded, order, near = facts.encoded, facts.selection, facts.runners_up
    write_rejects(folder, facts.pool, facts.rejected)
    write_trace(
        folder / TRACE,
        facts.pool,
        encoded.row[order.points],
        order.gains,
        facts.rise if facts.judged else None,
        facts.objective if facts.judged else None,
        order.why or (order.reason,),
        encoded.score[order.points],
        facts.labels_earned,
    )
    near_rows = encoded.row[near.points]
    write_runners_up(folder / RUNNERS_UP, facts.pool, near_rows, near.gains, encoded.score[near.points], near.labels)
    stats = pool_stats(
        facts.pool,
        encoded,
        order.points,
        order.gains,
        order.why,
        facts.labels_earned,
        near.points,
        near.gains,
        near.labels,
    )
    write_json(folder / POOL_STATS, stats)


def _write_selections(run: Run, facts: RunFacts) -> dict[str, str]:
    """Write the selection of each budget; data set name -> file, as dataset_info.json lists them."""
    folder, claim = run.files, run.claimed
    if claim.sample is not None and claim.sample_target is not None:
        if len(facts.budgets) != 1:
            raise ValueError(f"budgets={facts.budgets}: the sample file holds one")
        write_lines(claim.sample, _lines(facts, facts.points(facts.budgets[0])))
        return {run.name: f"../{claim.sample_target.name}"}  # from dataset_info.json in FILE.run/
    names = selection_names(facts.budgets)
    prefixes = {n: folder / name for n, name in names.items() if n not in facts.orders}
    if prefixes:
        write_prefixes(prefixes, _lines(facts, facts.points(max(prefixes))))
    for n in facts.orders.keys() & names.keys():
        write_lines(folder / names[n], _lines(facts, facts.points(n)))
    if len(names) == 1:
        return {run.name: names[facts.budgets[0]]}
    return {f"{run.name}_{n}": name for n, name in names.items()}


def _lines(facts: RunFacts, points: np.ndarray) -> Iterator[bytes]:
    """The selected rows as lines, in pick order.

    Rows as they came are read by one call, dialogs in large chunks: each call reads a compressed file from its start.
    """
    rows = facts.encoded.row[points]
    if facts.export_layout is None:
        yield from map(one_line, facts.pool.read_rows(rows))
        return
    for start in range(0, len(rows), DIALOGS_AT_ONCE):
        chunk = rows[start : start + DIALOGS_AT_ONCE]
        for row, dialog in zip(chunk.tolist(), facts.pool.dialogs(chunk), strict=True):
            yield converted_line(dialog, facts.export_layout, facts.pool.where(row))


def _pool_layout(pool: PoolView) -> str | None:
    """The layout of all files that have rows, if it is one that dataset_info.json can describe; else None."""
    layouts = {source.layout for source in pool.sources if source.layout}
    layout = layouts.pop() if len(layouts) == 1 else None
    return layout if layout and describable(layout, pool.fields) else None


def _sample_facts(run: Run) -> SampleFile | None:
    sample, target = run.claimed.sample, run.claimed.sample_target
    if sample is None or target is None:
        return None
    facts = file_facts(sample)
    return SampleFile(path=str(target), bytes=facts.bytes, sha256=facts.sha256)
