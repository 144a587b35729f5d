"""Rules that are there already: PostDICOM's nine tags, and the Basic Profile from dicom-anonymizer's table.

That is the Basic Application Level Confidentiality Profile (PS3.15 annex E). Only the table is used: the engine of that
package holds a data set in memory and keeps the UIDs it has replaced in a global.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from postdicom_async.dicom.anonymize.rules import DUMMY, EMPTY, REMAP, REMOVE, Action, Kind, tag_of
from postdicom_async.errors import UsageError

__all__ = ["over_vendor_tags", "profile_actions"]

_TABLE = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"

# Where the table leaves a choice by the IOD, what keeps every IOD valid is taken: never less than PS3.15 asks for.
_COLUMNS: dict[str, Action] = {
    "X_TAGS": REMOVE,
    "Z_TAGS": EMPTY,
    "X_Z_TAGS": EMPTY,
    "D_TAGS": DUMMY,
    "Z_D_TAGS": DUMMY,
    "X_D_TAGS": DUMMY,
    "X_Z_D_TAGS": DUMMY,
    "U_TAGS": REMAP,
    "X_Z_U_STAR_TAGS": REMAP,
}

# What a file meta may tell of where the file came from (PS3.10 table 7.1-1); the profile wants a new one (E.1.1).
_META = (0x00020016, 0x00020017, 0x00020018, 0x00020026, 0x00020027, 0x00020028, 0x00020100, 0x00020102)

_MARKS: dict[int, Action] = {
    0x00120062: Action(Kind.TEXT, "YES", insert=True),
    0x00120063: Action(Kind.TEXT, "Basic Application Confidentiality Profile", insert=True),
    0x00120064: Action(Kind.CODE, "113100\\DCM\\Basic Application Confidentiality Profile", insert=True),
    0x00280303: Action(Kind.TEXT, "REMOVED", insert=True),
}
"""What says that it was done (PS3.15 section E.1.1, code of CID 7050): PatientIdentityRemoved, DeidentificationMethod,
DeidentificationMethodCodeSequence, LongitudinalTemporalInformationModified."""


def profile_actions() -> tuple[dict[int, Action], tuple[tuple[int, int, Action], ...]]:
    """Return tag -> action, and for repeating groups (mask, tag, action).

    Raises:
        UsageError: the table is not installed.
    """
    table = _table()
    exact: dict[int, Action] = {}
    masked: list[tuple[int, int, Action]] = []
    for column, action in _COLUMNS.items():
        for group, number, *mask in getattr(table, column):
            tag = group << 16 | number
            if mask:
                masked.append((mask[0] << 16 | mask[1], tag, action))
            else:
                exact[tag] = action
    exact |= dict.fromkeys(_META, REMOVE) | _MARKS
    return exact, tuple(masked)


def _table() -> Any:
    try:
        return import_module(_TABLE)
    except ImportError:
        pass
    raise UsageError('the basic profile needs its table: pip install "postdicom-async[anonymize]"')


_PATIENT_ID = 0x00100020

# The nine tags that PostDICOM's own uploader offers, with values that leave a valid study.
_VENDOR_TAGS: dict[str, str | None] = {
    "PatientName": "ANONYMOUS",
    "PatientID": "ANONYMOUS",
    "OtherPatientIDs": "",
    "OtherPatientNames": "",
    "StudyDescription": "",
    "ReferringPhysicianName": "",
    "InstitutionName": "",
    "InstitutionAddress": "",
    "AccessionNumber": "",
}


def over_vendor_tags(rules: Any, *, keyed: bool) -> Any:
    """Return the vendor's rules with others on top, which may name the tags in another way."""
    rules = {} if rules is None else rules
    if not isinstance(rules, Mapping):
        return rules
    named = {tag_of(key) for key in rules} | ({_PATIENT_ID} if keyed else set())
    return {key: value for key, value in _VENDOR_TAGS.items() if tag_of(key) not in named} | dict(rules)
