"""What counts as a UID here: nothing that could be anything else on a disk or in a URL."""

from __future__ import annotations

import re

__all__ = ["is_uid"]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def is_uid(text: str) -> bool:
    """Return whether a text is digits and single dots, at most 64 characters (PS3.5 section 9.1).

    Leading zeros are forbidden by the standard and common in the field; they are let through.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None
