"""The folder of a sweep: which folders are its jobs', how each job ended, and what to remove at the end.

Every job writes a note into a hidden folder inside the sweep's, whose name only this sweep knows. No other file in the
sweep's folder is read, and only what this sweep made is removed.
"""

import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mig_jax.core.files import write_atomic

HYDRA_FILE = "multirun.yaml"  # Hydra writes it under any settings; the manifests hold the configurations


@dataclass(frozen=True)
class Note:
    """What a job leaves for the sweep's end: its folder in the sweep's, whether it ended, and its error.

    ``crashed``: the error is not a mistake of the user.
    """

    folder: str
    ended: bool = False
    error: str | None = None
    crashed: bool = False


@dataclass(frozen=True)
class SweepFolder:
    """A sweep's folder, and what was there before; paths are absolute.

    Args:
      path: the sweep's folder, with a folder for each job inside it.
      notes: the hidden folder with a ``Note`` for each job, named by its number.
      entries: the names that were in ``path`` before; None: unknown.
      missing: ``path`` and the folders above it that did not exist, the innermost first.
    """

    path: Path
    notes: Path
    entries: frozenset[str] | None
    missing: tuple[Path, ...]

    def remove_temporary(self) -> None:
        """Remove the notes, Hydra's file, and empty folders that the sweep made."""
        jobs = [note.folder for note in read_notes(self.notes)]
        torn = self.notes.glob(".*.tmp")  # of a worker that was stopped while it wrote its note
        for file in (self.notes / HYDRA_FILE, *_note_files(self.notes), *torn):
            with suppress(OSError):
                file.unlink()
        for path in (self.notes, *self._new_folders(jobs), *self.missing):
            with suppress(OSError):  # not empty, or gone
                path.rmdir()

    def _new_folders(self, jobs: Sequence[str]) -> list[Path]:
        """Folders of jobs that did not exist before, and those between them and ``path``, the innermost first."""
        inside = {path for job in jobs for path in (Path(job), *Path(job).parents) if path.parts}
        old = None if self.entries is None else {"..", os.sep, *self.entries}  # the first two: outside
        new = [path for path in inside if old is not None and path.parts[0] not in old]
        return [self.path / path for path in sorted(new, key=lambda path: len(path.parts), reverse=True)]


def open_folder(folder: Path) -> SweepFolder:
    """Note what exists before the sweep starts."""
    path, entries = folder.absolute(), frozenset()
    try:
        entries = frozenset(entry.name for entry in path.iterdir())
    except FileNotFoundError:
        pass
    except OSError:  # if it matters, Hydra's first write fails with it
        entries = None
    missing = tuple(above for above in (path, *path.parents) if not above.exists())
    return SweepFolder(path, path / f".sweep-{uuid.uuid4().hex}", entries, missing)


def unusable(folder: Path) -> str | None:
    """Why the folder cannot be a sweep's, or None."""
    if folder.exists() and not folder.is_dir():
        return f"out={folder} is a file; a sweep writes a folder with one for each job: choose another name"
    if (folder / "manifest.json").exists():
        return f"out={folder} holds a run; a sweep writes a folder with one for each job: choose another out"
    return None


def write_note(notes: Path, number: int, note: Note) -> None:
    """Write the note of a job."""
    write_atomic(notes / str(number), json.dumps(asdict(note)))


def read_notes(notes: Path) -> list[Note]:
    """The notes of all jobs, in the order of the jobs."""
    found = []
    for file in _note_files(notes):
        with suppress(OSError, ValueError):  # damaged
            found.append(Note(**json.loads(file.read_text(encoding="ascii"))))
    return found


def _note_files(notes: Path) -> list[Path]:
    try:
        return sorted((file for file in notes.iterdir() if file.name.isdecimal()), key=lambda file: int(file.name))
    except OSError:
        return []
