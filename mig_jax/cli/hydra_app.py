"""A command as a Hydra application."""

import functools
import os
import sys

import hydra
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
        hydra.main(version_base="1.3", config_path=f"pkg://{CONF}", config_name=command.name)(noted)()
    except (HydraException, OmegaConfBaseException) as error:
        raise composition_error(error, command.name) from None
    except (ValueError, TypeError) as error:  # Hydra's own for sampler=null and the like
        if composed:
            raise
        raise UserError(" ".join(f"{error}".split())) from None
    finally:
        sweep.remove_temporary()
