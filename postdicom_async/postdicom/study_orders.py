"""Which patient orders hold these studies: the DICOMweb API stores studies and does not say, so they are searched for.

The search for orders knows no Study Instance UID. The archive's own record of the study (QIDO-RS) says under which
patient, else on which day, to look; an order then names its study. A service may make orders some time after it has
stored what they hold, so it is asked again for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from postdicom_async.errors import NotFound
from postdicom_async.results import InstanceFinished
from postdicom_async.vendor.sharing import TITLE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from postdicom_async.postdicom.client import PostDicom
    from postdicom_async.results import OnProgress, ProgressEvent

_FIRST_WAIT = 0.5  # seconds; then twice as long each time
_LONGEST_WAIT = 8.0


class StudiesNoted:
    """Listens to an upload, and passes on what it hears: a report need not hold every outcome.

    Attributes:
        studies: those of which the archive holds something that was sent.
    """

    def __init__(self, progress: OnProgress | None) -> None:
        self.studies: set[str] = set()
        self._progress = progress

    def __call__(self, event: ProgressEvent) -> None:
        """Note the study of an instance that has ended."""
        if isinstance(event, InstanceFinished) and event.outcome.in_archive and event.outcome.uids is not None:
            self.studies.add(event.outcome.uids.study_instance_uid)
        if self._progress is not None:
            self._progress(event)


async def orders_of_studies(archive: PostDicom, studies: Iterable[str], *, patience: float) -> tuple[str, ...]:
    """Return the UUIDs of the orders that hold these studies, waiting up to ``patience`` seconds for them to appear.

    Raises:
        NotFound: a study has no order that a search finds.
        PostdicomError: the service cannot be asked.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + patience
    wait = _FIRST_WAIT
    missing = sorted(studies)
    found: list[str] = []
    while True:
        for study in list(missing):
            if orders := await _orders_of(archive, study):
                found += orders
                missing.remove(study)
        if not missing:
            return tuple(dict.fromkeys(found))
        if clock() + wait > until:
            break
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
    problem = f"{len(missing)} of the studies are in no patient order that a search finds yet; they are stored"
    raise NotFound(problem, operation=TITLE, temporary=True)


async def _orders_of(archive: PostDicom, study: str) -> list[str]:
    """Return the orders that name a study."""
    record = await archive.search_for_studies({"StudyInstanceUID": study}, limit=1).first()
    if record is None or record.get("StudyInstanceUID") != study:
        return []
    for narrowed in _narrowed(record):
        orders = [order async for order in archive.orders.search(**narrowed) if order.study_instance_uid == study]
        if orders:
            return [order.patient_order_uuid for order in orders]
    return []


def _narrowed(record: Dataset) -> list[dict[str, Any]]:
    """Return searches that may find the order of a study; an archive need not know a patient's ID, or a day."""
    patient, day = (str(record.get(name) or "").strip() for name in ("PatientID", "StudyDate"))
    searches: list[dict[str, Any]] = [{"patient_id": patient}] if patient else []
    if len(day) == 8 and day.isdecimal():
        written = f"{day[:4]}-{day[4:6]}-{day[6:]}"
        searches.append({"study_date_from": written, "study_date_to": written})
    return searches or [{}]
