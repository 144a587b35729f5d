"""Which studies of a folder match a filter: attribute matching of PS3.4 section C.2.2.2 on the files' attributes. Pure.

A filter chooses studies. Files of one study may disagree on an attribute; the study matches if each attribute of the
filter matches in at least one file, so that no study is left out because of one odd file.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from postdicom_async.dicom.tags import JSON_TAG
from postdicom_async.dicomweb.filters import LISTED, filter_pairs
from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from postdicom_async.dicomweb.filters import Filters


_STUDY, _DATE = "study_instance_uid", "study_date"


class _Kind(NamedTuple):
    """An attribute that can be filtered by: its name among the texts of a file, and how its values are compared."""

    text: str
    match: Callable[[str, str], bool]


def day_of(text: str) -> str:
    """Return a date as YYYYMMDD, also from ACR-NEMA's form with dots; "" if it is not a date."""
    day = text.replace(".", "") if text.count(".") == 2 else text
    return day if re.fullmatch(r"[0-9]{8}", day, re.ASCII) else ""


def _uid(key: str, text: str) -> bool:
    return text in {one.strip(" \0") for one in LISTED.split(key)}


def _date(key: str, text: str) -> bool:
    day = day_of(text)
    for one in key.split(","):
        first, dash, last = one.partition("-")
        if "*" in one or "?" in one:
            if _wildcards(one, day or text):
                return True
        elif day and (first or "0") <= day <= (last or "9" * 8 if dash else first):
            return True
    return False


def _text(key: str, text: str) -> bool:
    return any(_wildcards(one, text) for one in key.split("\\"))


def _code(key: str, text: str) -> bool:
    return any(_wildcards(one.strip(), text) for one in LISTED.split(key))


def _name(key: str, text: str) -> bool:
    """Match case-insensitively against the whole name and each of its component groups."""
    groups = [group.strip().rstrip("^ ") for group in text.split("=")]
    names = [name.casefold() for name in ("=".join(groups), *groups) if name]
    patterns = [one.strip().rstrip("^ ").casefold() for one in key.split("\\")]
    return any(_wildcards(pattern, name) for pattern in patterns for name in names)


def _wildcards(pattern: str, text: str) -> bool:
    return _compiled(pattern.rstrip(" ")).fullmatch(text.rstrip(" ")) is not None


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*+|\?)", pattern)
    return re.compile("".join(_SPECIAL.get(part[:1], re.escape(part)) for part in parts), re.DOTALL)


_SPECIAL: Final = {"*": ".*", "?": "."}

_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType({
    JSON_TAG["StudyInstanceUID"]: _Kind(_STUDY, _uid),
    JSON_TAG["StudyDate"]: _Kind(_DATE, _date),
    JSON_TAG["AccessionNumber"]: _Kind("accession_number", _text),
    JSON_TAG["Modality"]: _Kind("modality", _code),
    JSON_TAG["ModalitiesInStudy"]: _Kind("modality", _code),  # matches if any series of the study does
    JSON_TAG["InstitutionName"]: _Kind("institution_name", _text),
    JSON_TAG["ReferringPhysicianName"]: _Kind("referring_physician_name", _name),
    JSON_TAG["StudyDescription"]: _Kind("study_description", _text),
    JSON_TAG["PatientName"]: _Kind("patient_name", _name),
    JSON_TAG["PatientID"]: _Kind("patient_id", _text),
    JSON_TAG["IssuerOfPatientID"]: _Kind("issuer_of_patient_id", _text),
    JSON_TAG["PatientBirthDate"]: _Kind("patient_birth_date", _date),
    JSON_TAG["PatientSex"]: _Kind("patient_sex", _code),
})  # fmt: skip
_KNOWN: Final = (
    "StudyInstanceUID, StudyDate, ModalitiesInStudy, AccessionNumber, StudyDescription, PatientID, PatientName, "
    "PatientBirthDate, PatientSex, IssuerOfPatientID, ReferringPhysicianName and InstitutionName"
)


class StudyFilter:
    """The conditions that studies must match.

    Attributes:
        texts: the file attributes it needs besides the Study Instance UID and the date; named as in
            `dicom.scan.FileFacts`.
    """

    def __init__(self, filters: Filters | None) -> None:
        """Take filters as a search does.

        Raises:
            UsageError: a filter is invalid, or a folder cannot be filtered by that attribute.
        """
        self._wanted: list[tuple[_Kind, str]] = []
        for tag, value in filter_pairs(filters):
            if tag not in _KINDS:
                raise UsageError(f"studies of a folder are chosen by {_KNOWN}", argument="filters")
            if value not in {"", "*"}:  # these match everything
                self._wanted.append((_KINDS[tag], value))
        self.texts: frozenset[str] = frozenset(kind.text for kind, _ in self._wanted) - {_STUDY, _DATE}

    def __bool__(self) -> bool:
        """Whether there is any condition."""
        return bool(self._wanted)

    def matches(self, study: str, said: Collection[Mapping[str, str]]) -> bool:
        """Return whether a study matches: ``said`` has the attributes of its files, ``study_date`` among them."""
        return all(
            kind.match(key, study)
            if kind.text == _STUDY
            else any(kind.match(key, texts[kind.text]) for texts in said if texts.get(kind.text))
            for kind, key in self._wanted
        )
