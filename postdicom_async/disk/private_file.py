"""A small file of the user's own (0600) that processes change one after another, each whole or not at all.

It is replaced by a rename, so that a reader finds the old text or the new one. Whoever changes it holds a lock on a
second file beside it, ``NAME.lock``, while there is one: the file itself is another one after each change. Blocks.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from postdicom_async.disk.private import FileLock, make_folder
from postdicom_async.disk.problems import explained, local_file_error
from postdicom_async.disk.whole_file import whole_file
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.face import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["change", "read", "read_secret"]

_LARGEST = 1024 * 1024
_LARGEST_SECRET = 64 * 1024
_PATIENCE, _PAUSE = 30.0, 0.01  # seconds
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
        make_folder(path.parent)
    with _locked(path.with_name(path.name + ".lock"), what):
        text = to(read(path, what))
        if text is not None:
            with whole_file(path, what) as file:
                file.write(text)


@contextlib.contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock, and wait for it: whoever has it changes a line and goes."""
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
