"""Instances into a folder that a job copies to: several at once, each whole and durable, none over another.

What goes wrong with a source is its outcome. What goes wrong with the folder ends the call: nothing more is taken, and
what is under way comes to its end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from enum import Enum, auto
from functools import partial
from io import FileIO
from stat import S_ISREG
from typing import TYPE_CHECKING, Final

from postdicom_async.dicom.sameness import Sameness, compare_files
from postdicom_async.disk.anonymized import anonymized
from postdicom_async.disk.background import QuickWork, in_background, outlasting
from postdicom_async.disk.files import read_fully
from postdicom_async.disk.sources import Unusable, Usable
from postdicom_async.errors import LocalFileError, PostdicomError
from postdicom_async.results import Outcome, Status
from postdicom_async.transfer.at_once import for_each
from postdicom_async.transfer.sinks import Arriving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from postdicom_async.bodies import Body
    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.dicom.layout import RelativeName
    from postdicom_async.disk.sources import Identified
    from postdicom_async.results import InstanceUids
    from postdicom_async.transfer.folder_sink import FolderSink
    from postdicom_async.transfer.outcomes import Gathered

__all__ = ["FolderStore", "of_the_folder"]

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
        self, sources: AsyncIterator[Identified], anonymize: Anonymization | None, gathered: Gathered
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
            if await self._looks.run(partial(os.path.lexists, self.sink.folder.root.joinpath(*name))):
                there = await self._compared(source, name)
                if isinstance(there, Outcome):
                    return there
                if there is not _There.BEGINNING:
                    same = there is _There.SAME
                    return _outcome(source, Status.PRESENT if same else Status.FAILED, "" if same else _OTHER)
            outcome = await self._write(source)
        if outcome.status is Status.SAVED:
            self._stored(name)
        return outcome

    @asynccontextmanager
    async def _alone(self, name: RelativeName) -> AsyncGenerator[None, None]:
        """Let one instance of a name at a time look what is there and write."""
        while (other := self._at_work.get(name)) is not None:
            await other.wait()
        self._at_work[name] = done = asyncio.Event()
        try:
            yield
        finally:
            del self._at_work[name]
            done.set()

    async def _write(self, source: Usable) -> Outcome:
        """Write an instance; it is whole under its name in the end, or nothing of it is there."""
        ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        arrival = self.sink.open(Arriving(source.header, source.body.length), ended.set_result)
        pieces: list[bytes | memoryview] = []
        held = total = 0
        whole = False
        broken: PostdicomError | None = None
        try:
            async with aclosing(source.body.open()) as stream:
                async for piece in stream:
                    pieces.append(piece)
                    held, total = held + len(piece), total + len(piece)
                    if held >= self.sink.piece and total < source.body.length:
                        arrival.write(pieces, held)
                        pieces, held = [], 0
                        await self._room(ended)
                    if ended.done():
                        break
            whole = total == source.body.length
            if whole:
                arrival.end(pieces, held)
        except PostdicomError as error:
            broken = error
        finally:
            if not whole:
                arrival.drop()
            await outlasting(ended)
        problem = ended.result()
        if isinstance(problem, LocalFileError):
            raise of_the_folder(problem)
        if problem is not None:
            raise problem
        return _outcome(source, Status.SAVED) if whole else _broken(source, broken)

    async def _room(self, ended: asyncio.Future[BaseException | None]) -> None:
        while self.sink.is_full() and not ended.done():
            await self.sink.room()

    # --- what lies there already -------------------------------------------------------------------------------------

    async def _compared(self, source: Usable, name: RelativeName) -> _There | Outcome:
        """Return what lies under a name, or the outcome of a source that cannot be read."""
        opened: list[FileIO] = []  # a list: whoever is cancelled while it is opened finds it here, to be closed
        broken: PostdicomError | None = None
        try:
            await in_background(lambda: opened.append(FileIO(self.sink.folder.open_existing(name))))
            return await _difference(source.body, opened[0])
        except OSError:
            return _There.OTHER  # a link, or what may not be read: it is left alone
        except PostdicomError as error:
            broken = error
        finally:
            for file in opened:
                file.close()
        return _broken(source, broken)


async def _difference(body: Body, file: FileIO) -> _There:
    status = os.fstat(file.fileno())
    if not S_ISREG(status.st_mode):
        return _There.OTHER
    small = max(body.length, status.st_size) <= _COMPARED
    pieces: list[bytes] = []
    equal = True
    async with aclosing(body.open()) as stream:
        async for piece in stream:
            if equal:
                there = await in_background(partial(read_fully, file, len(piece)))
                equal = there == piece[: len(there)]
            if small:
                pieces.append(piece)
            elif not equal:
                return _There.OTHER
    if equal and status.st_size <= body.length:
        return _There.SAME if status.st_size == body.length else _There.BEGINNING
    if not small:
        return _There.OTHER
    return await in_background(partial(_same_data_set, file, status.st_size, b"".join(pieces)))


def _same_data_set(file: FileIO, size: int, data: bytes) -> _There:
    """Compare data sets: an archive may write what stands before them anew each time it is asked."""
    file.seek(0)
    same = compare_files(data, read_fully(file, size)) is Sameness.SAME
    return _There.SAME if same else _There.OTHER


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

    async def drawn(self, sources: AsyncIterator[Identified]) -> AsyncGenerator[Identified, None]:
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

    async def take(self, one: Identified) -> None:
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
