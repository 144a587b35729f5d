"""Any number of sources into the archive: read, batched, sent several at a time, one outcome each."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from postdicom_async.dicomweb.at_once import for_each
from postdicom_async.dicomweb.progress import Meter
from postdicom_async.dicomweb.store import Storing
from postdicom_async.dicomweb.store_answer import Verdict
from postdicom_async.disk.sources import Identified, Sources, Unusable, Usable, measure, read_sources
from postdicom_async.errors import LocalFileError, PostdicomError
from postdicom_async.results import OnProgress, StoreOutcome, StoreStatus, UploadReport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postdicom_async.dicomweb.dialects import Dialect
    from postdicom_async.http.bodies import Body
    from postdicom_async.http.session import Session
    from postdicom_async.settings import Limits

__all__ = ["Upload"]


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A source with its place in the report."""

    number: int
    instance: Usable


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
        self._limits = _batch_limits(session.settings.limits, dialect)
        self._storing = Storing(session, dialect, study_instance_uid)
        self._study = study_instance_uid
        self._meter = Meter(on_progress)
        self._outcomes: list[StoreOutcome | None] = []
        self._first_with: dict[str, _Numbered] = {}
        self._twins: list[tuple[int, int]] = []

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
            self._meter.expect(*expected)

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
        number = len(self._outcomes)
        self._outcomes.append(None)
        if isinstance(source, Unusable):
            self._meter.expect_fewer_bytes(source.size)
            self._settle(number, StoreOutcome(source.label, source.status, size=source.size, reason=source.reason))
            return None
        numbered = _Numbered(number, source)
        if self._study is not None and source.header.uids.study_instance_uid != self._study:
            self._settle_unsent(numbered, StoreStatus.FAILED, "it belongs to another study")
            return None
        first = self._first_with.setdefault(source.header.uids.sop_instance_uid, numbered)
        if first is numbered:
            return numbered
        if await _same_bytes(first.instance.body, source.body):
            self._twins.append((number, first.number))
            self._settle_unsent(numbered, StoreStatus.DUPLICATE, "sent once")
        else:
            reason = "another source of this upload has the same SOP Instance UID and other content"
            self._settle_unsent(numbered, StoreStatus.FAILED, reason)
        return None

    # --- outcomes ------------------------------------------------------------------------------------------------

    async def _deliver(self, batch: list[_Numbered]) -> None:
        verdicts = await self._storing.deliver([one.instance for one in batch], self._meter.moved)
        for one in batch:
            verdict = verdicts[one.instance.header.uids.sop_instance_uid]
            self._settle(one.number, _outcome(one.instance, verdict))

    def _settle_unsent(self, one: _Numbered, status: StoreStatus, reason: str) -> None:
        self._meter.expect_fewer_bytes(one.instance.body.length)
        self._settle(one.number, _outcome(one.instance, Verdict(status, reason=reason)))

    def _settle(self, number: int, outcome: StoreOutcome) -> None:
        self._outcomes[number] = outcome
        self._meter.finished(outcome)

    def _report(self, seconds: float, problem: PostdicomError | None) -> UploadReport:
        for first in self._first_with.values():
            if self._outcomes[first.number] is None:
                reason = f"not sent or not confirmed: {problem.message if problem else 'cancelled'}"
                verdict = Verdict(StoreStatus.UNCONFIRMED, reason=reason)
                self._outcomes[first.number] = _outcome(first.instance, verdict)
        outcomes = [outcome for outcome in self._outcomes if outcome is not None]
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


async def _same_bytes(one: Body, other: Body) -> bool:
    if one.length != other.length:
        return False
    try:
        return await _digest(one) == await _digest(other)
    except LocalFileError:
        return False


async def _digest(body: Body) -> bytes:
    digest = hashlib.sha256()
    async for piece in body.open():
        digest.update(piece)
        await anyio.lowlevel.checkpoint()
    return digest.digest()
