"""What a command prints while it works: bars on a terminal, a line every few seconds in a log; notes in both."""

import sys
import time
from collections import deque
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from mig_jax.core.progress import amount, duration, speed
from mig_jax.core.text import visible

EVERY = 5.0  # seconds between two lines where stderr is no terminal
WINDOW = 60.0  # seconds over which a rate is measured, so that compilation at the start stops counting


class Terminal:
    """Progress and notes on stderr; results belong on stdout. A context manager.

    Args:
      quiet: print nothing.
    """

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.console = Console(stderr=True)
        self.bars: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self.printed: dict[str, float] = {}  # stage -> when its last line was printed
        self.rates: dict[str, Rate] = {}
        self.live = self.console.is_terminal and not quiet

    def __enter__(self) -> "Terminal":
        if self.live:
            columns = (
                TextColumn("{task.description:<14}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[amount]}", markup=False),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.bars = Progress(*columns, console=self.console, transient=True)
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def progress(self, stage: str, done: int, total: int | None, unit: str = "", /) -> None:
        """A ``core.progress.Progress``."""
        if self.quiet:
            return
        now, stage = time.monotonic(), visible(stage)
        rate = self.rates.setdefault(stage, Rate()).update(now, done) if unit else None
        if self.bars is not None:
            fields: dict[str, Any] = {"amount": amount(done, total, unit), "rate": speed(rate, unit) if rate else ""}
            if stage not in self.tasks:
                self.tasks[stage] = self.bars.add_task(stage, total=total, **fields)
            self.bars.update(self.tasks[stage], completed=done, total=total, **fields)
        elif now - self.printed.setdefault(stage, now) > EVERY:
            self.printed[stage] = now
            print(line(stage, done, total, unit, rate), file=sys.stderr, flush=True)

    def notify(self, text: str) -> None:
        """Print a note."""
        if not self.quiet:
            self.console.print(Text(f"note: {visible(text)}", style="yellow"), soft_wrap=True)


class Rate:
    """How fast a count grows, over the last minute."""

    def __init__(self) -> None:
        self.points: deque[tuple[float, int]] = deque()

    def update(self, now: float, done: int) -> float | None:
        """Units a second when ``done`` of them are done; None until there is something to measure."""
        if self.points and done < self.points[-1][1]:  # a stage of this name begins anew
            self.points.clear()
        self.points.append((now, done))
        while len(self.points) > 2 and self.points[1][0] < now - WINDOW:
            self.points.popleft()
        start, before = self.points[0]
        return (done - before) / (now - start) if now > start and done > before else None


def line(stage: str, done: int, total: int | None, unit: str, rate: float | None) -> str:
    """``embed: 1,200,000 of 8,000,000 tokens, 52,300 tokens/s, 2 min left``."""
    parts = [f"{stage}: {amount(done, total, unit)}"]
    if rate:
        parts.append(speed(rate, unit))
        if total:
            parts.append(f"{duration(max(0, total - done) / rate)} left")
    return ", ".join(parts)
