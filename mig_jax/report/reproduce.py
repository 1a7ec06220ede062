"""The last section of every page: how to repeat the run, with what it was made, and how long it took."""

import json
from collections.abc import Mapping
from typing import Any

from mig_jax.report.text import bytesize


def reproduce(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What templates/reproduce.html.j2 shows."""
    machine = {**manifest["versions"], **manifest["devices"]}
    memory = manifest.get("memory") or {}
    if memory.get("peak_bytes") is not None:
        machine["peak memory"] = bytesize(memory["peak_bytes"])
    details = (("Limits", "limits"), ("Label graph", "graph"), ("Engine", "rounds"))
    return {
        "manifest": manifest,
        "machine": machine,
        "details": [(title, manifest[key]) for title, key in details if manifest.get(key)],
        "settings": json.dumps(manifest["config"], ensure_ascii=False, indent=1),
    }
