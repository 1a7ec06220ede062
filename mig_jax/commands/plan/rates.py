"""Constants of a machine: seconds a byte, a row, a label and a pick, measured on a small pool and stored in the cache.

The pool has the bundled rows' texts, ``BENCH`` of them, under drawn tags. It is selected from three times by the
command's own function: a few rows of it (what every run takes), all of it for a few picks (what a row takes), and
again for ``PICKS`` picks from the cached pool (what a pick takes). The differences are the constants.
"""

import hashlib
import json
import os
import platform
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np

from mig_jax.commands.plan.memory import resident
from mig_jax.commands.select.config import SelectConfig
from mig_jax.commands.select.run import run_select
from mig_jax.core.files import write_atomic
from mig_jax.core.memory import PeakMemory
from mig_jax.core.version import VERSION
from mig_jax.labels import LabelGraph, label_graph
from mig_jax.models.configured import spec_of
from mig_jax.pool import load_pool
from mig_jax.pool.configured import bundled_pool
from mig_jax.samplers.mig import Options as MigOptions

FORMAT = 3  # raise it whenever what is measured, or how, changes
FEW, BENCH, LABELS = 300, 40_000, 1_000
FEW_PICKS, PICKS = 40, 4_000
TEXTS = 256  # labels that are embedded
STAGES = ("read pool", "encode", "compile", "select", "judge")  # of a manifest's timings; the rest is "write"
Rates = dict[str, float]


def machine() -> dict[str, Any]:
    """What a measurement holds for."""
    device, cores = jax.devices()[0], os.cpu_count() or 1
    return {
        "host": platform.node(),
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.device_count(),
        "versions": {"mig_jax": VERSION, "jax": jax.__version__, "numpy": np.__version__},
    }


def constants(folder: Path | None, kind: str, key: Any, measure: Callable[[], Rates], again: bool) -> Rates:
    """The result of ``measure()``, stored under the machine, ``kind`` and ``key``; ``again``: measure in any case."""
    name = hashlib.sha256(json.dumps([FORMAT, machine(), kind, key], sort_keys=True).encode()).hexdigest()
    path = None if folder is None else folder / "plan" / f"{kind}-{name[:32]}.json"
    if path is not None and not again:
        with suppress(OSError, ValueError):
            return json.loads(path.read_text(encoding="utf-8"))
    rates = measure()
    if path is not None:
        with suppress(OSError):  # a full or read-only disk costs the cache, not the plan
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(rates))
    return rates


def measure_run(config: SelectConfig, gain: str) -> Rates:
    """Constants of reading, encoding, the engine, the certificate and the files."""
    with tempfile.TemporaryDirectory(prefix="mig_jax_plan_") as name:
        folder = Path(name)
        few, bench = (bench_pool(folder, rows) for rows in (FEW, BENCH))
        size, before, peak = bench.stat().st_size, resident(), PeakMemory()
        start = _run(config, folder, few, FEW_PICKS, gain)
        programs = float(max(0, peak.facts()["peak_bytes"] - before))
        cold = _run(config, folder, bench, FEW_PICKS, gain)
        base, row, pick = (  # everything is read, traced and compiled; the fastest of two
            _fastest(*(_run(config, folder, pool, n, gain) for _ in range(2)))
            for pool, n in ((few, FEW_PICKS), (bench, FEW_PICKS), (bench, PICKS))
        )

    def more(less: Rates, full: Rates, stage: str, units: float) -> float:
        return max(0.0, full[stage] - less[stage]) / units

    return {
        "fixed": sum(base.values()) - base["write"],
        "read": more(base, cold, "read pool", size),
        "cached": more(base, row, "read pool", size),
        "encode": more(base, row, "encode", BENCH),
        "compile": cold["compile"] + max(0.0, cold["select"] - row["select"]),
        "row": more(base, row, "select", BENCH),  # layout and one full pass
        "pick": more(row, pick, "select", PICKS - FEW_PICKS),
        "judge": more(base, pick, "judge", BENCH),  # few picks would be no measure: nearly every row is evaluated then
        "write": start["write"],
        "write pick": more(row, pick, "write", PICKS - FEW_PICKS),
        "programs": programs,
    }


def _fastest(one: Rates, other: Rates) -> Rates:
    return {stage: min(one[stage], other[stage]) for stage in one}


def _run(config: SelectConfig, folder: Path, pool: Path, n: int, gain: str) -> Rates:
    """Seconds by stage of a selection of ``n`` rows."""
    out = folder / f"run-{uuid.uuid4().hex}"
    changed = msgspec.structs.replace
    bench = changed(
        config,
        pool=changed(
            config.pool, path=str(pool), name="bench", layout="auto", fields={}, valid_tags=None, on_error="raise",
            note=None,
        ),
        score=changed(config.score, source="deita", turns="mean", normalize=False),
        sampler=MigOptions(name="mig", gain="exact" if gain == "exact" else "first_order", compat=False),
        graph=changed(config.graph, path=str(folder / "graph.npz")),
        limits=changed(
            config.limits, warm_start=None, include=None, exclude=None, sources={}, labels={}, tokens=None
        ),
        n=n,
        out=str(out),
        overwrite=False,
        cache=str(folder / "cache"),
    )  # fmt: skip
    start = time.perf_counter()
    run_select(bench, "mig-jax plan")
    wall = time.perf_counter() - start
    timings = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["timings"]
    seconds = {stage: float(timings.get(stage, 0.0)) for stage in STAGES}
    return seconds | {"write": max(0.0, wall - sum(seconds.values()) - timings.get("label graph", 0.0))}


def bench_pool(folder: Path, rows: int) -> Path:
    """A pool of the bundled rows' texts under drawn tags and scores, and ``graph.npz``, of mean degree 4."""
    rng = np.random.default_rng([rows, 2504])
    texts = [msgspec.json.decode(line)["dialogs"] for line in bundled_pool().read_bytes().splitlines()]
    popularity = 1.0 / np.arange(1, LABELS + 1) ** 0.8
    names = [f"label {i:04d}" for i in range(LABELS)]
    count = 1 + rng.poisson(3.0, rows)
    tags = np.split(rng.choice(LABELS, count.sum(), p=popularity / popularity.sum()), np.cumsum(count)[:-1])
    score = rng.uniform(1, 6, (rows, 2)).round(3).tolist()
    lines = [
        msgspec.json.encode(
            {
                "dialogs": texts[i % len(texts)],
                "annotation": {
                    "instag": {"content": [names[k] for k in tags[i]]},
                    "deita": {"quality_scores": [score[i][0]], "complexity_scores": [score[i][1]]},
                },
            }
        )
        for i in range(rows)
    ]
    edge = np.unique(np.sort(rng.integers(0, LABELS, (2 * LABELS, 2)), axis=1), axis=0)
    source, target = edge[edge[:, 0] < edge[:, 1]].T.astype(np.int32)
    weight = rng.uniform(0.6, 0.95, len(source)).astype(np.float32)
    LabelGraph(tuple(names), np.ones(LABELS, np.float32), source, target, weight, 0.6).save(folder / "graph.npz")
    path = folder / f"bench{rows}.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def measure_embedding(config: SelectConfig) -> Rates:
    """Seconds of loading and compiling the embedder, of a label, and bytes. UserError: its weights are not here."""
    before, peak, start = resident(), PeakMemory(), time.perf_counter()
    from mig_jax.models.inference.embed import find_embedder  # Flax: its seconds and bytes are part of the loading

    embedder = find_embedder(spec_of(msgspec.structs.replace(config.embedder, hub=None)))[1]()
    names = load_pool(bundled_pool()).tag_names  # labels of several lengths: each length compiles a program
    texts = [name for name in names if name][:TEXTS]
    embedder.embed(texts)
    middle = time.perf_counter()
    embedder.embed(texts)
    again = time.perf_counter() - middle
    return {
        "load": middle - start - again,
        "label": again / len(texts),
        "bytes": float(peak.facts()["peak_bytes"] - before),
    }


def measure_cosines() -> Rates:
    """Seconds of a pair of labels, in the label graph: one tile of 2,048 labels, 384 numbers each."""
    vectors = np.random.default_rng(2504).normal(size=(2_048, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"{i:04d}" for i in range(len(vectors))]
    label_graph(names, vectors, threshold="auto", degree=4.0)
    start = time.perf_counter()
    label_graph(names, vectors, threshold="auto", degree=4.0)
    return {"pair": (time.perf_counter() - start) / (len(names) * (len(names) + 1) / 2)}
