"""The commands as Hydra runs them: configuration in, files and a summary out."""

import shlex
import sys
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mig_jax.config import SelectConfig, select_config
from mig_jax.errors import UserError

OmegaConf.register_new_resolver("stem", lambda path: stem(path), replace=True)


def stem(path: object) -> str:
    """The name of a pool: its first path without folders and endings; the bundled pool is "demo"."""
    first = str(path if isinstance(path, str) else next(iter(path), "pool"))  # type: ignore[call-overload]
    if first == "bundled":
        return "demo"
    if first.startswith("hf:"):
        return first[3:].split(":")[0].rpartition("/")[2] or "pool"
    name = Path(first).name.split(".")[0]
    return name if name and not set(name) & set("*?[") else "pool"


def select(raw: DictConfig) -> None:
    """One job of ``mig-jax select``; in a sweep ``out`` is the sweep's folder, and each job has its own inside it."""
    out = None
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        out = str(Path(HydraConfig.get().sweep.dir) / HydraConfig.get().sweep.subdir)
    try:
        run_and_tell(select_config(raw), out, " ".join(["mig-jax", *map(shlex.quote, sys.argv[1:])]))
    except UserError as error:  # here, before Hydra adds its own lines to it
        fail(str(error))


def run_and_tell(config: SelectConfig, out: str | None, command: str, sample_file: str | None = None) -> None:
    """Run a selection and print its summary."""
    import msgspec

    from mig_jax.runtime import processes
    from mig_jax.runtime.compile_cache import use_compile_cache
    from mig_jax.terminal import Terminal

    if out is not None:
        config = msgspec.structs.replace(config, out=out)
    processes.start(config.mesh.coordinator, config.mesh.processes, config.mesh.process)
    use_compile_cache(config.cache)
    from mig_jax.run import run_select

    with Terminal(quiet=not processes.is_main()) as terminal:
        folder = run_select(config, command, sample_file=sample_file, progress=terminal.progress, tell=terminal.tell)
    if folder is not None:
        print_summary(folder)


def print_summary(folder: Path) -> None:
    """The summary of a finished run, on stdout."""
    import json

    from rich.console import Console

    from mig_jax.export import read_manifest
    from mig_jax.report import summary

    stats = json.loads((folder / "pool_stats.json").read_text(encoding="utf-8"))
    console = Console()
    console.print(summary(read_manifest(folder), stats, folder))


def fail(message: str) -> NoReturn:
    """One message, exit code 2."""
    print(f"mig-jax: error: {message}", file=sys.stderr)
    sys.exit(2)
