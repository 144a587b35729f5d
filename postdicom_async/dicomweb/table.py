"""Results as a table: the data frame of all of them, and the few that a notebook may show of its own accord.

A notebook keeps what it shows, and notebooks are passed on. So of its own accord only what names no patient is shown:
UIDs, study dates, modalities and counts, and those only where they look like it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from postdicom_async.dicom.json_reading import DicomJson, values_of
from postdicom_async.dicom.tags import JSON_TAG
from postdicom_async.dicomweb.filters import INSTANCE_UID, SERIES_UID, STUDY_UID
from postdicom_async.frames import load_pandas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from pandas import DataFrame

_ROWS_AT_ONCE = 2000

_PATIENT = "PatientID PatientName PatientBirthDate PatientSex"
_ALWAYS: Final = {
    STUDY_UID: f"{_PATIENT} StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber StudyDescription"
    " ModalitiesInStudy ReferringPhysicianName NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances",
    SERIES_UID: "StudyInstanceUID SeriesInstanceUID Modality SeriesNumber SeriesDescription"
    " PerformedProcedureStepStartDate PerformedProcedureStepStartTime NumberOfSeriesRelatedInstances",
    INSTANCE_UID: "StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID InstanceNumber NumberOfFrames Rows"
    " Columns BitsAllocated",
}
"""Columns of every frame, by the UID that its results have: what PS3.18 section 10.6.3.3 has an archive return."""

_SHOWN: Final = {
    STUDY_UID: "StudyInstanceUID StudyDate ModalitiesInStudy NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances",
    SERIES_UID: "SeriesInstanceUID Modality SeriesNumber NumberOfSeriesRelatedInstances",
    INSTANCE_UID: "SOPInstanceUID InstanceNumber Rows Columns",
}
_HARMLESS = re.compile(r"[0-9.]{1,64}|[A-Z]{2,8}", re.ASCII)
"""A UID, a date or a number, or a modality. A server may write a name anywhere."""


class ResultTable:
    """How the results of one operation become a table.

    Args:
        operation: what was asked, in our words.
        key: the tag of the UID that each result has.
    """

    def __init__(self, operation: str, key: str) -> None:
        self.operation: str = operation
        self._key = key
        self._shown = [JSON_TAG[name] for name in _SHOWN[key].split()]

    @property
    def headings(self) -> list[str]:
        """The columns of `cells`."""
        return _SHOWN[self._key].split()

    def cells(self, item: DicomJson) -> list[str]:
        """Return what may be shown of a result."""
        return [_shown(values_of(item, tag)) for tag in self._shown]

    async def frame(
        self, items: AsyncIterator[DicomJson], columns: Iterable[str] | None, warnings: list[str]
    ) -> DataFrame:
        """Read all results into a frame.

        Raises:
            UsageError: pandas is not installed, or a column cannot be had; nothing was asked then.
        """
        await anyio.to_thread.run_sync(load_pandas, limiter=anyio.CapacityLimiter(1))
        from postdicom_async.dicom.columns import TableOfResults
        from postdicom_async.frames import FrameInParts

        table, frame = TableOfResults(columns, _ALWAYS[self._key].split()), FrameInParts()
        async for item in items:
            table.add(item)
            if table.rows >= _ROWS_AT_ONCE:
                frame.add(table.take())
        frame.add(table.take())
        warnings += [warning for warning in table.warnings() if warning not in warnings]
        return frame.whole(table.order)


def _shown(values: list[Any]) -> str:
    texts = [str(value) for value in values[:8] if isinstance(value, str | int)]
    return ", ".join(text if _HARMLESS.fullmatch(text) else "…" for text in texts)
