"""From sizes and measured numbers to a line for each stage."""

import math
from dataclasses import dataclass
from typing import Any

from mig_jax.commands.plan.graph import tiles
from mig_jax.commands.plan.pool import Sizes

PER_QUEUE = 20  # bytes on the device besides the buckets: score, row and bound of the head, its gain twice in a pass
PER_CANDIDATE = 64  # bytes of a shortlist and of the heap, on the host
PER_PICK = 200  # bytes: E(D), gains, shares and the lines of the trace
EDGE_BYTES = 24  # of P, by rows and by columns
WHOLE_GROWTH = 2  # a growing column of the pool is copied once at the end


@dataclass(frozen=True)
class Stage:
    """Seconds with nothing cached and with everything cached, peak bytes of the host, and why."""

    name: str
    cold: float
    cached: float
    peak: int
    how: str


def engine_seconds(engine: dict[str, Any], counts: dict[str, float], queues: float, picks: int, c1: int):
    """(full passes, heap) with what is done once counted to the passes."""
    f = engine["factors"]
    each = f["pass"] + f["pass_queue"] * queues + f["pass_candidate"] * min(c1, queues)
    passes = f["fixed"] + f["queue"] * queues + counts["passes"] * each
    return passes, counts["looks"] * f["look"] + picks * f["pick"]


def queues_of(engine: dict[str, Any], rows: int) -> float:
    """Rows with equal labels share a queue; the share of queues is a line in log rows."""
    (a, x), (b, y) = engine["queues"][0], engine["queues"][-1]
    slope = (y - x) / (b - a) if b > a else 0.0
    return rows * min(1.0, max(0.02, y + slope * (math.log(max(rows, 1)) - b)))


def stages(
    sizes: Sizes,
    budgets: tuple[int, ...],
    c1: int,
    sampler: str,
    pool: dict[str, Any],
    engine: dict[str, Any],
    judge: dict[str, Any],
    counts: dict[str, float],
    graph: dict[str, Any],
    base: int,
    start: float,
    degree: float,
    devices: int,
) -> tuple[list[Stage], dict[str, float]]:
    """The stages in order, and the numbers of memory that a person may want to see."""
    points, picks = round(sizes.rows * sizes.usable), budgets[-1]
    by_labels = sampler == "mig"
    queues = queues_of(engine, points)
    table, encoded = pool["table_bytes"] * sizes.rows, pool["encoded_bytes"] * sizes.rows
    read_s = pool["read"][0] + pool["read"][1] * sizes.bytes
    kept_s = pool["kept"][0] + pool["kept"][1] * sizes.bytes
    labels = EDGE_BYTES * sizes.labels * (degree + 1) + 200 * sizes.labels
    host, device = engine["host_bytes"] * points, (engine["device_bytes"] + PER_QUEUE) * queues
    on_host = device if graph["platform"] == "cpu" else 0
    live = base + table + encoded + labels
    programs = engine["compile_bytes"] if by_labels else 0
    passes_s, heap_s = engine_seconds(engine, counts, queues, picks, c1) if by_labels else (0.0, 0.0)
    laying = engine["layout"] * points if by_labels else 0.0
    judging = judge["seconds"]
    judge_s = judging["fixed"] + judging["row"] * points * len(budgets) + judging["pick"] * picks
    write_s = pool["write"][0] + pool["write"][1] * picks
    compiling = engine["compile"] if by_labels else 0.0
    mb = sizes.bytes / 1e6
    engine_peak = live + programs + (host + on_host + PER_CANDIDATE * c1 + 8 * points if by_labels else 0)
    graph_peak = live + graph["bytes"]
    found = [
        Stage("start", start, start, base, "imports, configuration, devices: this command's own"),
        Stage(
            "parse",
            read_s,
            kept_s,
            round(base + table * WHOLE_GROWTH),
            f"{mb:,.0f} MB at {1e-6 / pool['read'][1]:,.0f} MB/s"
            + (f", {pool['workers']} processes" if pool["workers"] else "")
            + f"; cached: {1e-6 / pool['kept'][1]:,.0f} MB/s",
        ),
        Stage(
            "encode",
            pool["encode"] * sizes.rows,
            pool["encode"] * sizes.rows,
            round(base + table + pool["encode_bytes"] * sizes.rows),
            f"{1e6 * pool['encode']:.2f} us a row",
        ),
        Stage("graph", graph["cold"], graph["cached"], round(graph_peak), graph["how"]),
        Stage(
            "layout",
            laying,
            laying,
            round(live + engine["layout_bytes"] * points if by_labels else live),
            f"{1e6 * engine['layout']:.2f} us a row" if by_labels else f"none for sampler={sampler}",
        ),
        Stage("compile", compiling, 0.0, round(engine_peak), "the engine's programs; cached: none"),
        Stage(
            "full passes",
            passes_s,
            passes_s,
            round(engine_peak),
            f"{counts['passes']:.0f} over {queues:,.0f} queues on {devices} device{'s' if devices > 1 else ''}"
            if by_labels
            else f"none for sampler={sampler}",
        ),
        Stage(
            "heap",
            heap_s,
            heap_s,
            round(engine_peak),
            f"{counts['looks'] / picks:.1f} looks a pick, {1e6 * heap_s / picks:.0f} us a pick"
            if by_labels
            else f"none for sampler={sampler}",
        ),
        Stage(
            "judge",
            judge_s,
            judge_s,
            round(live + programs + judge["bytes"][0] + judge["bytes"][1] * points + PER_PICK * picks),
            f"{1e6 * judging['row']:.2f} us a row and budget, {1e6 * judging['pick']:.2f} us a pick",
        ),
        Stage(
            "write",
            write_s,
            write_s,
            round(live + programs + PER_PICK * picks),
            f"{1e6 * pool['write'][1]:.0f} us a pick",
        ),
    ]
    memory = {
        "base": base,
        "pool table": table,
        "encoded": encoded,
        "labels and graph": labels,
        "compiled programs": programs,
        "queues and buckets, host": host if by_labels else 0.0,
        "each device": device / devices if by_labels else 0.0,
        "queues": queues,
    }
    return found, memory


def graph_facts(
    sizes: Sizes, given: bool, cached: bool, missing: str, embed: dict[str, Any] | None, cosines: dict[str, Any] | None
) -> dict[str, Any]:
    """Seconds and bytes of the label graph."""
    if given:
        return {"cold": 0.0, "cached": 0.0, "bytes": 0, "how": "graph.path"}
    if cosines is None:
        return {"cold": 0.0, "cached": 0.0, "bytes": 0, "how": f"not counted: {missing}"}
    pairs_s = cosines["fixed"] + cosines["tile"] * tiles(sizes.labels)
    bytes_ = 4 * 2048 * 2048 * 4 + 8 * sizes.labels * 384
    if cached:
        return {"cold": 0.0, "cached": 0.0, "bytes": bytes_, "how": "these labels are in the cache"}
    if embed is None:
        return {"cold": pairs_s, "cached": 0.0, "bytes": bytes_, "how": f"cosines alone, no embedder: {missing}"}
    words = sizes.labels * embed["label"]
    how = (
        f"embedder {embed['load'] + embed['compile']:.1f} s, {sizes.labels:,} labels at"
        f" {embed['tokens_per_s']:,.0f} tokens/s {words:.1f} s, cosines {pairs_s:.2f} s"
    )
    return {
        "cold": embed["load"] + embed["compile"] + words + pairs_s,
        "cached": 0.0,
        "bytes": bytes_ + (1 << 28),
        "how": how,
    }
