"""One answer into a folder: parts are named by what they say they are, checked against what was asked, and written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.dicom.header import HEADER_LIMIT, HeaderGap, InstanceHeader, read_header
from postdicom_async.dicomweb.multipart import PartEnd, PartEvent, PartStart
from postdicom_async.dicomweb.retrieve import Target, part_events
from postdicom_async.disk.background import Background
from postdicom_async.results import InstanceUids, Outcome, Status
from postdicom_async.transfer.arrivals import Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from postdicom_async.dicom.layout import RelativeName
    from postdicom_async.disk.folder import Folder, PartialFile
    from postdicom_async.http.answer import StreamedAnswer
    from postdicom_async.transfer.arrivals import Answer
    from postdicom_async.transfer.progress import Meter

__all__ = ["Receiver"]

_OPERATION = "retrieve"
_UNWANTED = {Taken.NEW: None, Taken.BEFORE: "", Taken.AGAIN: "a second copy"}
_MOST_PIECES = 512  # a server that sends byte by byte must not fill memory with small objects


class Receiver:
    """Writes the parts of one answer. Use it once.

    A small part is written in one go when it is whole; of a large one at most two pieces are in memory, one filling
    while the other is written.
    """

    def __init__(
        self,
        folder: Folder,
        name: Callable[[InstanceUids], RelativeName],
        target: Target,
        told: Answer,
        *,
        piece: int,
        meter: Meter,
    ) -> None:
        self._folder = folder
        self._name = name
        self._target = target
        self._told = told
        self._piece = piece
        self._meter = meter
        self._disk = Background(at_once=not folder.fsync)
        self._spool: _Spool | None = None
        self._begin()

    def _begin(self) -> None:
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._enough = self._piece
        self._size = 0
        self._header: InstanceHeader | None = None
        self._dropping = False

    async def receive(self, answer: StreamedAnswer, max_parts: int) -> None:
        """Read the answer to its end.

        Raises:
            ProtocolError, ConnectionFailed: it broke; parts that were whole by then are kept.
            LocalFileError: the disk is full or failed.
        """
        try:
            async for event in part_events(answer, _OPERATION, max_parts):
                await self._take(event)
            await self._disk.settle()
        finally:
            await self._clean_up()

    async def _take(self, event: PartEvent) -> None:
        if isinstance(event, bytes):
            if self._dropping:
                return
            self._pieces.append(event)
            self._buffered += len(event)
            self._size += len(event)
            if len(self._pieces) >= _MOST_PIECES:
                self._pieces = [b"".join(self._pieces)]
            if self._buffered >= self._enough:
                await self._write_piece()
        elif isinstance(event, PartEnd):
            await self._end_part()
        else:
            assert isinstance(event, PartStart)  # noqa: S101 - for the type checker
            await self._told.room()
            self._begin()

    async def _write_piece(self) -> None:
        """Write what has gathered of a large part."""
        if self._header is None:
            self._identify(complete=False)
        if self._header is None:
            return
        spool, pieces = self._spool_for(self._header), self._gathered()
        self._meter.reached(self._header.uids, self._size)
        await self._disk.run(lambda: spool.write(pieces))

    async def _end_part(self) -> None:
        if self._header is None and not self._dropping:
            self._identify(complete=True)
        if self._header is None:
            return
        spool, pieces = self._spool_for(self._header), self._gathered()
        uids = self._header.uids
        saved = Outcome(str(self._folder.root.joinpath(*spool.name)), Status.SAVED, uids, self._size)
        self._meter.reached(uids, saved.size)

        def done() -> None:
            if self._spool is spool:
                self._spool = None
            self._told.note_saved(saved, uids)
            self._meter.finished(saved, uids)

        await self._disk.run(lambda: spool.complete(pieces), done)

    def _spool_for(self, header: InstanceHeader) -> _Spool:
        if self._spool is None or self._spool.uids != header.uids:
            self._spool = _Spool(self._folder, self._name(header.uids), header.uids)
        return self._spool

    def _identify(self, *, complete: bool) -> None:
        """Find out which instance the part is; drop what is not wanted."""
        first = self._pieces[0] if self._pieces else b""
        header = read_header(first, complete=complete and len(self._pieces) < 2)
        if not isinstance(header, InstanceHeader) and len(self._pieces) > 1:
            header = read_header(b"".join(self._pieces), complete=complete)
        if header is HeaderGap.INCOMPLETE and self._buffered < HEADER_LIMIT and not complete:
            self._enough = HEADER_LIMIT  # its header is still to come
            return
        uids = header.uids if isinstance(header, InstanceHeader) else None
        why = self._unwanted(uids)
        if why is None and isinstance(header, InstanceHeader):
            self._header = header
            return
        if why:
            self._told.note_refused(uids, why)
        self._dropping = True
        self._gathered()

    def _unwanted(self, uids: InstanceUids | None) -> str | None:
        """Return why an instance is refused, "" where it is only dropped: it is here already. None if it is wanted."""
        if uids is None:
            return "not a DICOM instance"
        if not self._target.covers(uids):
            return "not what was asked for"
        return _UNWANTED[self._told.take(uids)]

    def _gathered(self) -> list[bytes]:
        pieces, self._pieces, self._buffered = self._pieces, [], 0
        return pieces

    async def _clean_up(self) -> None:
        await self._disk.finish()
        if self._spool is not None:
            self._spool.discard()


class _Spool:
    """The file of one part, made when there is something to write. Its calls block."""

    def __init__(self, folder: Folder, name: RelativeName, uids: InstanceUids) -> None:
        self.name = name
        self.uids = uids
        self._folder = folder
        self._file: PartialFile | None = None

    def write(self, pieces: list[bytes]) -> None:
        if self._file is None:
            self._file = self._folder.create(self.name)
        self._file.write(pieces)

    def complete(self, pieces: list[bytes]) -> None:
        try:
            self.write(pieces)
            if self._file is not None:
                self._file.commit()
        finally:
            self.discard()

    def discard(self) -> None:
        if self._file is not None:
            self._file.discard()
            self._file = None
