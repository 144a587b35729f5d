"""Any number of sources into the archive: read, batched, sent in parallel requests, one outcome each."""

from __future__ import annotations

import sys
from contextlib import aclosing
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from postdicom_async.dicom.header import checked_uid
from postdicom_async.dicomweb.confirm import OnePatient, Present
from postdicom_async.dicomweb.store import OPERATION, Storing
from postdicom_async.errors import UsageError
from postdicom_async.results import OnProgress, Outcome, UploadReport
from postdicom_async.transfer.adaptive import AtOnce
from postdicom_async.transfer.at_once import Turnstile, UnderWay, for_each_in_turn
from postdicom_async.transfer.holding_sink import PassingBody
from postdicom_async.transfer.intake import Intake, Numbered

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.dicomweb.retrieve import Retrieval
    from postdicom_async.dicomweb.store_answer import StoreVerdict
    from postdicom_async.disk.sources import Sources, Usable
    from postdicom_async.transfer.outcomes import Gathered

_FIRST_AT_ONCE = 3  # store requests; more if that raises total throughput


class Stores:
    """The store requests at one archive: how many run in parallel, over all uploads that share this.

    Attributes:
        policy: how many.
        turnstile: lets them start.
        under_way: those in flight.
    """

    def __init__(self, most: int) -> None:
        self.policy: AtOnce = AtOnce(most, first=_FIRST_AT_ONCE)
        self.turnstile: Turnstile = Turnstile(self.policy)
        self.under_way: UnderWay = UnderWay()


class Upload:
    """One upload. Use it once.

    Parallel uploads may share ``stores``. ``distinct`` says that no two sources share a SOP Instance UID, so that their
    contents need not be compared.
    """

    def __init__(
        self,
        retrieval: Retrieval,
        *,
        study_instance_uid: str | None,
        anonymize: Anonymization | None = None,
        send_truncated: bool = False,
        existing: str = "send",
        on_progress: OnProgress | None,
        gathered: Gathered | None = None,
        stores: Stores | None = None,
        distinct: bool = False,
    ) -> None:
        if existing not in ("skip", "send"):
            raise UsageError("give 'skip' or 'send'", argument="existing")
        if study_instance_uid is not None:
            study_instance_uid = checked_uid(study_instance_uid, "study_instance_uid")
        limits = retrieval.session.settings.limits
        self._most_instances = min(limits.batch_instances, retrieval.dialect.instances_per_store or sys.maxsize)
        self._most_bytes = limits.batch_bytes
        self._deadline = retrieval.session.settings.timeouts.deadline
        self._stores = stores or Stores(limits.parallel_stores)
        self._at_once = self._stores.policy
        one_call = replace(retrieval, session=retrieval.session.one_call(at_once=True))
        # a request a study: for copies, which get their Patient ID and UIDs here, and for whoever asks what is there
        one_patient = OnePatient(one_call) if anonymize is not None or existing == "skip" else None
        self._storing = Storing(
            one_call,
            study_instance_uid,
            lambda: self._at_once.refused(monotonic()),
            self._stores.under_way,
            one_patient,
        )
        self._present = None
        if existing == "skip" and one_patient is not None:
            self._present = Present(one_call, self._storing.confirmation, one_patient)
        self._intake = Intake(
            piece=limits.piece,
            anonymize=anonymize,
            study_instance_uid=study_instance_uid,
            send_truncated=send_truncated,
            on_progress=on_progress,
            gathered=gathered,
            distinct=distinct,
        )

    async def run(self, sources: Sources) -> UploadReport:
        """Send everything; return one outcome per source.

        Raises:
            PostdicomError: the archive cannot be worked with. ``report`` on it says what had been stored by then.
        """
        try:
            return await self._intake.run(sources, self._send, OPERATION, self._deadline)
        finally:
            if self._present is not None:
                self._present.close()

    async def _send(self, admitted: AsyncIterator[Numbered]) -> None:
        async with aclosing(self._batches(admitted)) as batches:
            await for_each_in_turn(batches, self._deliver, self._stores.turnstile)

    async def run_as_one(self, sources: Sources) -> UploadReport:
        """Send everything in one request."""
        # Larger than any request, so that the first batch is never full.
        self._most_instances = self._most_bytes = sys.maxsize
        return await self.run(sources)

    async def _batches(self, admitted: AsyncIterator[Numbered]) -> AsyncGenerator[list[Numbered], None]:
        batch: list[Numbered] = []
        size = 0
        async for numbered in admitted:
            length = numbered.instance.body.length
            full = len(batch) >= self._most_instances or size + length > self._most_bytes
            if batch and full:
                yield batch
                batch, size = [], 0
            batch.append(numbered)
            size += length
            # the next source arrives only after this one has been read
            if isinstance(numbered.instance.body, PassingBody):
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    async def _deliver(self, batch: list[Numbered]) -> None:
        numbers = {one.instance.header.uids.sop_instance_uid: one.number for one in batch}

        def reached(instance: Usable, sent: int) -> None:
            self._intake.meter.reached(numbers[instance.header.uids.sop_instance_uid], sent)

        def settle(instance: Usable, verdict: StoreVerdict) -> None:
            self._intake.settle(numbers[instance.header.uids.sop_instance_uid], _outcome(instance, verdict))

        to_send = [one.instance for one in batch if not await self._is_present(one)]
        if not to_send:
            return
        started = monotonic()
        await self._storing.deliver(to_send, reached, settle)
        self._at_once.done(started, monotonic(), sum(instance.body.length for instance in to_send))

    async def _is_present(self, one: Numbered) -> bool:
        """Whether the archive lists an instance, so that it is not sent; then it is settled here."""
        verdict = None if self._present is None else await self._present.verdict(one.instance)
        if verdict is None:
            return False
        self._intake.expect_fewer_bytes(one.instance.body.length)
        self._intake.settle(one.number, _outcome(one.instance, verdict))
        return True


def _outcome(instance: Usable, verdict: StoreVerdict) -> Outcome:
    return Outcome(
        instance.label,
        verdict.status,
        instance.header.uids,
        instance.body.length,
        verdict.reason_code,
        verdict.reason,
        temporary=verdict.temporary,
    )
