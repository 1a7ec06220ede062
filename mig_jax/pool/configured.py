"""Load the pool of the settings ``pool.*``."""

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
    """Load the pool; the path "bundled" is the pool in mig_jax's assets. ``columns``: paths of more numbers to read."""
    paths = [str(bundled_pool()) if path == BUNDLED else path for path in config.paths]
    with one_at_a_time(cache, f"pool {paths}"):
        return load_pool(
            paths,
            layout=config.layout,
            fields=config.fields,
            columns=columns,
            on_error=config.on_error,
            # A new key of pool.* becomes part of the cache key even if load_pool does not take it.
            extra_key=key_of(config, without=("name", "layout", "fields", "on_error")),
            cache_dir=cache / "pools" if cache else None,
            progress=progress,
        )


def bundled_pool() -> Path:
    """The path of the bundled pool."""
    return Path(str(importlib.resources.files("mig_jax.assets") / "pool.jsonl"))
