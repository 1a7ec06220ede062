"""A plan for a person, and for a program."""

from dataclasses import asdict
from typing import Any

from mig_jax.commands.plan.run import Plan


def text(plan: Plan) -> str:
    """The table, the totals, the verdict and what it all rests on."""
    s, sizes = plan.settings, plan.sizes
    picks = ", ".join(f"{n:,}" for n in plan.budgets)
    what = f"{s['sampler']}, {s['gain']}" if s["sampler"] == "mig" else s["sampler"]
    lines = [
        f"{sizes.rows:,} rows ({sizes.bytes / 1e9:.2f} GB), {sizes.labels:,} labels, {sizes.tags:.1f} a row,"
        f" degree {s['degree']:.1f}: {picks} picks, {what}",
        f"on {plan.machine['cores']} cores, {s['devices']} x {plan.machine['device']}",
        "",
        f"{'stage':<12}{'cold s':>9}{'cached s':>10}{'peak GB':>9}  how",
    ]
    lines += [f"{x.name:<12}{x.cold:>9.2f}{x.cached:>10.2f}{x.peak / 1e9:>9.2f}  {x.how}" for x in plan.stages]
    lines += [
        f"{'total':<12}{plan.total('cold'):>9.2f}{plan.total('cached'):>10.2f}{plan.peak / 1e9:>9.2f}",
        "",
        f"host:    {plan.verdict[1]}",
        "         " + " + ".join(f"{name} {_size(b)}" for name, b in plan.memory.items() if name not in NOT_HOST and b),
    ]
    if plan.memory["each device"]:
        shards = plan.settings["devices"]
        lines.append(
            f"devices: {shards}, each {-(-round(plan.memory['queues']) // shards):,} queues,"
            f" {_size(plan.memory['each device'])}"
            + (f" of {_size(plan.device_limit)}" if plan.device_limit else " (of the host's memory)")
        )
    lines += ["", *(f"- {note}" for note in plan.notes)]
    if plan.measured:
        lines.append(f"- measured now: {', '.join(plan.measured)}; kept in the cache (plan.measure=true repeats)")
    else:
        lines.append("- measured before, taken from the cache (plan.measure=true repeats)")
    return "\n".join(lines) + "\n"


NOT_HOST = ("each device", "queues")


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything, plain: seconds and bytes."""
    return {
        "sizes": asdict(plan.sizes),
        "n": list(plan.budgets),
        "settings": plan.settings,
        "stages": [asdict(stage) for stage in plan.stages],
        "total": {"cold": plan.total("cold"), "cached": plan.total("cached"), "peak": plan.peak},
        "counts": plan.counts,
        "memory": plan.memory,
        "limit": {"bytes": plan.limit[0], "of": plan.limit[1]},
        "device_limit": plan.device_limit,
        "fits": plan.verdict[0],
        "verdict": plan.verdict[1],
        "notes": plan.notes,
        "machine": plan.machine,
        "factors": plan.factors,
    }
