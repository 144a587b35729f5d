"""Instances on their way from one archive to the other end of a job, each passed on once it is whole.

A small instance waits in memory, a large one in a private file; one whose length is known may not be stored at all but
passed on as it arrives, as a body that can be read once: the receiver of the answer writes it (`Passing`), the sender
of a store request reads it (`PassingBody`).

State: all of it belongs to the event loop; threads only write files. Bytes in memory count from their arrival until the
instance is taken or written to a file; bytes in files count until it is taken. The receiver waits while much is held,
but never while the reader waits too, for the next instance or for more of a body that is still arriving. Each answer
has a `Side` of its own, so that it continues while its own body is being read.

The risk is a deadlock: the receiver waits for room, and the reader for bytes that can arrive only once there is room.
So a waiting reader lets the receiver through (`is_awaited`), a body that nobody reads any more lets its archive
continue (`PassingBody.__del__`), and one that was taken but never opened is dropped after a while (`_UNREAD`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final

from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.wholeness import what_is_missing
from postdicom_async.disk.files import Unusable, explained
from postdicom_async.disk.sources import Usable, identify_kept
from postdicom_async.disk.spool import PrivateFile, SpooledFile
from postdicom_async.errors import LocalFileError
from postdicom_async.results import Status
from postdicom_async.transfer.sinks import UsesDiskThreads

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from postdicom_async.disk.sources import IdentifiedSource
    from postdicom_async.results import InstanceUids
    from postdicom_async.transfer.sinks import Arrival, ArrivalEnded, Arriving, Pieces


class Passing:
    """An instance that passes through: the receiver writes it (`Arrival`), one reader takes its bytes as they arrive.

    Attributes:
        is_awaited: whether the reader is waiting for more of it.
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
        """Keep its next bytes for the reader, if there still is one; ``size`` is their number."""
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
        """Tell the reader that the rest will not come; bytes that arrived before may still be read."""
        self._cut_short = True
        self._news.set()
        self._ended(None)

    async def read(self) -> AsyncGenerator[bytes, None]:
        """Yield its bytes as they arrive. Ends normally only if the instance is whole."""
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
        """Discard the bytes that were not read."""
        self._cut_short = True
        self._sink.hold(-sum(map(len, self._pieces)))
        self._pieces.clear()
        self._news.set()


class PassingBody:
    """The body of an instance that is still arriving. It can be opened once, and raises if the rest does not come.

    Nothing behind it arrives before it is read, so read it at once.

    Attributes:
        length: its bytes, from the Content-Length of its part.
        is_opened: whether somebody reads it.
    """

    def __init__(self, passing: Passing, length: int) -> None:
        self.length: int = length
        self.is_opened: bool = False
        self._passing = passing

    def __repr__(self) -> str:
        return f"<PassingBody of {self.length} bytes>"

    async def open(self) -> AsyncGenerator[bytes, None]:
        """Yield its bytes as they arrive.

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
        """Discard what is still arriving."""
        self._passing.close()

    def __del__(self) -> None:
        """Let the archive that sends it continue: nobody will read it."""
        self._passing.close()


_MIB: Final = 1 << 20
_PIECE: Final = 256 << 10
_WRITTEN: Final = 1 * _MIB  # at a time
_FILED: Final = 8  # files may hold this many times as much as memory
_LEAST: Final = 4096  # bytes that an instance counts for at least
_UNREAD: Final = 300.0  # seconds after which a body that was taken but not read is dropped, if the next one is awaited


class HoldingSink(UsesDiskThreads):
    """Holds instances until they are taken, about ``most`` bytes of them in memory. Enter it while it is in use.

    Files hold a multiple of that, and always the instance that is arriving.

    Args:
        given: called with each instance as it becomes available to `next`.
        most: bytes in memory.
        in_memory: the largest instance kept in memory, in bytes.
        passes: whether a larger one whose length is known is passed on as it arrives.
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
        self.is_awaited: bool = False  # somebody waits for the next instance, and there is none
        self._unread: list[weakref.ref[PassingBody]] = []
        self._finished = False
        self._closed = False

    # --- for receivers ------------------------------------------------------------------------------------------------

    @property
    def is_tight(self) -> bool:
        """Whether so much is held that nothing more should arrive."""
        return (self.held >= self._most or self._filed >= _FILED * self._most) and not self._closed

    def hold(self, size: int) -> None:
        """Count bytes in memory; a negative number counts them off."""
        self.held += size
        if size <= 0:
            self.wake()

    def wake(self) -> None:
        """Make those that wait for room check again."""
        self._room.set()
        self._room = asyncio.Event()

    async def changed(self) -> None:
        """Wait until there may be room."""
        await self._room.wait()

    def put(self, one: IdentifiedSource, uids: InstanceUids, held: int, *, filed: int = 0) -> None:
        """Make an instance available; ``held`` bytes of it are counted as memory, ``filed`` bytes are in a file."""
        if self._closed:
            self.hold(-held)
            return
        self._given(uids)
        self._filed += filed
        self._ready.append((one, held, filed))
        self._news.set()

    def finish(self) -> None:
        """Say that no more instances come."""
        self._finished = True
        self._news.set()

    # --- for the reader -----------------------------------------------------------------------------------------------

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
        """Drop bodies that were taken and are not read: nothing behind them can arrive, and somebody waits for it."""
        unread, self._unread = self._unread, []
        for body in filter(None, (one() for one in unread)):
            if not body.is_opened:
                body.close()

    def close(self) -> None:
        """Discard what was not taken, and what still arrives."""
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
        """Begin to receive an instance."""
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
        """Wait until there may be room."""
        await (self._sink.pool.room() if self._sink.pool.is_full() else self._sink.changed())


# --- an instance until it is whole ----------------------------------------------------------------------------------


class _Keeping:
    """An instance in memory, moved to a file once it is too large for that."""

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
        # Many instances arriving at once may fill memory before any of them is whole, and then nobody could take one to
        # make room: so they go to files when somebody waits for the next.
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
            self._over = True  # reported when the thread is done
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
        """Write in a thread; with ``last``, also check whether the instance is whole."""
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
