"""A file of this user's alone that is there whole and durable, or as it was before."""

from __future__ import annotations

import os
import secrets
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from postdicom_async.disk.problems import explained

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
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_SUFFIX}")
        descriptor = os.open(part, _NEW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        _make_durable(path.parent)


def _sweep(path: Path) -> None:
    """Remove what a process that was killed has left of this file; a younger one may be somebody's who still writes."""
    for left in path.parent.glob(f".{_literal(path.name)}.*{_SUFFIX}"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > _ABANDONED_SECONDS:
                left.unlink()


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _make_durable(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
