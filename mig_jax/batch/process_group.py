"""The processes that compute the batches of one run together; process 0 writes the results."""

from contextlib import suppress
from typing import NamedTuple

import jax

from mig_jax.config.mesh import MeshConfig
from mig_jax.core.errors import UserError
from mig_jax.runs.manifest import read_outline
from mig_jax.runs.run import Run


class ProcessGroup(NamedTuple):
    """Which of how many processes this is; process p computes the batches p, p + processes, ..."""

    process: int
    processes: int

    @property
    def is_main(self) -> bool:
        """Whether this process writes the results."""
        return self.process == 0

    def partition(self, batches: int) -> range:
        """The numbers of this process's batches."""
        return range(self.process, batches, self.processes)

    def __str__(self) -> str:
        return f"process {self.process} of {self.processes}"


def process_group(mesh: MeshConfig) -> ProcessGroup:
    """The processes of jax.distributed, or independent ones that share a disk.

    Raises:
      UserError: only one of mesh.processes and mesh.process is given, or they do not fit.
    """
    if jax.process_count() > 1:
        return ProcessGroup(jax.process_index(), jax.process_count())
    if (mesh.processes is None) != (mesh.process is None):
        raise UserError("belongs together with mesh.process: give both, or neither", key="mesh.processes")
    if mesh.processes is None or mesh.process is None:
        return ProcessGroup(0, 1)
    if mesh.process >= mesh.processes:
        raise UserError(key="mesh.process", value=mesh.process, allowed=f"less than mesh.processes={mesh.processes}")
    return ProcessGroup(mesh.process, mesh.processes)


def already_done(run: Run, group: ProcessGroup) -> str:
    """The note of a process whose run is finished."""
    if group.is_main:
        return run.done_already
    return f"{run.shown} holds this very run already; only process 0 can do it again"


def finished_without(run: Run, group: ProcessGroup) -> str:
    """The summary of a process whose folder of shards is gone."""
    with suppress(UserError, OSError):
        if read_outline(run.out).run_key == run.key:
            return f"{group}: {run.shown} is finished without the rest of its batches"
    return f"{group}: no process works on {run.shown} any more; {run.checkpoint} is gone"
