"""The command's server and a small checkpoint for it, as in tests/embed."""

import sys
from pathlib import Path

# The helpers of other folders, as their own tests import them.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("cli", "models")]

from tests.embed.conftest import cache, server, with_tiny  # noqa: E402, F401  (fixtures)
from tests.models.conftest import tiny  # noqa: E402, F401
