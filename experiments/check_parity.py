"""The engine's picks compared with a float64 heap's, on synthetic pools and on a real pool repeated with new scores.

    python -m experiments.check_parity --pool POOL.jsonl.gz --valid-tags TAGS.json --rows 500000 --picks 50000

For each mean degree of the label graph (--degree 0,5,40) and each gain: the length of the common prefix; whether the
sets are equal; the ratio of the two E(D); and every step at which the orders differ, with the relative margin of the
heap's pick over its runner-up at that step. The heap (experiments/peers/heap.py) shares no code with the engine. A
real pool's rows are repeated up to --rows, each copy with a score of its own: long queues of equal label sets. Ends
with 1 if a set differs, if the first 5,000 differ, or if they differ where the margin is above 1e-6.
"""

import argparse
import sys

import numpy as np

from experiments.machine import machine
from experiments.peers import heap_numba
from experiments.peers.agreement import agreement
from experiments.synthetic import synthetic_pool
from mig_jax.api import label_graph, load_pool
from mig_jax.encode import Encoded, encode
from mig_jax.engine import greedy, make_problem, pool_mesh
from mig_jax.labels import LabelGraph
from mig_jax.labels.valid_tags import read_valid_tags
from mig_jax.objective import make_phi


def repeated(encoded: Encoded, rows: int) -> Encoded:
    """The pool's rows repeated to ``rows``, each copy with its own score."""
    rng = np.random.default_rng(0)
    order = np.resize(np.arange(len(encoded)), rows)
    count = np.diff(encoded.label_ptr)[order]
    ptr = np.concatenate([[0], np.cumsum(count)])
    idx = encoded.label_idx[np.repeat(encoded.label_ptr[order] - ptr[:-1], count) + np.arange(ptr[-1])]
    return Encoded(np.arange(rows), ptr, idx, rng.uniform(1, 36, rows), encoded.labels, {})


def pools(args: argparse.Namespace, degree: float) -> list[tuple[str, Encoded, LabelGraph]]:
    """(name, rows, label graph) of each pool."""
    most = max(21, int(2 * degree))
    found = [("synthetic", *synthetic_pool(args.rows, degree=degree, max_degree=most))]
    if args.pool:
        pool = load_pool(args.pool)
        tags = read_valid_tags(args.valid_tags) if args.valid_tags else None
        encoded = encode(pool, valid_tags=tags, on_error="skip")
        graph = label_graph(pool, valid_tags=tags, degree=degree, on_error="skip")
        found.append(("real, repeated", repeated(encoded, args.rows), graph))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--picks", type=int, default=50_000)
    parser.add_argument("--degree", default="0,5,40")
    parser.add_argument("--gain", default="first_order", help="first_order, exact")
    parser.add_argument("--pool", help="a real pool, to be repeated")
    parser.add_argument("--valid-tags")
    args = parser.parse_args()
    print(f"machine: {machine()}")
    good, phi = True, make_phi()
    for degree in map(float, args.degree.split(",")):
        for name, encoded, graph in pools(args, degree):
            for gain in args.gain.split(","):
                p = graph.propagation()
                problem = make_problem(encoded, p, phi, gain)
                found = greedy(problem, args.picks, pool_mesh())
                heap = heap_numba(encoded, p, phi, args.picks, gain, margins=True, update="recompute")
                assert heap.margins is not None
                same = agreement(encoded, p, phi, found.points, heap.points, heap.margins)
                print(
                    f"{name}, {len(encoded):,} rows, {problem.groups.num_groups:,} label sets, mean degree"
                    f" {graph.facts()['mean_degree']:.2f}, {gain}: the first {same['prefix']:,} of {same['picks']:,}"
                    f" picks equal, {same['equal_positions']:,} positions; same set: {same['same_set']}; E(D) ratio"
                    f" {same['objective_ratio']:.12f}; {same['differences']} differences",
                    flush=True,
                )
                for part in same["parted"]:
                    print(f"  at step {part['step']:,} for {part['length']} steps, margin {part['margin']:.1e}")
                good &= same["same_set"] and same["prefix"] >= min(5_000, same["picks"])
                good &= all(part["margin"] < 1e-6 for part in same["parted"])
    print("passed" if good else "FAILED")
    sys.exit(not good)


if __name__ == "__main__":
    main()
