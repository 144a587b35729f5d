"""What an archive has already of what is to be sent, by its own list of each study (QIDO-RS), asked for once.

A list tells UIDs, not contents. So nothing is left out for it that may be another instance: a copy that was anonymised
under its original's UIDs is retrieved and compared, and never sent over what may be the original. A list that cannot be
had, or that contradicts itself, leaves nothing out.
"""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

import anyio

from postdicom_async.dicomweb.confirm import Confirmation, Holding
from postdicom_async.dicomweb.listing import list_instances
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.dicomweb.store import CONFIRMED
from postdicom_async.dicomweb.store_answer import Verdict
from postdicom_async.disk.scratch import Scratch, ScratchMap
from postdicom_async.errors import PostdicomError
from postdicom_async.results import Status
from postdicom_async.transfer.arrivals import Arrivals
from postdicom_async.transfer.outcomes import Gathered

if TYPE_CHECKING:
    from postdicom_async.disk.sources import Usable
    from postdicom_async.results import InstanceUids

__all__ = ["Present"]

_MOST_STUDIES = 10_000  # whose lists are remembered; one that is forgotten is asked for again


class Present:
    """The lists of one upload. Close it."""

    def __init__(self, retrieval: Retrieval, confirmation: Confirmation) -> None:
        self._retrieval = retrieval
        self._confirmation = confirmation
        self._known: dict[str, int] = {}  # the number of a study's list, 0 where it leaves nothing out
        self._asking: dict[str, anyio.Lock] = {}
        self._asked = 0
        self._scratch = Scratch()
        self._series: ScratchMap[str] = ScratchMap(self._scratch)  # by number and SOP Instance UID

    async def verdict(self, instance: Usable) -> Verdict | None:
        """Return what is to be told of an instance that is not to be sent; None for one that is."""
        if not await self._lists(instance.header.uids):
            return None
        if not instance.keeps_uid:
            return Verdict(Status.PRESENT, reason="the archive lists it; not sent")
        finding = await self._confirmation.look(instance)
        if finding is Holding.SAME:
            return Verdict(Status.PRESENT, reason=CONFIRMED)
        if finding is Holding.ABSENT:  # listed, and not there
            return None
        hint = "not sent: anonymise the UIDs too (remap_uids=True), or give existing='send'"
        reason = f"the archive lists its SOP Instance UID and {finding.value}, perhaps the original; {hint}"
        return Verdict(Status.FAILED, reason=reason, temporary=finding is Holding.UNREACHABLE)

    async def _lists(self, uids: InstanceUids) -> bool:
        study = uids.study_instance_uid
        if study not in self._known:
            async with self._asking.setdefault(study, anyio.Lock()):  # the others of the study wait for the list
                if study not in self._known:
                    await self._ask(study)
                    self._asking.pop(study, None)
        number = self._known.get(study, 0)
        return number > 0 and self._series.get((number, uids.sop_instance_uid)) == uids.series_instance_uid

    async def _ask(self, study: str) -> None:
        self._asked += 1
        number, found = self._asked, False
        # Without a list all is sent; if the archive cannot be worked with, that will tell.
        with suppress(PostdicomError), closing(Arrivals(study, Gathered(keeps_all=False))) as nothing_yet:
            if await list_instances(self._retrieval, Target(study), nothing_yet):
                async for some in nothing_yet.missing_slices():
                    for _, series, instance in some:
                        self._series.put((number, instance), series)
                found = True
        if len(self._known) >= _MOST_STUDIES:
            del self._known[next(iter(self._known))]
        self._known[study] = number if found else 0

    def close(self) -> None:
        """Forget the lists."""
        self._scratch.close()
