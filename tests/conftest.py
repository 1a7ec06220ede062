"""What every test stands on: eight simulated devices, checked annotations, compiled programs kept, and the goldens.

Set before JAX and mig_jax are imported, which is why it is done at import.
"""

import os
from pathlib import Path

DEVICES = 8
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_FLAG = "--xla_force_host_platform_device_count"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}={DEVICES}".strip()

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Where arrays are the subject every annotated shape and type is checked, in tests only. The rest of the package takes
# what people and files give it, and refuses it in its own words, which a checker in front of it would hide.
CHECKED = ["encode", "labels", "objective", "engine", "vectors", "samplers", "commands.vocabulary"]
install_import_hook([f"mig_jax.{name}" for name in CHECKED], "beartype.beartype")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs are kept beside pytest's own cache, for both workers and the next session."""
    folder = config.cache.mkdir("xla") if hasattr(config, "cache") else None
    if folder is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        os.environ.setdefault("MIG_JAX_CACHE", str(config.cache.mkdir("mig_jax")))
    config.addinivalue_line("filterwarnings", "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning")
    # A worker may meet an entry that the other is still writing; JAX says so and compiles.
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout that holds the reference's outputs as they were recorded."""
    if not (SHARED / "golden" / "public" / "mig").is_dir():
        pytest.skip(f"the recorded outputs are not on this machine: {SHARED}")
    return SHARED
