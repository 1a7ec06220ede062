"""The cache of compiled programs on disk: only the first run on a machine compiles."""

from pathlib import Path

import jax


def use_compile_cache(cache: str | None) -> None:
    """Store every compiled program, small ones too, in ``cache``/xla; None: no cache."""
    if cache is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(Path(cache).expanduser() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
