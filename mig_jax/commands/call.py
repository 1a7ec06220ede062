"""What a command gets beside its settings, and what it returns: the same for every command."""

from collections.abc import Callable
from dataclasses import dataclass

from mig_jax.core.progress import Progress, silent


def ignore(message: str) -> None:
    """The default of ``notify``: no output."""


@dataclass(frozen=True)
class Call:
    """One use of a command.

    Args:
      line: the command line, for the manifest: it runs the command again.
      progress, notify: callbacks for the progress of the work and for notes.
      width: columns of the text that the command returns.
      sample_file: where ``mig-jax sample`` writes the selection.
    """

    line: str
    progress: Progress = silent
    notify: Callable[[str], None] = ignore
    width: int = 160
    sample_file: str | None = None
