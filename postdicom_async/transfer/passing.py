"""A body that still comes from one archive while it goes to another: read once, and to its end only if all comes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, Self

from postdicom_async.errors import LocalFileError, ProtocolError
from postdicom_async.face import translated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from postdicom_async.dicom.header import InstanceHeader
    from postdicom_async.results import InstanceUids
    from postdicom_async.transfer.sinks import Arriving, Ended, Pieces

__all__ = ["Counting", "Passing", "PassingBody", "Through"]


class Counting(Protocol):
    """Counts the bytes that are in memory, as a `HoldingSink` does."""

    def hold(self, size: int) -> None:
        """Count more of them, or with a negative number fewer. With 0 a reader waits for what comes next."""
        ...


class Passing:
    """An instance that passes through: read it once, in ``async for``. Leaving it early throws the rest away.

    Attributes:
        header: what it says it is.
        length: how many bytes it has, None where the archive has not said.
        is_awaited: its reader waits for more of it.
    """

    def __init__(self, arriving: Arriving, relay: Counting) -> None:
        self.header: InstanceHeader = arriving.header
        self.length: int | None = arriving.length
        self.is_awaited: bool = False
        self._relay = relay
        self._pieces: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._whole = False
        self._broken = False
        self._closed = False

    @property
    def uids(self) -> InstanceUids:
        """The UIDs that address it."""
        return self.header.uids

    def __repr__(self) -> str:
        return f"<Passing {self.header.uids.sop_instance_uid}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield its bytes as they arrive. It has ended only when the instance is whole.

        Raises:
            ProtocolError: the rest did not come.
        """
        try:
            while True:
                while self._pieces:
                    piece = self._pieces.popleft()
                    self._relay.hold(-len(piece))
                    yield piece
                if self._whole:
                    return
                if self._broken or self._closed:
                    raise ProtocolError("the instance did not arrive whole", operation="retrieve", temporary=True)
                self._news.clear()
                self.is_awaited = True
                self._relay.hold(0)
                await self._news.wait()
                self.is_awaited = False
        finally:
            self.close()

    def take(self, pieces: Pieces, size: int, *, whole: bool) -> None:
        """Take bytes for the reader."""
        if not self._closed:
            self._pieces.extend(bytes(piece) for piece in pieces)
            self._relay.hold(size)
        self._whole = whole
        self._news.set()

    def break_off(self) -> None:
        """Tell the reader that the rest does not come."""
        self._broken = True
        self._news.set()

    def close(self) -> None:
        """Throw away what was not read of it."""
        self._closed = True
        self._relay.hold(-sum(map(len, self._pieces)))
        self._pieces.clear()
        self._news.set()


class PassingBody:
    """The body of an instance that is still coming. It can be opened once, and raises where the rest does not come.

    Attributes:
        length: its bytes, as the part that brings it says.
        passing: what comes.
        is_opened: somebody reads it.
        passes: that it is one: nothing comes behind it before it is read, so it is read at once.
    """

    passes: Final = True

    def __init__(self, passing: Passing, length: int) -> None:
        self.length: int = length
        self.passing: Passing = passing
        self.is_opened: bool = False

    def __repr__(self) -> str:
        return f"<PassingBody of {self.length} bytes>"

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield it as it comes.

        Raises:
            LocalFileError: it was opened before, or the rest does not come.
        """
        if self.is_opened:
            raise LocalFileError("it passes from one archive to the other, and only once", temporary=True)
        self.is_opened = True
        size = 0
        with translated(ProtocolError, lambda error: LocalFileError(error.message, temporary=True)):
            async with self.passing:
                async for piece in self.passing:
                    size += len(piece)
                    yield piece
        if size != self.length:
            raise LocalFileError("the instance has another length than its part said", temporary=True)

    def close(self) -> None:
        """Throw away what comes."""
        self.passing.close()

    def __del__(self) -> None:
        """Let the archive that sends it go on when nobody will read it."""
        self.passing.close()


class Through:
    """The receiving end of a `PassingBody`."""

    where: str = ""

    def __init__(self, passing: Passing, ended: Ended) -> None:
        self._passing = passing
        self._ended = ended

    def write(self, pieces: Pieces, size: int, /) -> None:
        """Hand its next bytes on."""
        self._passing.take(pieces, size, whole=False)

    def end(self, pieces: Pieces, size: int, /) -> None:
        """Hand its last bytes on: it is whole."""
        self._passing.take(pieces, size, whole=True)
        self._ended(None)

    def drop(self) -> None:
        """Tell the reader that the rest does not come."""
        self._passing.break_off()
        self._ended(None)
