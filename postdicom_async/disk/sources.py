"""What to upload: files, folders, data sets and bytes, each as a body that can be opened again.

DICOM is recognised by content, never by name. A file that changes while it is read is an error, not a success.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO, FileIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import anyio
import anyio.to_thread
from aiofiles.threadpool import wrap

from postdicom_async.bodies import Body, BytesBody
from postdicom_async.dicom.header import HeaderGap, InstanceHeader, read_header
from postdicom_async.dicom.silence import unlogged
from postdicom_async.dicom.wholeness import what_is_missing
from postdicom_async.disk.files import (
    Unusable,
    files_at,
    open_at_once,
    path_of,
    read_beginning,
    read_fully,
    sizes_at,
    unusable,
)
from postdicom_async.disk.problems import local_file_error
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.results import Status

if TYPE_CHECKING:
    from aiofiles.threadpool.binary import AsyncFileIO
    from pydicom.dataset import Dataset

__all__ = [
    "FileBody",
    "Identified",
    "Source",
    "Sources",
    "Unusable",
    "Usable",
    "measure",
    "read_paths",
    "read_sources",
]

_T = TypeVar("_T")

Source: TypeAlias = "str | os.PathLike[str] | bytes | Dataset"
"""A file, a folder (searched recursively), a whole DICOM file in memory, or a pydicom data set."""

Sources: TypeAlias = "Source | Iterable[Source] | AsyncIterable[Source]"

_Identity: TypeAlias = tuple[int, int, int, int]

_FILES_A_HOP = 32  # read in one visit to a thread: a visit costs as much as several small reads
_BYTES_A_HOP = 4 << 20  # in memory, drawn from the caller in one visit
_PATHS_ONLY = "sources: give paths, or an iterable of them"


@dataclass(frozen=True, slots=True)
class Usable:
    """A source that is DICOM: its label, header and body.

    ``keeps_uid``: it is anonymised, but its SOP Instance UID is still that of the original, which an archive may have.
    """

    label: str = field(repr=False)
    header: InstanceHeader
    body: Body
    keeps_uid: bool = False


Identified: TypeAlias = Usable | Unusable


async def read_sources(
    sources: Sources, *, piece: int, send_truncated: bool = False
) -> AsyncGenerator[list[Identified], None]:
    """Yield what there is to send, in order, a few at a time; nothing is held but paths and headers.

    A file that is cut off is not to be sent, unless ``send_truncated`` says so.

    Raises:
        UsageError: an argument is of a kind that cannot be sent.
        LocalFileError: a path that was named does not exist.
    """
    number = 0
    async with aclosing(_groups(sources)) as groups:
        async for group in groups:
            if isinstance(group, list | tuple):
                await anyio.to_thread.run_sync(_require_paths, group)
            found = _identified(group, piece, start=number, whole=not send_truncated)
            number += 1
            while batch := await anyio.to_thread.run_sync(_take, found):
                yield batch


async def read_paths(sources: Sources, look: Callable[[Path], _T]) -> AsyncIterator[list[_T | Unusable]]:
    """Yield what ``look`` makes of each file, in order, a few at a time; it is called in a thread.

    Raises:
        UsageError: an argument is not a path.
        LocalFileError: a path that was named does not exist.
    """
    if not isinstance(sources, os.PathLike | Iterable | AsyncIterable):
        raise UsageError(_PATHS_ONLY)
    async for group in _groups(sources):
        if isinstance(group, list | tuple):
            await anyio.to_thread.run_sync(_require_paths, group)
        looks = _looked_at(group, look)
        while batch := await anyio.to_thread.run_sync(_some, looks):
            yield batch


def _some(looks: Iterator[_T]) -> list[_T]:
    return list(islice(looks, _FILES_A_HOP))


def _looked_at(sources: Iterable[Source], look: Callable[[Path], _T]) -> Iterator[_T | Unusable]:
    for source in sources:
        if not isinstance(source, str | os.PathLike):
            raise UsageError(_PATHS_ONLY)
        yield from (one if isinstance(one, Unusable) else look(one) for one in files_at(path_of(source)))


async def _groups(sources: Sources) -> AsyncGenerator[Iterable[Source], None]:
    """Yield a collection of sources as it is, and each item of what is only drawn as a group of its own."""
    if isinstance(sources, AsyncIterable):
        async for source in cast("AsyncIterable[Source]", sources):
            yield iter([source])
        return
    given = _as_iterable(sources)
    if isinstance(given, Collection):
        yield given
        return
    items = iter(given)
    # What is there is sent while the caller's iterator takes its time; when all is over, nobody waits for it.
    while drawn := await anyio.to_thread.run_sync(_one, items, abandon_on_cancel=True):
        yield iter(drawn)


def _one(items: Iterator[Source]) -> list[Source]:
    return list(islice(items, 1))


def _take(found: Iterator[Identified]) -> list[Identified]:
    taken: list[Identified] = []
    held = 0
    for one in islice(found, _FILES_A_HOP):
        taken.append(one)
        if isinstance(one, Usable) and isinstance(one.body, BytesBody):
            held += one.body.length
        if held > _BYTES_A_HOP:
            break
    return taken


def _as_iterable(sources: object) -> Iterable[Source]:
    if _is_single(sources):
        return [cast("Source", sources)]
    if not isinstance(sources, Iterable):
        raise UsageError("sources: give paths, bytes, data sets, or an iterable of them")
    return cast("Iterable[Source]", sources)


def _is_single(source: object) -> bool:
    # A Dataset is iterable (over its elements); it is told by what only it has.
    return isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(source, "save_as")


def _require_paths(sources: Iterable[Source]) -> None:
    for source in sources:
        if isinstance(source, str | os.PathLike):
            problem: LocalFileError | UsageError
            path = path_of(source)
            try:
                path.stat()
            except OSError as error:
                problem = local_file_error(f"sources: {path}", error)
            except ValueError:
                problem = UsageError("sources: a path holds a NUL character")
            else:
                continue
            raise problem


def _identified(sources: Iterable[Source], piece: int, *, start: int, whole: bool) -> Iterator[Identified]:
    for number, source in enumerate(sources, start + 1):
        if isinstance(source, bytes | bytearray | memoryview):
            yield _identify_bytes(bytes(source), f"bytes {number}", whole=whole)
        elif isinstance(source, str | os.PathLike):
            yield from _identify_path(path_of(source), piece, whole=whole)
        elif hasattr(source, "save_as"):
            yield _identify_dataset(source, f"data set {number}")
        else:
            raise UsageError(f"sources: item {number} is neither a path, bytes nor a data set")


async def measure(sources: Sources) -> tuple[int, int] | None:
    """Return how many sources there are and their bytes, without reading them; None where that cannot be told.

    Only paths and bytes, alone or in a list, can be measured before they are read.
    """
    given = [sources] if _is_single(sources) else sources
    if not isinstance(given, list | tuple):
        return None
    return await anyio.to_thread.run_sync(_measure, cast("Iterable[Source]", given))


def _measure(given: Iterable[Source]) -> tuple[int, int] | None:
    instances = size = 0
    for one in given:
        if isinstance(one, bytes):
            sizes = iter([len(one)])
        elif isinstance(one, str | os.PathLike):
            try:
                sizes = sizes_at(path_of(one))
            except UsageError:  # told where the sources are read
                return None
        else:
            return None
        for more in sizes:
            instances += 1
            size += more
    return instances, size


# --- in memory ------------------------------------------------------------------------------------------------------


def _identify_bytes(data: bytes, label: str, *, whole: bool) -> Identified:
    header = read_header(data, complete=True)
    if header is HeaderGap.UNCLEAR or (whole and not isinstance(header, HeaderGap)):
        missing = what_is_missing(data, len(data), lambda at, size: data[at : at + size])
        if missing is not None:
            return Unusable(label, Status.UNREADABLE, missing, len(data))
    if isinstance(header, HeaderGap):
        return unusable(label, header, len(data), data)
    return Usable(label, header, BytesBody(data))


def _identify_dataset(dataset: Dataset, label: str) -> Identified:
    """Encode a data set once; pydicom says what is missing."""
    buffer = BytesIO()
    try:
        with unlogged():
            dataset.save_as(buffer, enforce_file_format=True)
    except Exception as error:  # noqa: BLE001 - whatever pydicom makes of a caller's data set; its text may hold values
        return Unusable(label, Status.UNREADABLE, f"pydicom cannot write it ({type(error).__name__})")
    return _identify_bytes(buffer.getvalue(), label, whole=False)  # what pydicom has just written is whole


# --- on disk --------------------------------------------------------------------------------------------------------


def _identify_path(path: Path, piece: int, *, whole: bool) -> Iterator[Identified]:
    return (one if isinstance(one, Unusable) else _identify_file(one, piece, whole=whole) for one in files_at(path))


def _identify_file(path: Path, piece: int, *, whole: bool) -> Identified:
    found = read_beginning(path, read_header, whole=whole)
    if isinstance(found, Unusable):
        return found
    header, status = found
    return Usable(str(path), header, FileBody.of(path, status, piece))


def _identity(status: os.stat_result) -> _Identity:
    """Return what tells that a file is still the same.

    The time of the last status change counts too: whoever rewrites a file in place can set its modification time back,
    but not that one. So a change of mode, owner, links or attributes while a file is read is taken for a change of its
    content: an error to be repeated, where the other mistake would send mixed bytes. Reading does not change it. On
    Windows it is the time of creation, and tells nothing more.
    """
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[AsyncFileIO]:
    """Open a file and close it, even when the task is cancelled while a thread is still opening it."""
    opening = asyncio.get_running_loop().run_in_executor(None, lambda: open_at_once(path))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise
    with file:
        yield wrap(file)


def _close_unwanted(opening: asyncio.Future[FileIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


@dataclass(frozen=True, slots=True)
class FileBody:
    """A file, byte for byte, in pieces.

    ``open`` raises `LocalFileError` when the file is not what it was when it was identified, before or after reading:
    its size, its inode, or a time of its last change, be it only of its mode or of the links to it.
    """

    path: Path = field(repr=False)
    length: int
    identity: _Identity = field(repr=False)
    piece: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result, piece: int) -> FileBody:
        """Return the body of a file as it is now, to be read in pieces of ``piece`` bytes."""
        return cls(path, status.st_size, _identity(status), piece)

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield the file from its first byte."""
        problem: OSError | None = None
        try:
            if self.length <= 2 * self.piece:
                yield await asyncio.to_thread(self._read_whole)
            else:
                async with aclosing(self._pieces()) as pieces:
                    async for piece in pieces:
                        yield piece
        except OSError as error:
            problem = error
        if problem is not None:
            raise local_file_error("a source", problem)

    @contextmanager
    def ranges(self) -> Iterator[Callable[[int, int], bytes]]:
        """Open the file for reads by offset and size, in this thread; what was read holds when this ends in peace."""
        with open_at_once(self.path) as file:
            self._require_unchanged(os.fstat(file.fileno()))

            def read(at: int, size: int) -> bytes:
                file.seek(at)
                return read_fully(file, size)

            yield read
            self._require_unchanged(os.fstat(file.fileno()))

    def _read_whole(self) -> bytes:
        """Read a small file in one visit to a thread: opening, reading and closing one by one costs four."""
        with open_at_once(self.path) as file:
            self._require_unchanged(os.fstat(file.fileno()))
            data = read_fully(file, self.length)
            self._require_unchanged(os.fstat(file.fileno()))
        if len(data) != self.length:
            raise LocalFileError("a source ended early while it was read")
        return data

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield a large file, reading the next piece while one is being sent."""
        async with _opened(self.path) as file:
            self._require_unchanged(os.fstat(file.fileno()))
            left = self.length
            ahead = asyncio.ensure_future(file.read(min(self.piece, left)))
            try:
                while data := await asyncio.shield(ahead):
                    left -= len(data)
                    ahead = asyncio.ensure_future(file.read(min(self.piece, left)))
                    yield data
            finally:
                with anyio.CancelScope(shield=True):  # a thread may be reading from what is closed next
                    await asyncio.wait([ahead])
            self._require_unchanged(os.fstat(file.fileno()))

    def _require_unchanged(self, status: os.stat_result) -> None:
        if _identity(status) != self.identity:
            raise LocalFileError("a source changed while it was read")
