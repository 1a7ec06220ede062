"""A sweep (``-m``): where its jobs write, that a failed one does not stop the others, and the table at its end.

Hydra calls ``Sweep`` (conf/base.yaml, ``hydra.callbacks.sweep``); an experiment sets its arguments. The same for every
launcher: what a job has to say to the sweep's end lies in its folder, as manifest.json or error.txt. The process that
starts the sweep never touches JAX, so that a launcher may start workers.
"""

import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mig_jax.errors import UserError
from mig_jax.overrides import quoted

ERROR = "error.txt"
HYDRAS = "multirun.yaml"  # Hydra writes it whatever one sets; the manifests hold the configurations
_begun: list[tuple[Path, list[Path]]] = []  # the sweeps' folders, and which folders were not there before


class Sweep(Callback):
    """What happens around the jobs of a sweep.

    Args:
      key: the setting on the plot's horizontal axis; None: the first that differs.
      reference: its value in the run that the others are compared with; None: the first run's.
      paper: published numbers beside ours, {"name": ..., value of ``key``: number}.
      plot: columns of the table to draw; None: the usual ones.
    """

    def __init__(
        self,
        key: str | None = None,
        reference: Any = None,
        paper: Mapping[Any, Any] | None = None,
        plot: Sequence[str] | None = None,
    ):
        self.key, self.reference = key, reference
        self.paper, self.plot = _plain(paper), _plain(plot)
        self.folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Fix the sweep's folder for all jobs: ``out`` may depend on what is swept."""
        folder = Path(str(config.hydra.sweep.dir))
        problem = _unfit(folder)
        if problem:
            fail(problem, 2)  # an exception would only become a warning of Hydra's
        self.folder = folder
        _begun.append((folder, [path for path in (folder, *folder.parents) if not path.exists()]))
        for old in _files(folder, ERROR):
            old.unlink()
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(str(folder))}")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note why a job of a sweep failed, and let the sweep go on to its end."""
        if config.hydra.mode != RunMode.MULTIRUN or job_return.status != JobStatus.FAILED:
            return
        error = job_return._return_value
        text = _reason(error)
        folder = Path(config.hydra.runtime.output_dir)
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ERROR).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Table and plot of the jobs that ended well; then one message on the others."""
        assert self.folder is not None
        failed = {file.parent.relative_to(self.folder): file for file in _files(self.folder, ERROR)}
        if any(_files(self.folder, "manifest.json")):
            from mig_jax.report.sweep import write_sweep

            try:
                print(write_sweep(self.folder, self.key, self.reference, self.paper, self.plot), end="")
            except UserError as error:
                fail(str(error), 2)
        if failed:
            texts = {name: file.read_text(encoding="utf-8").strip() for name, file in failed.items()}
            for file in failed.values():
                file.unlink()
            crashed = any(text.startswith("Traceback") for text in texts.values())
            fail(_told(texts), 1 if crashed else 2)


def tidy() -> None:
    """Take away what Hydra left in the folders of this process's sweeps: its own file, and folders with nothing."""
    while _begun:
        folder, made = _begun.pop()
        with suppress(OSError):
            (folder / HYDRAS).unlink(missing_ok=True)
            for path in [*folder.iterdir(), *made]:
                with suppress(OSError):  # not empty, or no folder
                    path.rmdir()


def fail(message: str, code: int) -> None:
    """One message on stderr, and the end. SystemExit passes through Hydra, which swallows other errors of callbacks."""
    print(f"mig-jax: error: {message}", file=sys.stderr)
    sys.exit(code)


def _unfit(folder: Path) -> str | None:
    """Why the folder cannot be a sweep's, or None."""
    if folder.exists() and not folder.is_dir():
        return f"out={folder} is a file; a sweep writes a folder with one for each job: choose another name"
    if (folder / "manifest.json").exists():
        return f"out={folder} holds a run; a sweep writes a folder with one for each job: choose another out"
    return None


def _files(folder: Path, name: str) -> Iterator[Path]:
    """The files of this name in the jobs' folders (not in those of runs under way, which are hidden)."""
    for file in sorted(folder.rglob(name)) if folder.is_dir() else ():
        parts = file.relative_to(folder).parts
        if len(parts) > 1 and not any(part.startswith(".") for part in parts):
            yield file


def _reason(error: BaseException) -> str:
    """What the user can mend as one message, all else with its traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        from mig_jax.commands import disk_error

        with suppress(OSError):
            return disk_error(error)
    return "".join(traceback.format_exception(error))


def _told(texts: Mapping[Path, str]) -> str:
    """Which jobs failed and why; jobs with the same reason share a line."""
    reasons: dict[str, list[str]] = {}
    for name, text in texts.items():
        reasons.setdefault(text, []).append(str(name))
    if len(texts) == 1:
        ((text, (name,)),) = reasons.items()
        return f"{name}: {text}"
    listed = [f"{', '.join(names)}: {text}" for text, names in reasons.items()]
    return "\n  ".join([f"{len(texts)} jobs failed", *listed])


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
