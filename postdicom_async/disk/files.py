"""Finding files, what their first bytes tell, and a file as a body: looking at a file never raises.

A file is read twice: its beginning when it is identified, all of it when it is sent. Its identity tells whether it is
the same file both times; one that has changed in between is an error, never a success.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from postdicom_async.dicom.header import HEADER_LIMIT, HeaderGap
from postdicom_async.dicom.wholeness import Doubt, what_is_missing
from postdicom_async.disk.scratch import Scratch, ScratchMap
from postdicom_async.disk.threads import QuickWork, outlasting
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.face import translated
from postdicom_async.results import InstanceUids, Status

FileIdentity: TypeAlias = tuple[int, int, int, int]

_T = TypeVar("_T")
_Told = TypeVar("_Told", covariant=True)

_FIRST_READ = 64 * 1024
_MOST_NAMES = 20_000  # names of one folder held in memory; more are sorted on disk
_PATIENCE = 2.0  # seconds to check whether a file is whole, on a slow disk


@dataclass(frozen=True, slots=True)
class Unusable:
    """A source that cannot be sent, and why; with its UIDs if they are known."""

    label: str = field(repr=False)
    status: Status
    reason: str
    size: int = 0
    uids: InstanceUids | None = None


def path_of(source: str | os.PathLike[str]) -> Path:
    """Return an argument as a path; refuse an empty one, which would be the current folder."""
    text: object = None
    with suppress(TypeError):
        text = os.fspath(source)
    if not isinstance(text, str):
        raise UsageError("a path must be text", argument="sources")
    if not text:
        raise UsageError("an empty path", argument="sources")
    return Path(text)


def is_folder(path: Path) -> bool:
    """Do what `Path.is_dir` does, without raising for paths that cannot be examined."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def files_at(path: Path) -> Iterator[Path | Unusable]:
    """Yield a file itself, or every file below a folder in a stable order; report folders that cannot be searched.

    However many files there are and however deep they lie (`os.walk` is recursive), memory holds the names of one
    folder per level, and only some names of a very large folder.
    """
    if not is_folder(path):
        yield path
        return
    levels = [(path, _entries(path))]
    while levels:
        folder, entries = levels[-1]
        problem: OSError | None = None
        try:
            kind, name = next(entries, (_END, ""))
        except OSError as error:
            problem, kind = error, _END
        if problem is not None:
            yield Unusable(str(folder), Status.UNREADABLE, f"folder: {explain_os_error(problem)}")
        if kind == _END:
            levels.pop()
        elif kind == _LINK:
            reason = "a link to a folder is not followed; name the folder"
            yield Unusable(str(folder / name), Status.UNREADABLE, reason)
        elif kind == _FILE:
            yield folder / name
        else:
            levels.append((folder / name, _entries(folder / name)))


_LINK, _FILE, _FOLDER, _END = range(4)  # a folder's entries come in this order, those of a kind by name


def _entries(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield a folder's entries: links to folders, then everything that is not a folder, then folders, by name.

    Raises:
        OSError: it cannot be searched; nothing has been yielded then.
        LocalFileError: there are very many, and the folder for temporary files has no room for their names.
    """
    with closing(Scratch()) as scratch:
        names: ScratchMap[int] = ScratchMap(scratch, held=_MOST_NAMES)
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = _FILE if not _is_folder_entry(entry) else _LINK if entry.is_symlink() else _FOLDER
                names.put((kind, os.fsencode(entry.name)), 0)
        for kind, name in names.keys():  # noqa: SIM118 - no dict
            yield kind, os.fsdecode(name)


def sizes_at(path: Path) -> Iterator[int]:
    """Yield the size of every file that `files_at` yields, in any order; 0 if unknown."""
    if not is_folder(path):
        yield _size(path)
        return
    waiting = [str(path)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if not _is_folder_entry(entry):
                    yield _size(entry)
                elif entry.is_symlink():
                    yield 0
                else:
                    waiting.append(entry.path)


def _size(file: Path | os.DirEntry[str]) -> int:
    try:
        return file.stat().st_size
    except (OSError, ValueError):
        return 0


def _is_folder_entry(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


_GAPS = {
    HeaderGap.NOT_DICOM: (Status.NOT_DICOM, "no DICOM file (PS3.10)"),
    HeaderGap.INCOMPLETE: (Status.UNREADABLE, "the file ends inside its header"),
    HeaderGap.UNCLEAR: (Status.UNREADABLE, "no valid Study, Series and SOP Instance UID"),
}


# Signatures of archive formats and their offsets; that of tar comes only after 257 bytes.
_PACKED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "zip"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (257, b"ustar", "tar"),
)


def unusable(label: str, gap: HeaderGap, size: int, beginning: bytes = b"") -> Unusable:
    """Return the `Unusable` for a source without a readable header; ``beginning`` are its first bytes."""
    status, reason = _GAPS[gap]
    if gap is HeaderGap.NOT_DICOM:
        packed = [kind for at, mark, kind in _PACKED if beginning.startswith(mark, at)]
        reason = f"a {packed[0]} archive: unpack it" if packed else reason
    return Unusable(label, status, reason, size)


def open_at_once(path: Path) -> FileIO:
    """Open a file for reading without blocking, even if it has become a pipe since it was examined."""
    return FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def read_fully(file: FileIO, size: int) -> bytes:
    """Return ``size`` bytes, fewer only at the end of the file: a single read may return fewer before that."""
    data = file.read(size)
    while data and len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def write_fully(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it: a single write may take less, on a nearly full disk or to a pipe."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


class _Reader(Protocol[_Told]):
    """Tells what a file is from its first bytes, as `read_header` does."""

    def __call__(self, data: bytes, *, complete: bool) -> _Told | HeaderGap: ...


class Beginning(NamedTuple, Generic[_T]):
    """The result of reading the first bytes of a file.

    Attributes:
        told: the reader's result.
        status: that of the file as it was opened.
        content: all of a small file that did not change while it was read; empty for a larger one.
    """

    told: _T
    status: os.stat_result
    content: bytes


def read_beginning(path: Path, read: _Reader[_T], *, whole: bool = False) -> Beginning[_T] | Unusable:
    """Return the result of ``read`` on a file's beginning, or why there is none; never raises because of the file.

    With ``whole`` a DICOM file that is cut off is `Unusable`, whatever its beginning says.
    """
    label = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Unusable(label, Status.UNREADABLE, "not a regular file")
        if status.st_size == 0:
            return Unusable(label, Status.NOT_DICOM, "empty file")
        with open_at_once(path) as file:
            status = os.fstat(file.fileno())  # of the open file: another one may have taken its name
            data, told, missing = look_into(file, read, status.st_size, whole=whole)
            is_all = len(data) == status.st_size <= _FIRST_READ and identity_of(os.fstat(file.fileno())) == identity_of(
                status
            )
    except OSError as error:
        return Unusable(label, Status.UNREADABLE, explain_os_error(error))
    except ValueError:
        return Unusable(label, Status.UNREADABLE, "a path holds a NUL character")
    if missing is not None:
        return Unusable(label, Status.UNREADABLE, missing, status.st_size)
    if isinstance(told, HeaderGap):
        return unusable(label, told, status.st_size, data)
    return Beginning(told, status, data if is_all else b"")


def identity_of(status: os.stat_result) -> FileIdentity:
    """Return the values that show whether a file is still the same.

    The time of the last status change (ctime) counts too: a program that rewrites a file in place can reset its
    modification time, but not that one. So a change of mode, owner, links or attributes while a file is read is taken
    for a change of its content: a needless retry, where the opposite mistake would send mixed bytes. Reading does not
    change it. On Windows it is the time of creation, and adds nothing.
    """
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


def look_into(file: FileIO, read: _Reader[_T], size: int, *, whole: bool) -> tuple[bytes, _T | HeaderGap, str | None]:
    """Return the beginning of a file, the result of ``read``, and what is missing, if ``whole`` asks for that check."""
    data, told = told_by_file(file, read)
    is_doubtful = told is HeaderGap.UNCLEAR or (whole and not isinstance(told, HeaderGap))
    return data, told, missing_in(file, data, size) if is_doubtful else None


def told_by_file(file: FileIO, read: _Reader[_T]) -> tuple[bytes, _T | HeaderGap]:
    """Return the beginning of a file and the result of ``read``; most headers fit into the first read."""
    data = read_fully(file, _FIRST_READ)
    told = read(data, complete=len(data) < _FIRST_READ)
    if told is HeaderGap.INCOMPLETE:
        data += read_fully(file, HEADER_LIMIT - len(data))
        told = read(data, complete=True)
    return data, told


def missing_in(file: FileIO, beginning: bytes, size: int) -> str | None:
    """Return what a DICOM file lacks, as `what_is_missing` does; reads it if needed, for a bounded time."""
    until = time.monotonic() + _PATIENCE

    def read(at: int, count: int) -> bytes:
        if time.monotonic() > until:
            raise Doubt
        file.seek(at)
        return read_fully(file, count)

    return what_is_missing(beginning, size, read)


# --- problems ---------------------------------------------------------------------------------------------------------


_WORDS: dict[int, str] = {
    errno.ENOENT: "does not exist",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files on this machine",
    errno.EIO: "the disk failed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a symbolic link is in the way",
    errno.ENOTDIR: "something that is not a folder is in the way",
    errno.EISDIR: "a folder is in the way",
    errno.EEXIST: "something of that name is in the way",
    errno.EFBIG: "the file is larger than the file system allows",
}

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAY_PASS = _FULL | {errno.EMFILE, errno.ENFILE}


def explain_os_error(error: OSError) -> str:
    """Return what went wrong, without the path."""
    return _WORDS.get(error.errno or 0, (error.strerror or "cannot be accessed").lower())


def local_file_error(what: str, error: OSError) -> LocalFileError:
    """Return the exception for a failed system call; ``what`` names the file in the message."""
    problem = LocalFileError(f"{what}: {explain_os_error(error)}", temporary=error.errno in _MAY_PASS)
    problem.disk_full = error.errno in _FULL
    return problem


def explained(what: str) -> translated[OSError]:
    """Return a context manager that turns an `OSError` into the `LocalFileError` on ``what``."""
    return translated(OSError, lambda error: local_file_error(what, error))


# --- a file as a body -------------------------------------------------------------------------------------------------


async def _opened(path: Path) -> FileIO:
    """Open a file in a thread. A cancelled task does not wait for it: the disk may be asleep, or remote."""
    opening = asyncio.get_running_loop().run_in_executor(None, open_at_once, path)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(opening: asyncio.Future[FileIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


@dataclass(frozen=True, slots=True)
class FileBody:
    """A file, byte for byte, in pieces.

    ``open`` raises `LocalFileError`, before or after reading, if the file has changed since it was identified: its
    size, its inode, or a time of last change, even one of its mode or links only.
    """

    path: Path = field(repr=False)
    length: int
    identity: FileIdentity = field(repr=False)
    piece: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result, piece: int) -> FileBody:
        """Return the body of a file as it is now, to be read in pieces of ``piece`` bytes."""
        return cls(path, status.st_size, identity_of(status), piece)

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield the file from its first byte."""
        with explained("a source"):
            if self.length <= 2 * self.piece:
                yield await asyncio.to_thread(self._read_whole)
            else:
                async with aclosing(self._pieces()) as pieces:
                    async for piece in pieces:
                        yield piece

    @contextmanager
    def ranges(self) -> Iterator[Callable[[int, int], bytes]]:
        """Open the file for reads by offset and size, in this thread.

        Raises:
            LocalFileError: on entering or leaving, if the file has changed: the bytes read may be of either version.
        """
        with open_at_once(self.path) as file:
            self.require_unchanged(os.fstat(file.fileno()))

            def read(at: int, size: int) -> bytes:
                file.seek(at)
                return read_fully(file, size)

            yield read
            self.require_unchanged(os.fstat(file.fileno()))

    def _read_whole(self) -> bytes:
        """Read a small file in one call to a thread: opening, reading and closing separately costs four."""
        with open_at_once(self.path) as file:
            self.require_unchanged(os.fstat(file.fileno()))
            data = read_fully(file, self.length)
            self.require_unchanged(os.fstat(file.fileno()))
        if len(data) != self.length:
            raise LocalFileError("a source ended early while it was read")
        return data

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield a large file, reading the next piece while one is being sent."""
        from aiofiles.threadpool import wrap  # slow to import, and not needed for small files

        with await _opened(self.path) as file:
            self.require_unchanged(os.fstat(file.fileno()))
            left = self.length
            read = wrap(file).read
            ahead = asyncio.ensure_future(read(min(self.piece, left)))
            try:
                while data := await asyncio.shield(ahead):
                    left -= len(data)
                    ahead = asyncio.ensure_future(read(min(self.piece, left)))
                    yield data
            finally:
                await outlasting(ahead)  # a thread may be reading from what is closed next
            self.require_unchanged(os.fstat(file.fileno()))

    def require_unchanged(self, status: os.stat_result) -> None:
        """Raise `LocalFileError` unless ``status`` shows the same file that was identified."""
        if identity_of(status) != self.identity:
            raise LocalFileError("a source changed while it was read")


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A small file that was read whole when it was identified, so that it is opened only once.

    Attributes:
        file: the file it was read from; all that is kept of it once it has been sent.
    """

    file: FileBody
    data: bytes = field(repr=False)

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield the content, unless the file has changed."""
        await self.look()
        yield self.data

    async def look(self) -> None:
        """Check that the file has not changed.

        Raises:
            LocalFileError: it has changed since it was read.
        """
        with explained("a source"):
            self.file.require_unchanged(await _looks.run(self.file.path.stat))


_looks = QuickWork()
