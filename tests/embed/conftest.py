"""The command's server, and a small checkpoint for it."""

import sys
from pathlib import Path

import pytest

# The helpers of two other folders, as their own tests import them.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("cli", "models")]


from tests.cli.conftest import cache, server  # noqa: E402, F401  (fixtures)
from tests.models.conftest import TinyBert, golden, tiny  # noqa: E402, F401  (fixtures)


@pytest.fixture
def with_tiny(tiny: TinyBert) -> list[str]:  # noqa: F811
    """The keys that name the small checkpoint."""
    return ["embedder=bert", f"embedder.path={tiny.folder}", "embedder.name=tiny"]
