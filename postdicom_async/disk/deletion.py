"""Deleting files below a folder, and the folders that are empty then; no link is followed, and nothing else goes."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from postdicom_async.disk.files import FileIdentity, identity_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["delete_file"]

_GUARDED = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


def delete_file(root: Path, parts: Sequence[str], identity: FileIdentity) -> bool:
    """Delete a file, and the folders up to the root that it leaves empty; blocks.

    Args:
        root: the folder; it may be a link itself, and stays.
        parts: the names of folders and the file below it.
        identity: what the file was when it was known to be the one. A link is deleted, not what it leads to.

    Returns:
        False where something else lies there by now: it was left alone. True where it is gone, by this or before.

    Raises:
        OSError: it cannot be deleted, or a link is in the way.
    """
    if not parts or any(part in {"", ".", ".."} or "/" in part or os.sep in part for part in parts):
        raise NotADirectoryError(20, "this is no place in the folder")
    if not _GUARDED:
        return _delete_unguarded(root, parts, identity)
    with ExitStack() as opened:
        folders = [_open(opened, root, None)]
        for part in parts[:-1]:
            try:
                folders.append(_open(opened, part, folders[-1]))
            except FileNotFoundError:
                return True
        try:
            if identity_of(os.stat(parts[-1], dir_fd=folders[-1])) != identity:
                return False
            os.unlink(parts[-1], dir_fd=folders[-1])
        except FileNotFoundError:
            return True
        for part, parent in zip(reversed(parts[:-1]), reversed(folders[:-1]), strict=True):
            try:
                os.rmdir(part, dir_fd=parent)
            except OSError:  # not empty
                break
    return True


def _open(opened: ExitStack, name: str | Path, parent: int | None) -> int:
    flags = _DIRECTORY if parent is None else _DIRECTORY | os.O_NOFOLLOW
    descriptor = os.open(name, flags, dir_fd=parent)
    opened.callback(os.close, descriptor)
    return descriptor


def _delete_unguarded(root: Path, parts: Sequence[str], identity: FileIdentity) -> bool:
    folders = [root.joinpath(*parts[:number]) for number in range(1, len(parts))]
    with suppress(FileNotFoundError):
        for folder in folders:
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise NotADirectoryError(20, "something that is not a folder is in the way")
        file = root.joinpath(*parts)
        if identity_of(file.stat()) != identity:
            return False
        file.unlink()
        for folder in reversed(folders):
            try:
                folder.rmdir()
            except OSError:  # not empty
                break
    return True
