"""``mig-jax annotate plan=true``: a few batches of each pass, run for real, and what all of them would take here."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mig_jax.batch import Job
from mig_jax.commands.annotate.annotator import Annotator, Prepared
from mig_jax.core.progress import Progress, duration

SECONDS = 20.0  # of measuring, for each pass; every shape runs twice at least (the first time compiles)
SAMPLES = 5  # batches of a shape


class Planned(NamedTuple):
    """A pass as it would be.

    Args:
      tokenize, load: seconds, measured: all texts are tokenised for it, and the first batch waits for the weights and
        for compilation.
      seconds: what the batches would take, compiled.
    """

    annotator: str
    name: str
    tokens: int
    batches: int
    tokenize: float
    load: float
    seconds: float


class Estimate(NamedTuple):
    """All passes."""

    passes: tuple[Planned, ...]
    rows: int

    @property
    def seconds(self) -> float:
        """In all, on this machine alone."""
        return sum(one.tokenize + one.load + one.seconds for one in self.passes)

    def text(self) -> str:
        """A table."""
        lines = [f"{'pass':<20}{'tokens':>14}{'batches':>10}{'tokenize':>11}{'load':>9}{'run':>12}{'rows/s':>10}"]
        for one in self.passes:
            rate = self.rows / one.seconds if one.seconds else 0.0
            name = one.name if one.name == one.annotator else f"{one.annotator}: {one.name}"
            lines.append(
                f"{name:<20}{one.tokens:>14,}{one.batches:>10,}{one.tokenize:>9.1f} s{one.load:>7.1f} s"
                f"{duration(one.seconds):>12}{rate:>10,.3g}"
            )
        if not self.passes:
            return f"{self.rows:,} rows: no model runs; the rows are read and written, once each\n"
        before = sum(one.tokenize + one.load for one in self.passes)
        lines.append(
            f"{self.rows:,} rows in about {duration(self.seconds)}, without reading and writing them; each of N "
            f"processes (mesh.processes=N) takes {duration(before)} + {duration(self.seconds - before)} / N"
        )
        return "\n".join(lines) + "\n"


def estimate(
    annotators: Mapping[str, tuple[Annotator, Prepared]],
    rows: int,
    progress: Progress,
    tell: Callable[[str], None],
) -> Estimate:
    """Tokenise everything, run some batches of each shape, and count."""
    found = []
    for name, (_, prepared) in annotators.items():
        for one in prepared.passes:
            start = time.perf_counter()
            job = one.prepare(progress)
            tokenize = time.perf_counter() - start
            for note in job.notes:
                tell(note)
            load, seconds = measured(job, progress, one.name)
            job.release()
            total = job.tokens(range(len(job.plan)))
            found.append(Planned(name, one.name, total, len(job.plan), tokenize, load, seconds))
    return Estimate(tuple(found), rows)


def measured(job: Job, progress: Progress, stage: str) -> tuple[float, float]:
    """Seconds until the first batch of each shape was there, less what it takes again, and seconds of all batches.

    A shape's batches take equally long, but for answers, which end when they end: those are sampled across the plan.
    """
    by_shape: dict[Any, list[int]] = defaultdict(list)
    for number, batch in enumerate(job.plan):
        by_shape[batch.rows, batch.width].append(number)
    first = total = 0.0
    end = time.perf_counter() + SECONDS
    for done, numbers in enumerate(by_shape.values()):
        chosen = [numbers[int(at)] for at in np.linspace(0, len(numbers) - 1, min(len(numbers), SAMPLES))]
        start = time.perf_counter()
        _run(job, chosen[:1])
        cold = time.perf_counter() - start
        seconds = []
        for number in chosen:
            start = time.perf_counter()
            _run(job, [number])
            seconds.append(time.perf_counter() - start)
            if time.perf_counter() > end:
                break
        mean = float(np.mean(seconds))
        first += max(0.0, cold - seconds[0])
        total += mean * len(numbers)
        progress(f"measure {stage}", done + 1, len(by_shape), "shapes")
    return first, total


def _run(job: Job, numbers: list[int]) -> None:
    for _ in job.run(job.plan[number] for number in numbers):
        pass
