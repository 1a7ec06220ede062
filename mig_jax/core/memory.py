"""The most memory that a run held at once, for its manifest."""

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_PEAK = "5"  # what clear_refs takes for: the peak of the resident set begins anew (proc_pid_clear_refs(5))


class PeakMemory:
    """Counts from where it is made: ``peak = PeakMemory()`` as the run begins, ``peak.facts()`` at its end.

    Where the system does not let the count begin anew (only Linux does), it is that of the whole process: imports, and
    in a sweep the jobs before.
    """

    def __init__(self) -> None:
        self.since = "process"
        with suppress(OSError):
            _RESET.write_text(_PEAK, encoding="ascii")
            self.since = "run"

    def facts(self) -> dict[str, Any]:
        """``{"peak_bytes": resident memory of this process at its most, "since": "run" or "process"}``."""
        return {"peak_bytes": _peak(), "since": self.since}


def _peak() -> int:
    with suppress(OSError, ValueError, StopIteration):
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # in bytes there, in kilobytes elsewhere
