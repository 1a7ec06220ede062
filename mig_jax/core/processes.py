"""One run as several processes: who writes, and how the others learn what it read."""

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
      coordinator: "host:port" of process 0, or "auto" where the cluster tells (a TPU pod, Slurm).
      processes, process: how many there are and which one this is.

    Raises:
      UserError: only some of the three are given.
    """
    if coordinator is None and processes is None and process is None:
        return
    if coordinator == "auto":
        _keep_stdout()
        jax.distributed.initialize()
        return
    if coordinator is None or processes is None or process is None:
        raise UserError("mesh.coordinator, mesh.processes and mesh.process belong together: give all three, or none")
    if process >= processes:
        raise UserError(f"mesh.process={process}: must be less than mesh.processes={processes}")
    _keep_stdout()
    jax.distributed.initialize(coordinator, processes, process)


def _keep_stdout() -> None:
    """Drop what libraries in C print (Gloo: each of its connections); Python's stdout stays what it was."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def whole(array: jax.Array) -> np.ndarray:
    """An array that every device holds whole, on the host; other processes need not be asked for theirs."""
    return np.asarray(array.addressable_data(0))


def is_main() -> bool:
    """Whether this is the process that reads checkpoints and writes files."""
    return jax.process_index() == 0


def share(value: np.ndarray | np.generic) -> np.ndarray:
    """The main process's array, on every process; shapes and types must agree."""
    if jax.process_count() == 1:
        return np.asarray(value)
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


def together(work: Callable[[], T]) -> T:
    """``work()`` on every process, and none goes on before all have done theirs.

    A process that fails and leaves would keep the others waiting for it in their next exchange, so each tells first.

    Raises:
      UserError: what went wrong here, or that something did on another process, which says what.
    """
    if jax.process_count() == 1:
        return work()
    result: T | None = None
    error: UserError | OSError | None = None
    try:
        result = work()
    except (UserError, OSError) as met:
        error = met
    failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(error is not None)))
    if error is not None:
        raise error
    if len(failed):
        raise UserError(f"process {failed[0]} of {jax.process_count()} has stopped; it says why")
    return result  # type: ignore[return-value]
