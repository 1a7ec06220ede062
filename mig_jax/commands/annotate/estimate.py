"""``mig-jax annotate plan=true``: a few batches of each job, computed, and what all of them would take here."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mig_jax.batch import BatchJob
from mig_jax.commands.annotate.annotator import Annotator
from mig_jax.core.progress import Progress, duration

SECONDS = 20.0  # of measuring, for each job; every shape is computed twice at least (the first time compiles)
SAMPLES = 5  # batches of a shape


class JobEstimate(NamedTuple):
    """What a job would take.

    Args:
      tokenize, load: seconds, measured: tokenising all texts; reading the weights and compiling.
      seconds: of all batches, compiled.
    """

    annotator: str
    name: str
    tokens: int
    batches: int
    tokenize: float
    load: float
    seconds: float


class Estimate(NamedTuple):
    """All jobs of a run."""

    jobs: tuple[JobEstimate, ...]
    rows: int

    @property
    def seconds(self) -> float:
        """In all, on this machine alone."""
        return sum(job.tokenize + job.load + job.seconds for job in self.jobs)

    def text(self) -> str:
        """A table."""
        if not self.jobs:
            return f"{self.rows:,} rows: no model runs; the rows are read and written, once each\n"
        lines = [f"{'model run':<20}{'tokens':>14}{'batches':>10}{'tokenize':>11}{'load':>9}{'run':>12}{'rows/s':>10}"]
        for job in self.jobs:
            rate = self.rows / job.seconds if job.seconds else 0.0
            name = job.name if job.name == job.annotator else f"{job.annotator}: {job.name}"
            lines.append(
                f"{name:<20}{job.tokens:>14,}{job.batches:>10,}{job.tokenize:>9.1f} s{job.load:>7.1f} s"
                f"{duration(job.seconds):>12}{rate:>10,.3g}"
            )
        before = sum(job.tokenize + job.load for job in self.jobs)
        lines.append(
            f"{self.rows:,} rows in about {duration(self.seconds)}, without reading and writing them; each of N "
            f"processes (mesh.processes=N) takes {duration(before)} + {duration(self.seconds - before)} / N"
        )
        return "\n".join(lines) + "\n"


def estimate(
    annotators: Mapping[str, Annotator], rows: int, progress: Progress, notify: Callable[[str], None]
) -> Estimate:
    """Tokenise all texts, compute some batches of each shape, and extrapolate."""
    estimates = []
    for name, annotator in annotators.items():
        for job in annotator.jobs:
            start = time.perf_counter()
            job.prepare(progress)
            tokenize = time.perf_counter() - start
            for note in job.notes:
                notify(note)
            load, seconds = measure(job, progress)
            job.release()
            estimates.append(JobEstimate(name, job.name, job.tokens, len(job.plan), tokenize, load, seconds))
    return Estimate(tuple(estimates), rows)


def measure(job: BatchJob, progress: Progress) -> tuple[float, float]:
    """Extra seconds of the first batch of each shape (loading, compiling), and seconds of all batches.

    Batches of a shape take equally long, except for answers, which end when they end: so the samples are spread over
    the plan.
    """
    by_shape: dict[Any, list[int]] = defaultdict(list)
    for number, batch in enumerate(job.plan):
        by_shape[batch.rows, batch.width].append(number)
    first = total = 0.0
    end = time.perf_counter() + SECONDS
    for done, numbers in enumerate(by_shape.values()):
        samples = [numbers[int(at)] for at in np.linspace(0, len(numbers) - 1, min(len(numbers), SAMPLES))]
        cold, seconds = _seconds(job, samples[0]), []
        for number in samples:
            seconds.append(_seconds(job, number))
            if time.perf_counter() > end:
                break
        first += max(0.0, cold - seconds[0])
        total += float(np.mean(seconds)) * len(numbers)
        progress(f"measure {job.name}", done + 1, len(by_shape), "shapes")
    return first, total


def _seconds(job: BatchJob, number: int) -> float:
    start = time.perf_counter()
    for _ in job.results([job.plan[number]]):
        pass
    return time.perf_counter() - start
