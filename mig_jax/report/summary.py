"""The summary of a finished selection for the terminal."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mig_jax.core.text import visible
from mig_jax.report.run_view import has_labels, proven_share, random_objective
from mig_jax.report.text import NO_LABELS, count, floor_percent, number, seconds, share
from mig_jax.runs.manifest import SelectManifest

BAR = 16
SHOWN_SOURCES = 8
EIGHTHS = " ▏▎▍▌▋▊▉█"


def summary(manifest: SelectManifest, stats: dict[str, Any], out: str | Path) -> RenderableType:
    """The summary as a rich renderable; a console that is no terminal prints it without colours.

    Args:
      manifest: manifest.json.
      stats: pool_stats.json.
      out: the folder where the files are.
    """
    parts: list[RenderableType] = [_headline(manifest), _facts(manifest)]
    if len(stats["sources"]["top"]) > 1:
        parts += ["", _sources(stats)]
    left_out = _dropped(manifest)
    if left_out:
        parts += ["", left_out]
    for note in manifest.notes:
        parts.append(Text(f"note: {visible(note)}", style="yellow"))
    parts += ["", _files(manifest, Path(out))]
    return Group(*parts)


def summary_text(manifest: SelectManifest, stats: dict[str, Any], out: str | Path, width: int = 100) -> str:
    """The summary as plain text of at most ``width`` columns."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, _environ={})
    with console.capture() as captured:
        console.print(summary(manifest, stats, out))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _headline(manifest: SelectManifest) -> Text:
    pool, n = manifest.pool, manifest.n
    text = Text()
    text.append(f"Picked {count(n)} of {count(pool.usable)} rows", style="bold")
    text.append(f" ({share(n, pool.usable)})")
    budget = max(manifest.budgets, default=n)
    if budget > n:
        text.append(f", {count(budget)} were requested")
    if pool.usable < pool.rows:
        text.append(f"; the pool has {count(pool.rows)}")
    return text


def _facts(manifest: SelectManifest) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    if has_labels(manifest):
        for budget in manifest.budgets:
            name = "E(D)" if len(manifest.budgets) == 1 else f"E(D) at {count(budget)}"
            table.add_row(name, Text(_objective(manifest, budget)))
        covered, total = manifest.labels.covered, manifest.labels.total
        table.add_row("labels covered", Text(f"{count(covered)} of {count(total)} ({share(covered, total)})"))
    else:
        table.add_row("E(D)", Text(NO_LABELS))
    timings = manifest.timings
    stages = ", ".join(f"{visible(stage)} {seconds(value)}" for stage, value in timings.items())
    table.add_row("time", Text(f"{seconds(sum(timings.values()))} ({stages})"))
    return table


def _objective(manifest: SelectManifest, budget: int) -> str:
    reached = manifest.objective.get(budget)
    parts = [number(reached, 4)]
    random = random_objective(manifest, budget)
    if random and reached is not None:
        parts.append(f"{reached / random:.2f} x a random pick of as many ({number(random, 4)})")
    ratio = proven_share(manifest, budget)
    if ratio is not None:
        parts.append(f"at least {floor_percent(ratio)} % of the optimum")
    return ", ".join(parts)


def _sources(stats: dict[str, Any]) -> Table:
    top = stats["sources"]["top"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("source", overflow="ellipsis", no_wrap=True, max_width=36)
    for name in ("pool", "", "selected", ""):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    shares = [(s["pool"] / max(stats["usable"], 1), s["selected"] / max(stats["selected"], 1)) for s in top]
    widest = max(selected for _, selected in shares) or 1
    for entry, (_, selected) in list(zip(top, shares, strict=True))[:SHOWN_SOURCES]:
        table.add_row(
            Text("(none)" if entry["name"] is None else visible(entry["name"])),
            count(entry["pool"]),
            share(entry["pool"], stats["usable"]),
            count(entry["selected"]),
            share(entry["selected"], stats["selected"]),
            Text(bar(selected / widest), style="blue"),
        )
    left = stats["sources"]["total"] - SHOWN_SOURCES
    if left > 0:
        table.add_row(Text(f"and {count(left)} more", style="dim"), "", "", "", "", "")
    return table


def bar(part: float) -> str:
    """A bar of ``part`` (0 to 1) of ``BAR`` columns, in eighths of one; something never shows as nothing."""
    eighths = round(8 * BAR * min(max(part, 0.0), 1.0)) or (1 if part > 0 else 0)
    return EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _dropped(manifest: SelectManifest) -> Text | None:
    reasons = sorted(((n, reason) for reason, n in manifest.dropped.items() if n), reverse=True)
    if not reasons:
        return None
    listed = ", ".join(f"{count(n)} {visible(reason)}" for n, reason in reasons)
    return Text(f"left out: {listed}")


def _files(manifest: SelectManifest, out: Path) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    sample = manifest.sample_file
    selections = [name for name in manifest.files if name.startswith("selection")]
    # Budgets ascend, names do not ("selection_1000" before "selection_50").
    selections.sort(key=lambda name: (len(name), name))
    rows = [visible(sample.path)] if sample else [visible(out / name) for name in selections]
    table.add_row("rows", Text("\n".join(rows)))
    table.add_row("report", Text(visible(out / "report.html")))
    return table
