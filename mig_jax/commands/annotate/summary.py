"""The summary of a finished annotation, from its manifest alone; no import of JAX."""

from collections.abc import Mapping
from typing import Any

from mig_jax.core.text import visible
from mig_jax.runs.manifest import REPORT, AnnotateManifest

POOL, REFUSED = "pool.jsonl", "refused.jsonl"


def summary(manifest: AnnotateManifest, out: str) -> str:
    """A run in a few lines."""
    lines = []
    for name, facts in manifest.annotators.items():
        refused = facts["refused"]
        line = f"{name}: {facts['annotated']:,} of {manifest.n:,} rows"
        if refused:
            line += "; refused: " + ", ".join(f"{count:,} {visible(reason)}" for reason, count in refused.items())
        lines.append(line)
        if "tags_per_row" in facts:
            top = ", ".join(f"{visible(label)} {n:,}" for label, n in list(facts["most_frequent"].items())[:5])
            lines.append(f"  {facts['tags_per_row']:.1f} tags a row; most often {top or 'none'}")
            without = facts.get("rows_without_a_label", 0)
            lines += [f"  {without:,} of these rows have no label near enough"] if without else []
        if "answers" in facts:
            lines.append("  answers: " + ", ".join(f"{count:,} {how}" for how, count in facts["answers"].items()))
        if facts.get("rows_that_it_drops"):
            lines.append(f"  {facts['rows_that_it_drops']:,} too high: {facts['version']}'s own selection drops them")
        if facts.get("cleared"):
            lines.append(f"  {_rows(facts['cleared'])} had a value that was not replaced: it is null now")
        lines += [f"  {speed_text(job, speed)}" for job, speed in facts["jobs"].items()]
    if manifest.rejected:
        lines.append(f"{_rows(manifest.rejected)} without a JSON object: rejects.jsonl")
    lines.append(f"{out}/{REPORT} shows it; {out}/{POOL} has the rows")
    select = " ".join(filter(None, ("mig-jax select", out, manifest.select)))
    alone = manifest.select == "score.from=none"
    why = " (by tags alone: no row has a score; annotators=[ifd] or [deita] adds one)" if alone else ""
    lines.append(f"{select} selects from it{why}")
    return "\n".join(lines)


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def speed_text(name: str, speed: Mapping[str, Any]) -> str:
    """A job in a line."""
    if not speed["tokens"]:
        return f"{name}: no text to run"
    head = f"{name}: {speed['tokens']:,} tokens"
    if "rows_per_s" not in speed:
        return head if speed["computed"] else f"{head}, computed by previous attempts"
    part = "" if speed["computed"] == speed["tokens"] else f", {speed['computed']:,} of them in this attempt"
    line = f"{head}{part} in {speed['seconds']:,.1f} s: {speed['rows_per_s']:,.3g} rows/s"
    if "flops_per_s" in speed:
        rate = f"{speed['flops_per_s'] / 1e9:,.0f} GFLOP/s"
        line += f", {rate}, {speed['share_of_matmul']:.0%} of the speed of a matrix product"
    return line
