"""Exact batched lazy greedy over rows sharded on a mesh."""

from mig_jax.engine.greedy import Result, Snapshot, greedy, pool_mesh
from mig_jax.engine.problem import Problem, make_problem

__all__ = ["Problem", "Result", "Snapshot", "greedy", "make_problem", "pool_mesh"]
