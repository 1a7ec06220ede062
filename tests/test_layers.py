"""The data flows one way: a package imports only from the packages before it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mig_jax"
LAYERS = (
    "core", "config", "pool", "models", "labels", "encode", "objective", "engine", "vectors", "samplers",
    "runs", "batch", "training", "report",
    "commands.call", "commands.embed", "commands.vocabulary", "commands.annotate", "commands.select", "commands.plan",
    "commands.generate", "commands.report", "commands.registry",
    "api", "cli",
)  # fmt: skip
MODELS = ("config", "checkpoints", "tokenizers", "networks", "inference", "configured")
DATA = {"assets", "conf"}  # hold no code


def imported(path: Path) -> set[str]:
    """The packages of mig_jax that a file names in any import, also inside a function."""
    return {layer_of(name.split(".")[1:]) for name in modules(path) if name.startswith("mig_jax.")}


def modules(path: Path) -> set[str]:
    """The modules that a file names in any import."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            own = node.module == "mig_jax"
            names |= {f"mig_jax.{alias.name}" if own else node.module or "" for alias in node.names}
    return names


def layer_of(parts: list[str]) -> str:
    """A package of mig_jax, or of mig_jax.commands."""
    return ".".join(parts[:2]) if parts[0] == "commands" else parts[0]


def test_every_package_has_its_layer():
    names = {path.stem for path in PACKAGE.iterdir()} - {"commands"}
    names |= {f"commands.{path.stem}" for path in (PACKAGE / "commands").iterdir()}
    assert {name for name in names if "__" not in name} - DATA == set(LAYERS)


def test_at_most_three_loose_modules():
    assert {path.stem for path in PACKAGE.glob("*.py")} <= {"__init__", "__main__", "api"}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_package_imports_only_from_the_layers_before_it(layer):
    allowed = set(LAYERS[: LAYERS.index(layer) + 1])
    path = PACKAGE.joinpath(*layer.split("."))
    files = sorted(path.rglob("*.py")) or [path.with_suffix(".py")]
    wrong = {str(path.relative_to(PACKAGE)): bad for path in files if (bad := imported(path) - allowed)}
    assert not wrong


@pytest.mark.parametrize("layer", MODELS)
def test_the_packages_of_models_are_layers_too(layer):
    allowed = {f"mig_jax.models.{name}" for name in MODELS[: MODELS.index(layer) + 1]}
    path = PACKAGE / "models" / layer
    wrong = {}
    for file in sorted(path.rglob("*.py")) or [path.with_suffix(".py")]:
        names = [name for name in modules(file) if name.startswith("mig_jax.models.")]
        wrong |= {str(file): name for name in names if ".".join(name.split(".")[:3]) not in allowed}
    assert not wrong
    assert {path.stem for path in (PACKAGE / "models").iterdir() if "__" not in path.name} == set(MODELS)


def test_a_checkpoint_is_checked_without_flax():
    """Flax takes half a second to import; embeddings that are in the cache need no network."""
    code = "import sys, mig_jax.models.inference.fingerprint, mig_jax.models.configured; print('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
