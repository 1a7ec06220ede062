"""Pools of tens of millions of rows: in memory, and from disk in less memory than they take.

    python -m experiments.bench_large --rows 10000000,30000000 --picks 50000 --folder DIR --out DIR

For each size, in separate processes (so that each has its own peak): blocks are written to --folder, unless they exist;
the picks are made from the blocks, and then in memory. Prints the machine, seconds (``first_s`` includes compilation),
the bytes read, peak memory and whether the picks are the same.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.machine import machine, peak_gb


def write(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Stream the pool into blocks."""
    from experiments.synthetic import synthetic_chunks
    from mig_jax.engine import BlockWriter

    start, adding = time.perf_counter(), 0.0
    with BlockWriter(folder, args.labels) as out:
        for chunk in synthetic_chunks(args.one, args.labels):
            began = time.perf_counter()
            out.add(*chunk)
            adding += time.perf_counter() - began
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"seconds": time.perf_counter() - start, "encode_s": adding, "gb": size / 1e9}


def disk(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Picks from the blocks: a short run that compiles, then the timed run."""
    from experiments.synthetic import synthetic_graph
    from mig_jax.engine import greedy_from_disk
    from mig_jax.objective import make_phi

    graph, phi = synthetic_graph(args.labels), make_phi()
    began = time.perf_counter()
    greedy_from_disk(folder, graph.propagation(), phi, 10, shortlist_size=args.shortlist)
    warm = time.perf_counter() - began
    began = time.perf_counter()
    found = greedy_from_disk(folder, graph.propagation(), phi, args.picks, shortlist_size=args.shortlist)
    return {"first_s": warm, "seconds": time.perf_counter() - began, "digest": digest(found), **found.counts}


def memory(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Picks from the same rows in memory."""
    from experiments.synthetic import label_names, synthetic_chunks, synthetic_graph
    from mig_jax.encode import Encoded
    from mig_jax.engine import greedy, make_problem, pool_mesh
    from mig_jax.objective import make_phi

    ptr, idx, score = np.zeros(args.one + 1, np.int64), [], np.empty(args.one)
    row = 0
    for part_ptr, part_idx, part_score in synthetic_chunks(args.one, args.labels):
        stop = row + len(part_score)
        ptr[row + 1 : stop + 1] = part_ptr[1:] + ptr[row]
        score[row:stop] = part_score
        idx.append(part_idx)
        row = stop
    encoded = Encoded(np.arange(args.one), ptr, np.concatenate(idx), score, label_names(args.labels), {})
    del idx, ptr, score
    began = time.perf_counter()
    problem = make_problem(encoded, synthetic_graph(args.labels).propagation(), make_phi())
    layout = time.perf_counter() - began
    greedy(problem, 10, pool_mesh(), shortlist_size=args.shortlist)
    began = time.perf_counter()
    found = greedy(problem, args.picks, pool_mesh(), shortlist_size=args.shortlist)
    return {"layout_s": layout, "seconds": time.perf_counter() - began, "digest": digest(found), **found.counts}


def digest(found) -> str:
    """A digest of the picks and the bits of their gains."""
    return hashlib.sha256(found.points.tobytes() + found.gains.tobytes()).hexdigest()[:16]


PARTS = {"write": write, "disk": disk, "memory": memory}


def apart(part: str, args: argparse.Namespace, rows: int, folder: Path) -> dict[str, Any]:
    """One part, in a separate process."""
    settings = {name: getattr(args, name) for name in ("picks", "labels", "shortlist")}
    settings |= {"part": part, "one": rows, "folder": folder}
    command = [sys.executable, "-m", "experiments.bench_large", *(f"--{k}={v}" for k, v in settings.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{part} of {rows} rows failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    shown = {k: f"{v:.2f}" if isinstance(v, float) else v for k, v in result.items()}
    print(f"  {part:7}" + "  ".join(f"{k}={v}" for k, v in shown.items()), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000000,30000000", help="sizes, with commas")
    parser.add_argument("--picks", type=int, default=50_000)
    parser.add_argument("--labels", type=int, default=4_531)
    parser.add_argument("--shortlist", type=int, default=65_536)
    parser.add_argument("--folder", type=Path, default=Path("runs/large"), help="for the blocks")
    parser.add_argument("--skip-memory", action="store_true", help="leave out the run in memory")
    parser.add_argument("--keep", action="store_true", help="do not delete the blocks")
    parser.add_argument("--out", type=Path, help="a folder for results.json")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        result = PARTS[args.part](args, args.folder)
        print(json.dumps(result | {"peak_gb": peak_gb()}))
        return
    print(f"machine: {machine()}\n{args.picks:,} picks, {args.labels:,} labels", flush=True)
    results = []
    for rows in map(int, args.rows.split(",")):
        folder = args.folder / str(rows)
        print(f"{rows:,} rows", flush=True)
        row: dict[str, Any] = {"rows": rows}
        found = (folder / "index.npz").exists()
        if not found:
            row["write"] = apart("write", args, rows, folder)
        row["disk"] = apart("disk", args, rows, folder)
        if not args.skip_memory:
            row["memory"] = apart("memory", args, rows, folder)
            row["same_picks"] = row["disk"]["digest"] == row["memory"]["digest"]
            print(f"  the same picks: {row['same_picks']}", flush=True)
        results.append(row)
        if not (args.keep or found):
            shutil.rmtree(folder)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
