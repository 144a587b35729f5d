"""One answer into a sink: each part is identified by its own header and checked against the request.

The reader of the answer calls `Receiver.part_begins`, `part_data` and `part_ends` in that order, without waiting, while
it parses a chunk; the sink reports later, between two chunks and in the same event loop, how each part ended. State:
the part that is arriving, the number of parts the sink still has, and those it has kept, which the caller's task
reports. Errors surface where they belong: damage of the answer ends the reading, an error of the sink or of the
caller's listener is raised between two chunks, and in any case no part is left in the sink when this ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

from postdicom_async.dicom.header import HEADER_LIMIT, HeaderGap, InstanceHeader, read_header, read_values
from postdicom_async.dicomweb.multipart import MultipartDamage
from postdicom_async.dicomweb.retrieve import Target, damaged, part_reader
from postdicom_async.disk.files import outlasting
from postdicom_async.disk.folder import NameTaken
from postdicom_async.errors import PostdicomError
from postdicom_async.results import InstanceUids, Outcome, Status
from postdicom_async.transfer.arrivals import Taken
from postdicom_async.transfer.sinks import Arriving

if TYPE_CHECKING:
    from collections.abc import Callable

    from postdicom_async.http.answer import StreamedAnswer
    from postdicom_async.transfer.outcomes import Meter
    from postdicom_async.transfer.sinks import Arrival, Sink

_OPERATION = "retrieve"
# Why a part is refused; with "" it is dropped silently, because it is already here.
_UNWANTED = {Taken.NEW: None, Taken.BEFORE: "", Taken.AGAIN: "a second copy"}
_MOST_PIECES = 512  # a server that sends byte by byte must not fill memory with small objects
_COPIED = 64 * 1024  # a smaller piece is copied out of its chunk, which may be many times as large
_ENOUGH = 64 * 1024  # bytes of small pieces gathered before they are parsed
_LONGEST_HELD = 0.005  # seconds that small pieces wait for more: a slow answer is not held back
_FIRST_LOOK = 4 * 1024  # most headers end within this


class Told(Protocol):
    """Is told of the parts of one answer, as a `OneAnswer` is."""

    def take(self, uids: InstanceUids) -> Taken:
        """Note that a part begins; return whether it is wanted."""
        ...

    def has(self, uids: InstanceUids) -> bool:
        """Return whether an instance is here, whichever answer brought it."""
        ...

    def note_saved(self, outcome: Outcome, uids: InstanceUids) -> bool:
        """Note that an instance is kept, whole; return whether it was not here before."""
        ...

    def note_refused(self, uids: InstanceUids | None, reason: str) -> None:
        """Note a part that was dropped."""
        ...

    async def room(self) -> None:
        """Wait until another instance may begin."""
        ...


class Receiver:
    """Receives the parts of one answer; a `PartTaker`. Use it once.

    Parts are passed to the sink as they are found, without waiting; their fate is noted when it is known, and reported
    in the caller's task between two chunks. By its end, every part has ended in the sink.
    """

    def __init__(
        self, sink: Sink, target: Target, told: Told, *, meter: Meter, wanted: frozenset[int] = frozenset()
    ) -> None:
        """Take where parts go, what was asked for, and the tags of values that the sink is told of each."""
        self._wanted = wanted
        self._sink = sink
        self._target = target
        self._told = told
        self._meter = meter
        self._under_way = 0
        self._none_under_way: asyncio.Future[None] | None = None
        self._kept: deque[tuple[Outcome, InstanceUids]] = deque()
        self._not_kept: deque[tuple[InstanceUids | None, str]] = deque()
        self._problem: BaseException | None = None
        self._empty = True
        self._handed_over = False
        self._part = _ArrivingPart.none()

    async def receive(self, answer: StreamedAnswer, max_parts: int) -> None:
        """Read the answer to its end.

        Raises:
            ProtocolError, ConnectionFailed: it broke; parts that were whole by then are kept.
            LocalFileError: the disk is full or failed.
        """
        reader = part_reader(answer, _OPERATION, max_parts, self)
        gathering = _Gathering(reader.feed)
        problem: PostdicomError | None = None
        try:
            async for chunk in answer.chunks():
                gathering.add(chunk)
                if self._handed_over:  # most pieces of a large part are only gathered, at no further cost
                    self._handed_over = False
                    await self._keep_pace()
            gathering.flush()
            reader.close()
            if self._empty:  # a single-part body has no boundary to miss: an empty one would pass for whole
                raise MultipartDamage("the answer is empty")
        except MultipartDamage as damage:
            problem = damaged(damage, _OPERATION)
        except PostdicomError as error:
            problem = error
            with suppress(MultipartDamage, PostdicomError):  # parts that were complete by then are kept
                gathering.flush()
        finally:
            gathering.stop()
            await self._clean_up()
        self._meter.check()
        if self._problem is not None:
            raise self._problem
        if problem is not None:
            raise problem

    async def _keep_pace(self) -> None:
        self._tell()
        self._meter.check()
        if self._problem is not None:
            raise self._problem
        await self._told.room()
        while self._sink.is_full() and self._problem is None:
            await self._sink.room()

    async def _clean_up(self) -> None:
        """Drop the unfinished part, and wait for the others even if this task is cancelled."""
        part, self._part = self._part, _ArrivingPart.none()
        if part.arrival is not None:
            part.arrival.drop()
        try:
            if self._under_way:
                self._none_under_way = asyncio.get_running_loop().create_future()
                await outlasting(self._none_under_way)
        finally:
            self._tell()

    # --- called by the reader ----------------------------------------------------------------------------------------

    def part_begins(self, headers: dict[str, str], /) -> None:
        """Begin a part."""
        self._empty = False
        length = headers.get("content-length")
        self._part = _ArrivingPart(self._sink.piece, int(length) if length else None)

    def part_data(self, chunk: bytes, start: int, end: int, /) -> None:
        """Take bytes of the part; pass on what has been gathered of a large one."""
        part = self._part
        if part.dropping:
            return
        part.add(chunk, start, end)
        if part.gathered >= part.enough and (arrival := self._arrival_of(part, complete=False)) is not None:
            self._count(part)
            arrival.write(*part.taken())

    def part_ends(self) -> None:
        """Pass on the rest."""
        part = self._part
        if not part.dropping and (arrival := self._arrival_of(part, complete=True)) is not None:
            # The caller's progress listener may raise: until it has returned, the part counts as unfinished, to be
            # dropped.
            self._count(part)
            part.whole = True
            arrival.end(*part.taken())
        self._part = _ArrivingPart.none()

    def _count(self, part: _ArrivingPart) -> None:
        """Count bytes that arrived, unless another answer brought the instance meanwhile and counted them."""
        if part.uids is not None and not self._told.has(part.uids):
            self._meter.reached(part.uids, part.size)

    def _arrival_of(self, part: _ArrivingPart, *, complete: bool) -> Arrival | None:
        """Return the part's place in the sink, once its header shows which instance it is; drop an unwanted part."""
        self._handed_over = True
        if part.arrival is not None:
            return part.arrival
        header = part.read_header(complete=complete)
        if header is HeaderGap.INCOMPLETE and part.gathered < HEADER_LIMIT and not complete:
            part.enough = HEADER_LIMIT  # its header is still to come
            return None
        uids: InstanceUids | None = None
        why: str | None = "not a DICOM instance"
        if isinstance(header, InstanceHeader):
            values, may_be_more = part.read_values(self._wanted) if self._wanted else ({}, False)
            if may_be_more and part.gathered < HEADER_LIMIT and not complete:
                part.enough = HEADER_LIMIT
                return None
            uids = header.uids
            why = _UNWANTED[self._told.take(uids)] if self._target.covers(uids) else "not what was asked for"
            if why is None:
                part.uids = uids
                part.arrival = self._sink.open(Arriving(header, part.length, values), partial(self._ended, part))
                self._under_way += 1
                return part.arrival
        if why:
            self._told.note_refused(uids, why)
        part.dropping = True
        part.taken()
        return None

    # --- results of the sink -----------------------------------------------------------------------------------------

    def _ended(self, part: _ArrivingPart, problem: BaseException | None) -> None:
        self._under_way -= 1
        if isinstance(problem, NameTaken):  # the others of this answer have names of their own
            self._not_kept.append((part.uids, problem.message))
        elif problem is not None:
            self._problem = self._problem or problem
        elif part.whole and part.arrival is not None and part.uids is not None:
            self._kept.append((Outcome(part.arrival.where, Status.SAVED, part.uids, part.size), part.uids))
        if self._none_under_way is not None and not self._under_way:
            self._none_under_way.set_result(None)

    def _tell(self) -> None:
        """Report what was kept, in the caller's task; if two answers brought an instance, the first counts."""
        while self._not_kept:
            self._told.note_refused(*self._not_kept.popleft())
        while self._kept:
            outcome, uids = self._kept.popleft()
            if self._told.note_saved(outcome, uids):
                self._meter.finished(outcome, uids)


class _Gathering:
    """Joins small pieces before they are parsed: parsing has a cost per piece, and some servers send pieces of 8 KiB.

    Gathered bytes are parsed when there are enough of them, or after a few milliseconds: a slow answer is not held
    back. An error found then is raised by the next call.
    """

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed
        self._pieces: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._problem: Exception | None = None

    def add(self, piece: bytes) -> None:
        if self._problem is not None:
            raise self._problem
        if len(piece) >= _ENOUGH and not self._pieces:
            self._feed(piece)
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _ENOUGH or len(self._pieces) >= _MOST_PIECES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LONGEST_HELD, self._is_old)

    def flush(self) -> None:
        if self._problem is not None:
            raise self._problem
        if self._pieces:
            pieces, self._pieces, self._size = self._pieces, [], 0
            self._feed(b"".join(pieces))

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _is_old(self) -> None:
        self._timer = None
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001 - raised in the receiving task
            self._problem = error


class _ArrivingPart:
    """The part that is arriving."""

    __slots__ = ("arrival", "dropping", "enough", "gathered", "length", "pieces", "size", "uids", "whole")

    def __init__(self, enough: int, length: int | None) -> None:
        self.enough: int = enough
        self.length: int | None = length
        self.pieces: list[bytes | memoryview] = []
        self.gathered: int = 0
        self.size: int = 0
        self.uids: InstanceUids | None = None  # set together with `arrival`, once its header is known
        self.arrival: Arrival | None = None
        self.dropping: bool = False
        self.whole: bool = False

    @classmethod
    def none(cls) -> _ArrivingPart:
        """Return the placeholder between two parts."""
        part = cls(0, None)
        part.dropping = True
        return part

    def add(self, chunk: bytes, start: int, end: int) -> None:
        size = end - start
        if size == len(chunk):
            self.pieces.append(chunk)
        else:
            self.pieces.append(chunk[start:end] if size < _COPIED else memoryview(chunk)[start:end])
        self.gathered += size
        self.size += size
        if len(self.pieces) >= _MOST_PIECES:
            self.pieces = [b"".join(self.pieces)]

    def taken(self) -> tuple[list[bytes | memoryview], int]:
        taken = self.pieces, self.gathered
        self.pieces, self.gathered = [], 0
        return taken

    def read_values(self, wanted: frozenset[int]) -> tuple[dict[int, bytes], bool]:
        return read_values(b"".join(self.pieces), wanted)

    def read_header(self, *, complete: bool) -> InstanceHeader | HeaderGap:
        first = bytes(self.pieces[0][:_FIRST_LOOK]) if self.pieces else b""
        header = read_header(first, complete=complete and len(first) == self.gathered)
        if not isinstance(header, InstanceHeader) and len(first) < self.gathered:
            header = read_header(b"".join(self.pieces), complete=complete)
        return header
