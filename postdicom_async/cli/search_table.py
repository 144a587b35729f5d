"""Results of a search as a table for people: which columns a level has, and how a value looks."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from postdicom_async.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pydicom.dataset import Dataset
    from rich.table import Table

__all__ = ["ASKED_FOR", "SINGULAR", "Level", "column_tables", "search_tables", "value_text"]


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

_NUMBERS = frozenset({"#", "Series", "Instances", "No.", "Rows", "Columns", "Frames", "Orders", "Folders"})


def search_tables(
    level: Level, datasets: Sequence[Dataset], fields: Iterable[str] = (), *, uids: bool = True
) -> list[Table]:
    """Return what was found: the level's columns, without those empty everywhere, and one for each field asked for.

    Where the terminal is too narrow for all of it, the UIDs have a table of their own, so that they can be copied.
    """
    columns = _columns(level, datasets, fields)
    if not uids:
        return [_table({name: cells for name, cells in columns.items() if not _is_uid(name)})]
    return column_tables(columns)


def column_tables(columns: dict[str, list[str]]) -> list[Table]:
    """Return columns by their headings as a table, or as two where UIDs and UUIDs make it too wide for the terminal."""
    if _width_of(columns) <= output.width():
        return [_table(columns)]
    rows = len(next(iter(columns.values()), []))
    numbers = {"#": [str(number) for number in range(1, rows + 1)]}
    return [
        _table(numbers | {name: cells for name, cells in columns.items() if _is_uid(name) is uid_table})
        for uid_table in (False, True)
    ]


def _columns(level: Level, datasets: Sequence[Dataset], fields: Iterable[str]) -> dict[str, list[str]]:
    rows = {keyword: [value_text(dataset, keyword) for dataset in datasets] for keyword in _COLUMNS[level]}
    columns = {_COLUMNS[level][keyword]: cells for keyword, cells in rows.items() if any(cells)}
    for field in fields:
        if field != "all" and field not in rows:
            columns[field] = [value_text(dataset, field) for dataset in datasets]
    return columns


def _is_uid(heading: str) -> bool:
    return heading.endswith((" UID", " UUID"))


def _table(columns: dict[str, list[str]]) -> Table:
    return output.table(list(columns), zip(*columns.values(), strict=True), numbers=_NUMBERS)


def _width_of(columns: dict[str, list[str]]) -> int:
    from rich.cells import cell_len

    return sum(max(map(cell_len, (name, *cells))) + 3 for name, cells in columns.items())


def value_text(dataset: Dataset, attribute: str) -> str:
    """Return an attribute's value as text, empty where there is none; a path of attributes leads into sequences."""
    head, _, rest = attribute.partition(".")
    element = dataset.get(_key_of(head))
    if element is None or element.value is None:
        return ""
    if element.VR == "SQ":
        return ", ".join(filter(None, (value_text(item, rest) for item in element.value))) if rest else "(sequence)"
    show = _SHOWN_AS.get(element.VR, str)
    return ", ".join(map(show, element.value)) if element.VM > 1 else show(element.value)


def _key_of(attribute: str) -> int:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(attribute)
    return int(attribute, 16) if tag is None else tag


def _date_text(value: object) -> str:
    date = str(value)
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdecimal() else date


def _uid_text(uid: object) -> str:
    """Return a UID, or the name of what it stands for where the standard gives it one."""
    return str(getattr(uid, "name", uid)).removesuffix(" Storage")


_SHOWN_AS: dict[str, Callable[[object], str]] = {"DA": _date_text, "UI": _uid_text}
