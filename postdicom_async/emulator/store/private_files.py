"""Files and folders for nobody but the user whose process this is: a umask can only take more away. Blocks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_file", "make_folder", "only_mine", "opener"]

_FILE, _FOLDER = 0o600, 0o700


def opener(path: str, flags: int) -> int:
    """Open a file for `open`, so that one that it makes is private from the first moment."""
    return os.open(path, flags, _FILE)


def make_file(path: Path) -> None:
    """Make an empty file unless it is there; private in any case."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, _FILE))
    only_mine(path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing; what is there stays as it is."""
    if not path.is_dir():
        make_folder(path.parent)  # `Path.mkdir` would give those above the usual mode
        path.mkdir(_FOLDER, exist_ok=True)


def only_mine(path: Path) -> None:
    """Take a file or a folder that is there away from all others."""
    path.chmod(_FOLDER if path.is_dir() else _FILE)
