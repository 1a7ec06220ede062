"""From ``pool.*`` to the pool."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

from mig_jax.config.struct import key_of
from mig_jax.core.cache import one_at_a_time
from mig_jax.core.progress import Progress, silent
from mig_jax.pool import Pool, load_pool
from mig_jax.pool.config import PoolConfig

BUNDLED = "bundled"


def pool_of(config: PoolConfig, columns: Sequence[str], cache: Path | None, progress: Progress = silent) -> Pool:
    """Read the pool; the path "bundled" is the one that comes with mig_jax. ``columns``: further numbers to read."""
    paths = [str(bundled_pool()) if path == BUNDLED else path for path in config.paths]
    with one_at_a_time(cache, f"pool {paths}"):
        return load_pool(
            paths,
            layout=config.layout,
            fields=config.fields,
            columns=columns,
            on_error=config.on_error,
            # A further key of pool.* counts even where load_pool does not know it yet.
            further=key_of(config, without=("name", "layout", "fields", "on_error")),
            cache_dir=cache / "pools" if cache else None,
            progress=progress,
        )


def bundled_pool() -> Path:
    """Where the bundled pool lies."""
    return Path(str(importlib.resources.files("mig_jax.assets") / "pool.jsonl"))
