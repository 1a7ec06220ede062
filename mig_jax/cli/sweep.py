"""A sweep (``-m``): where its jobs write, that a failed one does not stop the others, and the table at its end.

Hydra calls ``Sweep`` (conf/base.yaml, ``hydra.callbacks.sweep``); an experiment sets its arguments. The same for every
launcher: what a job has to say to the sweep's end lies in a hidden folder that only this sweep knows, inside its own.
Nothing else in there is read, and nothing but what this sweep made is taken away. The process that starts the sweep
never touches JAX, so that a launcher may start workers.
"""

import json
import os
import re
import traceback
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mig_jax.cli.arguments import quoted
from mig_jax.core.errors import UserError, fail

HYDRAS = "multirun.yaml"  # Hydra writes it whatever one sets; the manifests hold the configurations
_begun: list["_Place"] = []  # the sweeps of this process


@dataclass(frozen=True)
class _Place:
    """Where a sweep writes, and what stood there before; paths are absolute.

    Args:
      folder: the sweep's, with a folder for each job inside it.
      notes: the hidden folder with a ``_Note`` for each job, named by its number.
      entries: the names that were in ``folder`` before; None: not known.
      made: ``folder`` and those above it that were not there, the innermost first.
    """

    folder: Path
    notes: Path
    entries: frozenset[str] | None
    made: tuple[Path, ...]


@dataclass(frozen=True)
class _Note:
    """What a job tells the sweep's end: its folder in the sweep's, whether it came to its end, and why it failed."""

    folder: str
    ended: bool = False
    error: str | None = None


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
        problem = _unfit(folder)
        if problem:
            fail(problem, 2)  # an exception would only become a warning of Hydra's
        place = _place(folder)
        self.folder, self.notes = folder, place.notes
        _begun.append(place)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(str(folder))}")  # the jobs'
            config.hydra.sweep.dir = _literal(str(folder / place.notes.name))  # where Hydra writes its own file

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note which folder is a job's, even if it never ends."""
        if config.hydra.mode == RunMode.MULTIRUN:
            with suppress(OSError):  # said at its end
                self._note(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note that a job of a sweep is done, or why it failed, and let the sweep go on to its end."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        failed = job_return.status == JobStatus.FAILED
        text = _reason(job_return._return_value) if failed else None
        try:
            self._note(config, ended=True, error=text)
        except OSError as error:
            if not failed:  # the table would lack it
                job_return.status, job_return.return_value = JobStatus.FAILED, error
            return
        if failed:
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """The comparison of the jobs that ended well; then one message on the others."""
        assert self.folder is not None and self.notes is not None
        notes = [note for note in _notes(self.notes) if note.ended]
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
            crashed = any(text.startswith("Traceback") for _, text in failed)
            fail(_told(failed), 1 if crashed else 2)

    def _note(self, config: DictConfig, **told: Any) -> None:
        assert self.notes is not None
        note = _Note(os.path.normpath(str(config.hydra.sweep.subdir)), **told)
        (self.notes / str(config.hydra.job.num)).write_text(json.dumps(asdict(note)), encoding="ascii")


def tidy() -> None:
    """Take away what this process's sweeps no longer need: notes, Hydra's file, and folders of theirs with nothing."""
    while _begun:
        place = _begun.pop()
        jobs = [note.folder for note in _notes(place.notes)]
        for file in (place.notes / HYDRAS, *_numbered(place.notes)):
            with suppress(OSError):
                file.unlink()
        for path in (place.notes, *_made(place, jobs), *place.made):
            with suppress(OSError):  # not empty, or gone
                path.rmdir()


def _unfit(folder: Path) -> str | None:
    """Why the folder cannot be a sweep's, or None."""
    if folder.exists() and not folder.is_dir():
        return f"out={folder} is a file; a sweep writes a folder with one for each job: choose another name"
    if (folder / "manifest.json").exists():
        return f"out={folder} holds a run; a sweep writes a folder with one for each job: choose another out"
    return None


def _place(folder: Path) -> _Place:
    whole, entries = folder.absolute(), frozenset()
    try:
        entries = frozenset(path.name for path in whole.iterdir())
    except FileNotFoundError:
        pass
    except OSError:  # Hydra's first write tells it, if it matters
        entries = None
    made = tuple(path for path in (whole, *whole.parents) if not path.exists())
    return _Place(whole, whole / f".sweep-{uuid.uuid4().hex}", entries, made)


def _numbered(notes: Path) -> list[Path]:
    """The jobs' notes, in the order of the jobs."""
    try:
        return sorted((file for file in notes.iterdir() if file.name.isdecimal()), key=lambda file: int(file.name))
    except OSError:
        return []


def _notes(folder: Path) -> list[_Note]:
    found = []
    for file in _numbered(folder):
        with suppress(OSError, ValueError):  # half written, by a worker that was stopped
            found.append(_Note(**json.loads(file.read_text(encoding="ascii"))))
    return found


def _made(place: _Place, jobs: Sequence[str]) -> list[Path]:
    """The jobs' folders that were not there before, and those between them and the sweep's, the innermost first."""
    inside = {path for job in jobs for path in (Path(job), *Path(job).parents) if path.parts}
    kept = None if place.entries is None else {"..", os.sep, *place.entries}  # the first two: outside
    new = [path for path in inside if kept is not None and path.parts[0] not in kept]
    return [place.folder / path for path in sorted(new, key=lambda path: len(path.parts), reverse=True)]


def _literal(text: str) -> str:
    """A value that OmegaConf reads as exactly ``text``."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _reason(error: BaseException) -> str:
    """What the user can mend as one message, all else with its traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        from mig_jax.cli.commands import disk_error

        with suppress(OSError):
            return disk_error(error)
    return "".join(traceback.format_exception(error))


def _told(failed: Sequence[tuple[str, str]]) -> str:
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
