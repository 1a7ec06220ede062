"""An advisory lock on a folder: a second process on one ``out`` is refused instead of mixing its files in."""

import errno
import fcntl
import os
from pathlib import Path

from mig_jax.core.errors import UserError

LOCK = "lock"


class Busy(UserError):
    """Another process holds the lock."""


_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def lock_folder(folder: Path) -> tuple[int, bool]:
    """Create ``folder`` and lock it; (the open lock's descriptor, whether the file system can lock at all).

    The lock ends with the process, however it ends. ``flock`` belongs to the open file, so it also keeps two claims of
    one process apart.

    Raises:
      Busy: another process holds the lock.
      OSError: ``folder`` cannot be made or written.
    """
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its owner finished between the two lines and removed the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 100, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise Busy(
                f"another process ({holder}) is writing this out (it holds {folder}); wait for it or choose another out"
            ) from None
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return lock, False
            os.close(lock)
            raise
        if _is_still(lock, folder / LOCK):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"pid {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
            return lock, True
        os.close(lock)  # the lock of a folder that its owner has just removed: try the new one


def _is_still(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
