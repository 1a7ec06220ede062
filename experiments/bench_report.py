"""The measurements of bench_select.py as a table and as plots."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

Row = dict[str, Any]
COLUMNS = (
    "rows", "labels", "degree", "gain", "n", "what", "threads", "median s", "min, max s", "IQR s", "compile s",
    "layout s", "total s", "picks/s", "us/pick", "x heap", "total x heap", "prefix", "same places", "same set",
    "E(D) ratio", "parts", "max margin", "peak GB", "base GB", "counts",
)  # fmt: skip
LEGEND = """what: a contestant and its settings; n: its picks (scan and dense are slow: fewer, compared by the pick).
median, min, max, IQR: seconds of the picking alone, repeats of all contestants interleaved.
compile: first run minus median, or measured apart; for the engine only what an earlier setting had not compiled.
layout: make_problem, or the heap's grouping and first bounds. total: layout + median.
x heap: time a pick over the heap's, without and with the layout.
prefix .. max margin: against the float64 heap. parts: how often the orders part from a common state; max margin: the
largest that the oracle's pick had, relative, over its runner-up at such a step.
peak, base: memory of a process with this contestant alone, at its highest, compilation included, and before it begins
(--memory)."""


def table(rows: list[Row]) -> str:
    """Markdown; empty columns are left out."""
    cells = [_cells(row) for row in rows]
    shown = [i for i in range(len(COLUMNS)) if any(line[i] != "-" for line in cells)]
    lines = [[COLUMNS[i] for i in shown], *([line[i] for i in shown] for line in cells)]
    width = [max(len(line[i]) for line in lines) for i in range(len(shown))]
    lines.insert(1, ["-" * w for w in width])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, width, strict=True)) + " |" for line in lines)


def _cells(row: Row) -> list[str]:
    same, memory = row.get("agreement") or {}, row.get("memory") or {}
    counts = " ".join(f"{k}={v}" for k, v in row["counts"].items())
    n = same.get("picks")
    return [
        f"{row['rows']:,}", f"{row['labels']:,}", f"{row['degree']:g}", row["gain"], f"{row['n']:,}", row["what"],
        row["threads"], _s(row["median_s"]), f"{_s(row['min_s'])}, {_s(row['max_s'])}", _s(row["iqr_s"]),
        _s(row["compile_s"]), _s(row["layout_s"]), _s(row["total_s"]), f"{row['picks_per_s']:,.0f}",
        f"{row['us_per_pick']:,.2f}", _x(row.get("x_heap")), _x(row.get("total_x_heap")),
        f"{same['prefix']:,}" if same else "-", f"{same['equal_positions']:,} of {n:,}" if same else "-",
        ("yes" if same["same_set"] else "no") if same else "-", f"{same['objective_ratio']:.9f}" if same else "-",
        f"{same['differences']}" if same else "-",
        f"{same['max_margin']:.1e}" if same.get("max_margin") is not None else "-",
        f"{memory['peak_gb']:.2f}" if memory else "-", f"{memory['base_gb']:.2f}" if memory else "-", counts or "-",
    ]  # fmt: skip


def _s(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _x(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def plots(rows: list[Row], folder: Path) -> list[Path]:
    """Cost against each of N, n, the graph's degree and L that varies; one plot each, a line for each contestant."""
    made = []
    for key, name in (
        ("rows", "rows N"),
        ("n", "picks n"),
        ("degree", "mean degree of the graph"),
        ("labels", "labels L"),
    ):
        fast = [row for row in rows if not row["slow"]] if key == "n" else rows
        if len({row[key] for row in fast}) < 2:
            continue
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        for axes, (field, label) in zip(
            figure.subplots(1, 2),
            (("us_per_pick", "microseconds a pick"), ("total_s", "seconds, with layout")),
            strict=True,
        ):
            for line in _lines(fast, key):
                axes.plot(
                    *zip(*[(r[key], r[field]) for r in line["rows"]], strict=True), marker="o", label=line["label"]
                )
            axes.set(xlabel=name, ylabel=label, yscale="log")
            if key != "degree":
                axes.set_xscale("log")
            axes.grid(alpha=0.3, which="both")
        figure.axes[0].legend(fontsize="x-small")
        for kind in ("svg", "png"):
            made.append(folder / f"cost_{key}.{kind}")
            figure.savefig(made[-1], dpi=120)
    return made


def _lines(rows: list[Row], key: str) -> list[dict[str, Any]]:
    """Lines of rows that differ in ``key`` alone; the label names the other settings that vary."""
    others = [k for k in ("gain", "rows", "n", "labels", "degree") if k != key]
    fast = [row for row in rows if not row["slow"]]
    varied = [k for k in others if len({row[k] for row in fast}) > 1]
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["what"], *(row[k] for k in others)), []).append(row)
    return [
        {
            "label": " ".join([group[0]["what"], *(f"{k}={group[0][k]}" for k in varied)]),
            "rows": sorted(group, key=lambda row: row[key]),
        }
        for group in groups.values()
    ]
