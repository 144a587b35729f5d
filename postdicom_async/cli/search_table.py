"""Results of a search as a table for people: which columns a level has, and how a value looks."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from postdicom_async.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydicom.dataset import Dataset
    from rich.table import Table

__all__ = ["ASKED_FOR", "SINGULAR", "Level", "search_table", "value_text"]


class Level(StrEnum):
    """What is searched for."""

    STUDIES = "studies"
    SERIES = "series"
    INSTANCES = "instances"


SINGULAR = {Level.STUDIES: "study", Level.SERIES: "series", Level.INSTANCES: "instance"}

# DICOM keyword to heading. The UID comes last: it is the longest, and what a download asks for.
_COLUMNS: dict[Level, dict[str, str]] = {
    Level.STUDIES: {
        "PatientName": "Patient",
        "PatientID": "ID",
        "StudyDate": "Date",
        "ModalitiesInStudy": "Modality",
        "StudyDescription": "Description",
        "NumberOfStudyRelatedSeries": "Series",
        "NumberOfStudyRelatedInstances": "Instances",
        "StudyInstanceUID": "Study Instance UID",
    },
    Level.SERIES: {
        "Modality": "Modality",
        "SeriesNumber": "No.",
        "SeriesDescription": "Description",
        "NumberOfSeriesRelatedInstances": "Instances",
        "StudyInstanceUID": "Study Instance UID",
        "SeriesInstanceUID": "Series Instance UID",
    },
    Level.INSTANCES: {
        "InstanceNumber": "No.",
        "SOPClassUID": "SOP Class",
        "Rows": "Rows",
        "Columns": "Columns",
        "NumberOfFrames": "Frames",
        "SeriesInstanceUID": "Series Instance UID",
        "SOPInstanceUID": "SOP Instance UID",
    },
}
ASKED_FOR: dict[Level, tuple[str, ...]] = {Level.STUDIES: ("StudyDescription",), Level.SERIES: (), Level.INSTANCES: ()}
"""Columns that are not among the attributes of every answer (PS3.18 section 10.6.3.3)."""

_NUMBERS = frozenset({"Series", "Instances", "No.", "Rows", "Columns", "Frames"})


def search_table(level: Level, datasets: Sequence[Dataset], fields: Iterable[str] = ()) -> Table:
    """Return the level's columns, without those that are empty everywhere, and one for each field asked for."""
    rows = {keyword: [value_text(dataset, keyword) for dataset in datasets] for keyword in _COLUMNS[level]}
    columns = {_COLUMNS[level][keyword]: cells for keyword, cells in rows.items() if any(cells)}
    for field in fields:
        if field != "all" and field not in rows:
            columns[field] = [value_text(dataset, field) for dataset in datasets]
    return output.table(list(columns), zip(*columns.values(), strict=True), numbers=_NUMBERS)


def value_text(dataset: Dataset, attribute: str) -> str:
    """Return an attribute's value as text, empty where there is none; a path of attributes leads into sequences."""
    head, _, rest = attribute.partition(".")
    element = dataset.get(_key_of(head))
    if element is None or element.value is None:
        return ""
    if element.VR == "SQ":
        return ", ".join(filter(None, (value_text(item, rest) for item in element.value))) if rest else "(sequence)"
    if element.VR == "DA":
        return _date_text(str(element.value))
    if element.VR == "UI":
        return _uid_text(element.value)
    return ", ".join(map(str, element.value)) if element.VM > 1 else str(element.value)


def _key_of(attribute: str) -> int:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(attribute)
    return int(attribute, 16) if tag is None else tag


def _date_text(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdecimal() else date


def _uid_text(uid: object) -> str:
    """Return a UID, or the name of what it stands for where the standard gives it one."""
    return str(getattr(uid, "name", uid)).removesuffix(" Storage")
