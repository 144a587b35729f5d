"""Unique identifiers (PS3.5 section 9.1). They become parts of URLs and file names, so nothing else passes."""

from __future__ import annotations

import re

from postdicom_async.errors import UsageError

__all__ = ["checked_uid", "is_uid"]

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
_LONGEST_UID = 64


def is_uid(value: object) -> bool:
    """Return whether a value is a UID: digits and single dots, at most 64 characters.

    Leading zeros of a component are let through: they are wrong but found in the wild, and harmless here.
    """
    return isinstance(value, str) and len(value) <= _LONGEST_UID and _UID.fullmatch(value) is not None


def checked_uid(value: object, argument: str) -> str:
    """Return the UID without surrounding white space.

    Raises:
        UsageError: it is not a UID; the message names ``argument``.
    """
    text = value.strip() if isinstance(value, str) else value
    if not is_uid(text):
        raise UsageError("not a DICOM UID (digits and dots, at most 64 characters)", argument=argument)
    return str(text)
