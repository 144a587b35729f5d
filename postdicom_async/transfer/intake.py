"""Takes the sources of an upload in: settles what is not to be sent, tells duplicates apart, keeps one outcome each.

Every source has one record from the moment it was read, and every record an outcome: until something else is known,
that it was not sent. Of several sources with one SOP Instance UID only one is under way at a time. One that is byte for
byte the same goes by the outcome of its twin; one that differs waits, and is handed out when the one before it was
refused. Nothing ever waits for that: what is ready when all else is through is sent in a further round.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import anyio.lowlevel
import anyio.to_thread

from postdicom_async.disk.anonymized import AnonymizedBody, anonymized, require_anonymization
from postdicom_async.disk.sources import (
    FileBody,
    Identified,
    Sources,
    SpooledFile,
    Unusable,
    Usable,
    measure,
    read_sources,
)
from postdicom_async.errors import LocalFileError, PostdicomError, UsageError
from postdicom_async.http.clocks import deadline_passed, within
from postdicom_async.results import OnProgress, Outcome, Status, UploadReport
from postdicom_async.transfer.outcomes import Gathered
from postdicom_async.transfer.progress import Meter

if TYPE_CHECKING:
    from postdicom_async.bodies import Body
    from postdicom_async.dicom.anonymize import Anonymization

__all__ = ["Intake", "Numbered"]

_HASHED_ASIDE = 128 * 1024  # a larger piece is hashed in a thread, so that the event loop goes on
_MOST_OTHERS = 8  # kept of one UID: each new one is compared with all of them
_HELD_BYTES = 16 << 20  # of what waits and is in memory; files cost nothing

_OTHER_CONTENT = "another source of this upload has the same SOP Instance UID and other content"
_REFUSED = frozenset({Status.FAILED, Status.UNREADABLE})


@dataclass(frozen=True, slots=True)
class Numbered:
    """A source with its place in the report."""

    number: int
    instance: Usable


@dataclass(slots=True, eq=False)
class _Record:
    """What is kept of a source to the end: never its bytes, or a stream of data sets would fill the memory.

    Attributes:
        outcome: until it is settled, that it was not sent; the reason comes at the end.
        content: a file, or the digest of what was in memory; as it was before it was anonymised.
        twin_of: the one with the same bytes, which stands for it.
        others: of the first with its UID, those that differ from it and from one another.
        waiting: what is to be sent if the one before it is refused.
    """

    outcome: Outcome = field(repr=False)
    settled: bool = False
    length: int = 0
    content: FileBody | bytes = field(default=b"", repr=False)
    twin_of: _Record | None = field(default=None, repr=False)
    others: tuple[_Record, ...] = field(default=(), repr=False)
    waiting: Numbered | None = field(default=None, repr=False)

    @property
    def refused(self) -> bool:
        """Whether it is known not to be in the archive, so that another source of its UID may be tried."""
        return self.settled and self.outcome.status in _REFUSED


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
    ) -> None:
        if on_progress is not None and not callable(on_progress):
            raise UsageError("progress: give a function that takes an event, or None")
        if not isinstance(send_truncated, bool):
            raise UsageError("send_truncated: give True or False")
        require_anonymization(anonymize)
        self.meter: Meter = Meter(on_progress)
        self._gathered = gathered or Gathered(keeps_all=True)
        self._piece = piece
        self._anonymize = anonymize
        self._study = study_instance_uid
        self._send_truncated = send_truncated
        self._records: list[_Record] = []
        self._first_with: dict[str, _Record] = {}
        self._ready: deque[Numbered] = deque()
        self._held_bytes = 0
        self._unsent_bytes = 0
        self._measured = False

    async def run(self, sources: Sources, send: _Send, operation: str, deadline: float | None) -> UploadReport:
        """Have ``send`` send and `settle` what it is given, all within ``deadline``; return one outcome a source.

        What it was not given, or has not settled when it raises, was not sent: what may have left by then is for
        ``send`` to settle. It is called again for what waited for the end of another source.

        Raises:
            PostdicomError: the archive cannot be worked with. ``report`` on it says what had been stored by then.
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
            with suppress(asyncio.CancelledError):
                await measuring
        report = self._report(time.monotonic() - started, problem)
        if problem is None:
            return report
        # What is wrong before anything was looked at has no report; what came later has one, though it may be empty.
        problem.report = None if isinstance(problem, UsageError | LocalFileError) and not report.total else report
        raise problem

    async def _send_all(self, sources: Sources, send: _Send) -> None:
        async with aclosing(self.admitted(sources)) as admitted:
            await send(admitted)
        while self._ready:
            async with aclosing(self._others()) as others:
                await send(others)

    async def admitted(self, sources: Sources) -> AsyncGenerator[Numbered, None]:
        """Yield what is to be sent; everything else is settled here."""
        reading = read_sources(sources, piece=self._piece, send_truncated=self._send_truncated)
        async with aclosing(reading) as batches:
            async for found in batches:
                for source in found:
                    numbered = await self._admitted(await self._anonymized(source))
                    if numbered is not None:
                        yield numbered
                    while self._ready:
                        yield self._ready.popleft()

    async def _others(self) -> AsyncGenerator[Numbered, None]:
        while self._ready:
            yield self._ready.popleft()

    async def _anonymized(self, source: Identified) -> Identified:
        """Return a source as it is to be sent; one that cannot be anonymised is not."""
        if self._anonymize is None or isinstance(source, Unusable):
            return source
        changed = await anonymized(source, self._anonymize)
        if isinstance(changed, Usable):
            self.expect_fewer_bytes(source.body.length - changed.body.length)
        return changed

    async def measure(self, sources: Sources) -> int:
        """Tell the meter, once, how much there will be; return the bytes, 0 where they cannot be told."""
        expected = None if self._measured else await measure(sources)
        self._measured = True
        if expected is None:
            return 0
        instances, size = expected
        self.meter.expect(instances, size - self._unsent_bytes)
        return size

    def expect_fewer_bytes(self, size: int) -> None:
        """Note bytes that will not be sent."""
        self._unsent_bytes += size  # the total may be known only later
        self.meter.expect_fewer_bytes(size)

    async def _admitted(self, source: Identified) -> Numbered | None:
        """Return the source if it is to be sent now; else settle it here, or let it wait."""
        if isinstance(source, Unusable):
            self._end_here(Outcome(source.label, source.status, source.uids, source.size, reason=source.reason))
            return None
        if self._study is not None and source.header.uids.study_instance_uid != self._study:
            self._end_here(_outcome(source, Status.FAILED, "it belongs to another study"))
            return None
        first = self._first_with.get(source.header.uids.sop_instance_uid)
        known = None if first is None else await _alike(source.body, (first, *first.others))
        if known is not None:
            self._end_here(_outcome(source, Status.DUPLICATE, "sent once"), twin_of=known)
            return None
        # Cancelled here, it has no place in the report yet, as one that was never drawn.
        original = _original(source.body)
        content = original if isinstance(original, FileBody) else await _digest(original)
        record = _Record(_outcome(source, Status.FAILED), length=source.body.length, content=content)
        if first is None:
            self._first_with[source.header.uids.sop_instance_uid] = record
            return Numbered(self._note(record), source)
        return self._another(first, record, source)

    def _another(self, first: _Record, record: _Record, source: Usable) -> Numbered | None:
        """Return a source that differs from all before it under its UID if those were refused; else it may wait."""
        before = (first, *first.others)
        under_way = not all(one.settled for one in before)
        held = _held_by(source.body) if under_way else 0
        in_the_way = any(one.settled and not one.refused for one in before)
        if in_the_way or len(before) > _MOST_OTHERS or self._held_bytes + held > _HELD_BYTES:
            self._end_here(_outcome(source, Status.FAILED, _OTHER_CONTENT))
            return None
        first.others += (record,)
        numbered = Numbered(self._note(record), source)
        if not under_way:
            return numbered
        record.waiting = numbered
        self._held_bytes += held
        return None

    def _note(self, record: _Record) -> int:
        self._records.append(record)
        return len(self._records) - 1

    # --- outcomes ------------------------------------------------------------------------------------------------

    def settle(self, number: int, outcome: Outcome) -> None:
        """Note the end of a source that was handed out. The next that waited for it is now ready, or settled too."""
        record = self._records[number]
        uids = record.outcome.uids
        record.outcome, record.settled = outcome, True
        self.meter.finished(outcome, number)
        first = None if uids is None else self._first_with.get(uids.sop_instance_uid)
        for other in () if first is None else first.others:
            if other.waiting is None:
                continue
            waited, other.waiting = other.waiting, None
            self._held_bytes -= _held_by(waited.instance.body)
            if record.refused:
                self._ready.append(waited)
                break
            self._settle_unsent(other, _outcome(waited.instance, Status.FAILED, _OTHER_CONTENT))

    def _end_here(self, outcome: Outcome, twin_of: _Record | None = None) -> None:
        record = _Record(outcome, twin_of=twin_of)
        self._note(record)
        self._settle_unsent(record, outcome)

    def _settle_unsent(self, record: _Record, outcome: Outcome) -> None:
        self.expect_fewer_bytes(outcome.size)
        record.outcome, record.settled = outcome, True
        self.meter.finished(outcome)

    def _report(self, seconds: float, problem: PostdicomError | None) -> UploadReport:
        why = problem or PostdicomError("cancelled", temporary=True)
        for number, record in enumerate(self._records):
            self._gathered.add(_final(record, why), number)
        return UploadReport(self._gathered.outcomes, self._gathered.counts, self.meter.bytes_done, seconds)


def _outcome(source: Usable, status: Status, reason: str | None = None) -> Outcome:
    return Outcome(source.label, status, source.header.uids, source.body.length, reason=reason)


def _final(record: _Record, problem: PostdicomError) -> Outcome:
    """Return the outcome of a source when all is over, ``problem`` being why what was not sent was not."""
    if not record.settled:
        return replace(record.outcome, reason=f"not sent: {problem.message}", temporary=problem.temporary)
    if record.twin_of is None:
        return record.outcome
    sent, twin = _final(record.twin_of, problem), record.outcome
    if not sent.in_archive:
        twin = replace(twin, status=sent.status, reason="as the one like it", temporary=sent.temporary)
    return replace(twin, patient_order_uuid=sent.patient_order_uuid)


def _held_by(body: Body) -> int:
    """Return the bytes of a body that are in memory."""
    if isinstance(body, AnonymizedBody):
        parts = sum(len(part) for part in (*body.parts, *body.deflated_parts) if isinstance(part, bytes))
        return parts + _held_by(body.original)
    return 0 if isinstance(body, FileBody | SpooledFile) else body.length


def _original(body: Body) -> Body:
    """Return what an anonymised body is made from: two originals are not one because they look alike now."""
    return body.original if isinstance(body, AnonymizedBody) else body


async def _alike(body: Body, known: Iterable[_Record]) -> _Record | None:
    """Return the one with the same bytes as ``body``; one that cannot be read is like no other."""
    own: bytes | None = None
    for one in known:
        if one.length == body.length:
            try:
                own = own or await _digest(_original(body))
                if own == (one.content if isinstance(one.content, bytes) else await _digest(one.content)):
                    return one
            except LocalFileError:
                continue
    return None


async def _digest(body: Body) -> bytes:
    digest = hashlib.sha256()
    async for piece in body.open():
        if len(piece) > _HASHED_ASIDE:
            await anyio.to_thread.run_sync(digest.update, piece)
        else:
            digest.update(piece)
            await anyio.lowlevel.checkpoint()
    return digest.digest()
