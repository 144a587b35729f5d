"""A Unix socket that this user alone can reach: 0600 in a folder that is 0700, and put in its place ready to answer."""

from __future__ import annotations

import os
import secrets
import socket
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from postdicom_async.disk.problems import explained
from postdicom_async.errors import LedgerLocked, LocalFileError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["HAS_UNIX_SOCKETS", "PrivateSocket"]

HAS_UNIX_SOCKETS = sys.platform != "win32"
_BACKLOG = 16
_WHAT = "control socket"


class PrivateSocket:
    """A socket that listens at a path, until `close`.

    Blocking calls that take no time: nothing here waits for a peer.

    Attributes:
        socket: listens, and does not block.
    """

    def __init__(self, path: Path) -> None:
        """Take the path's place; a socket that nobody answers at any more is replaced.

        Raises:
            LedgerLocked: another process answers there.
            LocalFileError: the folder belongs to somebody else, something else lies there, or a system call failed.
        """
        self._path = path
        with explained(_WHAT):
            _private_folder(path.parent)
            _refuse_what_lies_there(path)
            self.socket: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # The name is short: a socket's path is, and this must not be longer than the final one.
            there = path.with_name(f"{secrets.token_hex(4)}.new")
            try:
                self.socket.setblocking(False)
                self.socket.bind(str(there))
                there.chmod(0o600)
                self.socket.listen(_BACKLOG)
                self._identity = _identity(there)
                there.replace(path)
            except BaseException:
                self.socket.close()
                with suppress(OSError):
                    there.unlink()
                raise

    def close(self) -> None:
        """Let it go, and remove it unless another one has taken its place."""
        self.socket.close()
        with suppress(OSError):
            if _identity(self._path) == self._identity:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise LocalFileError(f"{_WHAT}: its folder belongs to somebody else")
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def _refuse_what_lies_there(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise LocalFileError(f"{_WHAT}: something else lies in its place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.setblocking(False)  # one that answers takes a connection at once, or has too many waiting
        try:
            other.connect(str(path))
        except BlockingIOError:
            pass
        except OSError:
            return
    raise LedgerLocked("another process runs this job")
