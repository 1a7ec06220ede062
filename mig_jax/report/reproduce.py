"""The last section of every page: how to do it again, with what, and how long it took."""

import json
from collections.abc import Mapping
from typing import Any

from mig_jax.report.elements import section, table
from mig_jax.report.text import bytesize, count, escaped, isolated, number, seconds

SHOWN_INPUTS = 20


def reproduce(manifest: Mapping[str, Any]) -> str:
    """The command, the inputs, the time by stage and the whole configuration; what a manifest lacks is left out."""
    inputs = [
        (isolated(s["path"]), count(s["rows"]), escaped(s["layout"]), f"<code>{escaped(str(s['sha256'])[:16])}</code>")
        for s in manifest["pool"]["sources"]
    ]
    times = [(escaped(stage), seconds(value)) for stage, value in manifest["timings"].items()]
    facts = {**manifest["versions"], **manifest["devices"]}
    memory = manifest.get("memory") or {}
    if memory.get("peak_bytes") is not None:
        facts["peak memory"] = bytesize(memory["peak_bytes"])
    parts = [
        section("How to reproduce"),
        f"<pre>{escaped(manifest['command'])}</pre>",
        table(("Input", "Rows", "Layout", "SHA-256"), inputs[:SHOWN_INPUTS], numeric=(1,)),
        '<div class="pair"><div><h3>Time by stage</h3>',
        table(("Stage", "Time"), times, numeric=(1,)),
        "</div><div><h3>Versions and devices</h3>",
        table(("", ""), [(escaped(key), escaped(_plain(value))) for key, value in facts.items()]),
        "</div></div>",
    ]
    for title, content in (
        ("Limits", manifest.get("limits")),
        ("Label graph", manifest.get("graph")),
        ("Engine", manifest.get("rounds")),
    ):
        if content:
            parts.append(f"<h3>{title}</h3>")
            parts.append(table(("", ""), [(escaped(key), escaped(_plain(value))) for key, value in content.items()]))
    settings = json.dumps(manifest["config"], ensure_ascii=False, indent=1)
    parts.append(f"<details><summary>All settings</summary><pre>{escaped(settings)}</pre></details>")
    parts.append(f'<p class="note">Run key <code>{escaped(manifest["run_key"])}</code></p>')
    return "".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return number(value, 4)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
