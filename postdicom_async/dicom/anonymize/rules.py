"""The actions on an element, how a caller writes them, and the sets of rules that come with the package.

The sets are PostDICOM's nine tags, and the Basic Application Level Confidentiality Profile (PS3.15 annex E).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib import import_module
from typing import Any, Final

from postdicom_async.dicom.anonymize.values import check_value
from postdicom_async.dicom.tags import TAG, checked_tag, dictionary_vr, tag_text, tags_of
from postdicom_async.errors import UsageError

CANNOT_ANONYMIZE: Final = "cannot be anonymised"
"""The beginning of the ``reason`` for a source that its rules keep from being sent."""


class ChangeKind(Enum):
    """The kinds of action on an element."""

    TEXT = auto()
    EMPTY = auto()
    REMOVE = auto()
    REMAP = auto()
    """Replace by another UID, always the same for the same one."""
    DUMMY = auto()
    """A value of its VR that says nothing; of a sequence, everything in it."""
    CODE = auto()
    """A sequence of one coded entry: value, scheme and meaning."""


@dataclass(frozen=True, slots=True)
class Change:
    """The action on one element; ``insert``: add it at the top level if it is absent."""

    kind: ChangeKind
    text: str = field(default="", repr=False)
    insert: bool = False


REMOVE, EMPTY = Change(ChangeKind.REMOVE), Change(ChangeKind.EMPTY)
REMAP, DUMMY = Change(ChangeKind.REMAP), Change(ChangeKind.DUMMY)

# These define how the rest is written, or follow from it: any other value would make the file unreadable.
_PROTECTED = frozenset(
    tags_of(
        "FileMetaInformationGroupLength FileMetaInformationVersion MediaStorageSOPClassUID MediaStorageSOPInstanceUID"
        " TransferSyntaxUID SpecificCharacterSet"
    )
)
NEEDED: Final = frozenset(tags_of("SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID"))
"""Elements that every instance must have."""


def actions_of(rules: Mapping[str, str | None], *, insert: bool) -> dict[int, Change]:
    """Return tag -> action.

    Raises:
        UsageError: a key or value is wrong; the message names the tag and never shows the value.
    """
    if not isinstance(rules, Mapping):
        raise UsageError("rules are a mapping of keywords or tags to text or None", argument="anonymize")
    actions: dict[int, Change] = {}
    for key, value in rules.items():
        tag = checked_tag(key, "anonymize")
        if tag in actions:
            raise UsageError(f"{tag_text(tag)} is given twice", argument="anonymize")
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{tag_text(tag)}: give text, or None to remove it", argument="anonymize")
        if found := objection(tag, value):
            raise UsageError(f"{tag_text(tag)}: {found}", argument="anonymize")
        actions[tag] = action_of(value, insert=insert)
    return actions


def action_of(value: str | None, *, insert: bool) -> Change:
    """Return the action for a rule's value."""
    if value is None:
        return REMOVE
    if not value:
        return Change(ChangeKind.EMPTY, insert=insert)
    return Change(ChangeKind.TEXT, value, insert=insert)


def objection(tag: int, value: str | None) -> str | None:
    """Return why an element cannot be given a value, without quoting it; None if it can."""
    if tag in _PROTECTED or tag & 0xFFFF == 0 or tag >> 16 == 0xFFFE or tag >> 16 == 0:
        return "it says how a file is written; it is kept right by itself"
    if not value and tag in NEEDED:
        return "no instance is without it"
    if value and (problem := check_value(dictionary_vr(tag), value)):
        return problem
    return "one UID" if value and tag in NEEDED and "\\" in value else None


# --- rules that come with the package ---------------------------------------------------------------------------------

# The Basic Profile is dicom-anonymizer's table. Only the table is used: the engine of that package holds a data
# set in memory and keeps the UIDs it has replaced in a global.
_TABLE = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"

# Where the table leaves a choice by IOD, we take the one that keeps every IOD valid and satisfies PS3.15.
_COLUMNS: dict[str, Change] = {
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

# File meta elements that may reveal a file's origin (PS3.10 table 7.1-1); the profile wants new ones (E.1.1).
_META = tags_of(
    "SourceApplicationEntityTitle SendingApplicationEntityTitle ReceivingApplicationEntityTitle"
    " SourcePresentationAddress SendingPresentationAddress ReceivingPresentationAddress"
    " PrivateInformationCreatorUID PrivateInformation"
)

# The elements that declare it (PS3.15 section E.1.1, code of CID 7050).
_MARKS = {
    TAG["PatientIdentityRemoved"]: Change(ChangeKind.TEXT, "YES", insert=True),
    TAG["DeidentificationMethod"]: Change(ChangeKind.TEXT, "Basic Application Confidentiality Profile", insert=True),
    TAG["DeidentificationMethodCodeSequence"]: Change(
        ChangeKind.CODE, "113100\\DCM\\Basic Application Confidentiality Profile", insert=True
    ),
    TAG["LongitudinalTemporalInformationModified"]: Change(ChangeKind.TEXT, "REMOVED", insert=True),
}


def profile_actions() -> tuple[dict[int, Change], tuple[tuple[int, int, Change], ...]]:
    """Return tag -> action, and for repeating groups (mask, tag, action).

    Raises:
        UsageError: the table is not installed.
    """
    try:
        table: Any = import_module(_TABLE)
    except ImportError:
        table = None  # raised after the handler: its traceback would name local paths
    if table is None:
        raise UsageError('the basic profile needs its table: pip install "postdicom-async[anonymize]"')
    exact: dict[int, Change] = {}
    masked: list[tuple[int, int, Change]] = []
    for column, action in _COLUMNS.items():
        for group, number, *mask in getattr(table, column):
            tag = group << 16 | number
            if mask:
                masked.append((mask[0] << 16 | mask[1], tag, action))
            else:
                exact[tag] = action
    exact |= dict.fromkeys(_META, REMOVE) | _MARKS
    return exact, tuple(masked)


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
    """Return the vendor's rules overridden by others, which may spell the tags differently."""
    rules = {} if rules is None else rules
    if not isinstance(rules, Mapping):
        return rules
    named = {checked_tag(key, "anonymize") for key in rules} | ({TAG["PatientID"]} if keyed else set())
    return {key: value for key, value in _VENDOR_TAGS.items() if TAG[key] not in named} | dict(rules)
