"""Bytes of a selection, stage by stage, from the shapes and types of its arrays; and the memory that there is.

R rows, M usable rows, Z labels of these, G queues (distinct label sets), W the padded width of a bucket.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mig_jax.commands.plan.sizes import Sizes
from mig_jax.engine.problem import NARROWEST, power_of_two
from mig_jax.labels.cosine import TILE
from mig_jax.objective.pool_gains import BLOCK

UNLIMITED = 1 << 60  # cgroup v1 writes about 2^63 where there is no limit
ENCODE_ROW, ENCODE_LABEL = 40, 46  # encode: masks, values and positions of a row; owner, key and order of a label
GROUP_LABEL, BUCKET_LABEL = 32, 24  # make_groups: owner, key, digest and order; a bucket: entry, source and target
QUEUE = 20  # engine: score, row and bound of a head, and its gain twice in a pass
CANDIDATE = 64  # a line of the shortlist and of the heap
JUDGE_ROW, JUDGE_LABEL = 60, 28  # certificate: gains, masks and orders of a row; owner and slope of a label
REACHED = 56  # a label that a row reaches, in a block of exact gains: value, index, mass, rise and their copies
EVENT = 130  # a label that a pick reaches, in the curve of E(D): ten columns of float64, and the shares
EDGE = 24  # an entry of P, by rows and by columns


class Memory(NamedTuple):
    """Bytes of the host at the peak of each stage, of the parts that stay, and of each device."""

    stages: dict[str, float]
    parts: dict[str, float]
    device: float
    queues: int


def memory_of(
    sizes: Sizes, gain: str, degree: float, picks: int, shortlist: int, devices: int, base: float, network: float
) -> Memory:
    """The arithmetic of a run with ``sampler=mig``.

    Args:
      base: bytes of the process before it reads a pool, with its compiled programs.
      network: bytes that making the label graph takes; 0 where it is given.
    """
    rows, points, queues = sizes.rows, sizes.points, round(sizes.points * sizes.distinct)
    labels = points * sizes.tags
    table, encoded = sizes.table * rows, points * (32 + 4 * sizes.tags)
    edges = EDGE * sizes.labels * (degree + 1) + 200 * sizes.labels
    exact = gain == "exact"
    reach = np.minimum(np.maximum(sizes.widths, 1) * (degree + 1), sizes.labels)
    width, reached = padded(sizes.widths), float(reach.mean())

    entries, bucket = (reached, 8 * padded(reach) + 4) if exact else (sizes.tags, 0.0)
    groups = 12 * points + queues * (12 + (4 + 8 * exact) * entries)
    buckets = queues * (4 * width + 4)
    device = buckets + queues * QUEUE
    laid_out = groups + buckets + queues * bucket
    layout = laid_out + queues * BUCKET_LABEL * (entries + (sizes.tags if exact else 0))
    layout = max(layout, groups + GROUP_LABEL * labels)
    near = reached if degree else sizes.tags
    judge = JUDGE_ROW * points + JUDGE_LABEL * labels + near * max(REACHED * min(points, BLOCK), EVENT * picks)

    live = base + table + encoded + edges
    on_host = device if jax.devices()[0].platform == "cpu" else 0.0
    stages = {
        "parse": base + 2 * table,  # a growing column is copied once at its end
        "encode": base + table + ENCODE_ROW * rows + ENCODE_LABEL * labels,
        "graph": live + network,
        "layout": live + layout,
        "engine": live + laid_out + on_host + CANDIDATE * shortlist,
        "judge": live + judge,
        "write": live + EVENT * near * picks,
    }
    parts = {"process": base, "pool table": table, "encoded rows": encoded, "labels and graph": edges}
    return Memory(stages, parts | {"queues and buckets": laid_out}, device / devices, queues)


def cosine_bytes(labels: int) -> float:
    """A tile of cosines with its masks and indices, and the embeddings in two copies."""
    return 16.0 * TILE * TILE + 8 * labels * 384


def padded(widths: np.ndarray) -> float:
    """The mean width of a bucket: a power of two, at least ``NARROWEST``."""
    return float(np.maximum(power_of_two(widths), NARROWEST).mean())


def resident() -> int:
    """Bytes of this process; 0 where the system does not state them."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def host_limit() -> tuple[int, str]:
    """(bytes, what sets the limit): the least of the machine's memory and the limits of the cgroups; 0: unknown."""
    limits = [(limit, "the limit of this process's cgroup") for limit in _cgroups()]
    with suppress(OSError, ValueError):
        limits.append((os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "the machine's memory"))
    return min(limits, default=(0, "unknown"))


def _cgroups() -> list[int]:
    limits = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root, name = Path("/sys/fs/cgroup"), "memory.max"
            if controllers:
                root, name = root / "memory", "memory.limit_in_bytes"
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):  # in a container the path is often not below the mount: use its root
                with suppress(OSError, ValueError):
                    limits.append(int((folder / name).read_text()))
                if folder == root:
                    break
    return [limit for limit in limits if limit < UNLIMITED]


def device_limit() -> int:
    """Bytes that a program may use on a device with memory of its own; 0: the device shares the host's, or unknown."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return 0
    with suppress(Exception):
        stats: dict[str, Any] = device.memory_stats() or {}
        return int(stats.get("bytes_limit", 0))
    return 0
