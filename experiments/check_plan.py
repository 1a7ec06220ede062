"""``mig-jax plan`` beside ``mig-jax select``: memory and seconds by stage, predicted and measured.

    python -m experiments.check_plan
    python -m experiments.check_plan --settings 300000/20000 100000/5000/exact --out DIR
    python -m experiments.check_plan --pool POOL --picks 1000

A setting is rows/picks, and the gain; its pool is synthetic. ``plan`` and ``select`` run as a user runs them, each in a
process of its own; ``select`` twice, without and with a cache. Memory must agree within 30 %; seconds depend on the
other work of the machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from experiments.bench_end_to_end import make_pool
from experiments.bench_select import machine
from mig_jax.pool.configured import bundled_pool

FAR = 0.3
DEFAULT = ("30000/1000", "100000/5000", "300000/20000", "100000/5000/exact")
STAGES = ("read pool", "encode", "label graph", "compile", "select", "judge")


class Setting(NamedTuple):
    """What is selected: the keys of the command, and a name for the table."""

    name: str
    arguments: list[str]


def synthetic(text: str, folder: Path) -> Setting:
    """The setting rows/picks or rows/picks/gain, on a pool that is made for it."""
    rows, picks, *gain = text.replace("_", "").split("/")
    where = folder / rows
    if not where.exists():
        make_pool(where, int(rows), bundled_pool())
    keys = [str(where / "pool.jsonl"), f"graph.path={where / 'graph.npz'}", f"n={picks}"]
    return Setting(text, keys + [f"sampler.gain={gain[0]}" for _ in gain])


def command(name: str, arguments: list[str], cache: Path) -> None:
    """Run ``mig-jax NAME`` in a process of its own."""
    program = str(Path(sys.executable).with_name("mig-jax"))
    env = os.environ | {"MIG_JAX_CACHE": str(cache)}
    subprocess.run([program, name, *arguments], env=env, check=True, stdout=subprocess.DEVNULL)


def compared(setting: Setting, folder: Path, constants: Path) -> list[dict[str, Any]]:
    """A line for the memory and for the seconds of each stage."""
    plan_file, cache = folder / "plan.json", folder / f"cache-{abs(hash(setting))}"
    command("plan", [*setting.arguments, f"plan.out={plan_file}"], constants)
    plan = json.loads(plan_file.read_text())
    rows, runs = [], []
    for number in (1, 2):
        out = folder / f"run-{abs(hash(setting))}-{number}"
        command("select", [*setting.arguments, f"out={out}"], cache)
        runs.append(json.loads((out / "manifest.json").read_text()))
    peak = max(run["memory"]["peak_bytes"] for run in runs)
    rows.append(line(setting, "peak GB", plan["total"]["peak"] / 1e9, peak / 1e9))
    for stage in plan["stages"]:
        if stage["name"] in STAGES:
            for number, kind in enumerate(("cold", "cached")):
                measured = float(runs[number]["timings"].get(stage["name"], 0.0))
                rows.append(line(setting, f"{stage['name']} s, {kind}", stage[kind], measured))
    return rows


def line(setting: Setting, what: str, predicted: float, measured: float) -> dict[str, Any]:
    ratio = predicted / measured if measured > 0.05 else float("nan")  # shorter ones are noise
    return {"setting": setting.name, "what": what, "predicted": predicted, "measured": measured, "ratio": ratio}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| rows / picks | what | predicted | measured | ratio |", "|---|---|---:|---:|---:|"]
    lines += [
        f"| {r['setting']} | {r['what']} | {r['predicted']:.2f} | {r['measured']:.2f} | {r['ratio']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=DEFAULT, metavar="ROWS/PICKS[/GAIN]")
    parser.add_argument("--pool", type=Path, help="an annotated pool, instead of synthetic ones")
    parser.add_argument("--picks", type=int, default=1_000, help="of --pool")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results.json and table.md")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.pool:
            settings = [Setting(args.pool.name, [str(args.pool.resolve()), f"n={args.picks}"])]
        else:
            settings = [synthetic(text, folder) for text in args.settings]
        for setting in settings:
            rows += compared(setting, folder, folder / "constants")
    far = [row for row in rows if row["what"] == "peak GB" and not abs(row["ratio"] - 1) <= FAR]
    text = f"{table(rows)}\n\nmemory beyond {FAR:.0%}: {len(far)}; load {os.getloadavg()[0]:.1f}; {machine()}\n"
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "table.md").write_text(text)
        (args.out / "results.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
