"""A plan as a table, and as JSON."""

from dataclasses import asdict
from typing import Any

from mig_jax.commands.plan.run import Plan


def text(plan: Plan) -> str:
    """The table, the totals, the verdict and the assumptions."""
    s, sizes = plan.settings, plan.sizes
    picks = ", ".join(f"{n:,}" for n in plan.budgets)
    lines = [
        f"{sizes.rows:,} rows ({sizes.bytes / 1e9:.2f} GB), {sizes.labels:,} labels, {sizes.tags:.1f} a row,"
        f" degree {s['degree']:.1f}: {picks} picks, {s['sampler']}, {s['gain']}",
        f"on {plan.machine['cores']} cores, {s['devices']} x {plan.machine['device']}",
        "",
        f"{'stage':<12}{'cold s':>9}{'cached s':>10}{'peak GB':>9}  how",
    ]
    lines += [f"{x.name:<12}{x.cold:>9.2f}{x.cached:>10.2f}{x.peak / 1e9:>9.2f}  {x.how}" for x in plan.stages]
    cold, cached = plan.seconds
    parts = " + ".join(f"{name} {_size(part)}" for name, part in plan.memory.parts.items() if part)
    on_device = f" of {_size(plan.device_limit)}" if plan.device_limit else " (part of the host's memory)"
    lines += [
        f"{'total':<12}{cold:>9.2f}{cached:>10.2f}{plan.peak / 1e9:>9.2f}",
        "",
        f"host:    {plan.verdict}",
        f"         {parts}",
        f"devices: {s['devices']}, each {_size(plan.memory.device)}{on_device}",
        "",
        *(f"- {note}" for note in plan.notes),
        "- seconds: constants of this machine, measured once (plan.measure=true: again), times the sizes",
    ]
    return "\n".join(lines) + "\n"


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything: seconds and bytes."""
    cold, cached = plan.seconds
    sizes = asdict(plan.sizes)
    del sizes["widths"]
    return {
        "sizes": sizes,
        "n": list(plan.budgets),
        "settings": plan.settings,
        "stages": [asdict(stage) for stage in plan.stages],
        "total": {"cold": cold, "cached": cached, "peak": plan.peak},
        "memory": plan.memory.parts | {"each device": plan.memory.device, "queues": plan.memory.queues},
        "limit": {"bytes": plan.limit[0], "of": plan.limit[1]},
        "device_limit": plan.device_limit,
        "fits": plan.fits,
        "verdict": plan.verdict,
        "notes": plan.notes,
        "machine": plan.machine,
        "rates": plan.rates,
    }
