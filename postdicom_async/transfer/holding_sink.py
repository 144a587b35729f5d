"""Instances on their way from one archive to another end of a job, each given on when it is whole.

A small one waits in memory, a large one in a private file; where its length is known it may not be kept at all but be
handed on as it comes, a body that can be read once: the receiver of the answer writes it (`Passing`), the sender of a
store request reads it (`PassingBody`).

State: all of it belongs to the event loop; threads only write files. What is in memory is counted from its arrival
until it is taken or written; what is in files until it is taken. Whoever receives waits while there is much of it, but
never while the one for whom it is waits too: for the next instance, or for more of a body that is still coming. Each
answer has a `Side` of its own, so that it goes on while its own body is read.

What can go wrong is that both wait for one another: the receiver for room, and the reader for bytes that come only
when there is room. So a reader that waits is let through (`is_awaited`), a body that nobody reads any more lets its
archive go on (`PassingBody.__del__`), and one that was taken and never opened is thrown away after a while (`_UNREAD`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.wholeness import what_is_missing
from postdicom_async.disk.files import Unusable, explained
from postdicom_async.disk.sources import Usable, identify_kept
from postdicom_async.disk.spool import PrivateFile, SpooledFile
from postdicom_async.disk.threads import shared_pool
from postdicom_async.errors import LocalFileError
from postdicom_async.results import Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractContextManager

    from postdicom_async.disk.sources import IdentifiedSource
    from postdicom_async.disk.threads import DiskPool
    from postdicom_async.results import InstanceUids
    from postdicom_async.transfer.sinks import Arrival, ArrivalEnded, Arriving, Pieces


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


_MIB: Final = 1 << 20
_PIECE: Final = 256 << 10
_WRITTEN: Final = 1 * _MIB  # at a time
_FILED: Final = 8  # times as much as in memory may be in files
_LEAST: Final = 4096  # that an instance counts for
_UNREAD: Final = 300.0  # seconds in which what was taken is to be read while the next is waited for


class HoldingSink:
    """Holds instances until they are taken, about ``most`` bytes of them in memory. It is entered while it is used.

    In files it holds some times as much, and always the one that is coming.

    Args:
        given: told of each instance as it is put where `next` takes it.
        most: bytes in memory.
        in_memory: bytes of one instance in memory.
        passes: a larger one whose length is known is handed on as it comes.
    """

    def __init__(
        self,
        given: Callable[[InstanceUids], None],
        *,
        most: int = 32 * _MIB,
        in_memory: int = 8 * _MIB,
        passes: bool = True,
    ) -> None:
        self.in_memory: int = in_memory
        self.passes: bool = passes
        self.held: int = 0
        self._most = most
        self._given = given
        self._filed = 0
        self._ready: deque[tuple[IdentifiedSource, int, int]] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self.is_awaited: bool = False  # somebody waits for the next, and there is none
        self._unread: list[weakref.ref[PassingBody]] = []
        self._finished = False
        self._closed = False
        self._threads: AbstractContextManager[DiskPool] | None = None

    def __enter__(self) -> Self:
        self._threads = shared_pool()
        self.pool: DiskPool = self._threads.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.__exit__(None, None, None)

    # --- for those that receive ---------------------------------------------------------------------------------------

    @property
    def is_tight(self) -> bool:
        """Whether so much is held that no more is to come."""
        return (self.held >= self._most or self._filed >= _FILED * self._most) and not self._closed

    def hold(self, size: int) -> None:
        """Count bytes in memory, with a negative number those that are no more."""
        self.held += size
        if size <= 0:
            self.wake()

    def wake(self) -> None:
        """Have those that wait for room look again."""
        self._room.set()
        self._room = asyncio.Event()

    async def changed(self) -> None:
        """Wait until there may be room."""
        await self._room.wait()

    def put(self, one: IdentifiedSource, uids: InstanceUids, held: int, *, filed: int = 0) -> None:
        """Have an instance taken, of which so many bytes are counted as held, or are in a file."""
        if self._closed:
            self.hold(-held)
            return
        self._given(uids)
        self._filed += filed
        self._ready.append((one, held, filed))
        self._news.set()

    def finish(self) -> None:
        """Say that no more come."""
        self._finished = True
        self._news.set()

    # --- for the one that takes ---------------------------------------------------------------------------------------

    async def next(self) -> IdentifiedSource | None:
        """Return the next instance, None after the last."""
        while not self._ready:
            if self._finished:
                return None
            self._news.clear()
            self.is_awaited = True
            self.wake()
            try:
                async with asyncio.timeout(_UNREAD if self._unread else None):
                    await self._news.wait()
            except TimeoutError:
                self._drop_unread()
            finally:
                self.is_awaited = False
        one = self._taken()
        if isinstance(one, Usable) and isinstance(one.body, PassingBody):
            self._unread = [other for other in self._unread if (body := other()) is not None and not body.is_opened]
            self._unread.append(weakref.ref(one.body))
        return one

    def _taken(self) -> IdentifiedSource:
        one, held, filed = self._ready.popleft()
        self._filed -= filed
        self.hold(-held)
        return one

    def _drop_unread(self) -> None:
        """Throw away what was taken and is not read: nothing comes behind it, and somebody waits for what would."""
        unread, self._unread = self._unread, []
        for body in filter(None, (one() for one in unread)):
            if not body.is_opened:
                body.close()

    def close(self) -> None:
        """Throw away what was not taken, and what still comes."""
        self._closed = True
        while self._ready:
            one = self._taken()
            if isinstance(one, Usable) and isinstance(one.body, PassingBody):
                one.body.close()
        self.wake()
        self.finish()


class Side:
    """The `Sink` of one answer."""

    def __init__(self, sink: HoldingSink) -> None:
        self.piece: int = _PIECE
        self._sink = sink
        self._passing: Passing | None = None

    def open(self, arriving: Arriving, ended: ArrivalEnded, /) -> Arrival:
        """Begin to take an instance."""
        sink = self._sink
        if sink.passes and arriving.length is not None and arriving.length > sink.in_memory:
            self._passing = passing = Passing(sink, ended)
            uids = arriving.header.uids
            body = PassingBody(passing, arriving.length)
            sink.put(Usable(uids.sop_instance_uid, arriving.header, body), uids, 0)
            return passing
        self._passing = None
        return _Keeping(sink, arriving, ended)

    def is_full(self) -> bool:
        """Whether `room` would wait."""
        awaited = self._sink if self._passing is None else self._passing
        return self._sink.pool.is_full() or (self._sink.is_tight and not awaited.is_awaited)

    async def room(self) -> None:
        """Wait until something was taken or written."""
        await (self._sink.pool.room() if self._sink.pool.is_full() else self._sink.changed())


# --- kept until it is whole -----------------------------------------------------------------------------------------


class _Keeping:
    """An instance in memory, and in a file from where it is too large for that."""

    where: str = ""

    def __init__(self, sink: HoldingSink, arriving: Arriving, ended: ArrivalEnded) -> None:
        self._sink = sink
        self._header = arriving.header
        self._ended = ended
        self._pieces: list[bytes | memoryview] = []
        self._held = 0
        self._size = 0
        self._file: PrivateFile | None = None
        self._at_work = False
        self._whole = False
        self._over = False

    def write(self, pieces: Pieces, size: int, /) -> None:
        if self._over:
            return
        self._take(pieces, size, size)
        # Many that come at once may fill memory before any of them is whole, and then nobody could take one to make
        # room: so they go to files when somebody waits for the next.
        if self._size > self._sink.in_memory or (self._sink.is_awaited and self._sink.is_tight):
            self._go_on()

    def end(self, pieces: Pieces, size: int, /) -> None:
        if self._over:
            return
        self._take(pieces, size, max(size, _LEAST))
        self._whole = True
        if self._file is None and not self._at_work and self._size <= self._sink.in_memory:
            self._give(self._in_memory(), self._held)
        else:
            self._go_on()

    def drop(self) -> None:
        if self._over:
            return
        self._pieces.clear()
        self._hold(-self._held)
        if self._at_work:
            self._over = True  # told when the thread has done
        else:
            self._end(None)

    def _take(self, pieces: Pieces, size: int, held: int) -> None:
        self._pieces += pieces
        self._size += size
        self._hold(held)

    def _hold(self, size: int) -> None:
        self._held += size
        self._sink.hold(size)

    def _in_memory(self) -> IdentifiedSource:
        data = b"".join(self._pieces)
        self._pieces.clear()
        uids = self._header.uids
        missing = what_is_missing(data, len(data), lambda at, size: data[at : at + size])
        if missing is not None:
            return Unusable(uids.sop_instance_uid, Status.UNREADABLE, missing, len(data), uids)
        return Usable(uids.sop_instance_uid, self._header, BytesBody(data))

    def _give(self, one: IdentifiedSource, held: int, *, filed: int = 0) -> None:
        self._held = 0
        self._sink.put(one, self._header.uids, held, filed=filed)
        self._end(None)

    def _end(self, problem: BaseException | None) -> None:
        self._over = True
        self._file = None
        self._hold(-self._held)
        self._ended(problem)

    # --- in a file ----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self._at_work or self._over or not (self._held >= _WRITTEN or self._whole):
            return
        pieces, self._pieces = self._pieces, []
        self._at_work = True
        last = self._whole
        self._sink.pool.start(partial(self._write, pieces, last), partial(self._written, self._held, last))

    def _write(self, pieces: Pieces, last: bool) -> None:
        """Write, and when that was all find out whether it is whole; in a thread."""
        with explained("the folder for temporary files"):
            file = self._file = self._file or PrivateFile()
            for piece in pieces:
                file.append(piece)
        if last:
            body = SpooledFile(file, self._size, _PIECE * 2)
            self._found = identify_kept(body, self._header.uids.sop_instance_uid, whole=True)

    def _written(self, size: int, last: bool, problem: BaseException | None) -> None:
        self._at_work = False
        if self._over:  # dropped meanwhile
            self._file = None
            self._ended(problem)
            return
        self._hold(-size)
        if problem is not None:
            self._end(problem)
        elif last:
            self._give(self._found, 0, filed=self._size)
        elif self._pieces or self._whole:
            self._go_on()
