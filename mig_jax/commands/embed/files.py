"""The files of ``mig-jax embed``: embeddings.npy, labels.json of labels, manifest.json."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from mig_jax.commands.embed.compute import Made, without_tokens
from mig_jax.commands.embed.texts import Texts
from mig_jax.core.json_files import write_json
from mig_jax.runs.manifest import MANIFEST, SCHEMA, file_facts, versions

LABELS = "labels.json"


def write_manifest(
    folder: Path,
    run_key: str,
    command: str,
    config: Mapping[str, Any],
    texts: Texts,
    made: Made,
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """Write labels.json where there are labels, and the manifest, which comes last; the manifest."""
    embedder, tokens = made.embedder, made.tokens
    if texts.names is not None:
        write_json(folder / LABELS, texts.names)
    mesh = embedder.loaded.mesh
    devices = jax.local_devices() if mesh is None else mesh.devices.reshape(-1).tolist()
    seconds = timings.get("embed", 0.0)
    manifest = {
        "schema": SCHEMA,
        "kind": "embed",
        "run_key": run_key,
        "command": command,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "of": texts.of,
        "n": texts.count,
        "dim": embedder.dim,
        "dtype": "float32",
        "inputs": texts.decides,
        "without_text": int(texts.without.sum()),
        "without_tokens": without_tokens(texts, tokens),
        "embedder": embedder.fingerprint,
        "pooling": embedder.spec.pooling,
        "max_length": embedder.max_length,
        "append_eos": embedder.spec.append_eos,
        "tokens": int(tokens.length[~texts.without].sum()),
        "cut": tokens.cut,
        "batches": len(made.running.job.plan),
        "batch_tokens": embedder.batch_tokens,
        "computed": made.computed,
        "tokens_per_s": made.computed / seconds if seconds and made.computed else None,
        "config": config,
        "versions": versions(),
        "devices": {
            "mesh": None if mesh is None else dict(mesh.shape),
            "count": len(devices),
            "kind": devices[0].device_kind,
            "platform": devices[0].platform,
            "processes": jax.process_count(),
        },
        "timings": dict(timings),
        "notes": list(made.notes),
        "files": {path.name: file_facts(path) for path in sorted(folder.iterdir())},
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def summary(manifest: Mapping[str, Any], out: str) -> str:
    """A run in one line."""
    speed = manifest["tokens_per_s"]
    rate = f" in {manifest['computed'] / speed:,.1f} s ({speed:,.0f} tokens/s)" if speed else ""
    resumed = "" if manifest["computed"] == manifest["tokens"] else f", {manifest['computed']:,} of them now,"
    what = manifest["of"].removesuffix("s" if manifest["n"] == 1 else "")
    return (
        f"{manifest['n']:,} {what} -> {manifest['dim']:,} numbers each; "
        f"{manifest['tokens']:,} tokens{resumed}{rate}; {out}"
    )
