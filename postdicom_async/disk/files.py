"""What the first bytes of a file tell, a file as a body, and disk work that does not hold up the event loop.

Looking at a file never raises. It is read twice: its beginning when it is identified, all of it when it is sent. Its
identity tells whether it is the same file both times; one that has changed in between is an error, never a success.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import anyio
import anyio.lowlevel

from postdicom_async.dicom.header import HEADER_LIMIT, HeaderGap
from postdicom_async.dicom.wholeness import Doubt, what_is_missing
from postdicom_async.errors import LocalFileError
from postdicom_async.face import translated
from postdicom_async.results import InstanceUids, Status

FileIdentity: TypeAlias = tuple[int, int, int, int]

_T = TypeVar("_T")
_Told = TypeVar("_Told", covariant=True)

_FIRST_READ = 64 * 1024
_PATIENCE = 2.0  # seconds to check whether a file is whole, on a slow disk


@dataclass(frozen=True, slots=True)
class Unusable:
    """A source that cannot be sent, and why; with its UIDs if they are known."""

    label: str = field(repr=False)
    status: Status
    reason: str
    size: int = 0
    uids: InstanceUids | None = None


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


# --- beside the event loop --------------------------------------------------------------------------------------------

_QUICK = 0.003  # seconds that the event loop may stand still for one call
_SLOW_TURNS = 64


async def in_background(work: Callable[[], _T]) -> _T:
    """Run ``work`` in a thread and return its result; a cancellation waits until the thread is done."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    await outlasting(running)
    await anyio.lowlevel.checkpoint_if_cancelled()
    return running.result()


async def outlasting(future: asyncio.Future[Any]) -> None:
    """Wait until a future is done, however it ends, and only then let a cancellation through.

    A thread cannot be stopped: resources of its work may be closed only when the work has ended.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([future])
        except asyncio.CancelledError as error:  # the shield holds off anyio's cancellation, not asyncio's
            cancelled = error
    if not future.cancelled():
        future.exception()  # so that asyncio does not report it as never retrieved
    if cancelled is not None:
        raise cancelled


class QuickWork:
    """Disk work that takes microseconds on most disks, less than a round trip to a thread.

    It runs in the event loop as long as it is quick. After a slow call (a network drive, a sleeping disk) it runs in a
    thread for a while. The work must close whatever it opens before it returns.
    """

    def __init__(self) -> None:
        self._slow_turns = 0

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` and return its result."""
        return self.here(work) if self.is_quick() else await asyncio.to_thread(work)

    def is_quick(self) -> bool:
        """Whether the next work is to run `here`; otherwise in a thread."""
        self._slow_turns, slow = max(0, self._slow_turns - 1), self._slow_turns
        return not slow

    def here(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in this thread and return its result, noting whether it was quick."""
        started = time.perf_counter()
        try:
            return work()
        finally:
            if time.perf_counter() - started > _QUICK:
                self._slow_turns = _SLOW_TURNS


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
