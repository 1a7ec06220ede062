"""The work of one process: its share of the planned batches, saved as they are done; then all of them put together."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from mig_jax.batch.job import Job
from mig_jax.batch.shards import Saver, Shards
from mig_jax.batch.team import Team
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress

_POLL = 0.5  # seconds between two looks at what other processes have done
_PATIENCE = 10.0  # seconds without a new batch until it is told who is missing


@dataclass(frozen=True)
class Pass:
    """A model over the texts of a run.

    Args:
      name: of its progress and of its folder of shards.
      key: what decides its results beside the texts; JSON-able.
      prepare: tokenises and plans: told to the given progress. The job holds the model once it has run.
    """

    name: str
    key: object
    prepare: Callable[[Progress], Job]


def plan_digest(job: Job) -> str:
    """What tells one plan from another, hex: the texts and the shape of every batch, and what is kept of a text."""
    digest = hashlib.sha256(repr((len(job.cost), job.width, np.dtype(job.dtype).str)).encode())
    for batch in job.plan:
        digest.update(repr((batch.rows, batch.width)).encode())
        digest.update(np.ascontiguousarray(batch.text, np.int64).data)
    return digest.hexdigest()


@dataclass
class Running:
    """A pass under way.

    Args:
      name: of its progress.
      job: what is computed.
      shards: what was, in a folder of its own.
      computed: tokens that this process ran in this life; earlier lives and other processes did the rest.
      flops: what their products took; None: not known.
    """

    name: str
    job: Job
    shards: Shards
    computed: int = 0
    flops: float | None = None

    @classmethod
    def begin(cls, name: str, job: Job, folder: Path) -> "Running":
        """With the shards that ``folder`` holds already."""
        return cls(name, job, Shards(folder, job.plan, job.width, job.dtype, job.blank))

    def let_go(self, again: Callable[[], Job]) -> None:
        """Keep of the job what its results need, not its texts; ``again`` makes it anew where a shard is damaged."""
        self.job = replace(self.job, run=lambda batches: again().run(batches), flops=None, release=lambda: None)

    def share(self, team: Team, every: float, progress: Progress, tell: Callable[[str], None]) -> None:
        """Compute the batches of this process that are in no shard.

        Args:
          every: seconds between two shards.

        Raises:
          UserError, OSError: finished batches are kept, and the other processes are told.
        """
        saved, count = self.shards.saved(), len(self.job.plan)
        if saved.any() and not saved.all():
            tell(f"resuming: {saved.sum():,} of {count:,} batches are there")
        failed = self.shards.folder / f"failed-{team.process}"
        failed.unlink(missing_ok=True)
        mine = np.array(team.share(count), int)
        done = self.job.tokens(mine[saved[mine]])
        try:
            self._compute(mine[~saved[mine]], team.processes, every, progress, done)
        except (UserError, OSError):
            if jax.process_count() > 1:
                failed.touch()
            raise

    def wait(self, team: Team, progress: Progress, tell: Callable[[str], None]) -> None:
        """Until every batch is in a shard; processes that nothing is heard of are named, once."""
        wait(self.shards, team, progress, tell)

    def assemble(self, file: Path, progress: Progress) -> None:
        """The results of all texts as .npy; batches of a shard that turns out damaged are computed again."""
        while not self.shards.assemble(file, len(self.job.cost), progress):
            self._compute(np.flatnonzero(~self.shards.saved()), 1, 0.0, progress)

    def _compute(self, numbers: np.ndarray, step: int, every: float, progress: Progress, before: int = 0) -> None:
        """Run some batches and save them. ``before``: tokens done in earlier lives."""
        total = before + self.job.tokens(numbers)
        done, saver = before, Saver(self.shards, step, every)
        progress(self.name, done, total, "tokens")
        batches = (self.job.plan[number] for number in numbers)
        try:
            for number, (batch, results) in zip(numbers.tolist(), self.job.run(batches), strict=True):
                saver.add(number, results)
                done += int(self.job.cost[batch.text].sum())
                if self.job.flops is not None:
                    self.flops = (self.flops or 0.0) + self.job.flops(batch)
                progress(self.name, done, total, "tokens")
        finally:  # whatever stops it, Ctrl-C too
            saver.flush()
            self.job.release()
            self.computed += done - before


def wait(shards: Shards, team: Team, progress: Progress, tell: Callable[[str], None]) -> None:
    """See ``Running.wait``."""
    last, since, told = -1, time.monotonic(), jax.process_count() > 1  # those have all been started
    while not (saved := shards.saved()).all():
        if failed := sorted(shards.folder.glob("failed-*")):
            raise UserError(f"process {failed[0].name.partition('-')[2]} of {team.processes} has stopped; it says why")
        progress("other processes", int(saved.sum()), len(saved), "batches")
        if saved.sum() != last:
            last, since = saved.sum(), time.monotonic()
        elif not told and time.monotonic() - since >= _PATIENCE:
            tell(_missing(saved, team))
            told = True
        time.sleep(_POLL)


def _missing(saved: np.ndarray, team: Team) -> str:
    missing = np.flatnonzero(~saved)
    who = sorted({str(number) for number in (missing % team.processes).tolist()}, key=int)
    names = f"process{'es' * (len(who) > 1)} {', '.join(who)}"
    return (
        f"waiting for {names} of {team.processes}: {len(missing):,} of {len(saved):,} batches are missing; start "
        f"{names}, or stop this one and run the same command without mesh.processes and mesh.process, which takes over "
        "what is there"
    )
