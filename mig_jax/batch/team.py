"""The processes that share the batches of a pass, and who of them writes what they made."""

import time
from contextlib import suppress
from typing import NamedTuple

import jax

from mig_jax.config.mesh import MeshConfig
from mig_jax.core import processes
from mig_jax.core.errors import UserError
from mig_jax.core.locks import Busy
from mig_jax.runs.manifest import read_plain
from mig_jax.runs.staging import Claim, claim, join

_PATIENCE = 20.0  # seconds until a folder that another process is just making counts as taken


class Team(NamedTuple):
    """Which of how many processes this is; process p takes the batches p, p + processes, ..."""

    process: int
    processes: int

    @property
    def is_main(self) -> bool:
        """Whether this one puts the shards together."""
        return self.process == 0

    def share(self, batches: int) -> range:
        """The numbers of its batches."""
        return range(self.process, batches, self.processes)


def team_of(mesh: MeshConfig) -> Team:
    """The processes that share the batches: those of jax.distributed, or independent ones that share a disk.

    Raises:
      UserError: only one of mesh.processes and mesh.process is given, or they do not fit.
    """
    if jax.process_count() > 1:
        return Team(jax.process_index(), jax.process_count())
    if (mesh.processes is None) != (mesh.process is None):
        raise UserError("mesh.processes and mesh.process belong together: give both, or neither")
    if mesh.processes is None or mesh.process is None:
        return Team(0, 1)
    if mesh.process >= mesh.processes:
        raise UserError(f"mesh.process={mesh.process}: must be less than mesh.processes={mesh.processes}")
    return Team(mesh.process, mesh.processes)


def claim_for(team: Team, out: str, key: str, overwrite: bool) -> Claim:
    """The right to write ``out``, or, beside the main process, to add shards; several may begin at one moment."""
    end = time.monotonic() + _PATIENCE * (team.processes > 1)
    while True:
        try:
            if team.is_main:
                return claim(out, key, overwrite, spare=True)
            return join(out, key, overwrite)
        except Busy:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def claim_together(team: Team, out: str, key: str, overwrite: bool) -> Claim:
    """``claim_for`` on every process of a run, on the main one first."""
    claimed = processes.together(lambda: claim_for(team, out, key, overwrite) if team.is_main else None)
    return processes.together(lambda: claimed or claim_for(team, out, key, overwrite))


def done_already(team: Team, out: str) -> str:
    """What a process says whose run is finished."""
    again = "overwrite=true would do it again" if team.is_main else "only process 0 can do it again"
    return f"{out} holds this very run already; {again}"


def too_late(claimed: Claim, key: str, out: str, team: Team) -> str:
    """What a process says whose folder of shards is gone."""
    with suppress(UserError, OSError):
        if read_plain(claimed.out)["run_key"] == key:
            return f"process {team.process} of {team.processes}: {out} is finished without the rest of its batches"
    return f"process {team.process} of {team.processes}: nobody works on {out} any more; {claimed.checkpoint} is gone"
