"""Seconds that a warm ``mig-jax select`` of the bundled pool takes, beside those of importing its largest libraries.

    python -m experiments.bench_start [--repeats 7] [--limit 2.0]

Both run in processes of their own, one after the other in turn, after one run of each that fills the caches: compiled
Python files, compiled programs, digests, label embeddings. ``wall`` is what a user waits for; ``cpu`` (user and system
seconds of the process) depends less on other work of the machine. With ``--limit`` the exit code is 1 where the ratio
of the medians of wall is above it.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

LIBRARIES = [sys.executable, "-c", "import jax, hydra, pyarrow"]
SELECT = [sys.executable, "-m", "mig_jax", "select"]


class Seconds(NamedTuple):
    """Of one process."""

    wall: float
    cpu: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each")
    parser.add_argument("--limit", type=float, help="largest ratio that passes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        libraries, select = measure(options.repeats, Path(folder))
    print(f"{'median (least, most) of ' + str(options.repeats):<28} {'wall s':<20} cpu s")
    for name, runs in (("import jax, hydra, pyarrow", libraries), ("mig-jax select", select)):
        print(f"{name:<28} {spread([run.wall for run in runs]):<20} {spread([run.cpu for run in runs])}")
    ratio = Seconds(
        *(median(part) / median(base) for part, base in zip(columns(select), columns(libraries), strict=True))
    )
    print(f"{'ratio of the medians':<28} {ratio.wall:<20.2f} {ratio.cpu:.2f}")
    sys.exit(options.limit is not None and ratio.wall > options.limit)


def measure(repeats: int, folder: Path) -> tuple[list[Seconds], list[Seconds]]:
    """The runs of both commands, in turn; ``folder`` holds the caches and the output of a run."""
    out = folder / "out"
    select = [*SELECT, f"cache={folder / 'cache'}", f"out={out}"]
    libraries_runs, select_runs = [], []
    for _ in range(repeats + 1):
        libraries_runs.append(timed(LIBRARIES))
        select_runs.append(timed(select))
        shutil.rmtree(out)
    return libraries_runs[1:], select_runs[1:]


def timed(command: list[str]) -> Seconds:
    """Run a command to its end."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    used, start = cpu_of_children(), time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return Seconds(time.perf_counter() - start, cpu_of_children() - used)


def cpu_of_children() -> float:
    """User and system seconds of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def columns(runs: list[Seconds]) -> tuple[tuple[float, ...], ...]:
    """The walls, and the cpus."""
    return tuple(zip(*runs, strict=True))


def median(values: tuple[float, ...] | list[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def spread(values: list[float]) -> str:
    """``1.24 (1.20, 1.31)``."""
    return f"{median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


if __name__ == "__main__":
    main()
