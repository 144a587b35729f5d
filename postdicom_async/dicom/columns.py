"""DICOM JSON as columns of typed values, for data frames. Pure.

A column is an attribute under its keyword, or under its tag where no keyword names it alone: private and unknown ones,
repeating groups. Its kind follows from the data dictionary, never from what came, so that two searches give frames of
the same types.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from postdicom_async.dicom.json_reading import DicomJson, person_name, values_of
from postdicom_async.dicom.tags import checked_tag, dictionary_vr, keyword_of, tag_of
from postdicom_async.dicom.text import integer_text, number_text
from postdicom_async.errors import UsageError
from postdicom_async.frames import ColumnKind, ColumnValues, frame_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from postdicom_async.dicom.scan import Scan

_KINDS: Final = {
    **dict.fromkeys(("DS", "FD", "FL"), ColumnKind.NUMBER),
    **dict.fromkeys(("IS", "SL", "SS", "SV", "UL", "US"), ColumnKind.INTEGER),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"), None),
    "DA": ColumnKind.DATE,
    "TM": ColumnKind.TIME,
}
"""Everything else is text: a DT may be part of a date, in a time zone or in none, and no type of pandas holds that."""


@dataclass(frozen=True, slots=True)
class DicomColumn:
    """A column.

    Attributes:
        name: the keyword, or the tag in 8 hexadecimal digits; either names this tag and no other.
        kind: of one value.
        several: whether the attribute may have several values, so that the column holds tuples of them.
    """

    name: str
    kind: ColumnKind
    several: bool = False


@lru_cache(maxsize=4096)
def column_of(tag: str) -> DicomColumn | None:
    """Return the column of a tag as DICOM JSON writes it; None for what has none: sequences, bytes."""
    from pydicom.datadict import dictionary_VM

    number = int(tag, 16)
    keyword = keyword_of(number)
    if not keyword:
        return DicomColumn(tag, ColumnKind.TEXT, several=True)
    kind = _KINDS.get(dictionary_vr(number), ColumnKind.TEXT)
    # Every overlay's rows are OverlayRows (60xx,0010), so that keyword is no name of a column.
    name = keyword if tag_of(keyword) == number else tag
    return None if kind is None else DicomColumn(name, kind, several=dictionary_VM(number) != "1")


class TableOfResults:
    """Collects results, and gives them as columns.

    Args:
        names: keywords or tags of the columns wanted; None for all that come, after ``always``, in the order of their
            tags.
        always: keywords of columns that are there even if nothing comes.

    Raises:
        UsageError: a name is none, or that of a sequence or of bytes.
    """

    def __init__(self, names: Iterable[str] | None, always: Iterable[str] = ()) -> None:
        self.rows: int = 0
        self._all = names is None
        self._seen: set[str] = set()
        self._columns: dict[str, DicomColumn] = {}
        self._values: dict[str, list[Any]] = {}
        self._unread: Counter[str] = Counter()
        self._more: Counter[str] = Counter()
        self._absent: set[str] = set()  # tags asked for that no result had so far
        self._any = False
        self._texts: dict[str, str] = {}  # one object for a text that all results have
        for name in always if names is None else _listed(names):
            tag = f"{checked_tag(name, 'columns'):08X}"
            if column_of(tag) is None:
                raise UsageError(f"{name} is a sequence or bytes, which a table does not show", argument="columns")
            self._begin(tag)
        self._first = list(self._columns)
        if not self._all:
            self._absent.update(self._first)

    @property
    def order(self) -> list[str]:
        """The names of the columns as they should stand."""
        others = sorted(self._columns.keys() - set(self._first))
        return [self._columns[tag].name for tag in (*self._first, *others)]

    def add(self, item: DicomJson) -> None:
        """Add a row."""
        if self._all:
            for tag in item.keys() - self._seen:
                self._begin(tag)
        for tag, values in self._values.items():
            found = values_of(item, tag)
            values.append(self._cell(self._columns[tag], found) if found else None)
        self._absent.difference_update(item)
        self.rows += 1
        self._any = True

    def take(self) -> Mapping[str, ColumnValues]:
        """Return the rows as columns, and keep none."""
        taken: dict[str, ColumnValues] = {}
        for tag, column in self._columns.items():
            taken[column.name] = ColumnValues(ColumnKind.SEVERAL if column.several else column.kind, self._values[tag])
            self._values[tag] = []
        self.rows = 0
        self._texts = {}
        return taken

    def warnings(self) -> list[str]:
        """Return what the columns do not show, and those asked for that no result had: a line each, without values."""
        unread = [f"column {name}: values that cannot be read: {number}" for name, number in self._unread.items()]
        more = [
            f"column {name}: results with several values, of which the first is shown: {number}"
            for name, number in self._more.items()
        ]
        absent = [self._columns[tag].name for tag in self._first if tag in self._absent and self._any]
        asked = [f"no result has {name}: ask for it with fields= of the search" for name in absent]
        return unread + more + asked

    def _begin(self, tag: str) -> None:
        self._seen.add(tag)
        column = column_of(tag)
        if column is not None and tag not in self._columns:
            self._columns[tag] = column
            self._values[tag] = [None] * self.rows

    def _cell(self, column: DicomColumn, found: list[Any]) -> Any:
        read = _READERS[column.kind]
        values = [None if value is None else read(value) for value in found]
        unread = values.count(None) - found.count(None)
        if unread:
            self._unread[column.name] += unread
        if column.several:
            return tuple(values)
        if len(values) > 1:
            self._more[column.name] += 1
        value = values[0]
        return self._texts.setdefault(value, value) if isinstance(value, str) else value


def _listed(names: Iterable[str]) -> Iterable[str]:
    if isinstance(names, str):
        raise UsageError("give a list of keywords", argument="columns")
    return names


# --- a scan -----------------------------------------------------------------------------------------------------------


def frame_of_scan(scan: Scan) -> DataFrame:
    """Return a row for each instance of a scan; see `Scan.to_pandas`."""
    rows = [
        (patient, study, series, instance)
        for patient in scan.patients
        for study in patient.studies
        for series in study.series
        for instance in series.instances
    ]
    frame: dict[str, ColumnValues] = {}
    for level, names in enumerate(_OF_SCAN):
        for name in names.split():
            attribute = "_".join(re.findall(r"[A-Z]+(?=[A-Z][a-z]|$)|[A-Z][a-z]+", name)).lower()
            values = [getattr(row[level], attribute) for row in rows]
            is_date = name.endswith("Date")
            kind = ColumnKind.DATE if is_date else ColumnKind.INTEGER if name.endswith("Number") else ColumnKind.TEXT
            kind = ColumnKind.TEXT if name == "AccessionNumber" else kind
            frame[name] = ColumnValues(kind, [value and _date(value) for value in values] if is_date else values)
    frame["size"] = ColumnValues(ColumnKind.INTEGER, [row[3].size for row in rows])
    frame["path"] = ColumnValues(ColumnKind.TEXT, [str(row[3].path) for row in rows])
    return frame_of(frame)


_OF_SCAN: Final = (
    "PatientID IssuerOfPatientID PatientName PatientBirthDate PatientSex",
    "StudyInstanceUID StudyDate StudyDescription AccessionNumber ReferringPhysicianName InstitutionName",
    "SeriesInstanceUID Modality SeriesNumber SeriesDate SeriesDescription",
    "SOPInstanceUID SOPClassUID InstanceNumber TransferSyntaxUID",
)
"""The columns, by level."""


# --- one value: as its type, None if it cannot be read ----------------------------------------------------------------

_DATE = re.compile(r"(\d{4})([.-]?)(\d\d)\2(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_INTEGER = integer_text(20)
_NUMBER = number_text(40, 3)
"""As many digits as archives write that keep to no length."""


def _text(value: Any) -> str | None:
    if isinstance(value, dict):
        return person_name(value)
    return value if isinstance(value, str) else str(value) if type(value) in (int, float) else None


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        value = int(value) if _INTEGER.fullmatch(value := value.strip(" ")) else None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value := value.strip(" ")) else None
    return float(value) if type(value) in (int, float) and abs(value) <= sys.float_info.max else None


def _date(value: Any) -> date | None:
    match = _DATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None


def _time(value: Any) -> timedelta | None:
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups()[:3])
    if hours > 23 or minutes > 59 or seconds > 60:  # a leap second (PS3.5 section 6.2)
        return None
    part = int((match[4] or "0").ljust(6, "0"))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=part)


_READERS: Final[Mapping[ColumnKind, Callable[[Any], Any]]] = {
    ColumnKind.TEXT: _text,
    ColumnKind.INTEGER: _integer,
    ColumnKind.NUMBER: _number,
    ColumnKind.DATE: _date,
    ColumnKind.TIME: _time,
}
