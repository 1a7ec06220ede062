"""What stands where a run wants to write, and whether it may."""

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
      entries: the names in it, sorted; empty where nothing stands there.
      manifest: its manifest, or None where the folder holds no run of mig_jax.
      changed: files of that run that are gone or have another size now.
    """

    entries: tuple[str, ...]
    manifest: Outline | None
    changed: tuple[str, ...]

    @property
    def run_key(self) -> str | None:
        return self.manifest.run_key if self.manifest else None

    def words(self, out: Path) -> str:
        """What to tell a person who did not expect it."""
        if self.manifest:
            return f"out={out} holds another run ({self.manifest.command}, finished {self.manifest.finished})"
        shown = ", ".join(self.entries[:3]) + (f" and {len(self.entries) - 3} more" if len(self.entries) > 3 else "")
        return f"out={out} is not empty and holds no finished run of mig_jax ({shown})"


def missing_above(out: str | Path) -> list[Path]:
    """The folders above ``out`` that are not there yet, the nearest first: for ``remove_empty`` at the end of a run."""
    return [folder for folder in Path(out).absolute().parents if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Take the folders away, the nearest first; one with something in it stays."""
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
    except UserError:  # somebody else's manifest.json
        return Occupant(entries, None, ())
    changed = tuple(name for name, facts in manifest.files.items() if _size(out / name) != facts.bytes)
    return Occupant(entries, manifest, changed)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def checked_out(out: str | Path, key: str = "out") -> Path:
    """``out`` as an absolute path that a run can be renamed to.

    Raises:
      UserError: it is a URL, a file, below a file, a mount point, or holds the current folder.
      OSError: it cannot be looked at.
    """
    if "://" in str(out):
        raise UserError(f"{key}={out} is a URL; give a folder of this machine, and copy it from there")
    try:
        path = Path(out).resolve()
    except (ValueError, RuntimeError) as error:  # a NUL byte; a loop of links
        raise UserError(f"{key}={str(out)!r} is not a path: {error}") from None
    for above in path.parents:
        if above.exists() and not above.is_dir():
            raise UserError(f"{key}={out}: {above} is a file, so nothing can be written below it")
    if path.exists() and not path.is_dir():
        raise UserError(f"{key}={out} is a file; a run writes a folder: choose another name or remove the file")
    if path == Path.cwd() or path in Path.cwd().parents:
        # Publishing renames the folder, which would leave the shell standing in a deleted one.
        raise UserError(
            f"{key}={out} is the current folder or above it; name a new folder in it, as {key}={path / 'run'}"
        )
    if path.is_mount():
        raise UserError(f"{key}={out} is a mount point, which nothing can be renamed to; use {key}={path / 'run'}")
    return path


def check_replaceable(out: Path, words: str) -> None:
    """Raise UserError where the folder that overwrite=true replaces may not be moved by this user."""
    if not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f"{words}, and may not be written by this user")
