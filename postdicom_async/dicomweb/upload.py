"""Any number of sources into the archive: read, batched, sent several at a time, one outcome each."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import anyio.to_thread

from postdicom_async.dicomweb.at_once import for_each
from postdicom_async.dicomweb.progress import Meter
from postdicom_async.dicomweb.store import Storing
from postdicom_async.dicomweb.store_answer import Verdict
from postdicom_async.disk.sources import FileBody, Identified, Sources, Unusable, Usable, measure, read_sources
from postdicom_async.errors import LocalFileError, PostdicomError, UsageError
from postdicom_async.results import OnProgress, StoreOutcome, StoreStatus, UploadReport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postdicom_async.dicomweb.dialects import Dialect
    from postdicom_async.http.bodies import Body
    from postdicom_async.http.session import Session
    from postdicom_async.results import InstanceUids
    from postdicom_async.settings import Limits

__all__ = ["Upload"]

_HASHED_ASIDE = 128 * 1024  # a larger piece is hashed in a thread, so that the event loop goes on


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A source with its place in the report."""

    number: int
    instance: Usable


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a source to the end: never its bytes, or a stream of data sets would fill the memory.

    Attributes:
        content: a file, or the digest of what was in memory.
    """

    number: int
    label: str = field(repr=False)
    uids: InstanceUids
    length: int
    content: FileBody | bytes = field(repr=False)


class Upload:
    """One upload. Use it once."""

    def __init__(
        self,
        session: Session,
        dialect: Dialect,
        *,
        study_instance_uid: str | None,
        on_progress: OnProgress | None,
    ) -> None:
        if on_progress is not None and not callable(on_progress):
            raise UsageError("progress: give a function that takes an event, or None")
        self._limits = _batch_limits(session.settings.limits, dialect)
        self._storing = Storing(session, dialect, study_instance_uid)
        self._study = study_instance_uid
        self._meter = Meter(on_progress)
        self._outcomes: list[StoreOutcome | None] = []
        self._first_with: dict[str, _Kept] = {}
        self._twins: list[tuple[int, int]] = []
        self._unsent_bytes = 0

    async def run(self, sources: Sources) -> UploadReport:
        """Send everything; return one outcome a source.

        Raises:
            PostdicomError: the archive cannot be worked with. ``report`` on it says what had been stored by then.
        """
        started = time.monotonic()
        measuring = asyncio.ensure_future(self._measure(sources))
        problem: PostdicomError | None = None
        try:
            await for_each(self._batches(sources), self._deliver, at_once=self._limits.parallel_stores)
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

    async def run_as_one(self, sources: Sources) -> tuple[StoreOutcome, ...]:
        """Send everything in one request."""
        self._limits = replace(self._limits, batch_instances=1 << 31, batch_bytes=1 << 62)
        return (await self.run(sources)).outcomes

    async def _measure(self, sources: Sources) -> None:
        expected = await measure(sources)
        if expected is not None:
            instances, size = expected
            self._meter.expect(instances, size - self._unsent_bytes)

    def _expect_fewer_bytes(self, size: int) -> None:
        self._unsent_bytes += size  # the total may be known only later
        self._meter.expect_fewer_bytes(size)

    # --- reading and batching ------------------------------------------------------------------------------------

    async def _batches(self, sources: Sources) -> AsyncIterator[list[_Numbered]]:
        batch: list[_Numbered] = []
        size = 0
        async for found in read_sources(sources, piece=self._limits.piece):
            for source in found:
                numbered = await self._admitted(source)
                if numbered is None:
                    continue
                length = numbered.instance.body.length
                full = len(batch) >= self._limits.batch_instances or size + length > self._limits.batch_bytes
                if batch and full:
                    yield batch
                    batch, size = [], 0
                batch.append(numbered)
                size += length
        if batch:
            yield batch

    async def _admitted(self, source: Identified) -> _Numbered | None:
        """Return the source if it is to be sent; else settle it here."""
        if isinstance(source, Unusable):
            self._expect_fewer_bytes(source.size)
            outcome = StoreOutcome(source.label, source.status, size=source.size, reason=source.reason)
            self._settle(self._next_number(), outcome)
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

    async def _keep(self, source: Usable) -> _Numbered:
        """Note a source that is the first with its UID."""
        # Cancelled here, it has no place in the report yet, as one that was never drawn.
        content = source.body if isinstance(source.body, FileBody) else await _digest(source.body)
        uids, number = source.header.uids, self._next_number()
        self._first_with[uids.sop_instance_uid] = _Kept(number, source.label, uids, source.body.length, content)
        return _Numbered(number, source)

    def _next_number(self) -> int:
        self._outcomes.append(None)
        return len(self._outcomes) - 1

    # --- outcomes ------------------------------------------------------------------------------------------------

    async def _deliver(self, batch: list[_Numbered]) -> None:
        verdicts = await self._storing.deliver([one.instance for one in batch], self._meter.moved)
        for one in batch:
            verdict = verdicts[one.instance.header.uids.sop_instance_uid]
            self._settle(one.number, _outcome(one.instance, verdict))

    def _settle_unsent(self, source: Usable, status: StoreStatus, reason: str) -> None:
        self._expect_fewer_bytes(source.body.length)
        outcome = StoreOutcome(source.label, status, source.header.uids, source.body.length, reason=reason)
        self._settle(self._next_number(), outcome)

    def _settle(self, number: int, outcome: StoreOutcome) -> None:
        self._outcomes[number] = outcome
        self._meter.finished(outcome)

    def _report(self, seconds: float, problem: PostdicomError | None) -> UploadReport:
        for first in self._first_with.values():
            if self._outcomes[first.number] is None:
                reason = f"not sent or not confirmed: {problem.message if problem else 'cancelled'}"
                outcome = StoreOutcome(first.label, StoreStatus.UNCONFIRMED, first.uids, first.length, reason=reason)
                self._outcomes[first.number] = outcome
        outcomes = [one for one in self._outcomes if one is not None]
        for number, first_number in self._twins:
            if not outcomes[first_number].in_archive:
                twin = replace(outcomes[number], status=outcomes[first_number].status, reason="as the one like it")
                outcomes[number] = twin
        return UploadReport(tuple(outcomes), self._meter.bytes_done, seconds)


def _batch_limits(limits: Limits, dialect: Dialect) -> Limits:
    if dialect.instances_per_store is None:
        return limits
    return replace(limits, batch_instances=min(limits.batch_instances, dialect.instances_per_store))


def _outcome(instance: Usable, verdict: Verdict) -> StoreOutcome:
    return StoreOutcome(
        instance.label,
        verdict.status,
        instance.header.uids,
        instance.body.length,
        verdict.reason_code,
        verdict.reason,
    )


async def _same_bytes(first: _Kept, body: Body) -> bool:
    if first.length != body.length:
        return False
    try:
        known = first.content if isinstance(first.content, bytes) else await _digest(first.content)
        return known == await _digest(body)
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
