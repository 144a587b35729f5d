"""Stores instances in a job's target folder: several at once, each complete and durable, never overwriting a file.

An error of one source is that item's outcome. An error of the folder ends the call: no more sources are taken, and
those under way are finished.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from enum import Enum, auto
from functools import partial
from io import FileIO
from stat import S_ISREG
from typing import TYPE_CHECKING, Final

from postdicom_async.dicom.sameness import Sameness, compare_files
from postdicom_async.disk.anonymized import anonymized
from postdicom_async.disk.files import QuickWork, Unusable, in_background, outlasting, read_fully
from postdicom_async.disk.sources import Usable
from postdicom_async.errors import LocalFileError, PostdicomError
from postdicom_async.results import Outcome, Status
from postdicom_async.transfer.at_once import for_each
from postdicom_async.transfer.sinks import Arriving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.dicom.layout import RelativeName
    from postdicom_async.disk.sources import IdentifiedSource
    from postdicom_async.results import InstanceUids
    from postdicom_async.transfer.outcomes import Gathered
    from postdicom_async.transfer.sinks import Arrival, FolderSink


_AT_ONCE: Final = 32
_COMPARED: Final = 16 << 20  # instances up to this size in bytes are compared by data set if their bytes differ
_OTHER = "another instance, or another content of it, lies there under its name"


def of_the_folder(error: LocalFileError) -> LocalFileError:
    """Return the error for a folder, without any path in it."""
    told = LocalFileError(f"the folder: {error.message.rpartition(': ')[2]}", temporary=error.temporary)
    told.disk_full = error.disk_full
    return told


class _There(Enum):
    """How the file under an instance's name relates to the instance."""

    SAME = auto()
    BEGINNING = auto()
    """A truncated copy of it: some other program was interrupted."""
    OTHER = auto()


class FolderStore:
    """Stores in one folder; several calls may run at once.

    Attributes:
        sink: the folder to write to.
    """

    def __init__(
        self, sink: FolderSink, name: Callable[[InstanceUids], RelativeName], stored: Callable[[RelativeName], None]
    ) -> None:
        """Take an entered sink, the layout, and a callback that gets the name of each file created."""
        self.sink: FolderSink = sink
        self._name = name
        self._stored = stored
        self._looks = QuickWork()
        self._at_work: dict[RelativeName, asyncio.Event] = {}

    async def run(
        self, sources: AsyncIterator[IdentifiedSource], anonymize: Anonymization | None, gathered: Gathered
    ) -> None:
        """Store all sources; add one outcome for each that was taken, unless the folder failed.

        Raises:
            LocalFileError: the disk is full, or the folder cannot be written to.
            Exception: what ``sources`` raised.
        """
        call = _Call(self, anonymize, gathered)
        async with aclosing(call.drawn(sources)) as drawn:
            await for_each(drawn, call.take, at_once=_AT_ONCE)
        if call.problem is not None:
            raise call.problem

    async def put(self, source: Usable) -> Outcome:
        """Store one instance.

        Raises:
            LocalFileError: the folder failed, not the source.
            UsageError: the layout gives it no name.
        """
        name = self._name(source.header.uids)
        async with self._alone(name):
            is_there = await self._looks.run(partial(os.path.lexists, self.sink.folder.root.joinpath(*name)))
            outcome = await (self._write_beside(source, name) if is_there else self._write(source))
        if outcome.status is Status.SAVED:
            self._stored(name)
        return outcome

    @asynccontextmanager
    async def _alone(self, name: RelativeName) -> AsyncGenerator[None, None]:
        """Lock a file name, so that only one instance at a time checks it and writes it."""
        while (other := self._at_work.get(name)) is not None:
            await other.wait()
        self._at_work[name] = done = asyncio.Event()
        try:
            yield
        finally:
            del self._at_work[name]
            done.set()

    async def _write_beside(self, source: Usable, name: RelativeName) -> Outcome:
        """Do what `_write` does when a file of that name exists."""
        opened: list[FileIO] = []  # a list, so that it is found and closed when this is cancelled while it opens
        try:
            with suppress(OSError):
                await in_background(lambda: opened.append(FileIO(self.sink.folder.open_existing(name))))
            if not opened or not S_ISREG(os.fstat(opened[0].fileno()).st_mode):
                return _outcome(source, Status.FAILED, _OTHER)  # a link, a folder, or an unreadable file
            return await self._write(source, _Rival(opened[0], source.body.length))
        finally:
            for file in opened:
                file.close()

    async def _write(self, source: Usable, rival: _Rival | None = None) -> Outcome:
        """Write an instance: in the end its file is complete, or does not exist.

        The body is read once. If a file of that name exists, the body is compared with it while it is written, and the
        new file is discarded unless the old one is a truncated copy.
        """
        ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        arrival = self.sink.open(Arriving(source.header, source.body.length), ended.set_result)
        kept = False
        broken: PostdicomError | None = None
        there, total = _There.BEGINNING, 0
        try:
            pieces, held, total = await self._carry(source, arrival, ended, rival)
            if rival is not None:
                there = await in_background(rival.found)
            kept = total == source.body.length and there is _There.BEGINNING
            if kept:
                arrival.end(pieces, held)
        except PostdicomError as error:
            broken = error
        finally:
            if not kept:
                arrival.drop()
            await outlasting(ended)
        problem = ended.result()
        if problem is not None:
            raise of_the_folder(problem) if isinstance(problem, LocalFileError) else problem
        if there is _There.OTHER:
            return _outcome(source, Status.FAILED, _OTHER)
        if broken is not None or total != source.body.length:
            return _broken(source, broken)
        return _outcome(source, Status.SAVED if kept else Status.PRESENT)

    async def _carry(
        self, source: Usable, arrival: Arrival, ended: asyncio.Future[BaseException | None], rival: _Rival | None
    ) -> tuple[list[bytes | memoryview], int, int]:
        """Write a body except its last chunks; return those, their size, and the total size in bytes.

        Stops early if the disk has failed, or the rival is known to differ.
        """
        pieces: list[bytes | memoryview] = []
        held = total = 0
        async with aclosing(source.body.open()) as stream:
            async for piece in stream:
                pieces.append(piece)
                held, total = held + len(piece), total + len(piece)
                if ended.done() or (rival is not None and not await in_background(partial(rival.meets, piece))):
                    break
                if held >= self.sink.piece and total < source.body.length:
                    arrival.write(pieces, held)
                    pieces, held = [], 0
                    while self.sink.is_full() and not ended.done():
                        await self.sink.room()
        return pieces, held, total


class _Rival:
    """An existing file with the instance's name, compared with it chunk by chunk, in a thread."""

    def __init__(self, file: FileIO, length: int) -> None:
        self._file = file
        self._length = length
        self._size = os.fstat(file.fileno()).st_size
        self._equal = True
        self._kept: list[bytes] | None = [] if max(length, self._size) <= _COMPARED else None

    def meets(self, piece: bytes) -> bool:
        """Compare the next bytes; return whether comparing has to go on."""
        if self._equal:
            try:
                there = read_fully(self._file, len(piece))
                self._equal = there == piece[: len(there)]
            except OSError:
                self._equal, self._kept = False, None
        if self._kept is not None:
            self._kept.append(piece)
        return self._equal or self._kept is not None

    def found(self) -> _There:
        """Return how the file relates to the instance."""
        if self._equal and self._size <= self._length:
            return _There.SAME if self._size == self._length else _There.BEGINNING
        if self._equal or self._kept is None:
            return _There.OTHER
        try:  # an archive may write the file meta information anew on every retrieve
            self._file.seek(0)
            there = read_fully(self._file, self._size)
        except OSError:
            return _There.OTHER
        return _There.SAME if compare_files(b"".join(self._kept), there) is Sameness.SAME else _There.OTHER


class _Call:
    """One call of `FolderStore.run`.

    Attributes:
        problem: the error that stopped it from taking more.
    """

    def __init__(self, store: FolderStore, anonymize: Anonymization | None, gathered: Gathered) -> None:
        self.problem: Exception | None = None
        self._store = store
        self._anonymize = anonymize
        self._gathered = gathered

    async def drawn(self, sources: AsyncIterator[IdentifiedSource]) -> AsyncGenerator[IdentifiedSource, None]:
        """Yield the sources until the folder or the source iterator fails."""
        try:
            async for one in sources:
                if self.problem is not None:
                    return
                yield one
                await self._gathered.room()
        except Exception as error:  # noqa: BLE001 - raised once all taken sources have ended
            self.problem = self.problem or error
        finally:  # closed in the task that iterated over it: its cancel scopes belong to that task
            if isinstance(sources, AsyncGenerator):
                await sources.aclose()

    async def take(self, one: IdentifiedSource) -> None:
        """Store one source and report its outcome."""
        try:
            if self._anonymize is not None:
                one = await anonymized(one, self._anonymize)
            if isinstance(one, Unusable):
                outcome = Outcome(one.label, one.status, one.uids, one.size, reason=one.reason)
            else:
                outcome = await self._store.put(one)
        except Exception as error:  # noqa: BLE001 - as above
            self.problem = self.problem or error
        else:
            self._gathered.add(outcome)


def _outcome(source: Usable, status: Status, reason: str = "", *, temporary: bool = False) -> Outcome:
    size, uids = source.body.length, source.header.uids
    return Outcome(source.label, status, uids, size, reason=reason or None, temporary=temporary)


def _broken(source: Usable, error: PostdicomError | None) -> Outcome:
    """Return the outcome of a source that could not be read to its end."""
    if error is None or isinstance(error, LocalFileError):
        return _outcome(source, Status.UNREADABLE, "it ended early" if error is None else error.message)
    return _outcome(source, Status.FAILED, str(error), temporary=error.temporary)
