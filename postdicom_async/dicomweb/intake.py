"""Takes the sources of an upload in: settles what is not to be sent, tells duplicates apart, keeps one outcome each."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio.lowlevel
import anyio.to_thread

from postdicom_async.dicomweb.progress import Meter
from postdicom_async.disk.anonymized import AnonymizedBody, anonymized, require_anonymization
from postdicom_async.disk.sources import FileBody, Identified, Sources, Unusable, Usable, measure, read_sources
from postdicom_async.errors import LocalFileError, PostdicomError, UsageError
from postdicom_async.results import OnProgress, StoreOutcome, StoreStatus, UploadReport

if TYPE_CHECKING:
    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.http.bodies import Body
    from postdicom_async.results import InstanceUids

__all__ = ["Intake", "Numbered"]

_HASHED_ASIDE = 128 * 1024  # a larger piece is hashed in a thread, so that the event loop goes on


@dataclass(frozen=True, slots=True)
class Numbered:
    """A source with its place in the report."""

    number: int
    instance: Usable


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a source to the end: never its bytes, or a stream of data sets would fill the memory.

    Attributes:
        content: a file, or the digest of what was in memory; as it was before it was anonymised.
    """

    number: int
    label: str = field(repr=False)
    uids: InstanceUids
    length: int
    content: FileBody | bytes = field(repr=False)


class Intake:
    """The sources of one upload and their outcomes. Use it once."""

    def __init__(
        self,
        *,
        piece: int,
        anonymize: Anonymization | None,
        on_progress: OnProgress | None,
        study_instance_uid: str | None = None,
    ) -> None:
        if on_progress is not None and not callable(on_progress):
            raise UsageError("progress: give a function that takes an event, or None")
        require_anonymization(anonymize)
        self.meter: Meter = Meter(on_progress)
        self._piece = piece
        self._anonymize = anonymize
        self._study = study_instance_uid
        self._outcomes: list[StoreOutcome | None] = []
        self._first_with: dict[str, _Kept] = {}
        self._twins: list[tuple[int, int]] = []
        self._unsent_bytes = 0
        self._measured = False

    async def run(self, sources: Sources, work: Awaitable[None]) -> UploadReport:
        """Wait for ``work``, which sends what `admitted` yields; return one outcome a source.

        Raises:
            PostdicomError: the archive cannot be worked with. ``report`` on it says what had been stored by then.
        """
        started = time.monotonic()
        measuring = asyncio.ensure_future(self.measure(sources))
        problem: PostdicomError | None = None
        try:
            await work
        except PostdicomError as error:
            problem = error
        finally:
            measuring.cancel()
            with suppress(asyncio.CancelledError):
                await measuring
        report = self._report(time.monotonic() - started, problem)
        if problem is None:
            return report
        problem.report = report if report.outcomes else None
        raise problem

    async def admitted(self, sources: Sources) -> AsyncIterator[Numbered]:
        """Yield what is to be sent; everything else is settled here."""
        async for found in read_sources(sources, piece=self._piece):
            for source in found:
                numbered = await self._admitted(await self._anonymized(source))
                if numbered is not None:
                    yield numbered

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
        """Return the source if it is to be sent; else settle it here."""
        if isinstance(source, Unusable):
            self.expect_fewer_bytes(source.size)
            outcome = StoreOutcome(source.label, source.status, size=source.size, reason=source.reason)
            self.settle(self._next_number(), outcome)
            return None
        if self._study is not None and source.header.uids.study_instance_uid != self._study:
            self._settle_unsent(source, StoreStatus.FAILED, "it belongs to another study")
            return None
        first = self._first_with.get(source.header.uids.sop_instance_uid)
        if first is None:
            return await self._keep(source)
        if await _same_bytes(first, source.body):
            self._twins.append((len(self._outcomes), first.number))
            self._settle_unsent(source, StoreStatus.DUPLICATE, "sent once")
        else:
            reason = "another source of this upload has the same SOP Instance UID and other content"
            self._settle_unsent(source, StoreStatus.FAILED, reason)
        return None

    async def _keep(self, source: Usable) -> Numbered:
        """Note a source that is the first with its UID."""
        # Cancelled here, it has no place in the report yet, as one that was never drawn.
        original = _original(source.body)
        content = original if isinstance(original, FileBody) else await _digest(original)
        uids, number = source.header.uids, self._next_number()
        self._first_with[uids.sop_instance_uid] = _Kept(number, source.label, uids, source.body.length, content)
        return Numbered(number, source)

    def _next_number(self) -> int:
        self._outcomes.append(None)
        return len(self._outcomes) - 1

    # --- outcomes ------------------------------------------------------------------------------------------------

    def _settle_unsent(self, source: Usable, status: StoreStatus, reason: str) -> None:
        self.expect_fewer_bytes(source.body.length)
        outcome = StoreOutcome(source.label, status, source.header.uids, source.body.length, reason=reason)
        self.settle(self._next_number(), outcome)

    def settle(self, number: int, outcome: StoreOutcome) -> None:
        """Note the end of a source."""
        self._outcomes[number] = outcome
        self.meter.finished(outcome)

    def _report(self, seconds: float, problem: PostdicomError | None) -> UploadReport:
        for first in self._first_with.values():
            if self._outcomes[first.number] is None:
                reason = f"not sent or not confirmed: {problem.message if problem else 'cancelled'}"
                outcome = StoreOutcome(first.label, StoreStatus.UNCONFIRMED, first.uids, first.length, reason=reason)
                self._outcomes[first.number] = outcome
        outcomes = [one for one in self._outcomes if one is not None]
        for number, first_number in self._twins:
            sent, twin = outcomes[first_number], outcomes[number]
            if not sent.in_archive:
                twin = replace(twin, status=sent.status, reason="as the one like it")
            outcomes[number] = replace(twin, patient_order_uuid=sent.patient_order_uuid)
        return UploadReport(tuple(outcomes), self.meter.bytes_done, seconds)


def _original(body: Body) -> Body:
    """Return what an anonymised body is made from: two originals are not one because they look alike now."""
    return body.original if isinstance(body, AnonymizedBody) else body


async def _same_bytes(first: _Kept, body: Body) -> bool:
    if first.length != body.length:
        return False
    try:
        known = first.content if isinstance(first.content, bytes) else await _digest(first.content)
        return known == await _digest(_original(body))
    except LocalFileError:
        return False


async def _digest(body: Body) -> bytes:
    digest = hashlib.sha256()
    async for piece in body.open():
        if len(piece) > _HASHED_ASIDE:
            await anyio.to_thread.run_sync(digest.update, piece)
        else:
            digest.update(piece)
            await anyio.lowlevel.checkpoint()
    return digest.digest()
