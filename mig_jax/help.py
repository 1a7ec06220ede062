"""``mig-jax select --help``: the configuration files themselves, whose comments say what each key does."""

import importlib.resources
from importlib.resources.abc import Traversable

HEAD = """\
mig-jax select [POOL] [key=value ...] [-m]

Select the rows of a pool that add the most information. POOL is a file, a folder, a glob or hf:org/name; without it the
bundled pool is used. Every key below can be given as key=value (graph.degree=6, pool.on_error=skip); a group takes
one of its options (phi=log).
-m runs every combination of values with commas (graph.threshold=0.6,0.7); --cfg job prints the configuration.
"""
PLAN_HEAD = """\
mig-jax plan [POOL] [key=value ...]

What mig-jax select with the same arguments would take on this machine: seconds by stage, memory, whether it fits. It
takes every key of mig-jax select (mig-jax select --help), reads the first megabytes of the pool, measures the machine
once (half a minute; kept in the cache) and writes no run. Of a pool that does not exist yet say what it is like:

  mig-jax plan pool.jsonl.gz n=50000
  mig-jax plan plan.rows=30_000_000 plan.labels=4531 plan.tags=4 plan.bytes=3200 graph.degree=4 n=50000

"""
GROUPS = ("pool", "embedder", "phi", "sampler", "experiment")
SHARED = "base"


def select_help() -> str:
    """The whole text."""
    conf = importlib.resources.files("mig_jax.conf")
    parts = [HEAD, _keys((conf / "select.yaml").read_text(encoding="utf-8"))]
    parts.append(_keys((conf / f"{SHARED}.yaml").read_text(encoding="utf-8").partition("\nhydra:")[0] + "\n"))
    for group in GROUPS:
        how = f"+{group}=NAME with -m" if group == "experiment" else f"{group}=NAME"
        parts.append(f"{group} ({how})\n" + "".join(_option(file) for file in _files(conf / group)))
    return "\n".join(parts)


def plan_help() -> str:
    """The keys that plan has of its own."""
    return PLAN_HEAD + _keys((importlib.resources.files("mig_jax.conf") / "plan.yaml").read_text(encoding="utf-8"))


def _files(folder: Traversable) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)


def _keys(text: str) -> str:
    """A file without its title and its defaults list."""
    lines = [line for line in text.splitlines() if not line.startswith("# ")]
    if "defaults:" in lines:
        start = lines.index("defaults:")
        end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith(" "))
        del lines[start:end]
    return "\n".join(lines).strip("\n") + "\n"


def _option(file: Traversable) -> str:
    """Its name, the first line of its comment, and its keys."""
    lines = file.read_text(encoding="utf-8").splitlines()
    said = next((line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @")), "")
    title = f"  {file.name.removesuffix('.yaml'):<18}{said}\n"
    if any(line.startswith(("defaults:", "hydra:", "# @package")) for line in lines):
        return title
    keys = [line for line in lines if line and not line.startswith(("#", "name:"))]
    return title + "".join(f"      {line}\n" for line in keys)
