"""The index spaces of a pool. Integers that count different things have different types.

    pool_row   0 .. R-1   a line of the pool, as it was read
        |                 Encoded.row[point] -> pool_row; a row that the sampler cannot use has no point
    point      0 .. M-1   a usable row, in the order of the pool
        |                 engine.problem: the points with equal labels form a group, a queue ordered by score
    group      0 .. G-1   its head, the best point not picked yet, is the group's candidate
        |                 engine.full_pass: the C groups with the largest bounds form the shortlist
    slot       0 .. C-1   an entry of the shortlist; the heap of engine.lazy_heap orders slots

A selection is reported as points; ``encoded.row[points]`` are its pool rows. Groups and slots stay inside the engine
and have no types. The types below exist for the type checker: passing pool rows where points are expected is an error
of pyright. At run time an array stays a numpy array.
"""

from typing import TYPE_CHECKING, NewType, cast

import numpy as np

PoolRow = NewType("PoolRow", int)
Point = NewType("Point", int)

if TYPE_CHECKING:
    PoolRowArray = NewType("PoolRowArray", np.ndarray)
    PointArray = NewType("PointArray", np.ndarray)
else:  # jaxtyping builds its checks from classes: Int64[PointArray, " n"] requires a class here
    PoolRowArray = PointArray = np.ndarray


def as_pool_rows(array: np.ndarray) -> PoolRowArray:
    """The same array, whose values are pool rows."""
    return cast(PoolRowArray, array)


def as_points(array: np.ndarray) -> PointArray:
    """The same array, whose values are points."""
    return cast(PointArray, array)
