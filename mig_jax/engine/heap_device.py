"""The device of the heap: a CPU, or one of the mesh's devices. The heap computes in float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh

from mig_jax.core.errors import UserError


def heap_device_of(mesh: Mesh, heap_device: str) -> Any:
    """The device of this process that holds the heap. Every process repeats the picks, so none waits for another.

    Args:
      heap_device: "device": the first of the mesh's devices in this process; "host" or "auto": a CPU.
    """
    first = next(d for d in mesh.devices.flat if d.process_index == jax.process_index())
    return first if heap_device == "device" or first.platform == "cpu" else cpu()


def cpu() -> Any:
    """The first CPU device of this process.

    Raises:
      UserError: JAX_PLATFORMS leaves out the CPU.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError(
            "picks are made on the CPU; add ,cpu",
            key="JAX_PLATFORMS",
            value=jax.config.read("jax_platforms"),
        ) from error


@contextmanager
def float64_on(device: Any) -> Iterator[None]:
    """Compute on this device, in float64."""
    with jax.enable_x64(True), jax.default_device(device):
        yield
