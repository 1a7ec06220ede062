"""manifest.json: everything that a report, a comparison or a repetition needs to know of a run."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mig_jax.core.errors import UserError
from mig_jax.pool.view import PoolView

MANIFEST = "manifest.json"
REPORT = "report.html"
SCHEMA = 1
PACKAGES = ("mig_jax", "jax", "jaxlib", "flax", "numpy", "scipy", "pyarrow", "msgspec", "transformers", "tokenizers")

KEYS = (
    "schema",  # of this file; grows with every change that a reader must know of
    "name",  # of the run: its folder's
    "run_key",  # hex sha256 of what decides the files
    "command",  # the command line, as one can run it again
    "finished",  # UTC, ISO 8601
    "n",  # rows selected; fewer than the largest budget where a system found no more
    "budgets",  # the budgets asked for, ascending
    "gain_meaning",  # what the trace's gain is
    "objective",  # {budget: E(D) of its selection}, E(empty) = 0; None where the pool has no labels
    "random_objective",  # {rows: E(D) of a random pick of as many}
    "certificate",  # {budget: {"bound": no selection exceeds it, "ratio": objective / bound}}
    "pool",  # {"rows", "usable", "sources": [{"path", "sha256", "size_bytes", "rows", "layout", "format"}]}
    "dropped",  # {reason: pool rows that could not be selected}
    "labels",  # {"total": L, "covered": labels that a selected row has}
    "graph",  # facts of the label graph
    "rounds",  # how the engine worked
    "limits",  # what bounded the picks; since 0.2
    "config",  # the resolved configuration
    "versions",
    "devices",
    "timings",  # {stage: seconds}
    "memory",  # {"peak_bytes": the most that this process held at once, "since": "run" or "process"}; since 0.2
    "layout",  # of the selection's rows; None where the pool mixes layouts
    "notes",  # warnings that were given
    "files",  # {name: {"bytes", "sha256"}}, all but manifest.json and report.html
    "sample_file",  # {"path", "bytes", "sha256"} of `sample --out FILE`, else None
)
"""The keys in the order in which they stand in the file. Readers do without those that came later."""


def versions() -> dict[str, str]:
    """Python's version and those of the packages that bear on a result; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def file_facts(path: Path) -> dict[str, Any]:
    """``{"bytes", "sha256"}`` of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def source_facts(pool: PoolView) -> list[dict[str, Any]]:
    """The files of a pool, as they were read."""
    keys = ("path", "sha256", "size_bytes", "rows", "layout", "format")
    return [{key: getattr(source, key) for key in keys} for source in pool.sources]


def ordered(facts: Mapping[str, Any]) -> dict[str, Any]:
    """``facts`` in the order of ``KEYS``.

    Raises:
      ValueError: a key is missing or unknown (a mistake in this package, not a user's).
    """
    if set(facts) != set(KEYS):
        raise ValueError(f"manifest keys: missing {set(KEYS) - set(facts)}, unknown {set(facts) - set(KEYS)}")
    return {key: facts[key] for key in KEYS}


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read a manifest, given its file or the folder of its run. Budgets as keys are strings, as JSON has it.

    Raises:
      UserError: there is none, it is not one of mig_jax, or a newer mig_jax wrote it.
    """
    path = Path(path)
    file = path / MANIFEST if path.is_dir() else path
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} holds no {MANIFEST}; give the out folder of a finished run") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} is not a readable manifest: {error}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("run_key"), str) or "schema" not in manifest:
        raise UserError(f"{file} is not a manifest of mig_jax (it has no run_key and schema)")
    if not isinstance(manifest["schema"], int) or manifest["schema"] > SCHEMA:
        raise UserError(f"{file} has schema {manifest['schema']}; this mig_jax reads up to {SCHEMA}: update it")
    return manifest
