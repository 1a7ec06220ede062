"""MIG: the greedy maximisation of E(D) = sum_k phi((P^T sum_d e_d)_k) (arXiv 2504.13835, algorithm 1)."""

from typing import Literal

import numpy as np

from mig_jax.engine import State, greedy, make_problem, pool_mesh
from mig_jax.samplers.config import SamplerOptions
from mig_jax.samplers.mig_limited import TokenBudgetState, sample_limited
from mig_jax.samplers.order import Order
from mig_jax.samplers.task import Sampler, SamplingTask


class Options(SamplerOptions, frozen=True):
    gain: Literal["first_order", "exact"]
    compat: bool


def sample(task: SamplingTask, n: int) -> Order:
    """The n points that the naive greedy picks. Where no point gains any more, the rest follow by score (highest first,
    then in file order); with ``compat`` in file order, as the reference's argmax over zeros has it. Under limits: of
    the points that they allow at each turn, see mig_limited.py."""
    if task.limit.kinds:
        return sample_limited(task, n)
    mesh = task.mesh or pool_mesh()
    problem = make_problem(task.encoded, task.propagation, task.phi, task.gain, mesh.size)
    found = greedy(
        problem,
        min(n, problem.num_points),
        mesh,
        shortlist_size=task.shortlist_size,
        picks_per_call=task.picks_per_call,
        heap_device=task.heap_device,
        progress=task.progress,
        resume=task.resume,
        on_snapshot=task.on_snapshot,
    )
    points, gains = found.points, found.gains.astype(np.float64)
    missing = n - len(points)
    if missing:
        left = np.setdiff1d(np.arange(len(task.encoded)), points)
        if not task.options.compat:
            left = left[np.argsort(-task.encoded.score[left], kind="stable")]
        points = np.concatenate([points, left[:missing]])
        gains = np.concatenate([gains, np.zeros(missing)])
    reason = "first-order gain" if task.gain == "first_order" else "exact gain"
    return Order(points, gains, reason, found.counts | {"picked_without_gain": missing})


MIG = Sampler(
    sample,
    Options,
    nested=lambda task: task.limit.budget is None,
    by_labels=True,
    needs=("labels", "score"),
    state=State | TokenBudgetState,
)
