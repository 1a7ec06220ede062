"""Exact lazy greedy over rows sharded on a mesh, or in blocks on disk."""

from mig_jax.engine.checkpoint import Snapshot
from mig_jax.engine.greedy import Result, greedy, greedy_from_disk, pool_mesh
from mig_jax.engine.kernels import State
from mig_jax.engine.pool_on_disk import BlockWriter
from mig_jax.engine.problem import Problem, make_problem
from mig_jax.engine.rules import Allowance, Remaining, Rules
from mig_jax.engine.warm_start import warm_start

__all__ = [
    "Allowance",
    "BlockWriter",
    "Problem",
    "Remaining",
    "Result",
    "Rules",
    "Snapshot",
    "State",
    "greedy",
    "greedy_from_disk",
    "make_problem",
    "pool_mesh",
    "warm_start",
]
