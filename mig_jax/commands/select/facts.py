"""From a solved task to the content of a run's files."""

from dataclasses import replace
from typing import Any

import numpy as np

from mig_jax.commands.select.files import RunFacts, RunnersUp
from mig_jax.commands.select.limits import facts_of_limits
from mig_jax.commands.select.shares import LabelShares
from mig_jax.commands.select.solve import Solved
from mig_jax.encode import Encoded
from mig_jax.labels import LabelGraph
from mig_jax.pool import Pool
from mig_jax.samplers import Sampler, SamplingTask


def facts_of(
    pool: Pool,
    task: SamplingTask,
    graph: LabelGraph,
    sampler: Sampler,
    solved: Solved,
    budgets: tuple[int, ...],
    **more: Any,
) -> RunFacts:
    """``more``: the fields of RunFacts that only the command line knows (export_layout, rejected)."""
    encoded: Encoded = task.encoded
    c, order, (near, near_gains, near_labels) = solved.curve, solved.order, solved.runners_up
    labels_earned, runners_up = (), RunnersUp.none()
    if sampler.by_labels:
        # Gains in float64, by the same formula: the files do not depend on the backend that picked.
        gains = c.first_order if task.gain == "first_order" else c.exact
        order = replace(order, gains=np.asarray(gains))
        labels_earned = LabelShares.of_gains(encoded.labels, c.tag_ptr, c.tag_label, c.tag_gain)
        runners_up = RunnersUp(near, near_gains, near_labels)
    return RunFacts(
        pool=pool,
        encoded=encoded,
        selection=order,
        budgets=budgets,
        objective=c.objective,
        rise=c.exact,
        random_objective=solved.random_objective,
        certificate={n: {"bound": x.bound, "ratio": x.ratio} for n, x in solved.certificate.items()},
        labels_earned=labels_earned,
        runners_up=runners_up,
        graph=graph.facts(),
        orders=solved.orders,
        order_objective={
            n: float(x.objective[-1]) if len(x.objective) else 0.0 for n, x in solved.order_curves.items()
        },
        limits=facts_of_limits(task.limit, solved.order.points),
        **more,
    )


def remarks(solved: Solved, task: SamplingTask, sampler: str, asked: int, phi: str) -> list[str]:
    """Notes on the result of a selection."""
    limits = task.limit
    notes = [*solved.order.notes, *limits.notes, *limits.unmet(solved.order.points)]
    if limits.cost is not None and limits.budget is not None:
        spent = float(limits.cost[solved.order.points].sum())
        notes.append(
            f"{len(solved.order):,} rows use {spent:,.0f} of {limits.budget:,.0f} ({spent / limits.budget:.1%})"
        )
        if solved.random_within is not None:
            rows, reached = solved.random_within
            notes.append(f"a random pick under the same limits reaches E(D) {reached:,.0f} with {rows:,} rows")
    elif len(solved.order) < asked and sampler != "pool":
        notes.append(f"{sampler} found only {len(solved.order)} rows for n={asked}: its own rules leave no more")
    empty = solved.order.rounds.get("picked_without_gain", 0)
    if empty:
        how = "in file order" if task.options.compat else "by score"
        why = " (phi=exp underflows where a label has much mass)" if phi == "exp" else ""
        first = len(solved.order) - empty + 1
        notes.append(f"from pick {first} on no row gains anything{why}: the last {empty} were taken {how}")
    return notes
