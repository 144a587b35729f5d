"""Local paths as the user named them, checked before anything is sent."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from postdicom_async import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def given_path(text: str) -> Path:
    """Parse a path from the command line; used for every argument and option that is a path.

    Raises:
        typer.BadParameter: it is empty: `Path` would take it as the current folder, and an unset shell variable yields
            it.
    """
    if not text:
        raise typer.BadParameter("the path is empty; write . for the current folder")
    return Path(text)


SourcePaths: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PATH...", parser=given_path, help="Files, and folders to search; DICOM is known by content."
    ),
]
FilesFrom: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--files-from",
        metavar="FILE",
        parser=given_path,
        help="Take the paths in this file too, one a line, or with a NUL behind each (find -print0); - is standard "
        "input.",
    ),
]


def sources_of(paths: Iterable[Path] | None, files_from: Path | None) -> list[Path]:
    """Return the paths given as arguments and in a file, each of them readable.

    Raises:
        UsageError: there are neither, or one cannot be read.
    """
    given = list(paths or ())
    if files_from is None and not given:
        raise UsageError("missing argument 'PATH...'; or give --files-from FILE")
    if files_from is not None:
        given += map(Path, _listed_in(files_from))
    require_readable(given)
    return given


def _listed_in(file: Path) -> list[str]:
    try:
        content = sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
    except OSError as error:
        problem = UsageError(f"--files-from: {file}: {words_of(error)}")
    else:
        if b"\0" in content:
            return [os.fsdecode(name) for name in content.split(b"\0") if name]
        return [os.fsdecode(name) for name in content.splitlines() if name]
    raise problem


def require_readable(paths: Iterable[Path]) -> None:
    """Refuse a path that is missing, unreadable, neither a file nor a folder, or where a disk is not mounted.

    An unmounted mount point is an empty folder: without this check, the command would send nothing and report success.

    Raises:
        UsageError: the first such path.
    """
    for path in paths:
        try:
            if path.is_dir():
                os.scandir(path).close()
            elif path.is_file():
                path.open("rb").close()
            else:
                path.stat()
                raise UsageError(f"{path}: neither a file nor a folder")
        except OSError as error:
            problem = UsageError(f"{path}: {words_of(error)}")
        else:
            if is_unmounted(path):
                raise UsageError(f"{path}: the disk that belongs there is not mounted")
            continue
        raise problem


_MOUNTS = Path("/etc/fstab")


def is_unmounted(path: Path) -> bool:
    """Return whether fstab has a disk at this path, or above it, that is not mounted."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
        there = path.resolve()
    except OSError:
        return False
    entries = [line.split() for line in lines if not line.lstrip().startswith("#")]
    points = [_unescaped(entry[1]) for entry in entries if len(entry) > 2 and entry[1].startswith("/")]
    return any(there.is_relative_to(point) and point != "/" and not os.path.ismount(point) for point in points)


def _unescaped(text: str) -> str:
    """Return a path as it is: the table writes spaces and the like as three octal digits (fstab(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def require_writable(folder: Path, option: str) -> None:
    """Refuse a folder that cannot be written to or created; nothing is created here.

    Raises:
        UsageError: it is not a folder, or not permitted.
    """
    there = folder.absolute()
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise UsageError(f"{option}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{option}: {there} cannot be written to")


def require_empty(folder: Path, option: str) -> None:
    """Refuse a folder with something in it.

    Raises:
        UsageError: it is not empty.
    """
    require_writable(folder, option)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{option}: {folder} is not empty")


@contextlib.contextmanager
def removing_if_empty(folder: Path) -> Iterator[None]:
    """Afterwards remove the folder and its parents if they did not exist before and are empty."""
    made = []
    there = folder.absolute()
    while not os.path.lexists(there) and there != there.parent:
        made.append(there)
        there = there.parent
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # stop at the first that is not empty: its parents are not empty either
            for one in filter(os.path.lexists, made):
                one.rmdir()


def words_of(error: OSError) -> str:
    """Return the error's text without the path."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return (error.strerror or "cannot be read").lower()
