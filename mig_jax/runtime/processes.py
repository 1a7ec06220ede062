"""One run as several processes: who writes, and how the others learn what it read."""

import jax
import numpy as np
from jax.experimental import multihost_utils

from mig_jax.errors import UserError


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the other processes; does nothing for a single one.

    Args:
      coordinator: "host:port" of process 0, or "auto" where the cluster tells (a TPU pod, Slurm).
      processes, process: how many there are and which one this is.

    Raises:
      UserError: only some of the three are given.
    """
    if coordinator is None and processes is None and process is None:
        return
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    if coordinator is None or processes is None or process is None:
        raise UserError("mesh.coordinator, mesh.processes and mesh.process belong together: give all three, or none")
    if process >= processes:
        raise UserError(f"mesh.process={process}: must be less than mesh.processes={processes}")
    jax.distributed.initialize(coordinator, processes, process)


def is_main() -> bool:
    """Whether this is the process that reads checkpoints and writes files."""
    return jax.process_index() == 0


def share(value: np.ndarray) -> np.ndarray:
    """The main process's array, on every process; shapes and types must agree."""
    if jax.process_count() == 1:
        return value
    return np.asarray(multihost_utils.broadcast_one_to_all(value))


def share_bytes(value: bytes) -> bytes:
    """The main process's bytes, on every process."""
    if jax.process_count() == 1:
        return value
    size = int(share(np.int64(len(value))))
    buffer = np.zeros(size, np.uint8)
    if is_main():
        buffer[:] = np.frombuffer(value, np.uint8)
    return share(buffer).tobytes()


def wait(name: str) -> None:
    """Until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
