"""A run as several processes: joining them, the main process that writes, and the exchange between them."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from mig_jax.core.errors import UserError

T = TypeVar("T")


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the other processes; does nothing for a single one.

    Args:
      coordinator: "host:port" of process 0, or "auto" where the cluster defines it (a TPU pod, Slurm).
      processes, process: their number, and the number of this one.

    Raises:
      UserError: only some of the three are given.
    """
    if coordinator is None and processes is None and process is None:
        return
    if coordinator == "auto":
        _discard_c_stdout()
        jax.distributed.initialize()
        return
    if coordinator is None or processes is None or process is None:
        raise UserError("mesh.coordinator, mesh.processes and mesh.process belong together: give all three, or none")
    if process >= processes:
        raise UserError(key="mesh.process", value=process, allowed=f"less than mesh.processes={processes}")
    _discard_c_stdout()
    jax.distributed.initialize(coordinator, processes, process)


def _discard_c_stdout() -> None:
    """Discard what C libraries print to stdout (Gloo: each of its connections); Python's own stdout still works."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.close(devnull)


def replicated(array: jax.Array) -> np.ndarray:
    """A replicated array on the host, read from a device of this process."""
    return np.asarray(array.addressable_data(0))


def is_main() -> bool:
    """Whether this is the process that reads checkpoints and writes files."""
    return jax.process_index() == 0


def broadcast(value: np.ndarray | np.generic) -> np.ndarray:
    """The array of the main process, on every process; shapes and dtypes must agree."""
    if jax.process_count() == 1:
        return np.asarray(value)
    return np.asarray(multihost_utils.broadcast_one_to_all(value))


def broadcast_bytes(value: bytes) -> bytes:
    """The bytes of the main process, on every process."""
    if jax.process_count() == 1:
        return value
    size = int(broadcast(np.int64(len(value))))
    buffer = np.zeros(size, np.uint8)
    if is_main():
        buffer[:] = np.frombuffer(value, np.uint8)
    return broadcast(buffer).tobytes()


def together(work: Callable[[], T]) -> T:
    """``work()`` on every process; returns when all processes have done theirs.

    The processes exchange whether they failed: otherwise the others would wait for a failed process in their next
    exchange.

    Raises:
      UserError, OSError: the error of this process.
      UserError: another process failed; its own stderr has the error.
    """
    if jax.process_count() == 1:
        return work()
    result: T | None = None
    error: UserError | OSError | None = None
    try:
        result = work()
    except (UserError, OSError) as raised:
        error = raised
    failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(error is not None)))
    if error is not None:
        raise error
    if len(failed):
        raise UserError(f"process {failed[0]} of {jax.process_count()} has stopped; see its stderr")
    return result  # type: ignore[return-value]
