"""A small file of the user's own (0600) that processes change one after another, each whole or not at all.

It is replaced by a rename, so that a reader finds the old text or the new one. Whoever changes it holds a lock on a
second file beside it, ``NAME.lock``: the file itself is another one after each change.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from postdicom_async.disk.problems import explained, local_file_error
from postdicom_async.errors import UsageError
from postdicom_async.face import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["change", "read", "read_secret"]

_LARGEST = 1024 * 1024
_LARGEST_SECRET = 64 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a FIFO would wait for its writer


def read(path: Path, what: str) -> str | None:
    """Return the text of a file, None where there is none; ``what`` names it in an error.

    Raises:
        UsageError: somebody else may change it: it says where passwords are sent. Or it is no text.
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
    """Return what a file holds, without a line break at its end.

    Raises:
        UsageError: it is not there, empty, or, with ``private``, others than its owner may read it.
        LocalFileError: it cannot be read.
    """
    try:
        content, status = _content(path, what, _LARGEST_SECRET)
    except FileNotFoundError:
        content, status = b"", None
    if status is None:
        raise UsageError(f"{what}: there is no such file")
    if private and os.name == "posix" and status.st_mode & 0o077:
        raise UsageError(f"{what}: others may read it; chmod 600")
    text = _decoded(content, what).removesuffix("\n").removesuffix("\r")
    if not text or not text.isprintable():
        raise UsageError(f"{what}: it holds nothing, or more than one line")
    return text


def _content(path: Path, what: str, largest: int) -> tuple[bytes, os.stat_result]:
    """Return content and status of one open file, so that both are of the same.

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
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise UsageError(f"{what}: it is not UTF-8 text")


def change(path: Path, what: str, to: Callable[[str | None], str | None]) -> None:
    """Replace the text of a file by what ``to`` makes of it, under its lock; None leaves it alone.

    The folder is made where there is none (0700). Where the path is a link, the file it leads to is replaced.

    Raises:
        UsageError: see `read`; or what ``to`` raises.
        LocalFileError: it cannot be written; the old one is still there.
    """
    path = Path(os.path.realpath(path))
    with explained(what):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path.with_name(path.name + ".lock"), what):
        text = to(read(path, what))
        if text is not None:
            with explained(what):
                _replace(path, text.encode())


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(partial, _NEW, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    if sys.platform != "win32":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock, waiting for whoever holds it: they change a line and go. It ends with the process."""
    with explained(what):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        with explained(what):
            _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
