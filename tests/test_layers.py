"""The data flows one way: a package imports only from the packages before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mig_jax"
LAYERS = (
    "core", "config", "pool", "models", "labels", "encode", "objective", "engine", "vectors", "samplers",
    "runs", "batch", "report",
    "commands.embed", "commands.vocabulary", "commands.annotate", "commands.select", "commands.plan",
    "commands.generate", "commands.report", "commands.registry",
    "api", "cli",
)  # fmt: skip
DATA = {"assets", "conf"}  # hold no code


def imported(path: Path) -> set[str]:
    """The packages of mig_jax that a file names in any import, also inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            own = node.module == "mig_jax"
            modules = [f"mig_jax.{alias.name}" if own else node.module or "" for alias in node.names]
        else:
            continue
        found |= {layer_of(name.split(".")[1:]) for name in modules if name.startswith("mig_jax.")}
    return found


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
