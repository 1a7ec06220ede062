"""Exact lazy greedy over rows sharded on a mesh, or in blocks on disk."""

from mig_jax.engine.blocks import BlockWriter
from mig_jax.engine.greedy import Result, Snapshot, greedy, greedy_from_disk, pool_mesh
from mig_jax.engine.problem import Problem, make_problem

__all__ = ["BlockWriter", "Problem", "Result", "Snapshot", "greedy", "greedy_from_disk", "make_problem", "pool_mesh"]
