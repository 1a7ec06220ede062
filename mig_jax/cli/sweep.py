"""A sweep (``-m``): the folders of its jobs, the comparison at its end; a job that fails does not stop the others.

Hydra calls ``Sweep`` (conf/base.yaml, ``hydra.callbacks.sweep``); an experiment sets its arguments. Jobs leave notes
for the sweep's end in files (sweep_folder.py), so that it works with every launcher. The process that starts the sweep
never imports JAX, so that a launcher may start workers.
"""

import os
import re
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mig_jax.cli.arguments import quoted
from mig_jax.cli.sweep_folder import Note, SweepFolder, open_folder, read_notes, unusable, write_note
from mig_jax.core.errors import UserError, fail

_open: list[SweepFolder] = []  # the sweeps of this process


class Sweep(Callback):
    """What happens around the jobs of a sweep.

    Args:
      key: the setting by which the runs are ordered and drawn; None: the first that differs.
      reference: its value in the run that the others are compared with; None: the first run's.
      paper: published numbers beside ours, {"name": ..., value of ``key``: number}.
      plot: the columns to draw; None: the usual ones.
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
        self.folder: Path | None = None  # as the user wrote it
        self.notes: Path | None = None  # workers have their own copy of this object

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Fix the sweep's folder for all jobs: ``out`` may depend on what is swept."""
        folder = Path(str(config.hydra.sweep.dir))
        problem = unusable(folder)
        if problem:
            fail(problem, 2)  # an exception would only become a warning of Hydra's
        opened = open_folder(folder)
        self.folder, self.notes = folder, opened.notes
        _open.append(opened)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(str(folder))}")  # the jobs'
            config.hydra.sweep.dir = _literal(str(folder / opened.notes.name))  # where Hydra writes its own file

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note which folder is the job's, even if it never ends."""
        if config.hydra.mode == RunMode.MULTIRUN:
            with suppress(OSError):  # reported at its end
                self._note(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note that a job is done or why it failed; the other jobs of the sweep still run."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        failed = job_return.status == JobStatus.FAILED
        text, crashed = _reason(job_return._return_value) if failed else (None, False)
        try:
            self._note(config, ended=True, error=text, crashed=crashed)
        except OSError as error:
            if not failed:  # the table would lack it
                job_return.status, job_return.return_value = JobStatus.FAILED, error
            return
        if failed:
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare the jobs that succeeded; then one message about the others."""
        assert self.folder is not None and self.notes is not None
        notes = [note for note in read_notes(self.notes) if note.ended]
        failed = [(note.folder, note.error.strip()) for note in notes if note.error is not None]
        done = dict.fromkeys(self.folder / note.folder for note in notes if note.error is None)
        runs = [run for run in done if (run / "manifest.json").exists()]
        if runs:
            from mig_jax.commands.report.run import COMPARISON, check_replaceable, write_comparison
            from mig_jax.report.comparison import WIDTH, compare
            from mig_jax.report.sweep import SweepSettings

            try:
                page = self.folder / COMPARISON
                check_replaceable(page)
                sweep = SweepSettings(self.key, self.reference, self.paper, tuple(self.plot or ()))
                print(write_comparison(compare(runs, sweep=sweep), page, WIDTH), end="")
            except UserError as error:
                fail(str(error), 2)
        if failed:
            fail(_failures(failed), 1 if any(note.crashed for note in notes) else 2)

    def _note(self, config: DictConfig, ended: bool = False, error: str | None = None, crashed: bool = False) -> None:
        assert self.notes is not None
        folder = os.path.normpath(str(config.hydra.sweep.subdir))
        write_note(self.notes, config.hydra.job.num, Note(folder, ended, error, crashed))


def remove_temporary() -> None:
    """Remove what the sweeps of this process no longer need."""
    while _open:
        _open.pop().remove_temporary()


def _literal(text: str) -> str:
    """A value that OmegaConf reads as exactly ``text``."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _reason(error: BaseException) -> tuple[str, bool]:
    """A mistake of the user as one message; any other error with its traceback, and true."""
    if isinstance(error, UserError):
        return str(error), False
    if isinstance(error, OSError):
        from mig_jax.cli.commands import disk_error

        with suppress(OSError):
            return disk_error(error), False
    return "".join(traceback.format_exception(error)), True


def _failures(failed: Sequence[tuple[str, str]]) -> str:
    """Which jobs failed and why; jobs with the same reason share a line."""
    reasons: dict[str, list[str]] = {}
    for name, text in failed:
        reasons.setdefault(text, []).append(name)
    if len(failed) == 1:
        return ": ".join(failed[0])
    listed = [f"{', '.join(names)}: {text}" for text, names in reasons.items()]
    return "\n  ".join([f"{len(failed)} jobs failed", *listed])


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
