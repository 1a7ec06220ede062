"""What a command returns to its caller."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """The end of a run.

    Args:
      folder: with the files; None where this process wrote none.
      text: the summary for the user; "" for none.
      note: why nothing was computed, where the folder held the run already.
    """

    folder: Path | None
    text: str
    note: str | None = None
