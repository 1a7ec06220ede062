"""The command's server, and a small checkpoint for it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The helpers of two other folders, as their own tests import them.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("cli", "models")]

from mig_command import Server  # noqa: E402

from tests.models.conftest import TinyBert, golden, tiny  # noqa: E402, F401  (fixtures)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MIG_JAX_CACHE of this session, of both of its workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "mig_jax_cache"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Server]:
    """Starts the command."""
    made = Server(tmp_path_factory.mktemp("server"), cache)
    yield made
    made.close()


@pytest.fixture
def with_tiny(tiny: TinyBert) -> list[str]:  # noqa: F811
    """The keys that name the small checkpoint."""
    return ["embedder=bert", f"embedder.path={tiny.folder}", "embedder.name=tiny"]
