"""Any number of sources into the archive: read, batched, sent several at a time, one outcome each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from postdicom_async.dicomweb.at_once import for_each
from postdicom_async.dicomweb.intake import Intake, Numbered
from postdicom_async.dicomweb.store import Storing
from postdicom_async.http.clocks import deadline_passed, within
from postdicom_async.results import OnProgress, StoreOutcome, UploadReport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.dicomweb.dialects import Dialect
    from postdicom_async.dicomweb.store_answer import Verdict
    from postdicom_async.disk.sources import Sources, Usable
    from postdicom_async.errors import PostdicomError
    from postdicom_async.http.session import Session
    from postdicom_async.settings import Limits

__all__ = ["Upload"]


class Upload:
    """One upload. Use it once."""

    def __init__(
        self,
        session: Session,
        dialect: Dialect,
        *,
        study_instance_uid: str | None,
        anonymize: Anonymization | None = None,
        on_progress: OnProgress | None,
    ) -> None:
        self._limits = _batch_limits(session.settings.limits, dialect)
        self._deadline = session.settings.timeouts.deadline
        self._storing = Storing(session.one_call(at_once=True), dialect, study_instance_uid)
        self._intake = Intake(
            piece=self._limits.piece,
            anonymize=anonymize,
            study_instance_uid=study_instance_uid,
            on_progress=on_progress,
        )

    async def run(self, sources: Sources) -> UploadReport:
        """Send everything; return one outcome a source.

        Raises:
            PostdicomError: the archive cannot be worked with. ``report`` on it says what had been stored by then.
        """
        work = for_each(self._batches(sources), self._deliver, at_once=self._limits.parallel_stores)

        def late() -> PostdicomError:
            return deadline_passed("store instances", self._deadline, sent=True)

        return await self._intake.run(sources, within(self._deadline, work, late))

    async def run_as_one(self, sources: Sources) -> tuple[StoreOutcome, ...]:
        """Send everything in one request."""
        self._limits = replace(self._limits, batch_instances=1 << 31, batch_bytes=1 << 62)
        return (await self.run(sources)).outcomes

    async def _batches(self, sources: Sources) -> AsyncIterator[list[Numbered]]:
        batch: list[Numbered] = []
        size = 0
        async for numbered in self._intake.admitted(sources):
            length = numbered.instance.body.length
            full = len(batch) >= self._limits.batch_instances or size + length > self._limits.batch_bytes
            if batch and full:
                yield batch
                batch, size = [], 0
            batch.append(numbered)
            size += length
        if batch:
            yield batch

    async def _deliver(self, batch: list[Numbered]) -> None:
        verdicts = await self._storing.deliver([one.instance for one in batch], self._intake.meter.moved)
        for one in batch:
            verdict = verdicts[one.instance.header.uids.sop_instance_uid]
            self._intake.settle(one.number, _outcome(one.instance, verdict))


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
