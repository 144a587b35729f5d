"""A file as a body, byte for byte. One that changes while it is read is an error, not a success."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from postdicom_async.disk.background import QuickWork, outlasting
from postdicom_async.disk.files import FileIdentity, identity_of, open_at_once, read_fully
from postdicom_async.disk.problems import explained
from postdicom_async.errors import LocalFileError

if TYPE_CHECKING:
    from aiofiles.threadpool.binary import AsyncFileIO

__all__ = ["FileBody", "HeldFile"]


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[AsyncFileIO]:
    """Open a file and close it, even when the task is cancelled while a thread is still opening it."""
    opening = asyncio.get_running_loop().run_in_executor(None, lambda: open_at_once(path))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise
    from aiofiles.threadpool import wrap

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
        """Open the file for reads by offset and size, in this thread; what was read holds when this ends in peace."""
        with open_at_once(self.path) as file:
            self.require_unchanged(os.fstat(file.fileno()))

            def read(at: int, size: int) -> bytes:
                file.seek(at)
                return read_fully(file, size)

            yield read
            self.require_unchanged(os.fstat(file.fileno()))

    def _read_whole(self) -> bytes:
        """Read a small file in one visit to a thread: opening, reading and closing one by one costs four."""
        with open_at_once(self.path) as file:
            self.require_unchanged(os.fstat(file.fileno()))
            data = read_fully(file, self.length)
            self.require_unchanged(os.fstat(file.fileno()))
        if len(data) != self.length:
            raise LocalFileError("a source ended early while it was read")
        return data

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield a large file, reading the next piece while one is being sent."""
        async with _opened(self.path) as file:
            self.require_unchanged(os.fstat(file.fileno()))
            left = self.length
            ahead = asyncio.ensure_future(file.read(min(self.piece, left)))
            try:
                while data := await asyncio.shield(ahead):
                    left -= len(data)
                    ahead = asyncio.ensure_future(file.read(min(self.piece, left)))
                    yield data
            finally:
                await outlasting(ahead)  # a thread may be reading from what is closed next
            self.require_unchanged(os.fstat(file.fileno()))

    def require_unchanged(self, status: os.stat_result) -> None:
        """Raise `LocalFileError` unless this is the status of the file as it was identified."""
        if identity_of(status) != self.identity:
            raise LocalFileError("a source changed while it was read")


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A small file that was read whole when it was identified, so that it is opened once.

    Attributes:
        file: where it comes from; what is kept of it when it has been sent.
    """

    file: FileBody
    data: bytes = field(repr=False)

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield it, unless it is not what it was."""
        await self.look()
        yield self.data

    async def look(self) -> None:
        """Look at the file.

        Raises:
            LocalFileError: it is not what it was when it was read.
        """
        with explained("a source"):
            self.file.require_unchanged(await _looks.run(self.file.path.stat))


_looks = QuickWork()
