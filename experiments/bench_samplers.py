"""Seconds and memory of the samplers, each in a separate process.

    python -m experiments.bench_samplers --pool POOL.jsonl.gz --embeddings runs/rows     # a real pool, embedded
    python -m experiments.bench_samplers --rows 200000 --picks 10000                       # synthetic
    python -m experiments.bench_samplers --rows 939000 --dim 4096 --picks 50000 --samplers qdit,deita   # an accelerator

Real: the pool's own rows and vectors; missing fields, such as a score, are drawn. Synthetic: clustered vectors, about
17 near-duplicates of a kind; labels of experiments/synthetic.py. Memory is the peak of the process minus its memory
when the inputs were ready. Compilation is part of the seconds; ``compile`` is its share.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.machine import machine
from experiments.synthetic import synthetic_pool
from mig_jax.core.index import as_pool_rows
from mig_jax.core.memory import PeakMemory
from mig_jax.core.timing import Stopwatch
from mig_jax.encode import encode
from mig_jax.engine import pool_mesh
from mig_jax.labels import LabelGraph
from mig_jax.objective import make_phi
from mig_jax.pool import load_pool
from mig_jax.samplers import SAMPLERS, Rows, SamplingTask, find_sampler
from mig_jax.samplers.configured import sampler_options
from mig_jax.samplers.task import texts_of_points
from mig_jax.vectors.vectors import Vectors

PEERS = {
    "random": "O(n)",
    "ifd": "O(N log N)",
    "instag": "O(passes N) walk",
    "zip": "O(n K2 / K3) + O(n K1 / K3) compressions of everything selected so far",
    "deita": "O(N n d), a row at a time",
    "car": "O(N k d) a round",
    "qdit": "O(n N^2 d), or N^2 numbers stored",
    "mig": "O(n N L)",
}
NEAR = 0.94  # share of synthetic rows that are near-duplicates of one of the others: 17 rows of a kind


def clustered(rows: int, dim: int, seed: int = 0, block: int = 8192) -> np.ndarray:
    """Unit vectors: distant centres, 6 % of the rows are directions around a centre, the others copies with noise."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(8, rows // 200), dim), np.float32)
    fresh = max(1, int(rows * (1 - NEAR)))
    found = np.empty((rows, dim), np.float32)
    for start, stop, source, noise in ((0, fresh, centres, 0.9), (fresh, rows, found[:fresh], 0.2 / np.sqrt(dim))):
        for lo in range(start, stop, block):
            part = found[lo : min(lo + block, stop)]
            part[:] = source[rng.integers(0, len(source), len(part))]
            part += np.float32(noise) * rng.standard_normal(part.shape, np.float32)
            part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found[rng.permutation(rows)]


def synthetic_task(rows: int, dim: int, vectors: bool) -> SamplingTask:
    """Labels, scores and, with ``vectors``, vectors; texts of random words."""
    encoded, graph = synthetic_pool(rows)
    rng = np.random.default_rng(1)
    words = [f"w{i:04d}" for i in range(4000)]

    def dialogs(points: np.ndarray):
        for point in points.tolist():
            own = np.random.default_rng([2, point])
            text = " ".join(words[i] for i in own.integers(0, 4000, own.integers(20, 300)))
            yield [("user", text[: len(text) // 3]), ("assistant", text[len(text) // 3 :])]

    return SamplingTask(
        encoded,
        graph.propagation(),
        make_phi(),
        sampler_options("random", {}),
        ranking=rng.uniform(0, 1, rows),
        vectors=Vectors(clustered(rows, dim), as_pool_rows(encoded.row)) if vectors else None,
        rows=Rows(lambda points: iter(()), dialogs),
    )


def real_task(pool_path: str, embeddings: str | None) -> SamplingTask:
    """The rows of a pool, annotated or not."""
    pool = load_pool(pool_path)
    encoded = encode(pool, needs=())
    rng = np.random.default_rng(1)
    if not encoded.labels:
        encoded = replace(encoded, score=rng.uniform(1, 36, len(encoded)))
    empty, count = np.zeros(0, np.int32), len(encoded.labels)
    graph = LabelGraph(encoded.labels, np.ones(count, np.float32), empty, empty, np.zeros(0, np.float32), 1.0)
    vectors = None
    if embeddings is not None:
        path = Path(embeddings)
        vectors = Vectors(
            np.load(path / "embeddings.npy" if path.is_dir() else path, mmap_mode="r"), as_pool_rows(encoded.row)
        )
    return SamplingTask(
        encoded, graph.propagation(), make_phi(), sampler_options("random", {}), vectors=vectors,
        rows=texts_of_points(pool, encoded),
    )  # fmt: skip


def measure(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """One sampler in this process."""
    sampler = find_sampler(name)
    if args.pool:
        task = real_task(args.pool, args.embeddings)
    else:
        task = synthetic_task(args.rows, args.dim, "vectors" in sampler.needs)
    options = sampler_options(name, json.loads(args.settings).get(name, {}))
    score = np.random.default_rng(3).uniform(0, 1, len(task.encoded)) if name in ("ifd", "car") else task.encoded.score
    mesh = pool_mesh(jax.devices()[: args.devices or None])
    task = replace(task, options=options, ranking=score, mesh=mesh)
    n = min(args.picks, len(task.encoded))
    peak = PeakMemory()
    before, start = peak.facts()["peak_bytes"], time.perf_counter()
    watch = Stopwatch()
    with watch.compiling(), watch.stage("sample"):
        order = sampler.sample(task, n)
    took = time.perf_counter() - start
    return {
        "sampler": name,
        "rows": len(task.encoded),
        "dim": task.vectors.dim if task.vectors else None,
        "n": n,
        "picked": len(order),
        "seconds": round(took, 2),
        "compile_s": round(watch.seconds.get("compile", 0.0), 2),
        "megabytes": round((peak.facts()["peak_bytes"] - before) / 1e6),
        "rounds": order.rounds,
        "notes": order.notes,
        "machine": machine(),
    }


def main() -> None:
    """Each sampler in a separate process, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", help="rows of a real pool instead of synthetic ones")
    parser.add_argument("--embeddings", help="of the pool's rows: a .npy or a folder of mig-jax embed")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--picks", type=int, default=2_000)
    parser.add_argument("--samplers", default="random,ifd,instag,zip,deita,car,qdit,mig")
    parser.add_argument("--settings", default="{}", help='JSON: {"qdit": {"alpha": 0.0}}')
    parser.add_argument("--devices", type=int, default=0, help="0: all")
    parser.add_argument("--out", type=Path, help="write the results here as JSON lines")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args, args.one)))
        return
    names = args.samplers.split(",")
    print(f"machine: {machine()}")
    for name in names:
        if name not in SAMPLERS:
            parser.error(f"--samplers: {name} is none of {', '.join(SAMPLERS)}")
    print(
        f"{'system':<8}{'rows':>10}{'n':>8}{'picked':>8}{'seconds':>10}"
        f"{'compile':>9}{'MB beyond':>11}  facts; the peers' work"
    )
    for name in names:
        command = [sys.executable, "-m", "experiments.bench_samplers", *sys.argv[1:], "--one", name]
        with tempfile.TemporaryFile("w+") as output:
            made = subprocess.run(command, stdout=output, check=False)
            output.seek(0)
            text = output.read()
        if made.returncode:
            print(f"{name:<8}  failed (exit code {made.returncode})")
            continue
        found = json.loads(text.splitlines()[-1])
        facts = ", ".join(f"{key} {value:,}" for key, value in found["rounds"].items())
        print(
            f"{name:<8}{found['rows']:>10,}{found['n']:>8,}{found['picked']:>8,}{found['seconds']:>10,.1f}"
            f"{found['compile_s']:>9,.1f}{found['megabytes']:>11,}  {facts}; {PEERS.get(name, '')}",
            flush=True,
        )
        if args.out:
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
