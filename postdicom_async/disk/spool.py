"""Streams of bytes of unknown length, kept until they are sent: in memory while small, otherwise in a private file.

A body has an exact length and can be opened again; a stream has neither, so it is read to its end first, when its turn
comes. Memory holds at most 8 MiB of one stream, and of all streams of this process together a few times that; the rest
goes to a file at once. The file has no name where the system supports that, and otherwise loses it as soon as it is
open; only this user can read it; and it is gone with the last body that reads it, or with the process.
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from io import SEEK_END
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeGuard, TypeVar, cast

import anyio.to_thread

from postdicom_async.bodies import BytesBody
from postdicom_async.disk.files import Unusable, explain_os_error, explained, read_fully
from postdicom_async.errors import LocalFileError, PostdicomError
from postdicom_async.face import translated
from postdicom_async.results import InstanceUids, Status

if TYPE_CHECKING:
    from io import FileIO

_T = TypeVar("_T")

_MOST_IN_MEMORY: Final = 8 << 20  # of one stream
_MOST_OF_ALL: Final = 32 << 20
_READ: Final = 1 << 20  # bytes read or written at a time: each may be a call to a thread


class AsyncReader(Protocol):
    """An object with ``await read(n)``, which returns nothing at the end: aiofiles' handles, ``UploadFile``."""

    async def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, empty at the end."""
        ...


Stream: TypeAlias = "AsyncReader | AsyncIterable[bytes]"


def is_reader(source: object) -> TypeGuard[AsyncReader]:
    """Whether this is an object with an asynchronous ``read``; a generator of bytes has none."""
    return inspect.iscoroutinefunction(getattr(source, "read", None))


def is_stream(source: object) -> TypeGuard[Stream]:
    """Whether an item of a list of sources is a stream of bytes."""
    return is_reader(source) or isinstance(source, AsyncIterable)


async def spooled(source: Stream, label: str, piece: int) -> SpooledBytes | SpooledFile | Unusable:
    """Read a stream to its end; return what it held as a body, or why there is none.

    Only a cancellation is raised. A stream that breaks is reported by the class of its error: the text may be private.
    """
    kept = _Kept()
    status, reason = Status.UNREADABLE, None
    try:
        async with aclosing(_pieces_of(source)) as pieces:
            async for data in pieces:
                if not isinstance(data, bytes | bytearray | memoryview):
                    reason = f"the stream gives {type(data).__name__} instead of bytes"
                    break
                await kept.add(bytes(data))
        if reason is None:
            return await kept.body(piece)
    except _NoRoom as error:
        status, reason = Status.FAILED, f"not sent: no room to keep the stream: {explain_os_error(error)}"
    except Exception as error:  # noqa: BLE001 - the caller's code, which may raise anything
        reason = f"the stream broke: {_why(error)}"
    uids = getattr(source, "uids", None)
    return Unusable(label, status, reason, kept.size, uids if isinstance(uids, InstanceUids) else None)


def _why(error: Exception) -> str:
    if isinstance(error, PostdicomError):
        return error.message
    if isinstance(error, OSError) and error.errno:
        return explain_os_error(error)
    return type(error).__name__


def _pieces_of(source: Stream) -> AsyncGenerator[object, None]:
    """Return a generator of a stream's pieces.

    Files and stream readers iterate over lines, which may be as long as the whole: they are read instead.
    """
    if is_reader(source) and (hasattr(source, "readline") or not isinstance(source, AsyncIterable)):
        return _by_reading(source)
    # an object that yields no bytes, or is not iterable, is reported later
    return _iterated(cast("AsyncIterable[object]", source))


async def _by_reading(source: AsyncReader) -> AsyncGenerator[object, None]:
    while (data := await source.read(_READ)) != b"":
        yield data


async def _iterated(source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
    pieces = aiter(source)
    try:
        async for data in pieces:
            yield data
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


class _NoRoom(OSError):
    """The private file cannot be created or written."""


class _Kept:
    """The part of a stream that has been read so far.

    Attributes:
        size: its bytes.
    """

    def __init__(self) -> None:
        self.size: int = 0
        self._held: list[bytes] = []
        self._unwritten = 0
        self._lease: _Lease | None = _Lease(_memory)
        self._file: PrivateFile | None = None

    async def add(self, data: bytes) -> None:
        self.size += len(data)
        self._held.append(data)
        if self._lease is not None and self._lease.grow(len(data)):
            return
        self._unwritten += len(data)
        if self._lease is not None or self._unwritten >= _READ:
            await anyio.to_thread.run_sync(self._write)

    async def body(self, piece: int) -> SpooledBytes | SpooledFile:
        if self._lease is not None:
            return SpooledBytes(b"".join(self._held), self._lease)
        return SpooledFile(await anyio.to_thread.run_sync(self._write), self.size, piece)

    def _write(self) -> PrivateFile:
        held, self._held, self._unwritten, self._lease = self._held, [], 0, None
        with translated(OSError, lambda error: _NoRoom(error.errno, error.strerror)):
            file = self._file = self._file or PrivateFile()
            for data in held:
                file.append(data)
        return file


# --- in memory ------------------------------------------------------------------------------------------------------


class _Memory:
    """The memory for streams, shared by all uploads and event loops of the process."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()
        self._returned: deque[int] = deque()

    def take(self, size: int) -> bool:
        with self._lock:
            while self._returned:
                self._left += self._returned.popleft()
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Return bytes. The garbage collector calls this and may interrupt `take`: no lock may be taken here."""
        self._returned.append(size)


_memory = _Memory(_MOST_OF_ALL)


class _Lease:
    """Memory that one stream has taken; given back when nothing refers to this any more."""

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory
        self._size = 0

    def grow(self, size: int) -> bool:
        """Take more; return False if that is too much."""
        if self._size + size > _MOST_IN_MEMORY or not self._memory.take(size):
            return False
        self._size += size
        return True

    def __del__(self) -> None:
        self._memory.give_back(self._size)


@dataclass(frozen=True, slots=True)
class SpooledBytes(BytesBody):
    """A stream kept in memory."""

    lease: _Lease = field(repr=False, compare=False)


# --- on disk --------------------------------------------------------------------------------------------------------


class PrivateFile:
    """A file without a name. Closed, and so gone, when nothing refers to this any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by the next line
        # No `__del__`: in a circle the collector might come to the file first, and Python warn that nobody closed it.
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def append(self, data: bytes | memoryview) -> None:
        """Append data."""
        with self._lock:
            self._file.seek(0, SEEK_END)
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]

    def read(self, at: int, size: int) -> bytes:
        """Return ``size`` bytes at offset ``at``, fewer at the end."""
        with self._lock:
            self._file.seek(at)
            return read_fully(self._file, size)

    def looked_at(self, look: Callable[[FileIO], _T]) -> _T:
        """Return ``look(file)``, positioned at its beginning."""
        with self._lock:
            self._file.seek(0)
            return look(self._file)


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """A stream kept in a private file, read in pieces."""

    file: PrivateFile = field(repr=False)
    length: int
    piece: int

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield it from its first byte."""
        with explained("a stream that was kept"):
            for at in range(0, self.length, self.piece):
                yield await asyncio.to_thread(self._read, at, min(self.piece, self.length - at))

    @contextmanager
    def ranges(self) -> Iterator[Callable[[int, int], bytes]]:
        """Yield a function that reads by offset and size, in this thread."""
        yield self.file.read

    def _read(self, at: int, size: int) -> bytes:
        data = self.file.read(at, size)
        if len(data) < size:
            raise LocalFileError("a source ended early while it was read")
        return data
