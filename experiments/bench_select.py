"""How long a selection takes: the engine on a synthetic pool of Tulu3's size, compile time apart.

    python -m experiments.bench_select --rows 939000 --picks 50000
    python -m experiments.bench_select --rows 939000 --picks 50000 --inner host,device  # with an accelerator
    python -m experiments.bench_select --rows 20000 --picks 2000 --dense 20  # beside the dense formulation

Prints what it measured and on what, as a table, and writes it as JSON with --out.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from experiments.synthetic import synthetic_pool
from mig_jax.engine import greedy, make_problem, pool_mesh
from mig_jax.gain import make_phi
from mig_jax.gain.objective import label_rows, propagation_matrix, reached


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "devices": len(jax.devices()),
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def measure(problem, picks: int, repeats: int, **settings) -> dict[str, object]:
    """First run (with compilation) and the repeats of one setting; seconds."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = greedy(problem, picks, pool_mesh(), **settings)
        seconds.append(time.perf_counter() - start)
    return {
        "first_s": seconds[0],
        "median_s": statistics.median(seconds[1:]),
        "min_s": min(seconds[1:]),
        "max_s": max(seconds[1:]),
        "picks_per_s": picks / statistics.median(seconds[1:]),
        "points": result.points,
        **result.counts,
    }


def dense(encoded, graph, picks: int) -> tuple[float, np.ndarray]:
    """The reference's formulation in a few lines of NumPy: a dense N x L matrix, a product and an argmax for each pick.

    (seconds, points); making the matrix is not counted.
    """
    phi, score = make_phi(), encoded.score.astype(np.float32)
    reach = reached(label_rows(encoded), propagation_matrix(graph.propagation())).toarray().astype(np.float32)
    mass = reach * score[:, None]
    x, free, points = np.zeros(mass.shape[1], np.float32), np.ones(len(mass), bool), []
    start = time.perf_counter()
    for _ in range(picks):
        gain = np.where(free, mass @ phi.slope(x), -1.0)
        best = int(np.argmax(gain))
        free[best] = False
        x += mass[best]
        points.append(best)
    return time.perf_counter() - start, np.array(points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=939_000)
    parser.add_argument("--labels", type=int, default=4_531)
    parser.add_argument("--degree", type=float, default=4.0)
    parser.add_argument("--picks", type=int, default=50_000)
    parser.add_argument("--gain", default="first_order", help="first_order, exact, or both with a comma")
    parser.add_argument("--inner", default="auto", help="auto, device, host; several with commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dense", type=int, default=0, metavar="PICKS", help="also this many picks of the dense way")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    start = time.perf_counter()
    encoded, graph = synthetic_pool(args.rows, args.labels, degree=args.degree)
    print(f"machine: {machine()}")
    print(f"pool: {len(encoded):,} rows, {graph.facts()}, made in {time.perf_counter() - start:.1f} s", flush=True)
    rows = []
    for kind in args.gain.split(","):
        start = time.perf_counter()
        problem = make_problem(encoded, graph.propagation(), make_phi(), kind, len(jax.devices()))
        layout_s = time.perf_counter() - start
        reference = None
        for inner in args.inner.split(","):
            row = {"gain": kind, "inner": inner, "layout_s": layout_s}
            row |= measure(problem, args.picks, args.repeats, inner=inner)
            points = row.pop("points")
            reference = points if reference is None else reference
            row["same_picks"] = bool(np.array_equal(points, reference))
            row["checksum"] = int(np.sum(points * np.arange(1, len(points) + 1)) % 1_000_000_007)
            row["peak_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            rows.append(row)
            print("  ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
            if args.dense and kind == "first_order":
                seconds, same = dense(encoded, graph, args.dense)
                ours = 1e3 * row["median_s"] / args.picks
                row["dense_ms_a_pick"], row["ratio"] = 1e3 * seconds / args.dense, 1e3 * seconds / args.dense / ours
                agree = int((same == points[: args.dense]).sum())
                print(
                    f"dense: {row['dense_ms_a_pick']:.1f} ms a pick against {ours:.4f} ({row['ratio']:,.0f} x);"
                    f" {agree} of {args.dense} picks the same"
                )
    if args.out:
        args.out.write_text(json.dumps({"machine": machine(), "settings": vars(args) | {"out": None}, "rows": rows}))


if __name__ == "__main__":
    main()
