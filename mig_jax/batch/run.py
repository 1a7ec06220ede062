"""The work of one process: its part of the planned batches, saved as they are done; then the results of all."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np

from mig_jax.batch.job import BatchJob
from mig_jax.batch.process_group import ProcessGroup
from mig_jax.batch.shards import Shards, ShardWriter
from mig_jax.core.errors import UserError
from mig_jax.core.progress import Progress

_POLL = 0.5  # seconds between two listings of what other processes have finished
_PATIENCE = 10.0  # seconds without a new batch until the missing processes are named


class BatchRun:
    """A prepared job and its finished batches.

    Args:
      job: what is computed; prepared.
      folder: of this job's shards alone, and of this plan's. Made here, where its parent is there.

    Attributes:
      computed: tokens that this process computed in this attempt; previous attempts and other processes did the rest.
      flops: floating-point operations of these; None: not known.
    """

    def __init__(self, job: BatchJob, folder: Path):
        with suppress(FileNotFoundError):  # process 0 has finished without this one: ``compute`` returns False
            folder.mkdir(exist_ok=True)
        self.job = job
        self.shards = Shards(folder, job.plan, job.width, job.dtype, job.blank)
        self.computed = 0
        self.flops: float | None = None

    def compute(
        self, group: ProcessGroup, save_every: float, progress: Progress, notify: Callable[[str], None]
    ) -> bool:
        """Compute the batches of this process that are in no shard.

        Args:
          save_every: seconds between two shards.

        Returns:
          False where the folder of shards is gone: process 0 has published the results without this process.

        Raises:
          UserError, OSError: finished batches stay on disk, and the other processes of the run stop waiting.
        """
        saved, count = self.shards.saved(), len(self.job.plan)
        if saved.any() and not saved.all():
            notify(f"resuming: {saved.sum():,} of {count:,} batches are there")
        failed = self.shards.folder / f"failed-{group.process}"
        failed.unlink(missing_ok=True)
        own = np.array(group.partition(count), int)
        before = self.job.tokens_of(own[saved[own]])
        try:
            there = self._compute(own[~saved[own]], group.processes, save_every, progress, before)
            if group.is_main and not there:
                raise self._removed()
            return there
        except (UserError, OSError):
            if jax.process_count() > 1:
                with suppress(OSError):
                    failed.touch()
            raise

    def wait(self, group: ProcessGroup, progress: Progress, notify: Callable[[str], None]) -> None:
        """Wait until every batch is in a shard; name the processes whose batches stay missing, once.

        Raises:
          UserError: another process has failed, or the folder of shards is gone.
        """
        last, since, named = -1, time.monotonic(), jax.process_count() > 1  # those have all been started
        while not (saved := self.shards.saved()).all():
            if failed := sorted(self.shards.folder.glob("failed-*")):
                number = failed[0].name.partition("-")[2]
                raise UserError(f"process {number} of {group.processes} has stopped; see its stderr")
            if not self.shards.folder.is_dir():
                raise self._removed()
            progress("other processes", int(saved.sum()), len(saved), "batches")
            if saved.sum() != last:
                last, since = saved.sum(), time.monotonic()
            elif not named and time.monotonic() - since >= _PATIENCE:
                notify(_missing(saved, group))
                named = True
            time.sleep(_POLL)

    def assemble(self, file: Path, progress: Progress) -> None:
        """Write the results of all texts as .npy; the batches of a damaged shard are computed again."""
        while not self.shards.assemble(file, len(self.job.cost), progress):
            if not self._compute(np.flatnonzero(~self.shards.saved()), 1, 0.0, progress):
                raise self._removed()

    def _removed(self) -> UserError:
        return UserError("was removed while the run used it; run the command again", where=self.shards.folder)

    def _compute(self, numbers: np.ndarray, step: int, save_every: float, progress: Progress, before: int = 0) -> bool:
        """Compute some batches and save them. ``before``: tokens that previous attempts computed."""
        total = before + self.job.tokens_of(numbers)
        done, writer = before, ShardWriter(self.shards, step, save_every)
        progress(self.job.name, done, total, "tokens")
        batches = (self.job.plan[number] for number in numbers)
        try:
            for number, (batch, results) in zip(numbers.tolist(), self.job.results(batches), strict=True):
                writer.add(number, results)
                done += int(self.job.cost[batch.text].sum())
                if (flops := self.job.flops(batch)) is not None:
                    self.flops = (self.flops or 0.0) + flops
                progress(self.job.name, done, total, "tokens")
                if writer.folder_is_gone:
                    break
        finally:  # also at Ctrl-C
            writer.flush()
            self.job.release()
            self.computed += done - before
        return not writer.folder_is_gone and self.shards.folder.is_dir()


def partition_done(runs: Iterable[BatchRun], group: ProcessGroup) -> str:
    """The summary of a process that does not write the results."""
    counts = ((run.job.name, len(run.job.plan)) for run in runs)
    parts = [f"{len(group.partition(count)):,} of {count:,} batches of {name}" for name, count in counts]
    return f"{group}: its batches are done ({', '.join(parts) or 'no model ran'}); process 0 writes the results"


def _missing(saved: np.ndarray, group: ProcessGroup) -> str:
    missing = np.flatnonzero(~saved)
    numbers = sorted({int(number) % group.processes for number in missing})
    names = f"process{'es' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
    return (
        f"waiting for {names} of {group.processes}: {len(missing):,} of {len(saved):,} batches are missing; start "
        f"{names}, or stop this one and run the same command without mesh.processes and mesh.process, which resumes "
        "from the finished batches"
    )
