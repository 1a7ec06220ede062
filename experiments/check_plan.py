"""What ``mig-jax plan`` says of the engine, beside what the engine takes: predicted, measured, ratio.

    python -m experiments.check_plan
    python -m experiments.check_plan --settings 939000/50000 200000/10000/exact --rounds 3 --out DIR

A setting is rows/picks, and the gain. In each round the plan's constants are measured and then each setting is run, in
turn (the fastest of three), so that both meet the machine as it is: a shared one is not the same from minute to minute.
The medians over the rounds are compared; a ratio beyond 30 % is flagged. Counts and memory do not
depend on the load.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.bench_select import engine as contestant
from experiments.bench_select import machine, memory, peak_gb
from experiments.synthetic import synthetic_pool
from mig_jax.commands.plan.engine import JUDGED, Shape, measure_engine, measure_judge, measured_rows, rehearse
from mig_jax.commands.plan.memory import resident
from mig_jax.commands.plan.predict import PER_CANDIDATE, PER_QUEUE, engine_seconds, queues_of
from mig_jax.commands.select.solve import solve
from mig_jax.engine import greedy, make_problem, pool_mesh
from mig_jax.engine.greedy import SHORTLIST
from mig_jax.objective import make_phi
from mig_jax.samplers import Order, Sampler, SamplingTask
from mig_jax.samplers.configured import sampler_options

LABELS, DEGREE, TAGS = 4_531, 4.0, 4.0
FAR = 0.3
RUNS = 3
DEFAULT = ("100000/5000", "300000/20000", "939000/50000", "200000/10000/exact")
Numbers = dict[str, float]


class Setting(NamedTuple):
    rows: int
    picks: int
    gain: str

    @property
    def shape(self) -> Shape:
        return Shape(self.rows, LABELS, TAGS, DEGREE, self.gain, SHORTLIST)

    def __str__(self) -> str:
        return f"{self.rows:,} / {self.picks:,} {self.gain}"


def setting(text: str) -> Setting:
    """rows/picks or rows/picks/gain."""
    rows, picks, *gain = text.replace(",", "").replace("_", "").split("/")
    return Setting(int(rows), int(picks), gain[0].replace("firstorder", "first_order") if gain else "first_order")


def predicted(case: Setting, engine: dict[str, Any], judge: dict[str, Any], counts: dict[str, Any]) -> Numbers:
    """By the plan."""
    queues = queues_of(engine, case.rows)
    passes_s, heap_s = engine_seconds(engine, counts, queues, case.picks, SHORTLIST)
    seconds = judge["seconds"]
    return {
        "full passes": counts["passes"],
        "looks a pick": counts["looks"] / case.picks,
        "queues": queues,
        "layout s": engine["layout"] * case.rows,
        "compile s": engine["compile"],
        "programs": engine["compile_bytes"],
        "passes + heap s": passes_s + heap_s,
        "judge s": seconds["fixed"] + seconds["row"] * case.rows + seconds["pick"] * case.picks,
    }


class Real:
    """A setting's pool, run again and again."""

    def __init__(self, case: Setting):
        self.case = case
        self.encoded, graph = synthetic_pool(case.rows, LABELS, tags=TAGS, degree=DEGREE)
        self.p = graph.propagation()
        self.compile_s = 0.0

    def run(self) -> Numbers:
        """Measured once."""
        case, mesh, phi = self.case, pool_mesh(), make_phi()
        times = [time.perf_counter()]
        problem = make_problem(self.encoded, self.p, phi, case.gain, mesh.size)
        times.append(time.perf_counter())
        found = greedy(problem, case.picks, mesh)
        times.append(time.perf_counter())
        if not self.compile_s:  # the first run compiled
            first = times[-1] - times[-2]
            times[1] = time.perf_counter()
            found = greedy(problem, case.picks, mesh)
            times[2] = time.perf_counter()
            self.compile_s = max(first - (times[2] - times[1]), 1e-9)
            start = time.perf_counter()
            make_problem(self.encoded, self.p, phi, case.gain, mesh.size)
            times[0] = times[1] - (time.perf_counter() - start)
        task = SamplingTask(self.encoded, self.p, phi, sampler_options("mig", {"gain": case.gain}), mesh=mesh)
        order = Order(found.points, found.gains.astype(np.float64), "", {})
        took: Numbers = {}
        known = Sampler(lambda task, n: order, by_labels=True)
        solve(known, task, (case.picks,), 50, lambda name: _Timed(took, name))
        return {
            "full passes": found.counts["full_passes"],
            "looks a pick": found.counts["looks"] / case.picks,
            "queues": problem.groups.many,
            "layout s": times[1] - times[0],
            "compile s": self.compile_s,
            "passes + heap s": times[2] - times[1],
            "judge s": took["judge"],
        }

    def peak(self) -> tuple[float, float]:
        """(bytes before the engine, bytes at most) of a process of its own that runs it once."""
        arrays: dict[str, Any] = {
            "ptr": self.encoded.label_ptr,
            "idx": self.encoded.label_idx,
            "score": self.encoded.score,
        }
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder) / "pool.npz", **arrays, p_ptr=self.p.ptr, p_idx=self.p.idx, p_val=self.p.val)
            one = contestant(self.encoded, self.p, self.case.gain, self.case.picks, "default", "auto", [])
            used = memory(one, self.case.gain, Path(folder))
        return (1e9 * used["base_gb"], 1e9 * used["peak_gb"]) if used else (float("nan"), float("nan"))


class _Timed:
    """A stage's seconds."""

    def __init__(self, took: Numbers, name: str):
        self.took, self.name = took, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.took[self.name] = time.perf_counter() - self.start


def check(cases: list[Setting], rounds: int) -> list[dict[str, Any]]:
    """A line for each number of each setting."""
    mesh, phi = pool_mesh(), make_phi()
    real = {case: Real(case) for case in cases}
    counts = {case: rehearse(case.shape, case.picks, phi, mesh) for case in cases}
    told: dict[Setting, list[Numbers]] = {case: [] for case in cases}
    met: dict[Setting, list[Numbers]] = {case: [] for case in cases}
    engine: dict[str, Any] = {}
    for turn in range(rounds):
        engines: dict[Shape, dict[str, Any]] = {}
        judges: dict[Shape, dict[str, Any]] = {}
        for case in cases:
            same = case.shape._replace(rows=measured_rows(case.shape))
            judged = case.shape._replace(rows=min(case.rows, JUDGED), c1=0)
            if same not in engines:
                engines[same] = measure_engine(same, phi, mesh, "auto")
            if judged not in judges:
                judges[judged] = measure_judge(judged, phi, mesh, 50)
            engine = engines[same]
            told[case].append(predicted(case, engine, judges[judged], counts[case]))
            told[case][-1]["held"] = max(
                engine["layout_bytes"] * case.rows,
                (engine["host_bytes"] + 8) * case.rows
                + (engine["device_bytes"] + PER_QUEUE) * told[case][-1]["queues"]
                + PER_CANDIDATE * SHORTLIST,
            )
            runs = [real[case].run() for _ in range(RUNS)]  # the fastest, as the plan's constants are
            met[case].append({name: min(run[name] for run in runs) for name in runs[0]})
        print(f"round {turn + 1} of {rounds}: load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    rows = []
    for case in cases:
        for name in met[case][0]:
            # Only the first round compiles.
            said, was = ([r[name] for r in runs[case]][: 1 if name == "compile s" else rounds] for runs in (told, met))
            rows.append(_row(case, name, said, was))
        before, most = real[case].peak()
        held = told[case][0]["held"] + max(r["programs"] for runs in told.values() for r in runs)
        rows.append(_row(case, "peak GB", [(before + held) / 1e9], [most / 1e9]))
    return rows


def _row(case: Setting, name: str, said: list[float], was: list[float]) -> dict[str, Any]:
    predicted, measured = float(np.median(said)), float(np.median(was))
    ratio = predicted / measured if measured else float("nan")
    row = {"setting": str(case), "what": name, "predicted": predicted, "measured": measured, "ratio": ratio}
    return row | {"least": min(was), "least_ratio": min(said) / min(was), "far": not 1 - FAR <= ratio <= 1 + FAR}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| rows / picks | what | predicted | measured | ratio | least measured | ratio of the least | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {r['setting']} | {r['what']} | {_number(r['predicted'])} | {_number(r['measured'])} | {r['ratio']:.2f} |"
        f" {_number(r['least'])} | {r['least_ratio']:.2f} | {'beyond 30 %' if r['far'] else ''} |"
        for r in rows
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=DEFAULT, metavar="ROWS/PICKS[/GAIN]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, metavar="DIR", help="results.json and table.md")
    args = parser.parse_args()
    print(f"machine: {machine()}; {resident() / 1e9:.2f} GB before anything", flush=True)
    rows = check([setting(text) for text in args.settings], args.rounds)
    far = sum(row["far"] for row in rows)
    text = f"{table(rows)}\n\n{far} of {len(rows)} numbers beyond {FAR:.0%}; load {os.getloadavg()[0]:.1f}\n"
    print(f"\n{text}peak memory of this process: {peak_gb():.2f} GB")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "table.md").write_text(text)
        (args.out / "results.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
