"""An end of a job in memory, which is right in all it does; a test overrides what it is to lie about."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import pytest

from postdicom_async import InstanceUids, Outcome
from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.header import InstanceHeader
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.jobs import begin
from postdicom_async.jobs import job as job_module
from postdicom_async.jobs import verifying as verifying_module
from postdicom_async.jobs.context import JobOptions
from postdicom_async.jobs.ends.end import Feature, Identified, ListedInstance, ListedStudy, Selection
from postdicom_async.jobs.pace.outage_policy import OutagePatience
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Summary
from postdicom_async.results import Status

__all__ = ["MemoryEnd", "adding_up", "hurry", "instances"]

ALL = Feature.LISTS | Feature.OPENS | Feature.STORES | Feature.CONFIRMS | Feature.DELETES
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


def instances(studies: int, each: int) -> dict[InstanceUids, bytes]:
    """Return the instances of some studies, each its own bytes; no DICOM: an end in memory looks into none."""
    made = [InstanceUids(f"1.{s}", f"1.{s}.1", f"1.{s}.1.{n}") for s in range(1, studies + 1) for n in range(each)]
    return {uids: f"instance {uids.sop_instance_uid}".encode() for uids in made}


def hurry(patch: pytest.MonkeyPatch, *, patience: float = 12 * 3600.0) -> None:
    """Make the waits of a job short; everything else stays."""
    patch.setattr(begin, "JobOptions", lambda *args, **named: replace(JobOptions(*args, **named), wave=lambda _: 0.02))
    patch.setattr(
        job_module,
        "OutagePatience",
        lambda outage: OutagePatience(min(outage, patience), first_step=0.02, last_step=0.1),
    )
    patch.setattr(verifying_module, "_LOOKS", (0.0, 0.02, 0.02))


def adding_up(summary: Summary) -> dict[State, int]:
    """Return how many items are in each state, having checked that their sum is what was discovered."""
    assert summary.discovered == sum(count.instances for count in summary.counts.values())
    return {state: count.instances for state, count in summary.counts.items() if count.instances}


class MemoryEnd:
    """An end that holds instances in memory, by their UIDs.

    Attributes:
        asked: what it was asked, in order.
        deleted: what was deleted.
        fault: is called with what is asked before it is done; it may raise.
    """

    def __init__(self, name: str, held: dict[InstanceUids, bytes] | None = None) -> None:
        self.name = name
        self.identity = f"memory {name}"
        self.features = ALL
        self.held = dict(held or {})
        self.asked: list[str] = []
        self.deleted: list[InstanceUids] = []
        self.fault: Callable[[str], Any] = lambda _: None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.fault(what)

    def of(self, study: str) -> list[InstanceUids]:
        """Return what it holds of a study."""
        return [uids for uids in self.held if uids.study_instance_uid == study]

    async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        self._ask("studies")
        numbers: dict[str, int] = {}
        for uids in self.held:
            numbers[uids.study_instance_uid] = numbers.get(uids.study_instance_uid, 0) + 1
        yield [ListedStudy(study, "20200102", number) for study, number in numbers.items()]

    async def study(self, study: str) -> ListedStudy | None:
        self._ask(f"study {study}")
        found = self.of(study)
        return ListedStudy(study, "20200102", len(found)) if found else None

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        self._ask(f"instances {study}")
        yield [
            ListedInstance(uids.series_instance_uid, uids.sop_instance_uid, len(self.held[uids]))
            for uids in self.of(study)
        ]

    async def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        self._ask(f"open {wanted.study}")
        for one in wanted.instances:
            uids = InstanceUids(wanted.study, one.series, one.uid)
            if uids in self.held:
                yield Usable(one.uid, header_of(uids), BytesBody(self.held[uids]))

    async def store(
        self, sources: AsyncIterator[Identified], *, anonymize: Any = None
    ) -> AsyncGenerator[Outcome, None]:
        self._ask("store")
        async for one in sources:
            if isinstance(one, Unusable):
                yield Outcome(one.label, one.status, one.uids, one.size, reason=one.reason)
                continue
            assert isinstance(one.body, BytesBody)
            self.held[one.header.uids] = one.body.data
            yield Outcome(one.label, Status.STORED, one.header.uids, one.body.length)

    async def delete(self, study: str, instances: Sequence[InstanceUids] | None) -> None:
        self._ask(f"delete {study}")
        chosen = self.of(study) if instances is None else list(instances)
        self.deleted += chosen
        for uids in chosen:
            self.held.pop(uids, None)

    async def probe(self) -> None:
        self._ask("probe")


def header_of(uids: InstanceUids) -> InstanceHeader:
    """Return a header that says so."""
    return InstanceHeader(uids, CT, EXPLICIT)
