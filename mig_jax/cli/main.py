"""mig-jax COMMAND ...: the entry. Every mistake of a user ends here, as one message and exit code 2."""

import functools
import os
import sys
from collections.abc import Callable

from mig_jax.core.errors import UserError, fail
from mig_jax.core.text import did_you_mean
from mig_jax.core.timing import begin

USAGE = """\
mig-jax: select the rows of an instruction-tuning pool that add the most information

  mig-jax select [POOL] [key=value ...] [-m]   pool -> selection, report and trace; alone: the bundled pool
  mig-jax plan [POOL] [key=value ...]          what that select would take here: seconds, memory, whether it fits
  mig-jax annotate [POOL] [key=value ...]      raw rows -> the same with tags and scores; resumes
  mig-jax vocabulary [POOL] [key=value ...]    a pool's tags -> labels, and which tags mean them (#InsTag's four steps)
  mig-jax embed [POOL|FILE] [key=value ...]    texts or labels -> embeddings.npy; goes on where it was broken off
  mig-jax generate PROMPT|FILE [key=value ...] what a language model answers
  mig-jax report RUN [RUN ...] [out=FILE.html] runs or sweeps -> one page that compares them; of one run its page again
  mig-jax sample SRC --out FILE ...            select with the flags of yichengchen24/MIG (= xsample sample)

  mig-jax COMMAND --help                       all keys of a command; --cfg job: the configuration, not run
  mig-jax --version

POOL is a file, a folder, a glob or hf:org/name. Examples:
  mig-jax select pool.jsonl.gz n=1000 out=runs/first
  mig-jax select pool.jsonl.gz n=[1000,5000] sampler.gain=exact phi=log
  mig-jax select -m n=100 graph.threshold=0.6,0.7,0.8 out=runs/sweep
"""
HYDRAS = ("select", "plan", "annotate", "vocabulary", "embed", "generate", "report")  # what takes key=value


def main(argv: list[str] | None = None) -> None:
    """The ``mig-jax`` command."""
    begin()
    arguments = sys.argv[1:] if argv is None else argv
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(USAGE, end="")
    elif command == "--version":
        from mig_jax.core.version import VERSION

        print(VERSION)
    elif command in HYDRAS and {"-h", "--help"} & set(rest):
        from mig_jax.cli import help as texts

        print(getattr(texts, f"{command}_help")(), end="")
    elif command in HYDRAS:
        _guarded(lambda: _hydra(command, rest), command)
    elif command == "sample":
        from mig_jax.cli.sample import sample

        _guarded(lambda: sample(rest))
    else:
        known = [*HYDRAS, "sample"]
        fail(f"{command}: no such command; there are {', '.join(HYDRAS)} and sample{did_you_mean(command, known)}")


xsample = main


def _hydra(name: str, arguments: list[str]) -> None:
    import hydra

    from mig_jax.cli import commands, sweep
    from mig_jax.cli.arguments import prepare

    if name != "select" and {"-m", "--multirun"} & set(arguments):
        does = {
            "plan": "plans one selection",
            "annotate": "makes one pool",
            "embed": "makes one set of embeddings",
            "vocabulary": "makes one vocabulary",
            "report": "writes one page",
        }.get(name, "runs one model")
        raise UserError(f"mig-jax {name}: {does}; -m belongs to mig-jax select")
    sys.argv = [f"mig-jax {name}", *prepare(arguments, name)]
    command, composed = getattr(commands, name), []

    @functools.wraps(command)
    def job(raw):
        composed.append(True)
        command(raw)

    try:
        hydra.main(version_base="1.3", config_path="pkg://mig_jax.conf", config_name=name)(job)()
    except (ValueError, TypeError) as error:  # Hydra's own words for sampler=null and the like
        if composed:
            raise
        raise UserError(" ".join(f"{error}".split())) from None
    finally:
        sweep.tidy()


def _guarded(work: Callable[[], None], command: str = "select") -> None:
    """Run it; turn what a user can mend into one message."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes errors on instead of printing its own traceback
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from mig_jax.cli.commands import disk_error
    from mig_jax.config.check import composition_error

    try:
        work()
    except UserError as error:
        fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:  # before OSError: Hydra's missing option is both
        fail(composition_error(error, command))
    except BrokenPipeError:  # the reader of our output has gone: nothing is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        fail(disk_error(error))
    except KeyboardInterrupt:
        kept = "" if command in ("generate", "vocabulary") else "; the same command goes on from the last checkpoint"
        print(f"mig-jax: interrupted{kept}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
