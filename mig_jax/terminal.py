"""What a command says while it works: bars on a terminal, a line now and then in a log."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

EVERY = 5.0  # seconds between two lines where stderr is no terminal


class Terminal:
    """Progress and notes on stderr; results belong on stdout. A context manager."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.console = Console(stderr=True)
        self.bars: Progress | None = None
        self.tasks: dict[str, object] = {}
        self.last: dict[str, float] = {}
        self.live = self.console.is_terminal and not quiet

    def __enter__(self) -> "Terminal":
        if self.live:
            columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn())
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
        if self.bars is not None:
            if stage not in self.tasks:
                self.tasks[stage] = self.bars.add_task(stage, total=total)
            self.bars.update(self.tasks[stage], completed=done, total=total)  # type: ignore[arg-type]
            return
        now = time.monotonic()
        if now - self.last.setdefault(stage, now) > EVERY:
            self.last[stage] = now
            print(f"{stage}: {done:,}" + (f" of {total:,}" if total else ""), file=sys.stderr, flush=True)

    def tell(self, text: str) -> None:
        """A note."""
        if not self.quiet:
            self.console.print(Text(f"note: {text}", style="yellow"), soft_wrap=True)
