"""A finished annotation in a few lines, from its manifest alone; it imports nothing that computes."""

from collections.abc import Mapping
from typing import Any

from mig_jax.core.text import visible
from mig_jax.runs.manifest import REPORT

KIND = "annotate"  # of manifest
POOL, REFUSED = "pool.jsonl", "refused.jsonl"


def summary(manifest: Mapping[str, Any], out: str) -> str:
    """A run in a few lines."""
    lines = []
    for name, facts in manifest["annotators"].items():
        refused = facts["refused"]
        line = f"{name}: {facts['annotated']:,} of {manifest['n']:,} rows"
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
            lines.append(f"  {_rows(facts['cleared'])} came with a value that was not renewed: it is null now")
        lines += [f"  {told(one, passed)}" for one, passed in facts["passes"].items()]
    if manifest["rejected"]:
        lines.append(f"{_rows(manifest['rejected'])} without a JSON object: rejects.jsonl")
    lines.append(f"{out}/{REPORT} shows it; {out}/{POOL} has the rows")
    select = " ".join(filter(None, ("mig-jax select", out, manifest.get("select"))))
    alone = manifest.get("select") == "score.from=none"
    why = " (by tags alone: no row has a score; annotators=[ifd] or [deita] make one)" if alone else ""
    lines.append(f"{select} selects from it{why}")
    return "\n".join(lines)


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def told(name: str, passed: Mapping[str, Any]) -> str:
    """A pass in a line."""
    if not passed["tokens"]:
        return f"{name}: no text to run"
    head = f"{name}: {passed['tokens']:,} tokens"
    if "rows_per_s" not in passed:
        return head if passed["computed"] else f"{head}, computed before"
    part = "" if passed["computed"] == passed["tokens"] else f", {passed['computed']:,} of them now"
    line = f"{head}{part} in {passed['seconds']:,.1f} s: {passed['rows_per_s']:,.3g} rows/s"
    if "flops_per_s" in passed:
        line += (
            f", {passed['flops_per_s'] / 1e9:,.0f} GFLOP/s, {passed['share_of_matmul']:.0%} of a matrix product's rate"
        )
    return line
