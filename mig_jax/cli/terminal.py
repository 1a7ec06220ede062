"""What a command says while it works: bars on a terminal, a line now and then in a log."""

import sys
import time
from collections import deque
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

EVERY = 5.0  # seconds between two lines where stderr is no terminal
WINDOW = 60.0  # seconds that a rate looks back: what compiled first should not count for long


class Terminal:
    """Progress and notes on stderr; results belong on stdout. A context manager.

    Args:
      units: stage -> what it counts: its rate is told, and the time that is left.
    """

    def __init__(self, quiet: bool = False, units: Mapping[str, str] | None = None):
        self.quiet = quiet
        self.units = dict(units or {})
        self.console = Console(stderr=True)
        self.bars: Progress | None = None
        self.tasks: dict[str, object] = {}
        self.last: dict[str, float] = {}
        self.rates = {stage: Rate() for stage in self.units}
        self.live = self.console.is_terminal and not quiet

    def __enter__(self) -> "Terminal":
        if self.live:
            columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn())
            columns += (TextColumn("{task.fields[rate]}"),) if self.units else ()
            self.bars = Progress(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console, transient=True
            )
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """The callback that long work takes."""
        if self.quiet:
            return
        now = time.monotonic()
        rate = self.rates[stage].told(now, done) if stage in self.rates else None
        if self.bars is not None:
            text = f"{speed(rate)} {self.units[stage]}/s" if rate else ""
            if stage not in self.tasks:
                self.tasks[stage] = self.bars.add_task(stage, total=total, rate=text)
            self.bars.update(self.tasks[stage], completed=done, total=total, rate=text)  # type: ignore[arg-type]
            return
        if now - self.last.setdefault(stage, now) > EVERY:
            self.last[stage] = now
            print(line(stage, done, total, self.units.get(stage), rate), file=sys.stderr, flush=True)

    def tell(self, text: str) -> None:
        """A note."""
        if not self.quiet:
            self.console.print(Text(f"note: {text}", style="yellow"), soft_wrap=True)


class Rate:
    """How fast a count grows, over the last minute."""

    def __init__(self) -> None:
        self.points: deque[tuple[float, int]] = deque()

    def told(self, now: float, done: int) -> float | None:
        """Units a second, now that ``done`` of them are; None until there is something to measure."""
        self.points.append((now, done))
        while len(self.points) > 2 and self.points[1][0] < now - WINDOW:
            self.points.popleft()
        then, before = self.points[0]
        return (done - before) / (now - then) if now > then and done > before else None


def line(stage: str, done: int, total: int | None, unit: str | None, rate: float | None) -> str:
    """``embed: 1,200,000 of 8,000,000 tokens, 52,300 tokens/s, 2 min left``."""
    parts = [f"{stage}: {done:,}" + (f" of {total:,}" if total else "") + (f" {unit}" if unit else "")]
    if rate:
        parts.append(f"{speed(rate)} {unit}/s")
        if total:
            parts.append(f"{left(max(0, total - done) / rate)} left")
    return ", ".join(parts)


def speed(rate: float) -> str:
    """A rate in three digits, in two where it is below 10."""
    return f"{float(f'{rate:.3g}'):,.0f}" if rate >= 10 else f"{rate:.2g}"


def left(seconds: float) -> str:
    """A time that is still to come, as one says it."""
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size or name == 'min' else 1}f} {name}"
    return f"{seconds:.0f} s"
