"""The last section of every page: how to repeat the run, with what it was made, and how long it took."""

import json
from typing import Any

import msgspec

from mig_jax.report.text import bytesize
from mig_jax.runs.manifest import Manifest


def reproduce(manifest: Manifest) -> dict[str, Any]:
    """What templates/reproduce.html.j2 shows; the details are those that the kind of run has."""
    plain = msgspec.to_builtins(manifest)
    devices = {name: value for name, value in plain["devices"].items() if value is not None}
    machine = {**plain["versions"], **devices}
    machine["peak memory"] = bytesize(plain["memory"]["peak_bytes"])
    details = (("Limits", "limits"), ("Label graph", "graph"), ("Engine", "rounds"))
    return {
        "manifest": plain,
        "machine": machine,
        "details": [(title, plain[key]) for title, key in details if plain.get(key)],
        "settings": json.dumps(plain["config"], ensure_ascii=False, indent=1),
    }
