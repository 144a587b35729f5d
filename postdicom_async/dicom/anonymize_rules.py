"""What is done to an element, and the forms in which rules are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from postdicom_async.dicom.anonymize_values import check_value
from postdicom_async.dicom.elements import dictionary_vr, tag_text
from postdicom_async.errors import UsageError

__all__ = [
    "CANNOT_ANONYMIZE",
    "DUMMY",
    "EMPTY",
    "NEEDED",
    "REMAP",
    "REMOVE",
    "Action",
    "Kind",
    "action_of",
    "actions_of",
    "objection",
    "tag_of",
]

CANNOT_ANONYMIZE: Final = "cannot be anonymised"
"""How the reason begins of a source that is not sent because of its rules."""


class Kind(Enum):
    """What is done to an element."""

    TEXT = auto()
    EMPTY = auto()
    REMOVE = auto()
    REMAP = auto()
    """Another UID, always the same for the same one."""
    DUMMY = auto()
    """A value of its VR that says nothing; of a sequence, everything in it."""
    CODE = auto()
    """A sequence of one coded entry: value, scheme and meaning."""


@dataclass(frozen=True, slots=True)
class Action:
    """What is done to one element; ``insert``: also where it is absent at the top level."""

    kind: Kind
    text: str = field(default="", repr=False)
    insert: bool = False


REMOVE, EMPTY, REMAP, DUMMY = (Action(kind) for kind in (Kind.REMOVE, Kind.EMPTY, Kind.REMAP, Kind.DUMMY))

_HEX = re.compile(r"x?([0-9a-f]{8})|(\()?([0-9a-f]{4}), ?([0-9a-f]{4})(?(2)\))", re.IGNORECASE)

# These say how the rest is written, or follow from it.
_PROTECTED = frozenset({0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00080005})
NEEDED: Final = frozenset({0x00080016, 0x00080018, 0x0020000D, 0x0020000E})
"""No instance is without these."""


def tag_of(key: object) -> int:
    """Return the tag that a keyword or number names.

    Raises:
        UsageError: there is no such keyword.
    """
    from pydicom.datadict import tag_for_keyword

    text = key.strip() if isinstance(key, str) else ""
    if match := _HEX.fullmatch(text):
        return int(match[1] or match[3] + match[4], 16)
    tag = tag_for_keyword(text) if text else None
    if tag is None:
        raise UsageError(f"{_shown(text)} is neither a DICOM keyword nor a tag (GGGGEEEE)", argument="anonymize")
    return int(tag)


def _shown(key: str) -> str:
    return repr(key) if re.fullmatch(r"\w{1,64}", key, re.ASCII) else "a key"


def actions_of(rules: Mapping[str, str | None], *, insert: bool) -> dict[int, Action]:
    """Return tag -> action.

    Raises:
        UsageError: a key or value is wrong; the message names the tag and never shows the value.
    """
    if not isinstance(rules, Mapping):
        raise UsageError("rules are a mapping of keywords or tags to text or None", argument="anonymize")
    actions: dict[int, Action] = {}
    for key, value in rules.items():
        tag = tag_of(key)
        if tag in actions:
            raise UsageError(f"{tag_text(tag)} is given twice", argument="anonymize")
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{tag_text(tag)}: give text, or None to remove it", argument="anonymize")
        if found := objection(tag, value):
            raise UsageError(f"{tag_text(tag)}: {found}", argument="anonymize")
        actions[tag] = action_of(value, insert=insert)
    return actions


def action_of(value: str | None, *, insert: bool) -> Action:
    """Return what a rule's value does."""
    if value is None:
        return REMOVE
    if not value:
        return Action(Kind.EMPTY, insert=insert)
    return Action(Kind.TEXT, value, insert=insert)


def objection(tag: int, value: str | None) -> str | None:
    """Return why an element cannot be given a value, without the value; None where it can."""
    if tag in _PROTECTED or tag & 0xFFFF == 0 or tag >> 16 == 0xFFFE or tag >> 16 == 0:
        return "it says how a file is written; it is kept right by itself"
    if not value and tag in NEEDED:
        return "no instance is without it"
    if value and (problem := check_value(dictionary_vr(tag), value)):
        return problem
    return "one UID" if value and tag in NEEDED and "\\" in value else None
