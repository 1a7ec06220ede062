"""The same picks, bit for bit, on any number of devices and processes and after kill -9, on a pool of Tulu3's size.

    python -m experiments.check_determinism --picks 5000

Every line is a run in separate processes, with shortlists of 64 candidates, so that hundreds of full passes occur. The
digest is of the picks and their gains; the number counts the full passes.
"""

import argparse
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

FLAG = "--xla_force_host_platform_device_count"


def work(args: argparse.Namespace) -> None:
    """One process of a run: select, write a checkpoint after every call of the heap, print the digest."""
    import numpy as np

    from experiments.synthetic import synthetic_pool
    from mig_jax.core import processes
    from mig_jax.engine import Snapshot, State, greedy, make_problem, pool_mesh
    from mig_jax.engine.checkpoint import Checkpoint
    from mig_jax.objective import make_phi

    if args.coordinator:
        processes.start(args.coordinator, 2, args.process)
    encoded, graph = synthetic_pool(args.rows, args.labels, integer_scores=args.scores == "integer")
    mesh = pool_mesh()
    problem = make_problem(encoded, graph.propagation(), make_phi(), args.gain, mesh.size)
    checkpoint = Checkpoint(Path(args.folder), 0.0) if args.folder else None
    resume = checkpoint.load(State) if checkpoint else None

    def write(snapshot: Snapshot) -> None:
        if checkpoint:
            checkpoint(snapshot)
            print(f"checkpoint {len(snapshot.points)}", flush=True)

    print(f"checkpoint {0 if resume is None else len(resume.points)}", flush=True)
    found = greedy(problem, args.picks, mesh, shortlist_size=args.shortlist, resume=resume, on_snapshot=write)
    digest = hashlib.sha256(found.points.tobytes() + np.ascontiguousarray(found.gains).tobytes()).hexdigest()
    print(f"digest {digest[:16]} {found.counts['full_passes']}", flush=True)


def start(args: argparse.Namespace, devices: int, *more: str) -> subprocess.Popen:
    """A worker with ``devices`` simulated devices."""
    settings = [
        f"--{name}={getattr(args, name)}" for name in ("rows", "labels", "picks", "shortlist", "gain", "scores")
    ]
    command = [sys.executable, "-m", "experiments.check_determinism", "--worker", *settings, *more]
    environment = os.environ | {"XLA_FLAGS": f"{FLAG}={devices}"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def digest_of(process: subprocess.Popen) -> str:
    """The last line of its output."""
    out = process.communicate()[0]
    return next((line for line in out.splitlines() if line.startswith("digest")), f"no digest: {out}")


def killed(args: argparse.Namespace, kills: int, seed: int) -> str:
    """The digest of a run that was killed ``kills`` times, each time some picks later."""
    rng = random.Random(seed)
    resumed = []
    with tempfile.TemporaryDirectory() as folder:
        for at in sorted(rng.randrange(args.picks) for _ in range(kills)):
            process = start(args, 1, f"--folder={folder}")
            resumed.append(next_checkpoint(process))
            while next_checkpoint(process) < at:
                pass
            process.send_signal(signal.SIGKILL)
            process.wait()
        process = start(args, 1, f"--folder={folder}")
        resumed.append(next_checkpoint(process))
        return f"{digest_of(process)} (after {kills} kills; it began at picks {', '.join(map(str, resumed))})"


def next_checkpoint(process: subprocess.Popen) -> int:
    """The number of picks of the next checkpoint in its output."""
    assert process.stdout is not None
    return int(process.stdout.readline().removeprefix("checkpoint "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=939_000)
    parser.add_argument("--labels", type=int, default=4_531)
    parser.add_argument("--picks", type=int, default=10_000)
    parser.add_argument("--shortlist", type=int, default=64)
    parser.add_argument("--gain", default="first_order")
    parser.add_argument("--scores", default="real", choices=["real", "integer"], help="integer: gains tie in masses")
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    for devices in (1, 2, 4, 8):
        print(f"{devices} devices             {digest_of(start(args, devices))}", flush=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"--coordinator=127.0.0.1:{probe.getsockname()[1]}"
    pair = [start(args, 4, coordinator, f"--process={i}") for i in range(2)]
    for i, process in enumerate(pair):
        print(f"2 x 4 devices, process {i} {digest_of(process)}", flush=True)
    print(f"1 device              {killed(args, args.kills, seed=0)}", flush=True)


if __name__ == "__main__":
    main()
