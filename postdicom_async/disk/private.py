"""Files and folders for this user alone, whatever the umask; and a lock that vanishes with the process. Blocks.

A lock is a file beside what it is for, held by its open descriptor: the system lets it go however the process ends. It
is removed by who lets go of it, so whoever has got a lock looks whether it is still the file of that name.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from postdicom_async.disk.problems import explained

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = [
    "FileLock",
    "forget",
    "keep_private",
    "locked",
    "make_folder",
    "make_folder_durable",
    "make_private",
    "put_in_place",
]

_FILE, _FOLDER = 0o600, 0o700
_IN_USE = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


class FileLock:
    """A lock on a name: one process has it, or one `FileLock` of this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> bool:
        """Take it, and return whether nobody else has it. Never waits.

        Raises:
            LocalFileError: its file cannot be made.
        """
        with explained("the lock"):
            while True:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), _FILE)
                is_mine = False
                try:
                    if not locked(file):
                        return False
                    is_mine = _is_still(file, self._path)
                finally:
                    if not is_mine:  # or who had it removed it in between: it guards nothing any more
                        os.close(file)
                if is_mine:
                    self._file = file
                    keep_private(self._path)
                    return True

    def let_go(self) -> None:
        """Let it go, and remove its file."""
        file, self._file = self._file, None
        if file is None:
            return
        if sys.platform != "win32":  # there a file that is open cannot be removed, and after that it may be another's
            with suppress(OSError):
                self._path.unlink()
        os.close(file)


def locked(file: int) -> bool:
    """Lock an open file, as long as it is open; return whether nobody else has it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _IN_USE:
            raise
        return False
    return True


def _is_still(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that do not exist, for this user alone."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir(_FOLDER, exist_ok=True)
        path.chmod(_FOLDER)


def make_private(path: Path) -> None:
    """Make an empty file for this user alone; what lay there is removed."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), _FILE)
    os.close(file)
    keep_private(path)


def keep_private(path: Path) -> None:
    """Take away what others may do with a file, and give its user what a umask took."""
    if stat.S_IMODE(path.stat().st_mode) != _FILE:
        path.chmod(_FILE)


def put_in_place(made: Path, path: Path) -> None:
    """Make a file durable, and give it its name."""
    file = os.open(made, os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)
    made.replace(path)
    make_folder_durable(path.parent)


def make_folder_durable(folder: Path) -> None:
    """Make it durable which names a folder has. Windows opens no folder: nothing is done there."""
    if sys.platform != "win32":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def forget(path: Path) -> None:
    """Remove a file that may not be there."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
