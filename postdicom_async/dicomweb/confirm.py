"""What an archive really holds: whether it is what was sent, and what it has before anything is sent.

A search proves that an instance with a UID exists, not that it is this one: an older version, or the original of an
anonymised copy, has the same UID. So whatever an answer leaves open is settled by retrieving the instance and comparing
its bytes, and a list (QIDO-RS) that may name another instance never keeps a source out of an upload by itself: a copy
anonymised under its original's UIDs is compared first, and never sent over what may be the original. A list that cannot
be obtained, or that contradicts itself, excludes nothing.
"""

from __future__ import annotations

from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio

from postdicom_async.dicom.sameness import Sameness
from postdicom_async.dicomweb.listing import list_instances
from postdicom_async.dicomweb.retrieve import Parts, Retrieval, Target
from postdicom_async.dicomweb.store_answer import TWO_PATIENTS, StoreVerdict
from postdicom_async.dicomweb.studies import ask_study
from postdicom_async.disk.scratch import Scratch, ScratchMap
from postdicom_async.errors import AuthenticationFailed, ConnectionFailed, LocalFileError, NotFound, PostdicomError
from postdicom_async.results import Status
from postdicom_async.transfer.arrivals import Arrivals
from postdicom_async.transfer.comparing import COMPARED_WHOLE, compared
from postdicom_async.transfer.outcomes import Gathered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from postdicom_async.disk.sources import Usable
    from postdicom_async.results import InstanceUids

_Answer = TypeVar("_Answer")

_OPERATION = "confirm"
_LOOK_AFTER = (0.0, 1.0, 3.0)  # seconds to wait before each check of the archive
_MOST_STUDIES = 10_000  # studies whose lists are remembered; a forgotten list is requested again


class Holding(Enum):
    """The result of checking the archive. The values complete the sentence "the archive …"."""

    SAME = "holds it"
    DIFFERENT = "holds another instance with this SOP Instance UID"
    ABSENT = "does not hold it"
    UNCLEAR = "gives it in a form that cannot be compared"
    UNREACHABLE = "cannot be asked for it"
    """For the moment, or with these credentials: a request for another instance would fail the same way."""


MAY_CHANGE = frozenset({Holding.ABSENT, Holding.DIFFERENT})
"""The results that storing again may change."""

CONFIRMED: Final = "retrieved and found to be what was sent"
"""The ``reason`` of an instance that no answer confirmed."""

_HOLDINGS = {
    Sameness.SAME: Holding.SAME,
    Sameness.DIFFERENT: Holding.DIFFERENT,
    Sameness.UNCLEAR: Holding.UNCLEAR,
}


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Checks whether the archive holds instances that were sent."""

    retrieval: Retrieval
    # Batches are sent in parallel; a check is rare, and holds two copies of an instance in memory: one at a time.
    _in_memory: anyio.Semaphore = field(default_factory=partial(anyio.Semaphore, 1), init=False, repr=False)

    async def look(self, instance: Usable) -> Holding:
        """Retrieve an instance and compare it with what was sent; any error but a cancellation becomes a finding."""
        target = Target(*instance.header.uids)
        parts = Parts(
            [(lambda: self.retrieval.open(target, operation=_OPERATION), None)],
            operation=f"{_OPERATION} instance",
            max_parts=self.retrieval.session.settings.limits.parts,
        )
        try:
            async with parts:
                return await self._compared(parts, instance)
        except NotFound:
            return Holding.ABSENT
        except (AuthenticationFailed, ConnectionFailed):  # checking any other instance would fail the same way
            return Holding.UNREACHABLE
        except LocalFileError:  # the source changed, or is gone
            return Holding.UNCLEAR
        except PostdicomError as error:
            return Holding.UNREACHABLE if error.temporary else Holding.UNCLEAR

    async def findings(self, instances: list[Usable]) -> dict[str, Holding]:
        """Check these instances, and check absent ones again after a pause: archives index with a delay."""
        missing = {one.header.uids.sop_instance_uid: one for one in instances}
        findings = dict.fromkeys(missing, Holding.UNREACHABLE)
        for wait in _LOOK_AFTER:
            if not missing:
                break
            await anyio.sleep(wait)
            for uid, one in missing.items():
                findings[uid] = await self.look(one)
                if findings[uid] is Holding.UNREACHABLE:
                    return findings
            missing = {uid: one for uid, one in missing.items() if findings[uid] in MAY_CHANGE}
        return findings

    async def _compared(self, parts: Parts, instance: Usable) -> Holding:
        finding = Holding.UNCLEAR
        count = 0
        async for part in parts:
            count += 1
            if count > 1:  # which of them is meant cannot be told
                return Holding.UNCLEAR
            async with self._in_memory if instance.body.length <= COMPARED_WHOLE else nullcontext():
                finding = _HOLDINGS[(await compared(instance.body, aiter(part))).sameness]
            if finding is not Holding.SAME:
                return finding
        return finding


class _AskedOnce(Generic[_Answer]):
    """Answers about the studies of an upload, the latest: each is asked for once, and who wants it meanwhile waits."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Answer] = {}
        self._asking: dict[Hashable, anyio.Lock] = {}

    async def answer(self, about: Hashable, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Return the answer, from before or from ``ask``."""
        if about not in self._known:
            async with self._asking.setdefault(about, anyio.Lock()):
                if about not in self._known:
                    answer = await ask()
                    if len(self._known) >= _MOST_STUDIES:
                        del self._known[next(iter(self._known))]
                    self._known[about] = answer
                    self._asking.pop(about, None)
                return self._known[about]
        return self._known[about]


class OnePatient:
    """Whether the archive has the studies of one upload under one Patient ID each, asked after something was stored.

    Orthanc files an instance by its Patient ID and UIDs together: a study that arrives under another Patient ID is
    stored, listed twice, and from then on returned under neither. Only a search shows it. It is made once for each
    study and Patient ID, since a second one may come later in the same upload.
    """

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval
        self._broken: _AskedOnce[bool] = _AskedOnce()

    async def is_broken(self, instance: Usable, *, sent: bool) -> bool:
        """Whether the study of an instance is listed under more than one; an archive that cannot say is believed.

        ``sent`` tells what is asked after storing from what was asked before.
        """
        study = instance.header.uids.study_instance_uid
        return await self._broken.answer((study, instance.patient_id, sent), partial(self._ask, study))

    async def _ask(self, study: str) -> bool:
        with suppress(PostdicomError):
            found = await ask_study(self._retrieval, study)
            return found is not None and found.patients > 1
        return False


class Present:
    """What the archive lists of the studies of one upload; each list is requested once. Close it."""

    def __init__(self, retrieval: Retrieval, confirmation: Confirmation, one_patient: OnePatient) -> None:
        self._retrieval = retrieval
        self._confirmation = confirmation
        self._one_patient = one_patient
        self._numbers: _AskedOnce[int] = _AskedOnce()  # of a study's list, 0 if it excludes nothing
        self._asked = 0
        self._scratch = Scratch()
        self._series: ScratchMap[str] = ScratchMap(self._scratch)  # by number and SOP Instance UID

    async def verdict(self, instance: Usable) -> StoreVerdict | None:
        """Return the verdict on an instance that is not to be sent; None for one that is."""
        if not await self._lists(instance.header.uids):
            return None
        if await self._one_patient.is_broken(instance, sent=False):
            return StoreVerdict(Status.FAILED, reason=f"not sent: {_of_two_patients()}")
        if not instance.keeps_uid:
            return StoreVerdict(Status.PRESENT, reason="the archive lists it; not sent")
        finding = await self._confirmation.look(instance)
        if finding is Holding.SAME:
            return StoreVerdict(Status.PRESENT, reason=CONFIRMED)
        if finding is Holding.ABSENT:  # listed, but not there
            return None
        hint = "not sent: anonymise the UIDs too (remap_uids=True), or give existing='send'"
        reason = f"the archive lists its SOP Instance UID and {finding.value}, perhaps the original; {hint}"
        return StoreVerdict(Status.FAILED, reason=reason, temporary=finding is Holding.UNREACHABLE)

    async def _lists(self, uids: InstanceUids) -> bool:
        study = uids.study_instance_uid
        number = await self._numbers.answer(study, partial(self._ask, study))
        return number > 0 and self._series.get((number, uids.sop_instance_uid)) == uids.series_instance_uid

    async def _ask(self, study: str) -> int:
        self._asked += 1
        number, found = self._asked, False
        # Without a list everything is sent; if the archive cannot be worked with, sending will show it.
        with suppress(PostdicomError), closing(Arrivals(study, Gathered(keeps_all=False))) as nothing_yet:
            if await list_instances(self._retrieval, Target(study), nothing_yet):
                async for some in nothing_yet.missing_slices():
                    for _, series, instance in some:
                        self._series.put((number, instance), series)
                found = True
        return number if found else 0

    def close(self) -> None:
        """Discard the lists."""
        self._scratch.close()


# --- in words ---------------------------------------------------------------------------------------------------------


def _of_two_patients() -> str:
    return f"{TWO_PATIENTS}, and may return it under none: delete the wrong one there"


def stored_twofold(verdict: StoreVerdict, instance: Usable) -> StoreVerdict:
    """Return the verdict on an instance that was stored into a study of more than one Patient ID."""
    hint = ""
    if instance.patient_id is not None:
        hint = (
            "; anonymise the UIDs too (remap_uids=True)" if instance.keeps_uid else "; a variant needs another secret"
        )
    reason = f"{_of_two_patients()}{hint}"
    return StoreVerdict(Status.UNCONFIRMED, verdict.reason_code, reason)


def told_apart(instance: Usable, verdict: StoreVerdict, finding: Holding) -> StoreVerdict:
    """Return a verdict that is valid even if the archive holds another instance with the same UID."""
    if verdict.status is Status.FAILED:
        return _refused_after_a_lost_answer(verdict, finding)
    if finding is Holding.SAME:
        return replace(verdict, reason=CONFIRMED if verdict.reason is None else f"{verdict.reason}; {CONFIRMED}")
    hint = "; anonymise the UIDs too (remap_uids=True)" if instance.keeps_uid else ""
    if finding is Holding.DIFFERENT:
        perhaps = ", perhaps the original" if instance.keeps_uid else ""
        return StoreVerdict(Status.FAILED, verdict.reason_code, f"the archive {finding.value}{perhaps}{hint}")
    said = verdict.reason or "stored"
    reason = f"the archive says {said!r} and {finding.value}, so that it may hold another one with its UID{hint}"
    return StoreVerdict(Status.UNCONFIRMED, verdict.reason_code, reason)


def _refused_after_a_lost_answer(verdict: StoreVerdict, finding: Holding) -> StoreVerdict:
    """Return the verdict on a refused instance that an earlier request, whose answer was lost, may have stored."""
    if finding is Holding.SAME:
        return StoreVerdict(Status.STORED, reason=CONFIRMED)
    if finding in MAY_CHANGE:
        return verdict
    reason = f"an answer was lost, then it was refused ({verdict.reason}), and the archive {finding.value}"
    return StoreVerdict(Status.UNCONFIRMED, verdict.reason_code, reason, temporary=True)


def never_confirmed(finding: Holding, *, lost: bool) -> StoreVerdict:
    """Return the verdict on an instance that no answer named, after the last attempt."""
    said = "the answer was lost each time" if lost else "no answer names it"
    reason = f"{said}, and the archive {finding.value}"
    return StoreVerdict(Status.UNCONFIRMED, reason=reason, temporary=lost)
