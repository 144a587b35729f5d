"""Instances into a folder that a job copies to: several at once, each whole and durable, none over another.

What goes wrong with a source is its outcome. What goes wrong with the folder ends the call: nothing more is taken, and
what is under way comes to its end.
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
from postdicom_async.disk.files import Unusable, read_fully
from postdicom_async.disk.sources import Usable
from postdicom_async.disk.threads import QuickWork, in_background, outlasting
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
_COMPARED: Final = 16 << 20  # bytes of an instance up to which data sets are compared, where the bytes differ
_OTHER = "another instance, or another content of it, lies there under its name"


def of_the_folder(error: LocalFileError) -> LocalFileError:
    """Return what went wrong with a folder, without any path."""
    told = LocalFileError(f"the folder: {error.message.rpartition(': ')[2]}", temporary=error.temporary)
    told.disk_full = error.disk_full
    return told


class _There(Enum):
    """What lies under the name of an instance."""

    SAME = auto()
    BEGINNING = auto()
    """A part of it, from its first byte on: some other program was interrupted."""
    OTHER = auto()


class FolderStore:
    """What stores in one folder; several calls may be under way.

    Attributes:
        sink: where to.
    """

    def __init__(
        self, sink: FolderSink, name: Callable[[InstanceUids], RelativeName], stored: Callable[[RelativeName], None]
    ) -> None:
        """Take a sink that was entered, the layout, and what is told the name of each file that was made."""
        self.sink: FolderSink = sink
        self._name = name
        self._stored = stored
        self._looks = QuickWork()
        self._at_work: dict[RelativeName, asyncio.Event] = {}

    async def run(
        self, sources: AsyncIterator[IdentifiedSource], anonymize: Anonymization | None, gathered: Gathered
    ) -> None:
        """Store what comes; add one outcome for each that was taken, unless the folder failed it.

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
            LocalFileError: it was the folder's fault.
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
        """Let one instance at a time, of those with one name, look at what is there and write."""
        while (other := self._at_work.get(name)) is not None:
            await other.wait()
        self._at_work[name] = done = asyncio.Event()
        try:
            yield
        finally:
            del self._at_work[name]
            done.set()

    async def _write_beside(self, source: Usable, name: RelativeName) -> Outcome:
        """Do what `_write` does where something has that name."""
        opened: list[FileIO] = []  # a list, so that it is found and closed when this is cancelled while it opens
        try:
            with suppress(OSError):
                await in_background(lambda: opened.append(FileIO(self.sink.folder.open_existing(name))))
            if not opened or not S_ISREG(os.fstat(opened[0].fileno()).st_mode):
                return _outcome(source, Status.FAILED, _OTHER)  # a link, a folder, or what may not be read
            return await self._write(source, _Rival(opened[0], source.body.length))
        finally:
            for file in opened:
                file.close()

    async def _write(self, source: Usable, rival: _Rival | None = None) -> Outcome:
        """Write an instance; it is whole under its name in the end, or nothing of it is there.

        The body is read once. Where something has that name, it is compared meanwhile, and what is written is dropped
        unless it is the rest of it.
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
        """Write a body but for its last pieces; return these, their size, and how many bytes there were in all.

        It is left early where the disk has failed, or the rival is known to be another one.
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
    """A file that has the name of an instance, compared with it piece by piece, in a thread."""

    def __init__(self, file: FileIO, length: int) -> None:
        self._file = file
        self._length = length
        self._size = os.fstat(file.fileno()).st_size
        self._equal = True
        self._kept: list[bytes] | None = [] if max(length, self._size) <= _COMPARED else None

    def meets(self, piece: bytes) -> bool:
        """Compare the next bytes; return whether there is still something to find out."""
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
        """Return what the file is to the instance."""
        if self._equal and self._size <= self._length:
            return _There.SAME if self._size == self._length else _There.BEGINNING
        if self._equal or self._kept is None:
            return _There.OTHER
        try:  # an archive may write what stands before the data set anew each time it is asked
            self._file.seek(0)
            there = read_fully(self._file, self._size)
        except OSError:
            return _There.OTHER
        return _There.SAME if compare_files(b"".join(self._kept), there) is Sameness.SAME else _There.OTHER


class _Call:
    """One call of `FolderStore.run`.

    Attributes:
        problem: why nothing more is taken.
    """

    def __init__(self, store: FolderStore, anonymize: Anonymization | None, gathered: Gathered) -> None:
        self.problem: Exception | None = None
        self._store = store
        self._anonymize = anonymize
        self._gathered = gathered

    async def drawn(self, sources: AsyncIterator[IdentifiedSource]) -> AsyncGenerator[IdentifiedSource, None]:
        """Yield the sources until something is wrong with the folder, or with what gives them."""
        try:
            async for one in sources:
                if self.problem is not None:
                    return
                yield one
                await self._gathered.room()
        except Exception as error:  # noqa: BLE001 - raised when what was taken has come to its end
            self.problem = self.problem or error
        finally:  # in the task that drew from it: what it has entered belongs to that
            if isinstance(sources, AsyncGenerator):
                await sources.aclose()

    async def take(self, one: IdentifiedSource) -> None:
        """Store one and tell what became of it."""
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
