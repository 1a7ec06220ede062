"""Measured numbers, kept in the cache under the machine, the versions and what was measured."""

import hashlib
import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mig_jax.core.files import write_atomic
from mig_jax.core.version import VERSION

FORMAT = 1
"""Raise it whenever what is measured, or how, changes."""


def machine() -> dict[str, Any]:
    """What a measurement holds for."""
    devices = jax.devices()
    return {
        "host": platform.node(),
        "cpu": f"{platform.machine()} {_cpu()}".strip(),
        "cores": cores(),
        "device": f"{devices[0].platform}: {devices[0].device_kind}",
        "devices": len(devices),
        "versions": {"mig_jax": VERSION, "jax": jax.__version__, "numpy": np.__version__},
    }


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


class Keep:
    """``get(kind, key, measure)``: a measurement, from disk where it is there.

    Args:
      folder: the project's cache; None: nothing is kept.
      again: measure what is there already.
    """

    def __init__(self, folder: Path | None, again: bool):
        self.folder, self.again = folder, again
        self.measured: list[str] = []

    def get(self, kind: str, key: Any, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A dict of plain numbers. A damaged entry is measured again."""
        whole = json.dumps([FORMAT, machine(), kind, key], sort_keys=True)
        path = None
        if self.folder is not None:
            path = self.folder / "plan" / f"{kind}-{hashlib.sha256(whole.encode()).hexdigest()[:32]}.json"
            if not self.again:
                with suppress(OSError, ValueError):
                    found = json.loads(path.read_text(encoding="utf-8"))
                    if isinstance(found, dict):
                        return found
        self.measured.append(kind)
        found = json.loads(json.dumps(measure()))
        if path is not None:
            with suppress(OSError):  # a full or read-only disk costs the cache, not the plan
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, json.dumps(found))
        return found
