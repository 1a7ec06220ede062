"""The commands as Hydra runs them: configuration in, files and a summary out."""

import errno
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mig_jax.commands.select.config import SelectConfig
from mig_jax.config.check import (
    annotate_config,
    embed_config,
    generate_config,
    report_config,
    select_config,
    vocabulary_config,
)
from mig_jax.core.errors import UserError, fail

_OF_DISKS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
}

OmegaConf.register_new_resolver("stem", lambda path: stem(path), replace=True)
OmegaConf.register_new_resolver("unless", lambda this, other: other if this is None else None, replace=True)
OmegaConf.register_new_resolver("slug", lambda value: slug(value), replace=True)


def stem(path: object) -> str:
    """The name of a pool: its first path without folders and endings; the bundled pool is "demo"."""
    first = str(path if isinstance(path, str) else next(iter(path or ()), "pool"))  # type: ignore[call-overload]
    if first == "bundled":
        return "demo"
    if first.startswith("hf:"):
        return first[3:].split(":")[0].rpartition("/")[2] or "pool"
    name = Path(first).name.split(".")[0]
    return name if name and not set(name) & set("*?[") else "pool"


def slug(value: object) -> str:
    """A value as part of a folder's name."""
    text = re.sub(r"[^\w.,=+-]+", "_", "null" if value is None else str(value)).strip("_.")
    return text[-60:] or "_"


def select(raw: DictConfig) -> None:
    """One job of ``mig-jax select``; in a sweep ``out`` is the sweep's folder, and each job has its own inside it."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        job = HydraConfig.get()
        out = str(Path(job.sweep.dir) / job.sweep.subdir)
        own = [override for override in job.overrides.task if not override.startswith("out=")]
        command = shlex.join(["mig-jax", "select", *own, f"out={out}"])
        run_and_tell(select_config(raw), out, command, brief=True)  # mig_jax.cli.sweep tells what it raises
        return
    with _one_message():
        run_and_tell(select_config(raw), None, shlex.join(["mig-jax", "select", *sys.argv[1:]]))


def plan(raw: DictConfig) -> None:
    """``mig-jax plan``: the configuration of a selection, and what it would take."""
    import json

    from mig_jax.cli.terminal import Terminal
    from mig_jax.commands.plan import as_json, plan_keys, run_plan, text

    with _one_message():
        keys = plan_keys(OmegaConf.to_container(raw.plan, resolve=True))  # type: ignore[arg-type]
        config = select_config(OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "plan"]))
        out = None if keys.out is None else _json_file(keys.out)
        with Terminal() as terminal:
            made = run_plan(config, keys, progress=terminal.progress)
        if out is not None:
            out.write_text(json.dumps(as_json(made), indent=1) + "\n", encoding="utf-8")
        print(text(made), end="")


def embed(raw: DictConfig) -> None:
    """``mig-jax embed``."""
    with _one_message():
        _in_passes("embed", embed_config(raw), "mig_jax.commands.embed.run")


def annotate(raw: DictConfig) -> None:
    """``mig-jax annotate``."""
    with _one_message():
        _in_passes("annotate", annotate_config(raw), "mig_jax.commands.annotate.run")


def _in_passes(name: str, config: Any, module: str) -> None:
    """``run_NAME`` of a module, which is imported when the processes have found each other: it brings Flax."""
    from mig_jax.cli.terminal import Terminal
    from mig_jax.core import processes
    from mig_jax.core.compile_cache import use_compile_cache

    command = shlex.join(["mig-jax", name, *sys.argv[1:]])
    if config.mesh.coordinator is not None:  # else the processes share nothing but a disk
        processes.start(config.mesh.coordinator, config.mesh.processes, config.mesh.process)
    use_compile_cache(config.cache)
    run = getattr(importlib.import_module(module), f"run_{name}")
    with Terminal(quiet=not processes.is_main()) as terminal:
        made = run(config, command, progress=terminal.progress, tell=terminal.notify)
    if made.text:
        print(made.text)


def vocabulary(raw: DictConfig) -> None:
    """``mig-jax vocabulary``."""
    from mig_jax.cli.terminal import Terminal
    from mig_jax.core.compile_cache import use_compile_cache

    with _one_message():
        config = vocabulary_config(raw)
        command = shlex.join(["mig-jax", "vocabulary", *sys.argv[1:]])
        use_compile_cache(config.cache)
        from mig_jax.commands.vocabulary import run_vocabulary

        with Terminal() as terminal:
            made = run_vocabulary(config, command, progress=terminal.progress, tell=terminal.notify)
        print(made.text, end="")


def generate(raw: DictConfig) -> None:
    """``mig-jax generate``."""
    from mig_jax.cli.terminal import Terminal
    from mig_jax.core.compile_cache import use_compile_cache

    with _one_message():
        config = generate_config(raw)
        use_compile_cache(config.cache)
        from mig_jax.commands.generate.run import run_generate

        with Terminal() as terminal:
            lines = list(run_generate(config, progress=terminal.progress))
        for line in lines:
            print(line)


def report(raw: DictConfig) -> None:
    """``mig-jax report``."""
    import shutil

    from mig_jax.commands.report.run import run_report

    with _one_message():
        # A log has no width of its own.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
        print(run_report(report_config(raw), width), end="")


@contextmanager
def _one_message() -> Iterator[None]:
    """A user's mistake ends here, before Hydra adds its own lines to it."""
    try:
        yield
    except UserError as error:
        fail(str(error))
    except OSError as error:
        fail(disk_error(error))


def _json_file(name: str) -> Path:
    """Where the plan's numbers go; refused before anything is measured."""
    path = Path(name).expanduser()
    if path.suffix != ".json":
        raise UserError(f"plan.out={name}: must end in .json")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"plan.out={name}: {'is a folder' if path.is_dir() else f'there is no folder {path.parent}'}")
    return path


def run_and_tell(
    config: SelectConfig, out: str | None, command: str, sample_file: str | None = None, *, brief: bool = False
) -> None:
    """Run a selection and print its summary; ``brief``: only that it is done, on stderr."""
    import msgspec

    from mig_jax.cli.terminal import Terminal
    from mig_jax.core import processes
    from mig_jax.core.compile_cache import use_compile_cache

    if out is not None:
        config = msgspec.structs.replace(config, out=out)
    processes.start(config.mesh.coordinator, config.mesh.processes, config.mesh.process)
    use_compile_cache(config.cache)
    from mig_jax.commands.select.run import run_select

    with Terminal(quiet=not processes.is_main()) as terminal:
        folder = run_select(
            config, command, sample_file=sample_file, progress=terminal.progress, notify=terminal.notify
        )
    if folder is None:
        return
    if brief:
        print(f"done: {folder}", file=sys.stderr, flush=True)
    else:
        print_summary(folder)


def print_summary(folder: Path) -> None:
    """The summary of a finished run, on stdout."""
    import json

    from rich.console import Console

    from mig_jax.report import summary, summary_text
    from mig_jax.runs.manifest import read_plain

    stats = json.loads((folder / "pool_stats.json").read_text(encoding="utf-8"))
    console = Console()
    if console.is_terminal:
        console.print(summary(read_plain(folder), stats, folder))
    else:  # a log: no colours, no trailing spaces, no line broken at 80
        print(summary_text(read_plain(folder), stats, folder, width=160), end="")


def disk_error(error: OSError) -> str:
    """What a disk that is full or not ours to write did, for a person; any other OSError is raised again."""
    if error.errno not in _OF_DISKS:
        raise error
    return (
        f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}, while writing the run's files"
    )
