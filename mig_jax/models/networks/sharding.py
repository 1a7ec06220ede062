"""Placement of a model on devices: one table from the names of axes to the axes of the mesh.

A network names the axes of its parameters (``axes=("embed", "heads", None)``) and of its activations (``constrain``)
and does not depend on devices; this file is the whole policy. Without a mesh it has no effect.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mig_jax.core.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")

RULES: dict[str | None, tuple[str, ...]] = {
    # parameters
    "embed": ("fsdp",),  # hidden size: gathered when its layer runs (fully sharded data parallelism)
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    # activations
    "batch": ("data", "fsdp"),
    None: (),  # replicated
}
"""Name of an axis -> the mesh axes that partition it, the slowest first."""

Model = TypeVar("Model", bound=nnx.Module)
Axes = tuple[str | None, ...]


def model_mesh(data: int | None = None, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Devices as data x fsdp x tensor.

    Args:
      data: copies of the model, each with its part of a batch; None: as many as the devices allow.
      fsdp: devices between which the parameters and the batch are split.
      tensor: devices between which heads, feed-forward and vocabulary are split, and the work of each token.
      devices: some of ``jax.devices()``; None: those of this process.

    Raises:
      UserError: the product of the three exceeds the number of devices.
    """
    devices = jax.local_devices() if devices is None else list(devices)
    inner = fsdp * tensor
    data = max(1, len(devices) // inner) if data is None else data
    if data * inner > len(devices):
        raise UserError(
            f"mesh.data={data}, mesh.fsdp={fsdp}, mesh.tensor={tensor}: need {data * inner} devices, there are "
            f"{len(devices)}"
        )
    grid = np.array(devices[: data * inner]).reshape(data, fsdp, tensor)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def partition(axes: Axes, shape: Sequence[int], sizes: dict[str, int]) -> PartitionSpec:
    """The spec of an array: an axis that its mesh axes do not divide evenly is replicated.

    For example, two key/value heads on a tensor axis of eight: every device has both.

    Args:
      axes: a name in ``RULES``, or None, for each dimension of ``shape``.
      sizes: mesh axis -> devices along it.
    """
    parts = []
    for name, length in zip(axes, shape, strict=True):
        names = [axis for axis in RULES[name] if sizes.get(axis, 1) > 1]
        even = length % math.prod(sizes[axis] for axis in names) == 0
        parts.append(None if not names or not even else tuple(names) if len(names) > 1 else names[0])
    return PartitionSpec(*parts)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrain the sharding of an activation on the mesh of ``jax.set_mesh``; without a mesh, no effect."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition(axes, x.shape, dict(mesh.shape)))


def uneven(name: str, length: int) -> bool:
    """Whether the mesh in use cannot partition an axis of this length evenly, so that it is replicated."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    return length % math.prod(sizes.get(axis, 1) for axis in RULES[name]) != 0


def shardings(state: nnx.State, mesh: Mesh) -> nnx.State:
    """The ``NamedSharding`` of each variable, by the axes that its module named."""
    sizes = dict(mesh.shape)
    flat = {
        path: NamedSharding(mesh, partition(axes_of(leaf), leaf.get_value().shape, sizes))
        for path, leaf in nnx.to_flat_state(state)
    }
    return nnx.from_flat_state(flat)


def axes_of(variable: nnx.Variable) -> Axes:
    """The axes that a variable's module named; without names it is replicated."""
    axes = variable.get_metadata("axes", None)
    return (None,) * len(variable.get_value().shape) if axes is None else axes


def place(value: np.ndarray, sharding: NamedSharding | None) -> jax.Array:
    """A host array on the devices: each receives its own part, and no device the whole."""
    if sharding is None:
        return jax.device_put(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def init_model(build: Callable[[], Model], mesh: Mesh | None = None) -> Model:
    """A model with random weights, created sharded: no array ever exists unsharded."""
    graphdef, abstract = nnx.split(nnx.eval_shape(build))

    def random_state() -> nnx.State:
        return nnx.state(build())

    out = None if mesh is None else shardings(abstract, mesh)
    return nnx.merge(graphdef, jax.jit(random_state, out_shardings=out)())
