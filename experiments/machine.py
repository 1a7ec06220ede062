"""The machine that a measurement ran on, and the peak memory of this process."""

import os
import platform
from pathlib import Path

import jax


def machine() -> dict[str, object]:
    """Device, processor, and the versions of Python and jax."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "devices": len(jax.devices()),
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def peak_gb() -> float:
    """The peak resident memory of this process. (A new process inherits ru_maxrss from its parent.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1e6
    raise OSError("no VmHWM")
