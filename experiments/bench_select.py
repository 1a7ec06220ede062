"""Seconds of a selection: the engine, a lazy heap and the naive methods, on synthetic pools, in one process.

    python -m experiments.bench_select --rows 939000 --picks 50000
    python -m experiments.bench_select --rows 20000,100000 --picks 1000,5000 --peers heap,scan,dense --memory --out DIR
    python -m experiments.bench_select --rows 939000 --picks 50000 --heap-device host,device  # with an accelerator

Every contestant runs once (compilation, reported apart), then all in turn, --repeats times. The heap (float64, numba,
one thread; see experiments/peers/heap.py) is also the reference for the picks and for the margin of each pick over its
runner-up.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.bench_report import LEGEND, Row, plots, table
from experiments.machine import machine, peak_gb
from experiments.peers import dense_jax, dense_numpy, have_numba, heap_numba, scan_jax
from experiments.peers.agreement import agreement
from experiments.peers.heap import HOW
from experiments.peers.scans import MOST_BYTES, dense_bytes
from experiments.synthetic import synthetic_pool
from mig_jax.encode import Encoded
from mig_jax.engine import greedy, make_problem, pool_mesh
from mig_jax.labels.label_graph import Propagation
from mig_jax.objective import make_phi

SCANS = {"scan": scan_jax, "dense_numpy": dense_numpy, "dense_jax": dense_jax}


class Run(NamedTuple):
    """One run of a contestant: its picks, and the seconds of layout, compilation (where measured) and picking."""

    points: np.ndarray
    counts: dict[str, Any]
    layout_s: float
    compile_s: float | None
    pick_s: float


class Contestant(NamedTuple):
    """``spec``: the arguments with which another process runs it again."""

    what: str
    picks: int
    threads: str
    spec: dict[str, Any]
    run: Callable[[], Run]


def engine(
    encoded: Encoded, p: Propagation, gain: str, picks: int, shortlist: str, heap_device: str, prepared: list
) -> Contestant:
    """The engine with these settings; ``prepared`` caches (problem, layout_s) for all of them."""

    def run() -> Run:
        if not prepared:
            start = time.perf_counter()
            problem = make_problem(encoded, p, make_phi(), gain, len(jax.devices()))
            prepared.append((problem, time.perf_counter() - start))
        problem, layout_s = prepared[0]
        settings: dict[str, Any] = {"heap_device": heap_device}
        if shortlist != "default":
            settings["shortlist_size"] = int(shortlist)
        start = time.perf_counter()
        result = greedy(problem, picks, pool_mesh(), **settings)
        return Run(result.points, dict(result.counts), layout_s, None, time.perf_counter() - start)

    changed = [] if shortlist == "default" else [f"shortlist={shortlist}"]
    name = " ".join(["engine", *changed, *([] if heap_device == "auto" else [heap_device])])
    threads = str(os.cpu_count()) if jax.devices()[0].platform == "cpu" else jax.devices()[0].platform
    return Contestant(name, picks, threads, {"peer": "engine", "shortlist": shortlist, "heap_device": heap_device}, run)


def peer(encoded: Encoded, p: Propagation, gain: str, picks: int, name: str) -> Contestant:
    """The heap, or a scan."""

    def run() -> Run:
        if name == "heap":
            found = heap_numba(encoded, p, make_phi(), picks, gain)
        elif name == "scan":
            found = scan_jax(encoded, p, make_phi(), picks, gain)
        else:
            found = SCANS[name](encoded, p, make_phi(), picks)
        counts = found.facts or {"evaluations": found.evaluations}
        each = {"evaluations_per_pick": round(found.evaluations / max(1, len(found.points)), 1)}
        return Run(found.points, counts | each, found.setup_s, found.compile_s, found.pick_s)

    threads = {"heap": "1", "dense_numpy": "BLAS"}.get(name, str(os.cpu_count()))
    return Contestant(name, picks, threads, {"peer": name}, run)


def contestants(encoded: Encoded, p: Propagation, gain: str, picks: int, args: argparse.Namespace) -> list[Contestant]:
    """The contestants of one setting; prints which are left out, and why."""
    prepared: list = []
    settings = itertools.product(args.shortlist, args.heap_device)
    found = [engine(encoded, p, gain, picks, *setting, prepared) for setting in settings]
    for name in args.peers:
        if name == "dense" and (gain != "first_order" or dense_bytes(encoded) >= MOST_BYTES):
            why = "has the first-order gain only" if gain != "first_order" else f"takes {dense_bytes(encoded):,} bytes"
            print(f"left out: dense ({why})", flush=True)
        elif name == "dense":
            found += [peer(encoded, p, gain, min(picks, args.dense_picks), f"dense_{k}") for k in ("numpy", "jax")]
        elif name == "scan":
            found.append(peer(encoded, p, gain, min(picks, args.scan_picks), name))
        elif not have_numba():
            print(f"left out: heap ({HOW})", flush=True)
        else:
            found.append(peer(encoded, p, gain, picks, name))
    return found


def measure(field: list[Contestant], repeats: int) -> list[Row]:
    """The first run of each, then all of them in turn."""
    first, seconds, layouts = [], [[] for _ in field], [[] for _ in field]
    last: dict[int, Run] = {}
    for contestant in field:
        start = time.perf_counter()
        run = contestant.run()
        first.append((run, time.perf_counter() - start))
    for _ in range(repeats):
        for i, contestant in enumerate(field):
            run = last[i] = contestant.run()
            seconds[i].append(run.pick_s)
            layouts[i].append(run.layout_s)
    rows = []
    for i, contestant in enumerate(field):
        low, median, high = np.percentile(seconds[i], [25, 50, 75])
        layout_s, (run, first_s) = float(np.median(layouts[i])), first[i]
        n = len(last[i].points)
        rows.append(
            {
                "what": contestant.what,
                "slow": contestant.spec["peer"] in SCANS,
                "n": n,
                "threads": contestant.threads,
                "seconds": seconds[i],
                "first_s": first_s,
                "median_s": float(median),
                "min_s": min(seconds[i]),
                "max_s": max(seconds[i]),
                "iqr_s": float(high - low),
                "compile_s": max(0.0, run.pick_s - float(median)) if run.compile_s is None else run.compile_s,
                "layout_s": layout_s,
                "total_s": layout_s + float(median),
                "picks_per_s": n / float(median),
                "us_per_pick": 1e6 * float(median) / max(n, 1),
                "counts": last[i].counts,
                "points": last[i].points,
                "repeatable": bool(np.array_equal(run.points, last[i].points)),
            }
        )
    heap = next((row for row in rows if row["what"] == "heap"), None)
    for row in rows:
        if heap is None:
            break
        row["x_heap"] = row["us_per_pick"] / heap["us_per_pick"]
        if not row["slow"]:  # of so few picks the layout would be the most
            row["total_x_heap"] = row["total_s"] / heap["total_s"]
    return rows


def memory(contestant: Contestant, gain: str, folder: Path) -> dict[str, float] | None:
    """The memory of a process that reads the pool and runs this contestant once."""
    spec = json.dumps(contestant.spec | {"gain": gain, "picks": contestant.picks, "folder": str(folder)})
    command = [sys.executable, "-m", "experiments.bench_select", "--worker", spec]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"no memory of {contestant.what}: {done.stderr.strip().splitlines()[-1:]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def work(spec: dict[str, Any]) -> None:
    """The process that ``memory`` starts."""
    data = np.load(Path(spec["folder"]) / "pool.npz")
    count = len(data["p_ptr"]) - 1
    names = tuple(f"{i:06d}" for i in range(count))
    encoded = Encoded(np.arange(len(data["score"])), data["ptr"], data["idx"], data["score"], names, {})
    p = Propagation(data["p_ptr"], data["p_idx"], data["p_val"])
    base = peak_gb()
    if spec["peer"] == "engine":
        contestant = engine(encoded, p, spec["gain"], spec["picks"], spec["shortlist"], spec["heap_device"], [])
    else:
        contestant = peer(encoded, p, spec["gain"], spec["picks"], spec["peer"])
    contestant.run()
    print(json.dumps({"base_gb": base, "peak_gb": peak_gb()}))


def one_pool(rows: int, labels: int, degree: float, args: argparse.Namespace) -> list[Row]:
    """All settings of one pool."""
    start = time.perf_counter()
    encoded, graph = synthetic_pool(rows, labels, degree=degree, integer_scores=args.integer_scores)
    print(f"pool: {rows:,} rows, {graph.facts()}, made in {time.perf_counter() - start:.1f} s", flush=True)
    p, found = graph.propagation(), []
    for gain in args.gain:
        oracle = heap_numba(encoded, p, make_phi(), max(args.picks), gain, margins=True) if have_numba() else None
        for picks in args.picks:
            field = contestants(encoded, p, gain, picks, args)
            with tempfile.TemporaryDirectory() as folder:
                if args.memory:  # before the repeats: this process waits meanwhile
                    arrays: dict[str, Any] = {
                        "ptr": encoded.label_ptr,
                        "idx": encoded.label_idx,
                        "score": encoded.score,
                    }
                    np.savez(Path(folder) / "pool.npz", **arrays, p_ptr=p.ptr, p_idx=p.idx, p_val=p.val)
                taken = [memory(c, gain, Path(folder)) if args.memory else None for c in field]
            measured = measure(field, args.repeats)
            for row, used in zip(measured, taken, strict=True):
                points = row.pop("points")
                row["checksum"] = int(np.sum(points * np.arange(1, len(points) + 1)) % 1_000_000_007)
                if oracle is not None and oracle.margins is not None:
                    row["agreement"] = agreement(encoded, p, make_phi(), points, oracle.points, oracle.margins)
                row |= {"rows": rows, "labels": labels, "degree": degree, "gain": gain, "picks": picks, "memory": used}
                row["process_peak_gb"] = peak_gb()
            print(table(measured), flush=True)
            for row in measured:
                print_differences(row)
            found += measured
    return found


def print_differences(row: Row) -> None:
    """Print where a contestant's order differs from the reference's, and whether its own runs differ."""
    if not row["repeatable"]:
        print(f"{row['what']}: two runs made different picks")
    for d in row.get("agreement", {}).get("parted", [])[:10]:
        end = f"for {d['length']} steps" if d["met"] else "to the end"
        print(f"{row['what']}: differs from the float64 greedy from step {d['step']} {end}; margin {d['margin']:.2e}")


def listed(kind: type) -> Callable[[str], list]:
    """The type of an option that takes a list, separated by commas."""
    return lambda text: [kind(part.replace("_", "") if kind is not str else part) for part in text.split(",") if part]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=listed(int), default=[939_000], help="N; several with commas, like all lists")
    parser.add_argument("--labels", type=listed(int), default=[4_531])
    parser.add_argument("--degree", type=listed(float), default=[4.0])
    parser.add_argument("--picks", type=listed(int), default=[50_000])
    parser.add_argument("--integer-scores", action="store_true", help="scores 1..6: gains tie by the thousand")
    parser.add_argument("--gain", type=listed(str), default=["first_order"], help="first_order, exact")
    parser.add_argument(
        "--shortlist", type=listed(str), default=["default"], help="candidates of a full pass; default is one"
    )
    parser.add_argument("--heap-device", type=listed(str), default=["auto"], help="auto, device, host")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", type=listed(str), default=["heap"], help="heap, scan, dense; '' for none")
    parser.add_argument("--scan-picks", type=int, default=50)
    parser.add_argument("--dense-picks", type=int, default=20)
    parser.add_argument("--dense", type=int, metavar="PICKS", help="short for --peers ...,dense --dense-picks PICKS")
    parser.add_argument("--memory", action="store_true", help="also each contestant's peak in a process of its own")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results.json, table.md and pictures")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.dense:
        args.peers, args.dense_picks = [*args.peers, *(["dense"] if "dense" not in args.peers else [])], args.dense
    wrong = [*(set(args.peers) - {"heap", "scan", "dense"}), *(set(args.gain) - {"first_order", "exact"})]
    if wrong or args.repeats < 1:
        parser.error(f"--peers are heap, scan, dense; --gain first_order, exact; --repeats at least 1: {wrong}")
    return args


def main() -> None:
    args = arguments()
    if args.worker:
        work(args.worker)
        return
    print(f"machine: {machine()}\n{LEGEND}\n", flush=True)
    rows = []
    for pool in itertools.product(args.rows, args.labels, args.degree):
        rows += one_pool(*pool, args)
    if len(rows) > len({row["what"] for row in rows}):
        print(f"\n{table(rows)}")
    print(f"peak memory of this process: {peak_gb():.2f} GB")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        settings = {k: v for k, v in vars(args).items() if k not in ("out", "worker")}
        text = json.dumps({"machine": machine(), "settings": settings, "rows": rows}, indent=1)
        (args.out / "results.json").write_text(text)
        (args.out / "table.md").write_text(f"{table(rows)}\n\n{LEGEND}\n\n{machine()}\n")
        print("wrote", *(path.name for path in plots(rows, args.out)), "results.json table.md")


if __name__ == "__main__":
    main()
