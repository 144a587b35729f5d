"""The intake of an upload: settles sources that are not to be sent, finds duplicates, gives each source one outcome.

Every source has exactly one outcome, reported as soon as it is final; a source that is not settled by the end was not
sent. Of several sources with one SOP Instance UID only one is in flight at a time. One that is byte for byte the same
shares the outcome of its twin; one that differs waits, and is handed out if the one before it was refused. Nothing else
waits for that: sources that become ready once everything else is done are sent in a further round.

State, all of it in the event loop: ``_open`` has a record for each source that was handed out or waits, and for each of
their UIDs ``_under_way`` has all versions met so far. Once all versions of a UID are settled they move to
`SettledVersions`, most of it on disk, so that memory holds only what is in flight; and a version never holds the bytes
of an instance, only its file or a digest. The risk is an outcome reported twice or never: only `Intake._close` ends a
record, and `Intake._settle_the_rest` ends those that are left.
"""

from __future__ import annotations

import asyncio
import hashlib
import marshal
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import anyio.lowlevel
import anyio.to_thread

from postdicom_async.bodies import BytesBody
from postdicom_async.disk.anonymized import AnonymizedBody, anonymized
from postdicom_async.disk.files import FileBody, HeldFile, Unusable, outlasting
from postdicom_async.disk.scratch import Scratch, ScratchMap
from postdicom_async.disk.sources import IdentifiedSource, Sources, Usable, measure, read_sources, require_anonymization
from postdicom_async.disk.spool import SpooledFile
from postdicom_async.errors import LocalFileError, PostdicomError, UsageError
from postdicom_async.http.repeat import deadline_passed, within
from postdicom_async.results import OnProgress, Outcome, Status, UploadReport
from postdicom_async.transfer.outcomes import Gathered, Meter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async.bodies import Body
    from postdicom_async.dicom.anonymize import Anonymization

_HASHED_ASIDE = 128 * 1024  # bytes; a larger piece is hashed in a thread, so that the event loop continues
_REFUSED = frozenset({Status.FAILED, Status.UNREADABLE})


class Fate(NamedTuple):
    """What became of a source, as far as sources with the same bytes share it."""

    status: Status
    temporary: bool
    patient_order_uuid: str | None

    @classmethod
    def of(cls, outcome: Outcome) -> Fate:
        """Return the fate of a source with that outcome."""
        return cls(outcome.status, outcome.temporary, outcome.patient_order_uuid)

    @property
    def in_archive(self) -> bool:
        """Whether the archive is known to hold it."""
        return Outcome("", self.status).in_archive

    @property
    def refused(self) -> bool:
        """Whether it is known not to be in the archive, so that another source of its UID may be tried."""
        return self.status in _REFUSED


@dataclass(slots=True, eq=False)
class Version:
    """One of the contents met under a UID; never its bytes, or a stream of data sets would fill memory.

    Attributes:
        number: the source's place in the report.
        length: bytes as they are sent.
        content: a file, or the digest of bytes in memory; of the original, if it is anonymised.
        fate: None while it is in flight or waits.
    """

    number: int
    length: int
    content: FileBody | bytes = field(repr=False)
    fate: Fate | None = None


class SettledVersions:
    """The settled versions of each UID."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._versions: ScratchMap[bytes] = ScratchMap(self._scratch)

    def put(self, uid: str, versions: list[Version]) -> None:
        """Keep all versions of a UID, each with its fate.

        Raises:
            LocalFileError: the folder for temporary files is full or cannot be written to.
        """
        self._versions.put(
            (0, uid), marshal.dumps([_fields(one, one.fate) for one in versions if one.fate is not None])
        )

    def of(self, uid: str) -> list[Version]:
        """Return the versions of a UID in the order in which they came; none where it is new.

        Raises:
            LocalFileError: as `put`.
        """
        found = self._versions.get((0, uid))
        return [] if found is None else [_version(*fields) for fields in marshal.loads(found)]  # noqa: S302 - `put` made it

    def close(self) -> None:
        """Forget everything."""
        self._scratch.close()
        self._versions = ScratchMap(self._scratch)


def _fields(version: Version, fate: Fate) -> tuple[Any, ...]:
    content = version.content
    kept = (
        content if isinstance(content, bytes) else (str(content.path), content.length, content.identity, content.piece)
    )
    return version.number, version.length, kept, fate.status.value, fate.temporary, fate.patient_order_uuid


def _version(
    number: int, length: int, kept: bytes | tuple[Any, ...], status: str, temporary: bool, order: str | None
) -> Version:
    content = kept if isinstance(kept, bytes) else FileBody(Path(kept[0]), *kept[1:])
    return Version(number, length, content, Fate(Status(status), temporary, order))


# --- contents ---------------------------------------------------------------------------------------------------------


def held_by(body: Body) -> int:
    """Return the bytes of a body that are in memory."""
    if isinstance(body, AnonymizedBody):
        parts = sum(len(part) for part in (*body.parts, *body.deflated_parts) if isinstance(part, bytes))
        return parts + held_by(body.original)
    return 0 if isinstance(body, FileBody | SpooledFile) else body.length


def original_of(body: Body) -> Body:
    """Return the body that an anonymised one is made from: two originals are not the same because their copies are.

    Of a file held in memory, return the file: a version never keeps the bytes of an instance.
    """
    original = body.original if isinstance(body, AnonymizedBody) else body
    return original.file if isinstance(original, HeldFile) else original


async def alike(body: Body, known: Iterable[Version]) -> Version | None:
    """Return the known version with the same bytes as ``body``; a body that cannot be read equals none."""
    own: bytes | None = None
    for one in known:
        if one.length == body.length:
            try:
                own = own or await digest_of(original_of(body))
                if own == (one.content if isinstance(one.content, bytes) else await digest_of(one.content)):
                    return one
            except LocalFileError:
                continue
    return None


async def digest_of(body: Body) -> bytes:
    """Return a digest of the bytes of a body."""
    if isinstance(body, BytesBody) and body.length <= _HASHED_ASIDE:
        return hashlib.sha256(body.data).digest()
    digest = hashlib.sha256()
    async for piece in body.open():
        if len(piece) > _HASHED_ASIDE:
            await anyio.to_thread.run_sync(digest.update, piece)
        else:
            digest.update(piece)
            await anyio.lowlevel.checkpoint()
    return digest.digest()


_MOST_TWINS = 10_000  # twins remembered of sources in flight; beyond that, those are finished first
_MOST_OTHERS = 8  # versions kept of one UID: each new one is compared with all of them
_HELD_BYTES = 16 << 20  # of waiting sources that are in memory; files cost nothing

_OTHER_CONTENT = "another source of this upload has the same SOP Instance UID and other content"


@dataclass(frozen=True, slots=True)
class Numbered:
    """A source with its place in the report."""

    number: int
    instance: Usable


@dataclass(slots=True, eq=False)
class _Record:
    """A source that was handed out or waits, until it is settled.

    Attributes:
        uid: its SOP Instance UID.
        outcome: "not sent", used unless something else happens; the reason is added at the end.
        version: its content.
        twins: numbers and outcomes of the sources with the same bytes, which it stands for.
        waiting: the source to send if the one before it is refused.
    """

    uid: str
    outcome: Outcome = field(repr=False)
    version: Version
    twins: list[tuple[int, Outcome]] = field(default_factory=list, repr=False)
    waiting: Numbered | None = field(default=None, repr=False)


_Send: TypeAlias = Callable[[AsyncIterator[Numbered]], Awaitable[None]]


class Intake:
    """The sources of one upload and their outcomes. Use it once."""

    def __init__(
        self,
        *,
        piece: int,
        anonymize: Anonymization | None,
        on_progress: OnProgress | None,
        gathered: Gathered | None = None,
        study_instance_uid: str | None = None,
        send_truncated: bool = False,
        distinct: bool = False,
    ) -> None:
        if on_progress is not None and not callable(on_progress):
            raise UsageError("give a function that takes an event, or None", argument="progress")
        if not isinstance(send_truncated, bool):
            raise UsageError("give True or False", argument="send_truncated")
        require_anonymization(anonymize)
        self.meter: Meter = Meter(on_progress)
        self._gathered = gathered or Gathered(keeps_all=True)
        self._piece = piece
        self._anonymize = anonymize
        self._study = study_instance_uid
        self._send_truncated = send_truncated
        self._distinct = distinct  # no two share a UID: contents need not be compared
        self._count = 0
        self._open: dict[int, _Record] = {}
        self._under_way: dict[str, list[Version]] = {}  # all versions met of a UID that has an open record
        self._seen = SettledVersions()
        self._drawn: deque[IdentifiedSource] = deque()
        self._all_drawn = False
        self._ready: deque[Numbered] = deque()
        self._twins = 0
        self._held_bytes = 0
        self._unsent_bytes = 0
        self._measured = False
        self._nothing_more: Exception | None = None  # why nothing new begins; sources in flight are still finished

    async def run(self, sources: Sources, send: _Send, operation: str, deadline: float | None) -> UploadReport:
        """Let ``send`` send and `settle` the sources it is given, all within ``deadline`` seconds; return the report.

        A source it was not given, or had not settled when it raised, counts as not sent: ``send`` must settle whatever
        may have left by then. It is called again for sources that waited for another one to end.

        Raises:
            PostdicomError: the archive cannot be worked with, or the report cannot be written. ``report`` on it says
                what had
                been stored by then.
        """
        started = time.monotonic()
        measuring = asyncio.ensure_future(self.measure(sources))
        problem: PostdicomError | None = None
        try:
            late = partial(deadline_passed, operation, deadline, sent=True)
            await within(deadline, self._send_all(sources, send), late)
        except PostdicomError as error:
            problem = error
        finally:
            measuring.cancel()
            self._settle_the_rest(problem)
            self._seen.close()
            await outlasting(measuring)
        seconds = time.monotonic() - started
        report = UploadReport(self._gathered.outcomes, self._gathered.counts, self.meter.bytes_done, seconds)
        if problem is None:
            return report
        # An error raised before any source was read has no report; a later one has, though it may be empty.
        problem.report = None if isinstance(problem, UsageError | LocalFileError) and not report.total else report
        raise problem

    async def _send_all(self, sources: Sources, send: _Send) -> None:
        reading = read_sources(sources, piece=self._piece, send_truncated=self._send_truncated)
        async with aclosing(reading) as batches:
            while not self._all_drawn or self._ready or self._drawn:
                async with aclosing(self._round(batches)) as admitted:
                    await send(admitted)
                if self._nothing_more is not None:
                    raise self._nothing_more
                self.meter.check()

    async def _round(self, batches: AsyncGenerator[list[IdentifiedSource], None]) -> AsyncGenerator[Numbered, None]:
        """Yield what is to be sent; settle everything else here. Ends early if too many sources wait for the end."""
        while self._nothing_more is None:
            if self._ready:
                yield self._ready.popleft()
                continue
            if self._twins > _MOST_TWINS or not await self._has_room():
                return
            if not self._drawn:
                batch = await anext(batches, None)
                self._all_drawn = batch is None
                if batch is None:
                    return
                self._drawn.extend(batch)
            numbered: Numbered | None = None
            try:
                numbered = await self._admitted(await self._anonymized(self._drawn.popleft()))
            except LocalFileError as error:  # a known version, or a spooled stream, cannot be read again
                self._nothing_more = error
            if numbered is not None:
                yield numbered

    async def _has_room(self) -> bool:
        """Wait until another source may begin; False if none may.

        If the report cannot be written, or the progress listener fails, only sources in flight are finished.
        """
        try:
            await self._gathered.room()
        except LocalFileError as error:
            self._nothing_more = error
        self._nothing_more = self._nothing_more or self.meter.problem
        return self._nothing_more is None

    async def _anonymized(self, source: IdentifiedSource) -> IdentifiedSource:
        """Return a source as it is to be sent; `Unusable` if it cannot be anonymised."""
        if self._anonymize is None or isinstance(source, Unusable):
            return source
        changed = await anonymized(source, self._anonymize)
        if isinstance(changed, Usable):
            self.expect_fewer_bytes(source.body.length - changed.body.length)
        return changed

    async def measure(self, sources: Sources) -> int:
        """Tell the meter, once, how much there will be; return the bytes, 0 if they are not known."""
        expected = None if self._measured else await measure(sources)
        self._measured = True
        if expected is None:
            return 0
        instances, size = expected
        self.meter.expect(instances, size - self._unsent_bytes)
        return size

    def expect_fewer_bytes(self, size: int) -> None:
        """Note bytes that will not be sent."""
        self._unsent_bytes += size  # kept, since the total may become known only later
        self.meter.expect_fewer_bytes(size)

    async def _admitted(self, source: IdentifiedSource) -> Numbered | None:
        """Return the source if it is to be sent now; otherwise settle it here, or let it wait."""
        if isinstance(source, Unusable):
            self._end_here(Outcome(source.label, source.status, source.uids, source.size, reason=source.reason))
            return None
        if self._study is not None and source.header.uids.study_instance_uid != self._study:
            self._end_here(_outcome(source, Status.FAILED, "it belongs to another study"))
            return None
        uid = source.header.uids.sop_instance_uid
        known = self._under_way.get(uid) or self._seen.of(uid)
        twin_of = await alike(source.body, known) if known and not self._distinct else None
        if twin_of is not None:
            self._note_twin(twin_of, _outcome(source, Status.DUPLICATE, "sent once"))
            return None
        # Numbered only after this: if cancelled while it is read, it has no place in the report, as if never drawn.
        content = await self._content(source.body)
        if known and (self._distinct or not self._may_be_tried(known, source.body)):
            self._end_here(_outcome(source, Status.FAILED, _OTHER_CONTENT))
            return None
        waits = any(one.fate is None for one in known)
        version = Version(self._number(), source.body.length, content)
        known.append(version)
        self._under_way[uid] = known
        self._open[version.number] = record = _Record(uid, _outcome(source, Status.FAILED), version)
        numbered = Numbered(version.number, source)
        if not waits:
            return numbered
        record.waiting = numbered
        self._held_bytes += held_by(source.body)
        return None

    async def _content(self, body: Body) -> FileBody | bytes:
        """Return what tells a body from others; an empty value, after reading it, if there is no need to."""
        original = original_of(body)
        if isinstance(original, FileBody):
            return original
        return b"" if self._distinct else await digest_of(original)

    def _may_be_tried(self, known: list[Version], body: Body) -> bool:
        """Whether a source that differs from all known versions of its UID may be sent if they are refused."""
        waits = any(one.fate is None for one in known)
        held = held_by(body) if waits else 0
        in_the_way = any(one.fate is not None and not one.fate.refused for one in known)
        return not (in_the_way or len(known) > _MOST_OTHERS or self._held_bytes + held > _HELD_BYTES)

    def _number(self) -> int:
        self._count += 1
        return self._count - 1

    # --- outcomes ------------------------------------------------------------------------------------------------

    def settle(self, number: int, outcome: Outcome) -> None:
        """Note the end of a source that was handed out. The next one waiting for it becomes ready or is settled too."""
        record = self._open[number]
        fate = self._close(record, outcome)
        versions = self._under_way[record.uid]
        for other in versions:
            waited = None if other.fate is not None else self._open[other.number].waiting
            if waited is None:
                continue
            self._open[other.number].waiting = None
            self._held_bytes -= held_by(waited.instance.body)
            if fate.refused:
                self._ready.append(waited)
                break
            self.expect_fewer_bytes(waited.instance.body.length)
            self._close(self._open[other.number], _outcome(waited.instance, Status.FAILED, _OTHER_CONTENT))
        if all(one.fate is not None for one in versions):
            try:
                self._seen.put(record.uid, self._under_way.pop(record.uid))
            except LocalFileError as error:  # a full disk must not hide what became of others
                self._nothing_more = error

    def _close(self, record: _Record, outcome: Outcome) -> Fate:
        """Report the end of a source, and of those it stands for."""
        number = record.version.number
        del self._open[number]
        record.version.fate = fate = Fate.of(outcome)
        self._twins -= len(record.twins)
        self._tell(number, outcome)
        for twin, its in record.twins:
            self._tell(twin, _as_twin(its, fate))
        return fate

    def _note_twin(self, twin_of: Version, outcome: Outcome) -> None:
        number = self._number()
        self.expect_fewer_bytes(outcome.size)
        if twin_of.fate is None:
            self._open[twin_of.number].twins.append((number, outcome))
            self._twins += 1
        else:
            self._tell(number, _as_twin(outcome, twin_of.fate))

    def _end_here(self, outcome: Outcome) -> None:
        self.expect_fewer_bytes(outcome.size)
        self._tell(self._number(), outcome)

    def _tell(self, number: int, outcome: Outcome) -> None:
        self._gathered.add(outcome, number)
        self.meter.finished(outcome, number)

    def _settle_the_rest(self, problem: PostdicomError | None) -> None:
        """Report what was not sent by the end; without a ``problem``, the caller was cancelled.

        Nobody is listening then, so no progress events are sent.
        """
        why, temporary = ("cancelled", True) if problem is None else (problem.message, problem.temporary)
        for number, record in sorted(self._open.items()):
            unsent = replace(record.outcome, reason=f"not sent: {why}", temporary=temporary)
            self._gathered.add(unsent, number)
            for twin, its in record.twins:
                self._gathered.add(_as_twin(its, Fate.of(unsent)), twin)
        self._open.clear()


def _outcome(source: Usable, status: Status, reason: str | None = None) -> Outcome:
    return Outcome(source.label, status, source.header.uids, source.body.length, reason=reason)


def _as_twin(twin: Outcome, fate: Fate) -> Outcome:
    """Return the outcome of a source from the fate of the one with the same bytes."""
    if not fate.in_archive:
        twin = replace(twin, status=fate.status, reason="as the one like it", temporary=fate.temporary)
    elif fate.status is Status.PRESENT:
        twin = replace(twin, reason="as the one like it, which is there already")
    return replace(twin, patient_order_uuid=fate.patient_order_uuid)
