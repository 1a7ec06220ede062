"""The whole command on a pool of Tulu3's size: 3 GB of jsonl in, 50,000 rows out, seconds by stage.

    python -m experiments.bench_end_to_end --work DIR --out runs/end_to_end

Makes the pool (real conversations recombined, tags and scores drawn), unless it exists, and runs ``mig-jax select``
with empty caches (Python's bytecode included) and again into another folder. Prints a table of the two runs, with
compilation as a stage, and the rates of disk, hash and JSON decoder on this machine. Deletes its files; ``--keep`` does
not.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from experiments.synthetic import synthetic_pool

ROW_BYTES = 3_200
SOURCES = 19  # as many as Tulu3 has
WRITTEN_AT_ONCE = 2_000  # rows


def make_pool(folder: Path, rows: int, real: Path, seed: int = 0) -> tuple[Path, Path]:
    """(pool.jsonl, graph.npz): the same bytes for the same arguments.

    Args:
      real: a pool whose conversations are put together, whole, until a row has about ``ROW_BYTES``.
    """
    from mig_jax.pool import load_pool

    rng = np.random.default_rng([seed, rows])
    encoded, graph = synthetic_pool(rows, seed=seed)
    source = load_pool(real)
    dialogs = [dialog for dialog in source.dialogs(np.flatnonzero(source.status == 0)) if dialog]
    parts = [
        b", ".join(msgspec.json.encode({"role": role, "content": text}) for role, text in dialog) for dialog in dialogs
    ]
    tags = [msgspec.json.encode(name) for name in encoded.labels]
    scores = [b"%.3f" % (i / 1000) for i in range(6001)]
    mean = sum(map(len, parts)) / len(parts)
    count = 1 + rng.poisson(max(ROW_BYTES - 250 - mean, 0) / mean, rows)
    ends = np.cumsum(count).tolist()
    part = rng.integers(0, len(parts), ends[-1]).tolist()
    quality, complexity = (
        (1000 * rng.normal(at, 0.8, ends[-1]).clip(1, 6)).astype(np.int64).tolist() for at in (4.0, 2.6)
    )
    where = rng.integers(0, SOURCES, rows).tolist()
    ptr, idx = encoded.label_ptr.tolist(), encoded.label_idx.tolist()
    folder.mkdir(parents=True, exist_ok=True)
    graph.save(folder / "graph.npz")
    with (folder / ".pool.jsonl").open("wb") as file:
        lines, a = [], 0
        for row, b in enumerate(ends):
            lines.append(
                b'{"dialogs": [%b], "source": ["synthetic/%02d"], "_id": "e2e-%08d", "annotation": {"instag":'
                b' {"content": [%b]}, "deita": {"quality_scores": [%b], "complexity_scores": [%b]}}}\n'
                % (
                    b", ".join([parts[i] for i in part[a:b]]),
                    where[row],
                    row,
                    b", ".join([tags[i] for i in idx[ptr[row] : ptr[row + 1]]]),
                    b", ".join([scores[i] for i in quality[a:b]]),
                    b", ".join([scores[i] for i in complexity[a:b]]),
                )
            )
            a = b
            if len(lines) == WRITTEN_AT_ONCE:
                file.write(b"".join(lines))
                lines = []
        file.write(b"".join(lines))
    (folder / ".pool.jsonl").rename(folder / "pool.jsonl")
    return folder / "pool.jsonl", folder / "graph.npz"


def run(command: list[str], env: dict[str, str]) -> dict[str, Any]:
    """Run the command: wall seconds, processor seconds and peak resident memory of all its processes, sampled."""
    before, began = os.times(), time.time()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, _tree(process.pid))))
        time.sleep(0.02)
    ended, after = time.time(), os.times()
    out = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{out}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": ended - began, "cpu": cpu, "peak_bytes": peak, "ended": ended, "output": out}


def _tree(pid: int) -> list[int]:
    """The process and its descendants; Linux."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in _tree(int(child)))]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def ledger(ran: dict[str, Any], out: Path) -> dict[str, float]:
    """Seconds by stage: those of the manifest, those after it was written, and the rest as "not counted"."""
    manifest, report = out / "manifest.json", out / "report.html"
    stages = dict(json.loads(manifest.read_bytes())["timings"])
    stages["report"] = report.stat().st_mtime - manifest.stat().st_mtime
    stages["publish, summary, exit"] = ran["ended"] - report.stat().st_mtime
    stages["not counted"] = ran["wall"] - sum(stages.values())
    return stages


def ceilings(pool: Path, most: int = 1 << 28) -> dict[str, float]:
    """MB/s of one core on the pool's first bytes: reading, sha256, msgspec (syntax only; typed rows)."""
    from mig_jax.pool.decode import RowDecoder
    from mig_jax.pool.fields import resolve_fields
    from mig_jax.pool.layouts import LAYOUTS

    typed, check = RowDecoder(LAYOUTS["mig"], resolve_fields({}, ())).typed, msgspec.json.Decoder(msgspec.Raw).decode
    assert typed is not None
    seconds, size = dict.fromkeys(("read", "sha256", "msgspec, syntax only", "msgspec, typed rows"), 0.0), 0
    digest = hashlib.sha256()
    with pool.open("rb", buffering=0) as file:
        while size < most:
            times = [time.perf_counter()]
            block = file.read(1 << 20)
            times.append(time.perf_counter())
            digest.update(block)
            times.append(time.perf_counter())
            lines = block.split(b"\n")[1:-1]
            for decode in (check, typed):
                start = time.perf_counter()
                for line in lines:
                    decode(line)
                times.append(times[-1] + time.perf_counter() - start)
            if not block:
                break
            size += len(block)
            for name, a, b in zip(seconds, times, times[1:], strict=False):
                seconds[name] += b - a
    return {name: size / 1e6 / max(spent, 1e-9) for name, spent in seconds.items()}


def table(runs: dict[str, dict[str, Any]], size: int) -> str:
    """A table with a column for each run."""
    names = dict.fromkeys(stage for ran in runs.values() for stage in ran["stages"])

    def line(name: str, value: Callable[[dict[str, Any]], str]) -> str:
        return f"| {name} | " + " | ".join(map(value, runs.values())) + " |"

    lines = [f"| seconds | {' | '.join(runs)} |", "|---|" + "---:|" * len(runs)]
    for name in (*(name for name in names if name not in LAST), *LAST):
        lines += [line(name, lambda ran, name=name: f"{ran['stages'].get(name, 0):.2f}")]
    lines += [
        line("**wall**", lambda ran: f"**{ran['wall']:.2f}**"),
        line("processor seconds", lambda ran: f"{ran['cpu']:.1f}"),
        line("`read pool`, MB/s", lambda ran: f"{size / 1e6 / ran['stages']['read pool']:,.0f}"),
        line("peak GB, all processes", lambda ran: f"{ran['peak_bytes'] / 1e9:.2f}"),
    ]
    return "\n".join(lines) + "\n"


LAST = ("publish, summary, exit", "not counted")


def measure(work: Path, rows: int, picks: int, real: Path) -> dict[str, Any]:
    """Make the pool unless it exists, run the command cold and cached; the results."""
    start = time.perf_counter()
    made = work / f"{rows}"
    pool, graph = made / "pool.jsonl", made / "graph.npz"
    if not pool.exists():
        make_pool(made, rows, real)
    made_s = time.perf_counter() - start
    for name in ("cache", "bytecode", "cold", "cached"):
        shutil.rmtree(work / name, ignore_errors=True)
    without = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env = without | {"MIG_JAX_CACHE": str(work / "cache"), "PYTHONPYCACHEPREFIX": str(work / "bytecode")}
    runs = {}
    for name in ("cold", "cached"):
        settings = [f"pool.path={pool}", f"graph.path={graph}", f"n={picks}", f"out={work / name}"]
        ran = run([sys.executable, "-m", "mig_jax.cli.main", "select", *settings], env)
        runs[name] = ran | {"stages": ledger(ran, work / name)}
    same = (work / "cold" / "selection.jsonl").read_bytes() == (work / "cached" / "selection.jsonl").read_bytes()
    size = pool.stat().st_size
    return {"rows": rows, "picks": picks, "bytes": size, "made_s": made_s, "ceilings": ceilings(pool), "same": same} | {
        "runs": runs
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=939_000)
    parser.add_argument("--picks", type=int, default=50_000)
    parser.add_argument("--from", dest="real", type=Path, help="the pool whose conversations are used; the bundled one")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the pool, the caches and the runs")
    parser.add_argument("--keep", action="store_true", help="do not delete them")
    parser.add_argument("--out", type=Path, help="a folder for results.json and table.md")
    args = parser.parse_args(argv)
    from mig_jax.pool.configured import bundled_pool

    found = measure(args.work, args.rows, args.picks, args.real or bundled_pool())
    best = ", ".join(f"{name} {speed:,.0f}" for name, speed in found["ceilings"].items())
    text = (
        f"{args.rows:,} rows, {found['bytes'] / 1e9:.2f} GB; {args.picks:,} picks; {os.cpu_count()} cores;"
        f" the pool was made in {found['made_s']:.0f} s\n\n{table(found['runs'], found['bytes'])}\n"
        f"One core at best, MB/s: {best}. Both runs chose the same bytes: {'yes' if found['same'] else 'NO'}.\n"
    )
    print(text, end="")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "table.md").write_text(text)
        (args.out / "results.json").write_text(json.dumps(found, indent=1))
    if not args.keep:
        for name in (f"{args.rows}", "cache", "bytecode", "cold", "cached"):
            shutil.rmtree(args.work / name, ignore_errors=True)


if __name__ == "__main__":
    main()
