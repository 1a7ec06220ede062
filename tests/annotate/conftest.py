"""The command's server, tiny models, the recorded outputs."""

import json
import sys
from pathlib import Path

import pytest

# The helpers of other folders, as their own tests import them.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("cli", "models")]

from annotate_cases import VOCABULARY, tiny_llama  # noqa: E402

from tests.cli.conftest import cache, server  # noqa: E402, F401  (fixtures)
from tests.models.conftest import TinyBert, golden, minilm, tiny  # noqa: E402, F401  (fixtures)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama that reads and writes bytes."""
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def settings(tiny: TinyBert, llama: Path, tmp_path: Path) -> list[str]:  # noqa: F811
    """Of ``mig-jax annotate`` with tiny models for everything but CaR's score."""
    tags = tmp_path / "tags.json"
    tags.write_text(json.dumps(VOCABULARY))
    models = [
        part
        for place in ("deita.complexity", "deita.quality", "ifd.model", "tokens.model")
        for part in (f"model@{place}=checkpoint", f"{place}.path={llama}", f"{place}.name=tiny")
    ]
    embedder = ["embedder=bert", f"embedder.path={tiny.folder}", "embedder.name=tiny", "embedder.max_length=64"]
    return [*embedder, *models, f"pool.valid_tags={tags}", "ifd.max_length=400", "tags.threshold=0.2"]
