"""The peak memory of a run, for its manifest."""

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"  # resets the peak of the resident set, see proc_pid_clear_refs(5)


class PeakMemory:
    """Measures from its creation: ``peak = PeakMemory()`` when the run begins, ``peak.facts()`` at its end.

    Only Linux can reset the peak. Elsewhere it is the peak of the whole process, with imports and, in a sweep, the runs
    before.
    """

    def __init__(self) -> None:
        self.since = "process"
        with suppress(OSError):
            _RESET.write_text(_RESET_PEAK, encoding="ascii")
            self.since = "run"

    def facts(self) -> dict[str, Any]:
        """``{"peak_bytes": peak resident memory of this process in bytes, "since": "run" or "process"}``."""
        return {"peak_bytes": _peak(), "since": self.since}


def _peak() -> int:
    with suppress(OSError, ValueError, StopIteration):
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # in bytes there, in kilobytes elsewhere
