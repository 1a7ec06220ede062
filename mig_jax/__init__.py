"""Select the rows of an instruction-tuning pool that add the most information, exactly and fast.

from mig_jax import label_graph, load_pool, select

pool = load_pool("pool.jsonl.gz")
graph = label_graph(pool)
picked = select(pool, n=1000, graph=graph)
picked.rows, picked.objective[-1]
picked.report("report.html")
"""

import importlib
from typing import Any

from mig_jax.core.version import VERSION as __version__

_WHERE = {
    "Selection": "mig_jax.commands.select.selection",
    "label_graph": "mig_jax.api",
    "load_pool": "mig_jax.api",
    "select": "mig_jax.api",
    "LabelGraph": "mig_jax.labels",
    "UserError": "mig_jax.core.errors",
}

__all__ = ["LabelGraph", "Selection", "UserError", "__version__", "label_graph", "load_pool", "samplers", "select"]


def __getattr__(name: str) -> Any:
    """Imported when first used: ``mig-jax --help`` should not wait for JAX."""
    if name == "samplers":
        return importlib.import_module("mig_jax.samplers")
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mig_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
