"""Where the heap lives: on the CPU beside the mesh, or on one of its devices, in float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh

from mig_jax.core.errors import UserError


def home_of(mesh: Mesh, inner: str) -> Any:
    """The device of this process that holds the heap: every process repeats the picks, none waits for another."""
    mine = next(d for d in mesh.devices.flat if d.process_index == jax.process_index())
    return mine if inner == "device" or mine.platform == "cpu" else cpu()


def cpu() -> Any:
    """This process's."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError(
            f"JAX_PLATFORMS={jax.config.read('jax_platforms')}: picks are made on the CPU; add ,cpu"
        ) from error


@contextmanager
def exactly(home: Any) -> Iterator[None]:
    """On this device, in float64."""
    with jax.enable_x64(True), jax.default_device(home):
        yield
