"""Loops over single numbers, which XLA compiles for a CPU into one native function.

XLA runs each operation of a loop's body as a call of its own, about a microsecond on a CPU; a body of fifty operations
on single numbers is then a thousand times slower than the same in C. Marked as a small call, the whole loop becomes one
function. Two rules keep it fast (tests/engine/test_engine_structure.py verifies them in the compiled text):

- No cond or switch around arrays: their branches copy what they return. A loop of no or one iteration does the same.
- In one iteration an array is first written, then read: a value read before the write and used after it makes XLA copy
  the array. What an iteration needs is read at the end of the previous one and carried over as a number.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Literal


def at(array: Any, i: Any) -> Any:
    """array[i], 0 <= i < len(array)."""
    return jax.lax.dynamic_index_in_dim(array, i, keepdims=False, allow_negative_indices=False)


def put(array: Any, i: Any, value: Any) -> Any:
    """The array with ``value`` at i, in place where XLA can."""
    return jax.lax.dynamic_update_index_in_dim(array, value, i, 0, allow_negative_indices=False)


def as_one_function(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args) as one native function of a CPU; the operations must not include scatter, sort or dot."""
    leaves, tree = jax.tree.flatten(args)
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    needed = {var for equation in traced.jaxpr.eqns for var in equation.invars if not isinstance(var, Literal)}
    used = [i for i, var in enumerate(traced.jaxpr.invars) if var in needed]

    def call(*read):  # only what is read: XLA aborts on an unused parameter of such a function
        filled = list(leaves)
        for i, value in zip(used, read, strict=True):
            filled[i] = value
        return jax.tree.leaves(function(*jax.tree.unflatten(tree, filled)))

    out = jax.jit(call)(*(leaves[i] for i in used))
    out[0] = set_xla_metadata(out[0], inlineable="false", xla_cpu_small_call="true")
    return jax.tree.unflatten(jax.tree.structure(shapes), out)
