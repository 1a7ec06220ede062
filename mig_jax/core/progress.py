"""How long work tells its caller where it is: a library never prints, so the caller passes one of these."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""``progress(stage, done, total)``; total is None where it is not known beforehand."""


def silent(stage: str, done: int, total: int | None) -> None:
    """The default: say nothing."""
