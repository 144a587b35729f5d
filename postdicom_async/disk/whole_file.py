"""A file of this user's alone that is there whole and durable, or as it was before."""

from __future__ import annotations

import os
import secrets
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from postdicom_async.disk.private import make_folder_durable
from postdicom_async.disk.problems import explained

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["whole_file"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_SUFFIX = ".postdicom-part"
_ABANDONED_SECONDS = 3600.0


@contextmanager
def whole_file(path: Path, what: str) -> Iterator[TextIO]:
    """Write text (UTF-8) that takes the place of ``path`` when the block ends; an exception leaves what was there.

    A link under that name is replaced, not followed. Blocking: use it in a thread.

    Args:
        path: the final name, in a folder that exists.
        what: how errors name it, such as ``"the report"``.

    Raises:
        LocalFileError: it cannot be written.
    """
    with explained(what):
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
    """Make the file that is written, and hold its lock: that tells it from what a process that was killed has left."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_SUFFIX}")
        descriptor = os.open(part, _NEW, 0o600)
        if _hold(descriptor) is not False and part.exists():
            return part, descriptor
        os.close(descriptor)  # somebody swept it away before it was locked


def _sweep(path: Path) -> None:
    """Remove what processes that were killed have left of this file."""
    for left in path.parent.glob(f".{_literal(path.name)}.*{_SUFFIX}"):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                is_free = _hold(descriptor)
                if is_free is None:  # no locks here: who has not written for an hour does so no more
                    is_free = time.time() - os.fstat(descriptor).st_mtime > _ABANDONED_SECONDS
                if is_free:
                    left.unlink()
            finally:
                os.close(descriptor)


def _hold(descriptor: int) -> bool | None:
    """Lock a file as long as it is open; False where another does, None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
