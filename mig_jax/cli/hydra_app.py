"""A command as a Hydra application."""

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import hydra
from hydra._internal.hydra import Hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mig_jax.cli import sweep
from mig_jax.cli.arguments import prepare
from mig_jax.cli.commands import job
from mig_jax.commands.registry import COMMANDS, Command
from mig_jax.config.check import composition_error
from mig_jax.config.keys import CONF
from mig_jax.core.errors import UserError


def hydra_app(command: Command, arguments: list[str]) -> None:
    """Compose the settings of a command and run it, once or, with ``-m``, for every combination of values.

    Raises:
      UserError: a mistake in the arguments or in the settings.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes errors on instead of printing its own traceback
    if command.makes and {"-m", "--multirun"} & set(arguments):
        sweeping = ", ".join(f"mig-jax {name}" for name, other in COMMANDS.items() if not (other.makes or other.flags))
        raise UserError(f"mig-jax {command.name}: {command.makes}; -m belongs to {sweeping}")
    sys.argv = [f"mig-jax {command.name}", *prepare(arguments, command.name)]
    task, composed = functools.partial(job, command.name), []

    @functools.wraps(job)
    def noted(raw):
        composed.append(True)
        task(raw)

    try:
        with _composed_once(sys.argv[1:]):
            hydra.main(version_base="1.3", config_path=f"pkg://{CONF}", config_name=command.name)(noted)()
    except (HydraException, OmegaConfBaseException) as error:
        raise composition_error(error, command.name) from None
    except (ValueError, TypeError) as error:  # Hydra's own for sampler=null and the like
        if composed:
            raise
        raise UserError(" ".join(f"{error}".split())) from None
    finally:
        sweep.remove_temporary()


@contextmanager
def _composed_once(arguments: list[str]) -> Iterator[None]:
    """Let Hydra compose the settings once instead of twice, which is a tenth of the time of a short run.

    The first composition serves to read ``hydra.mode``. No file of conf/ sets it, so it is None unless an argument is
    about Hydra or names a folder of the user's own files.
    """
    get_mode = Hydra.get_mode
    if not any("hydra" in argument or argument.startswith(("--c", "-c", "--e")) for argument in arguments):
        Hydra.get_mode = lambda self, config_name, overrides: None
    try:
        yield
    finally:
        Hydra.get_mode = get_mode
