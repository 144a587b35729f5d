"""Files, folders, locks and a socket for this user alone, whatever the umask. Everything here blocks.

* `FileLock` vanishes with the process: a file beside what it protects, locked through its open descriptor. Releasing it
  removes the file; so after taking a lock it is checked that its file still has that name.
* `whole_file` replaces a file whole and durably, or leaves it as it was.
* `read`, `read_secret` and `change` are for small files that processes change one after another: a reader finds the old
  text or the new one. A writer locks a second file beside it, ``NAME.lock``: the file itself is replaced by another at
  each change.
* `PrivateSocket` listens at a path.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from postdicom_async.disk.files import explained, local_file_error
from postdicom_async.errors import LedgerLocked, LocalFileError, UsageError
from postdicom_async.face import translated

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILE, _FOLDER = 0o600, 0o700
_IN_USE = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


class FileLock:
    """A lock on a name: held by one process, or by one `FileLock` of this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> bool:
        """Try to take it without waiting; return whether it was taken.

        Raises:
            LocalFileError: its file cannot be created.
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
                    # held by another process; or its owner has removed the file, and this one protects nothing
                    if not is_mine:
                        os.close(file)
                if is_mine:
                    self._file = file
                    keep_private(self._path)
                    return True

    def let_go(self) -> None:
        """Release it, and remove its file."""
        file, self._file = self._file, None
        if file is None:
            return
        # there an open file cannot be removed, and once closed it may be another process's lock
        if sys.platform != "win32":
            with suppress(OSError):
                self._path.unlink()
        os.close(file)


def locked(file: int) -> bool:
    """Try to lock an open file until it is closed; return whether that succeeded.

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
    """Create a folder and missing parents, for this user alone."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir(_FOLDER, exist_ok=True)
        path.chmod(_FOLDER)


def make_private(path: Path) -> None:
    """Create an empty file for this user alone; an existing one is removed."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), _FILE)
    os.close(file)
    keep_private(path)


def keep_private(path: Path) -> None:
    """Remove all permissions of others on a file, and restore its user's, which a umask may have removed."""
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
    """Make the entries of a folder durable. Does nothing on Windows, which cannot open folders."""
    if sys.platform != "win32":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def forget(path: Path) -> None:
    """Remove a file if it exists."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


# --- whole files ------------------------------------------------------------------------------------------------------


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_SUFFIX = ".postdicom-part"
_ABANDONED_SECONDS = 3600.0


@contextmanager
def whole_file(path: Path, what: str) -> Iterator[TextIO]:
    """Write text (UTF-8) that replaces ``path`` when the block ends; an exception leaves the old file.

    A link under that name is replaced, not followed. Blocking: use it in a thread.

    Args:
        path: the final name, in a folder that exists.
        what: how errors name it, such as ``"the report"``.

    Raises:
        LocalFileError: it cannot be written.
    """
    with explained(what):
        if not path.parent.exists():
            raise LocalFileError(f"{what}: its folder does not exist")
        _sweep(path)
        part, descriptor = _new_part(path)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
                if sys.platform != "win32":
                    part.replace(path)  # still locked
            if sys.platform == "win32":  # there what is open cannot be renamed
                part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        make_folder_durable(path.parent)


def _new_part(path: Path) -> tuple[Path, int]:
    """Create the temporary file and lock it: the lock tells it from one left by a killed process."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_SUFFIX}")
        descriptor = os.open(part, _NEW, 0o600)
        if _hold(descriptor) is not False and part.exists():
            return part, descriptor
        os.close(descriptor)  # another process swept it away before it was locked


def _sweep(path: Path) -> None:
    """Remove temporary files that killed processes have left."""
    for left in path.parent.glob(f".{_literal(path.name)}.*{_SUFFIX}"):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                is_free = _hold(descriptor)
                if is_free is None:  # no locks here: a file not written to for an hour is taken for abandoned
                    is_free = time.time() - os.fstat(descriptor).st_mtime > _ABANDONED_SECONDS
                if is_free:
                    left.unlink()
            finally:
                os.close(descriptor)


def _hold(descriptor: int) -> bool | None:
    """Lock a file until it is closed; False if another process holds it, None if there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        return locked(descriptor)
    except OSError:
        return None


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


# --- small files that are changed -------------------------------------------------------------------------------------


_LARGEST = 1024 * 1024
_LARGEST_SECRET = 64 * 1024
_PATIENCE, _PAUSE = 30.0, 0.01  # seconds
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a FIFO would wait for its writer


def read(path: Path, what: str) -> str | None:
    """Return the text of a file, None where there is none; ``what`` names it in an error.

    Raises:
        UsageError: others may change it, although it decides where passwords are sent; or it is not text.
        LocalFileError: it cannot be read.
    """
    try:
        content, status = _content(path, what, _LARGEST)
    except FileNotFoundError:
        return None
    if os.name == "posix" and (status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid())):
        raise UsageError(f"{what}: others may change it; chmod go-w, and own it")
    return _decoded(content, what)


def read_secret(path: Path, what: str, *, private: bool = True) -> str:
    """Return the content of a file, without a line break at its end.

    Raises:
        UsageError: it is not there, empty, or, with ``private``, others than its owner may read it.
        LocalFileError: it cannot be read.
    """
    try:
        content, status = _content(path, what, _LARGEST_SECRET)
    except FileNotFoundError:
        content, status = b"", None
    if status is None:
        raise UsageError(f"{what}: there is no such file ({path})")
    if private and os.name == "posix" and status.st_mode & 0o077:
        raise UsageError(f"{what}: others may read it; chmod 600")
    text = _decoded(content, what).removesuffix("\n").removesuffix("\r")
    if not text or not text.isprintable():
        raise UsageError(f"{what}: it holds nothing, or more than one line")
    return text


def _content(path: Path, what: str, largest: int) -> tuple[bytes, os.stat_result]:
    """Return content and status of one open file, so that both belong together.

    Raises:
        FileNotFoundError: there is none.
    """
    with translated(
        OSError, lambda error: None if isinstance(error, FileNotFoundError) else local_file_error(what, error)
    ):
        descriptor = os.open(path, _READ)
    with explained(what), open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(file.fileno())
        content = file.read(largest + 1) if stat.S_ISREG(status.st_mode) else None
    if content is None or len(content) > largest:
        raise UsageError(f"{what}: no file, or too large a one")
    return content, status


def _decoded(content: bytes, what: str) -> str:
    with translated(UnicodeDecodeError, lambda _: UsageError(f"{what}: it is not UTF-8 text")):
        return content.decode("utf-8")


def change(path: Path, what: str, to: Callable[[str | None], str | None]) -> None:
    """Replace the text of a file by ``to(text)``, under its lock; None leaves the file alone.

    The folder is created if needed (0700). If the path is a link, its target is replaced.

    Raises:
        UsageError: see `read`; or what ``to`` raises.
        LocalFileError: it cannot be written; the old file is still there.
    """
    path = Path(os.path.realpath(path))
    with explained(what):
        make_folder(path.parent)
    with _locked(path.with_name(path.name + ".lock"), what):
        text = to(read(path, what))
        if text is not None:
            with whole_file(path, what) as file:
                file.write(text)


@contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    """Wait for the lock and hold it: other holders only change a line and release it."""
    lock = FileLock(path)
    until = time.monotonic() + _PATIENCE
    while not lock.take():
        if time.monotonic() > until:
            raise LocalFileError(f"{what}: another process is changing it", temporary=True)
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        lock.let_go()


# --- a socket ---------------------------------------------------------------------------------------------------------


HAS_UNIX_SOCKETS = sys.platform != "win32"
_BACKLOG = 16
_WHAT = "control socket"


class PrivateSocket:
    """A socket that listens at a path, until `close`.

    Its calls are blocking but quick: none waits for a peer.

    Attributes:
        socket: listens, and does not block.
    """

    def __init__(self, path: Path) -> None:
        """Bind to the path; a socket that nobody listens on any more is replaced.

        Raises:
            LedgerLocked: another process listens there.
            LocalFileError: the folder belongs to somebody else, something else lies there, or a system call failed.
        """
        self._path = path
        with explained(_WHAT):
            _private_folder(path.parent)
            _refuse_what_lies_there(path)
            self.socket: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # A short name: socket paths are limited, and this one must not be longer than the final one.
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
        """Close it, and remove it unless another one has taken its place."""
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
        other.setblocking(False)  # a live one accepts at once, or its backlog is full
        try:
            other.connect(str(path))
        except BlockingIOError:
            pass
        except OSError:
            return
    raise LedgerLocked("another process runs this job")
