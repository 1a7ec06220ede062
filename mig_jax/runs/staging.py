"""A run's files appear in ``out`` all at once or not at all.

Beside ``out`` stands ``.{name}.partial/`` while a run works:

    lock          held by the process that works
    claim.json    the run_key of the run it belongs to
    checkpoint/   what a resume needs
    files/        what will be ``out``, published by one rename
    sample        the selection of ``sample --out FILE``, published by one rename to FILE
    previous/     for a moment: the ``out`` that is being replaced

After a crash at any point, ``out`` is the old folder or the new one, or ``previous/`` is the old one and the next
claim restores it. Files of the old folder that no run wrote (a training's checkpoints, notes) move into the new one.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mig_jax.core.errors import UserError
from mig_jax.core.files import sync
from mig_jax.core.json_files import write_json
from mig_jax.core.locks import LOCK, Busy, lock_folder
from mig_jax.runs.manifest import MANIFEST, REPORT, read_outline
from mig_jax.runs.out_folder import check_replaceable, checked_out, occupant

State = Literal["fresh", "resume", "done"]


@dataclass
class Claim:
    """The right to write ``out``; a context manager that releases it.

    Args:
      out: the folder to publish, absolute.
      state: "fresh", "resume" (an earlier attempt was interrupted; ``checkpoint`` is its) or "done" (nothing to do; the
        folders below do not exist).
      files: for the run's files; empty at the start.
      checkpoint: for what a resume needs.
      sample: with ``claim_file``, the file for the selection; else None.
      sample_target: the FILE that ``sample`` becomes.
      notes: for the user.
    """

    out: Path
    state: State
    files: Path
    checkpoint: Path
    sample: Path | None = None
    sample_target: Path | None = None
    notes: tuple[str, ...] = ()
    _lock: int | None = field(default=None, repr=False)

    @property
    def partial(self) -> Path:
        return self.files.parent

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def publish(self) -> None:
        """Move the files to ``out`` (and ``sample`` to FILE), and remove the staging folder.

        FILE comes first: the manifest in ``out`` marks the run as done, so it comes last.

        Raises:
          OSError: a rename failed; the old ``out`` is whole and the claim still holds, so publish may be tried again.
        """
        assert self._lock is not None, "nothing is claimed"
        _sync_tree(self.files)
        if self.sample is not None and self.sample_target is not None and self.sample.exists():
            sync(self.sample)
            self.sample.replace(self.sample_target)
            sync(self.sample_target.parent)
        _swap(self.files, self.out, self.partial / "previous")
        _remove_partial(self.partial)
        self._unlock()

    def release(self) -> None:
        """Release the claim without publishing; the staging folder stays only if ``checkpoint`` holds something."""
        if self._lock is None:
            return
        if not any(self.checkpoint.iterdir()) and not (self.partial / "previous").exists():
            _remove_partial(self.partial)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def claim(out: str | Path, run_key: str, overwrite: bool = False, *, spare: bool = False) -> Claim:
    """Claim the folder ``out`` for the run ``run_key``, before any work. With several processes, one of them claims.

    Args:
      run_key: hex sha256 of everything that decides the run's files (configuration, inputs, version).
      overwrite: replace what ``out`` holds, and do a finished run again. An unfinished run of the same key is resumed
        all the same: it gives the same bytes.
      spare: without ``overwrite``, also refuse to replace the unfinished work of another run: it took long to compute.

    Raises:
      UserError: ``out`` cannot be written, holds something else, or is being written by another process (``Busy``).
    """
    with _user_errors(key="out", value=str(out)):
        return _claim(checked_out(out), run_key, overwrite, None, spare and not overwrite)


def join(out: str | Path, run_key: str, overwrite: bool = False) -> Claim:
    """As ``claim`` with ``spare``, for one of several processes that fill ``checkpoint``: it holds no lock.

    ``checkpoint`` belongs to all of them; the process that claims publishes. The first process makes the folder, and it
    stays until the publication. ``overwrite`` does not repeat a finished run here: a process that starts too late would
    begin it anew, and nothing but ``claim`` completes one.
    """
    with _user_errors(key="out", value=str(out)):
        path = checked_out(out)
    partial = path.parent / f".{path.name}.partial"
    joined = Claim(path, "resume", partial / "files", partial / "checkpoint")
    try:
        with _user_errors(key="out", value=str(out)):
            made = _claim(path, run_key, overwrite, None, not overwrite, again=False)
    except Busy:
        with suppress(FileNotFoundError):  # it has just been published
            if _claimed_key(partial) == run_key and joined.checkpoint.is_dir():
                return joined
        raise
    made._unlock()
    return made


def claim_file(file: str | Path, run_key: str, overwrite: bool = False) -> Claim:
    """Claim FILE for a selection, and ``FILE.run/`` for all else; as ``claim``."""
    with _user_errors(where=f"--out {file}"):
        target = Path(os.path.abspath(file))  # noqa: PTH100  (a link stays a link: FILE is written exactly as asked)
        if target.exists() and not target.is_file():
            raise UserError("is not a regular file; name a file to write", where=f"--out {file}")
        return _claim(checked_out(f"{target}.run", "--out FILE.run"), run_key, overwrite, target)


def _claim(
    out: Path, run_key: str, overwrite: bool, target: Path | None, spare: bool = False, again: bool = True
) -> Claim:
    partial = out.parent / f".{out.name}.partial"
    made = Claim(out, "done", partial / "files", partial / "checkpoint", None, target)
    # First without the lock: also on a read-only disk a finished run is done, and a foreign folder is refused.
    if not partial.exists() and _state_of(out, run_key, overwrite, target, again)[0] == "done":
        return made
    out.parent.mkdir(parents=True, exist_ok=True)
    made._lock, locks = lock_folder(partial)
    try:
        notes = [] if locks else [f"{out.parent} cannot lock files: start no second run with this out"]
        notes += _recover(partial, out)
        claimed = _claimed_key(partial)
        resumed = claimed == run_key
        state, more = _state_of(out, run_key, overwrite, None if resumed else target, again or resumed)
        if state == "done":
            _remove_partial(partial)
            made._unlock()
            return made
        notes += more
        if resumed:
            made.state = "resume"
            shutil.rmtree(made.files, ignore_errors=True)
        else:
            if claimed and spare:
                message = (
                    "holds another run's unfinished work; give the same settings to resume it, choose another out, or "
                    "set overwrite=true to discard it"
                )
                raise UserError(message, where=partial)
            if claimed:
                notes.append(f"{partial.name} of another run, which was never finished, has been replaced")
            _empty(partial)
            made.state = "fresh"
            write_json(partial / "claim.json", {"run_key": run_key})
        made.files.mkdir()
        made.checkpoint.mkdir(exist_ok=True)
        made.sample = partial / "sample" if target else None
        made.notes = tuple(notes)
        return made
    except BaseException:
        with suppress(OSError):
            if _claimed_key(partial) is None and {path.name for path in partial.iterdir()} <= {LOCK}:
                _remove_partial(partial)
        made._unlock()
        raise


def _state_of(out: Path, run_key: str, overwrite: bool, target: Path | None, again: bool) -> tuple[State, list[str]]:
    """Whether ``out`` (and FILE) are free or hold this run, and notes for the user.

    Args:
      again: ``overwrite`` also repeats a finished run.

    Raises:
      UserError: they hold something else.
    """
    held = occupant(out)
    same = held.run_key == run_key
    sample = held.manifest.sample_file if held.manifest else None
    whole = target is None or (sample is not None and target.is_file() and target.stat().st_size == sample.bytes)
    done = same and whole and not held.changed
    if overwrite and (again or not done):
        if held.entries:
            check_replaceable(out, held)
        return "fresh", []
    if done:
        return "done", []
    if same:
        missing = [name for name in held.changed if not (out / name).exists()]
        if len(missing) < len(held.changed) or (target is not None and target.exists() and not whole):
            message = "holds this run, but its files were changed since; set overwrite=true to write them again"
            raise UserError(message, key="out", value=str(out))
        return "fresh", [f"out={out} holds this run without {', '.join(missing) or target}: it is done again"]
    if held.entries:
        stay = "" if held.manifest else " (files of other names stay)"
        message = f"{held.description}; choose another out, or set overwrite=true to replace it{stay}"
        raise UserError(message, key="out", value=str(out))
    if target is not None and target.exists():
        message = "exists already; choose another name, or set overwrite=true to replace it"
        raise UserError(message, where=f"--out {target}")
    return "fresh", []


def _claimed_key(partial: Path) -> str | None:
    """The run a staging folder belongs to; None for a new one. Raises UserError where it is not a staging folder."""
    try:
        return json.loads((partial / "claim.json").read_bytes())["run_key"]
    except FileNotFoundError:
        if {path.name for path in partial.iterdir()} - {LOCK}:
            raise UserError("was not made by mig_jax; move it or choose another out", where=partial) from None
        return None
    except (ValueError, KeyError, TypeError):  # a crash while the claim was written: nothing was staged yet
        return ""


def _swap(new: Path, out: Path, previous: Path) -> None:
    """Put ``new`` in the place of ``out``: one rename where ``out`` is missing or empty, else two and a cleanup."""
    if not out.exists() or not any(out.iterdir()):
        new.rename(out)
        sync(out.parent)
        return
    out.rename(previous)
    try:
        new.rename(out)
    except OSError:
        with suppress(OSError):  # if this fails too, the next claim does it
            previous.rename(out)
        raise
    sync(out.parent)
    _tidy(previous, out)


def _recover(partial: Path, out: Path) -> list[str]:
    """Finish or undo a swap that a crash interrupted; notes for the user."""
    previous = partial / "previous"
    if not previous.exists():
        return []
    if not out.exists() or not any(out.iterdir()):  # a tool may have made an empty ``out`` meanwhile
        previous.rename(out)
        sync(out.parent)
        return [f"out={out} was being replaced when a run was interrupted; the old folder is restored"]
    _tidy(previous, out)
    return []


def _tidy(previous: Path, out: Path) -> None:
    """Move what no run wrote from the old folder into the new one, then delete the old; its list of files last."""
    try:
        ours = {*read_outline(previous).files, REPORT, MANIFEST}
    except (UserError, OSError):
        ours = {MANIFEST}
    for path in sorted(previous.iterdir()):
        if path.name not in ours and not (out / path.name).exists():
            path.rename(out / path.name)
    for path in sorted(previous.iterdir(), key=lambda path: path.name == MANIFEST):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    previous.rmdir()
    sync(out)


def _empty(partial: Path) -> None:
    # The claim last: without it, the next process would take what a crash leaves here for a foreign folder.
    for path in sorted(partial.iterdir(), key=lambda path: path.name == "claim.json"):
        if path.name == LOCK:
            continue
        if not path.is_dir() or path.is_symlink():
            path.unlink()
            continue
        # Renamed first: a process that joined may still be writing under the old name.
        shutil.rmtree(path.rename(partial / f"old-{uuid.uuid4().hex}"))


def _remove_partial(partial: Path) -> None:
    """Remove the staging folder, the lock last, so that no process can lock a folder that is half removed."""
    _empty(partial)
    (partial / LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # the next process has already made its own lock in it
        partial.rmdir()


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


@contextmanager
def _user_errors(**setting: Any) -> Iterator[None]:
    """Raise a UserError about ``setting`` where the system refuses to write."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(f"cannot be written: {error.strerror or error}{where}", **setting) from error
