"""What memory this process may use, and what it uses: Linux says; elsewhere only what there is, or nothing."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

UNLIMITED = 1 << 60  # what cgroup v1 writes for no limit is about 2^63


def resident() -> int:
    """Bytes of this process now."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def host_limit() -> tuple[int, str]:
    """(bytes, what says so): the least of the machine's memory and the limits of this process's cgroups; 0: unknown."""
    found = []
    with suppress(OSError, ValueError):
        found.append((os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "the machine's memory"))
    found += [(limit, "the limit of this process's cgroup") for limit in _cgroups()]
    return min(found, default=(0, "unknown"))


def _cgroups() -> list[int]:
    limits = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                root, name = Path("/sys/fs/cgroup"), "memory.max"
            elif "memory" in controllers.split(","):
                root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
            else:
                continue
            here = root / path.lstrip("/")
            for folder in (here, *here.parents):  # in a container the path is often not below the mount: then its root
                with suppress(OSError, ValueError):
                    limits.append(int((folder / name).read_text()))
                if folder == root:
                    break
    return [limit for limit in limits if limit < UNLIMITED]


def device_limit() -> int:
    """Bytes that a program may use on a device of its own memory; 0: it shares the host's, or does not say."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return 0
    with suppress(Exception):
        stats: dict[str, Any] = device.memory_stats() or {}
        return int(stats.get("bytes_limit", 0))
    return 0
