"""Where instances go as they arrive: a folder, a stream for somebody else, or nowhere.

A sink takes bytes without waiting and says later what became of them, so that taking an answer apart never waits for
each part. Whoever feeds it awaits `Sink.room` in between: so a slow disk, or a slow reader, holds back the network.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Protocol, Self, TypeAlias

from postdicom_async.dicom.header import InstanceHeader
from postdicom_async.errors import ProtocolError
from postdicom_async.results import InstanceUids

__all__ = ["Arrival", "Arriving", "Counting", "Ended", "Passing", "Pieces", "Relay", "Sink", "Verified", "Verifier"]

_KIB = 1024

Pieces: TypeAlias = Sequence[bytes | memoryview]

Ended: TypeAlias = Callable[[BaseException | None], None]
"""Called once for each arrival, in the event loop: with None when it was kept, or dropped as it was told to; with the
error otherwise. It must not raise."""


class Arriving(NamedTuple):
    """An instance that begins to arrive.

    Attributes:
        header: what it says it is.
        length: how many bytes it will have, None where the archive has not said.
    """

    header: InstanceHeader
    length: int | None


class Arrival(Protocol):
    """One instance on its way into a sink. No call waits; `Ended` tells how it went."""

    @property
    def where(self) -> str:
        """The file it will be, empty where it is none."""
        ...

    def write(self, pieces: Pieces, size: int, /) -> None:
        """Take its next bytes, ``size`` in all."""
        ...

    def end(self, pieces: Pieces, size: int, /) -> None:
        """Take its last bytes: it is whole."""
        ...

    def drop(self) -> None:
        """Leave nothing of it: the rest will not come."""
        ...


class Sink(Protocol):
    """Takes instances, from several answers at once.

    Attributes:
        piece: how many bytes of a large instance are gathered before they are handed over. A smaller one comes whole.
    """

    piece: int

    def open(self, arriving: Arriving, ended: Ended, /) -> Arrival:
        """Begin to take an instance.

        Raises:
            UsageError: it cannot have a place there.
        """
        ...

    def is_full(self) -> bool:
        """Whether `room` would wait."""
        ...

    async def room(self) -> None:
        """Wait until more may come."""
        ...


# --- nowhere --------------------------------------------------------------------------------------------------------


class Verified(NamedTuple):
    """An instance that came whole and was not kept."""

    header: InstanceHeader
    size: int
    sha256: bytes


class Verifier:
    """A `Sink` that keeps nothing and tells ``verified`` what came whole."""

    def __init__(self, verified: Callable[[Verified], None]) -> None:
        self.piece: int = 256 * _KIB
        self._verified = verified

    def open(self, arriving: Arriving, ended: Ended, /) -> Arrival:
        """Begin a digest."""
        return _Digest(arriving.header, self._verified, ended)

    def is_full(self) -> bool:
        """Whether `room` would wait: never."""
        return False

    async def room(self) -> None:
        """Return at once."""


class _Digest:
    where: str = ""

    def __init__(self, header: InstanceHeader, verified: Callable[[Verified], None], ended: Ended) -> None:
        self._header = header
        self._verified = verified
        self._ended = ended
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, pieces: Pieces, size: int, /) -> None:
        for piece in pieces:
            self._digest.update(piece)
        self._size += size

    def end(self, pieces: Pieces, size: int, /) -> None:
        self.write(pieces, size)
        self._verified(Verified(self._header, self._size, self._digest.digest()))
        self._ended(None)

    def drop(self) -> None:
        self._ended(None)


# --- somebody else --------------------------------------------------------------------------------------------------


class Relay:
    """A `Sink` that hands instances on while they arrive: to a web client, or into the body of another request.

    ``async for passing in relay: async for chunk in passing``, in another task than the one that receives. At most
    about ``held`` bytes are in memory; whoever receives waits for the reader then. `finish` says that no more instances
    come, `close` that nobody reads any more.
    """

    def __init__(self, *, piece: int = 64 * _KIB, held: int = 1024 * _KIB) -> None:
        self.piece: int = piece
        self._most = held
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()
        self._passing: deque[Passing] = deque()
        self._news = asyncio.Event()
        self._finished = False
        self._closed = False

    def open(self, arriving: Arriving, ended: Ended, /) -> Arrival:
        """Begin to hand an instance on."""
        passing = Passing(arriving, self)
        self._passing.append(passing)
        self._news.set()
        return _Handing(passing, ended)

    def is_full(self) -> bool:
        """Whether `room` would wait."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Wait until the reader has taken something."""
        await self._room.wait()

    def hold(self, size: int) -> None:
        """Count bytes in memory, with a negative number those taken."""
        self._held += size
        if self._held < self._most or self._closed:
            self._room.set()
        else:
            self._room.clear()

    def finish(self) -> None:
        """Say that no more instances come."""
        self._finished = True
        self._news.set()

    def close(self) -> None:
        """Throw away what was not read, and what still comes: its reader has gone."""
        self._closed = True
        for passing in self._passing:
            passing.close()
        self._room.set()
        self.finish()

    def __aiter__(self) -> AsyncIterator[Passing]:
        return self

    async def __anext__(self) -> Passing:
        while not self._passing:
            if self._finished:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._passing.popleft()


class Counting(Protocol):
    """Counts the bytes that are in memory, as a `Relay` does."""

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


class _Handing:
    """The receiving end of a `Passing`. What is whole in memory is kept as far as the archive it came from goes."""

    where: str = ""

    def __init__(self, passing: Passing, ended: Ended) -> None:
        self._passing = passing
        self._ended = ended

    def write(self, pieces: Pieces, size: int, /) -> None:
        self._passing.take(pieces, size, whole=False)

    def end(self, pieces: Pieces, size: int, /) -> None:
        self._passing.take(pieces, size, whole=True)
        self._ended(None)

    def drop(self) -> None:
        self._passing.break_off()
        self._ended(None)
