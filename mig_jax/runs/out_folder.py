"""What an output folder holds, and whether a run may write there."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mig_jax.core.errors import UserError
from mig_jax.runs.manifest import MANIFEST, Outline, read_outline


@dataclass(frozen=True)
class Occupant:
    """What an ``out`` holds.

    Args:
      entries: the names in it, sorted; empty where there is no folder.
      manifest: its manifest, or None where the folder holds no run of mig_jax.
      changed: files of that run that are missing or have another size.
    """

    entries: tuple[str, ...]
    manifest: Outline | None
    changed: tuple[str, ...]

    @property
    def run_key(self) -> str | None:
        return self.manifest.run_key if self.manifest else None

    @property
    def description(self) -> str:
        """For a message: what the folder holds."""
        if self.manifest:
            return f"holds another run ({self.manifest.command}, finished {self.manifest.finished})"
        shown = ", ".join(self.entries[:3]) + (f" and {len(self.entries) - 3} more" if len(self.entries) > 3 else "")
        return f"is not empty and holds no finished run of mig_jax ({shown})"


def missing_above(out: str | Path) -> list[Path]:
    """The folders above ``out`` that do not exist, the nearest first: for ``remove_empty`` at the end of a run."""
    return [folder for folder in Path(out).absolute().parents if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that are empty, the nearest first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def occupant(out: Path) -> Occupant:
    """Read what ``out`` holds. Raises OSError where it cannot be listed."""
    if not out.exists():
        return Occupant((), None, ())
    entries = tuple(sorted(path.name for path in out.iterdir()))
    if MANIFEST not in entries:
        return Occupant(entries, None, ())
    try:
        manifest = read_outline(out)
    except UserError:  # of another program
        return Occupant(entries, None, ())
    changed = tuple(name for name, facts in manifest.files.items() if _size(out / name) != facts.bytes)
    return Occupant(entries, manifest, changed)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def checked_out(out: str | Path, key: str = "out") -> Path:
    """``out`` as an absolute path that a run can be renamed to.

    Args:
      key: the setting, for messages.

    Raises:
      UserError: it is a URL, a file, below a file, a mount point, or holds the current folder.
      OSError: the file system refuses to read it.
    """
    if "://" in str(out):
        raise UserError("is a URL; give a folder of this machine, and copy it from there", key=key, value=str(out))
    try:
        path = Path(out).resolve()
    except (ValueError, RuntimeError) as error:  # a NUL byte; a loop of links
        raise UserError(f"is not a path: {error}", key=key, value=str(out)) from None
    for above in path.parents:
        if above.exists() and not above.is_dir():
            raise UserError(f"{above} is a file, so nothing can be written below it", key=key, value=str(out))
    if path.exists() and not path.is_dir():
        message = "is a file; a run writes a folder: choose another name or remove the file"
        raise UserError(message, key=key, value=str(out))
    if path == Path.cwd() or path in Path.cwd().parents:
        # Publishing renames the folder, which would leave the shell standing in a deleted one.
        message = f"is the current folder or above it; name a new folder in it, as {key}={path / 'run'}"
        raise UserError(message, key=key, value=str(out))
    if path.is_mount():
        message = f"is a mount point, which nothing can be renamed to; use {key}={path / 'run'}"
        raise UserError(message, key=key, value=str(out))
    return path


def check_replaceable(out: Path, held: Occupant) -> None:
    """Raise UserError where this user may not move the folder that overwrite=true replaces."""
    if not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f"{held.description}, and may not be written by this user", key="out", value=str(out))
