"""A body that still comes from one archive while it goes to another: read once, and to its end only if all comes.

The receiver of the answer writes it (`Passing`), the sender of a store request reads it (`PassingBody`), both in the
event loop. The bytes in between are counted by the `HoldingSink`, so that a slow reader holds back the archive that
sends; a reader that waits for more wakes that archive up, and one that is gone lets it go on to what comes behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING

from postdicom_async.errors import LocalFileError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.transfer.holding_sink import HoldingSink
    from postdicom_async.transfer.sinks import ArrivalEnded, Pieces

__all__ = ["Passing", "PassingBody"]


class Passing:
    """An instance that passes through: the receiver writes it (`Arrival`), one reader takes its bytes as they come.

    Attributes:
        is_awaited: the reader waits for more of it.
    """

    where: str = ""

    def __init__(self, sink: HoldingSink, ended: ArrivalEnded) -> None:
        self.is_awaited: bool = False
        self._sink = sink
        self._ended = ended
        self._pieces: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._whole = False
        self._cut_short = False

    def write(self, pieces: Pieces, size: int, /) -> None:
        """Keep its next bytes for the reader, if there still is one."""
        if not self._cut_short:
            self._pieces.extend(bytes(piece) for piece in pieces)
            self._sink.hold(size)
        self._news.set()

    def end(self, pieces: Pieces, size: int, /) -> None:
        """Keep its last bytes for the reader: it is whole."""
        self._whole = True
        self.write(pieces, size)
        self._ended(None)

    def drop(self) -> None:
        """Tell the reader that the rest does not come; what came before may still be read."""
        self._cut_short = True
        self._news.set()
        self._ended(None)

    async def read(self) -> AsyncGenerator[bytes, None]:
        """Yield its bytes as they come. It has ended only when the instance is whole."""
        try:
            while True:
                while self._pieces:
                    piece = self._pieces.popleft()
                    self._sink.hold(-len(piece))
                    yield piece
                if self._whole:
                    return
                if self._cut_short:
                    raise LocalFileError("the instance did not arrive whole", temporary=True)
                self._news.clear()
                self.is_awaited = True
                self._sink.wake()
                await self._news.wait()
                self.is_awaited = False
        finally:
            self.close()

    def close(self) -> None:
        """Throw away what was not read of it."""
        self._cut_short = True
        self._sink.hold(-sum(map(len, self._pieces)))
        self._pieces.clear()
        self._news.set()


class PassingBody:
    """The body of an instance that is still coming. It can be opened once, and raises where the rest does not come.

    Nothing comes behind it before it is read: so whoever is given one reads it at once.

    Attributes:
        length: its bytes, as the part that brings it says.
        is_opened: somebody reads it.
    """

    def __init__(self, passing: Passing, length: int) -> None:
        self.length: int = length
        self.is_opened: bool = False
        self._passing = passing

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
        async with aclosing(self._passing.read()) as pieces:
            async for piece in pieces:
                size += len(piece)
                yield piece
        if size != self.length:
            raise LocalFileError("the instance has another length than its part said", temporary=True)

    def close(self) -> None:
        """Throw away what comes."""
        self._passing.close()

    def __del__(self) -> None:
        """Let the archive that sends it go on when nobody will read it."""
        self._passing.close()
