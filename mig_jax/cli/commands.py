"""One path for every command: settings are checked, processes join, the command runs, its text is printed."""

import errno
import io
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console, RenderableType

from mig_jax.cli.terminal import Terminal
from mig_jax.commands.call import Call
from mig_jax.commands.registry import COMMANDS, Command, load
from mig_jax.config.struct import Struct
from mig_jax.core.errors import UserError, fail

WIDTH = 160  # of a log, which has no width of its own
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


def job(name: str, raw: DictConfig) -> None:
    """One job as Hydra runs it; in a sweep ``out`` is the sweep's folder, and each job has its own inside it."""
    command = COMMANDS[name]
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        hydra = HydraConfig.get()
        out = str(Path(hydra.sweep.dir) / hydra.sweep.subdir)
        own = [override for override in hydra.overrides.task if not override.startswith("out=")]
        config = msgspec.structs.replace(command.check(raw), out=out)
        result = run(
            command, config, shlex.join(["mig-jax", name, *own, f"out={out}"])
        )  # mig_jax.cli.sweep reports the errors
        if result != "":
            print(f"done: {out}", file=sys.stderr, flush=True)
        return
    with one_message():
        show(run(command, command.check(raw), shlex.join(["mig-jax", name, *sys.argv[1:]])))


def run(command: Command, config: Struct, line: str, sample_file: str | None = None) -> RenderableType:
    """Run a command; what it returns is "" on a process that has nothing to print.

    ``line`` and ``sample_file`` are those of ``Call``.
    """
    mesh, quiet = getattr(config, "mesh", None), False
    if mesh is not None and command.processes is not None:
        from mig_jax.core import processes  # JAX, which a command that is one process need not load

        if command.processes == "jax" or mesh.coordinator is not None:
            processes.start(mesh.coordinator, mesh.processes, mesh.process)
        quiet = not processes.is_main()
    if command.compiles:
        from mig_jax.core.compile_cache import use_compile_cache  # JAX, as above

        use_compile_cache(config.cache)  # type: ignore[attr-defined]
    with Terminal(quiet=quiet) as terminal:
        call = Call(line, terminal.progress, terminal.notify, width(), sample_file)
        return load(command.run)(config, call)


def width() -> int:
    """Columns of stdout."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH


def show(result: RenderableType) -> None:
    """Print what a command returned; in a log without colours and without spaces at the ends of lines."""
    console = Console()
    if isinstance(result, str):
        print(result, end="")
    elif console.is_terminal:
        console.print(result)
    else:
        plain = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False, _environ={})
        with plain.capture() as captured:
            plain.print(result)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))


@contextmanager
def one_message() -> Iterator[None]:
    """A user's mistake becomes one message and exit code 2, before Hydra adds its own lines to it."""
    try:
        yield
    except UserError as error:
        fail(str(error))
    except OSError as error:
        fail(disk_error(error))


def disk_error(error: OSError) -> str:
    """The message of a disk that is full or may not be written; any other OSError is raised again."""
    if error.errno not in _OF_DISKS:
        raise error
    return (
        f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}, while writing the run's files"
    )
