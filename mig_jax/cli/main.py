"""mig-jax COMMAND ...: the entry. Every mistake of a user ends here, as one message and exit code 2."""

import gc
import os
import sys
from collections.abc import Callable

from mig_jax.commands.registry import COMMANDS, load
from mig_jax.core.errors import fail
from mig_jax.core.text import did_you_mean, visible
from mig_jax.core.timing import begin


def main(argv: list[str] | None = None) -> None:
    """The ``mig-jax`` command."""
    begin(process=argv is None)
    # Imports and the composition of settings make many objects and hardly any garbage: Python's own threshold, 700
    # objects, costs a tenth of the time of a short run.
    gc.set_threshold(50_000, 20, 50)
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        from mig_jax.cli.help import usage

        print(usage(), end="")
    elif name == "--version":
        from mig_jax.core.version import VERSION

        print(VERSION)
    elif name not in COMMANDS:
        fail(f"{visible(name)}: no such command; there are {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")
    elif COMMANDS[name].flags:
        _guarded(lambda: load(COMMANDS[name].run)(rest), name)
    elif {"-h", "--help"} & set(rest):
        from mig_jax.cli.help import command_help

        print(command_help(COMMANDS[name]), end="")
    else:
        from mig_jax.cli.hydra_app import hydra_app

        _guarded(lambda: hydra_app(COMMANDS[name], rest), name)


def xsample(argv: list[str] | None = None) -> None:
    """The reference's command, ``mig-jax sample``: ``xsample SRC ...`` or ``xsample sample SRC ...``."""
    arguments = sys.argv[1:] if argv is None else argv
    main(arguments if arguments[:1] == ["sample"] else ["sample", *arguments])


def _guarded(work: Callable[[], None], name: str) -> None:
    """Run it; a mistake that the user can correct becomes one message."""
    from mig_jax.cli.commands import one_message

    try:
        with one_message():
            work()
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        resume = "; the same command resumes from the last checkpoint" if COMMANDS[name].resumes else ""
        print(f"mig-jax: interrupted{resume}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
