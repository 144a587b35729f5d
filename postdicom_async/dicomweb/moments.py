"""Dates and times as a filter has them (PS3.5 section 6.2, PS3.4 section C.2.2.2.5). Pure."""

from __future__ import annotations

import re
from calendar import monthrange
from typing import Final

from postdicom_async.errors import UsageError

__all__ = ["TEMPORAL", "matching_moments"]

_ISO_DATE = re.compile(r"(?<![0-9])([0-9]{4})-([0-9]{2})-([0-9]{2})(?![0-9])")
_CLOCK = re.compile(r"(?<=[0-9]):(?=[0-9])|(?<=[0-9])T(?=[0-9])")
_PART_OF_ISO_DATE = re.compile(r"\b[0-9]{4}-[0-9]{1,2}\b")

# Days that no month has go through as ends of ranges: 20240231 is common, and archives compare it as text.
_MONTH, _DAY = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
_TIME = r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?"
_ZONE = "(?:[+-](?:0[0-9]|1[0-4])[0-5][0-9])?"
_UNITS: Final = {
    "DA": f"[0-9]{{4}}(?:{_MONTH}{_DAY}?)?",
    "TM": _TIME,
    "DT": f"[0-9]{{4}}(?:{_MONTH}(?:{_DAY}(?:{_TIME})?)?)?{_ZONE}",
}
_RANGES: Final = {
    vr: re.compile(f"(?P<start>{unit})?(?P<dash>-)(?P<end>{unit})?|(?P<one>{unit})?") for vr, unit in _UNITS.items()
}
_WITH_WILDCARDS: Final = {vr: re.compile(f"[0-9*?{more}]*(?:-[0-9*?{more}]*)?")
                          for vr, more in (("DA", ""), ("TM", "."), ("DT", ".+"))}  # fmt: skip
_MISTAKES: Final = {
    "DA": "a date is YYYYMMDD or YYYY-MM-DD, a range two of them joined by '-'; YYYY and YYYYMM are all their days",
    "TM": "a time is HHMMSS or HH:MM:SS, a range two of them joined by '-'; HH and HHMM are all their seconds",
    "DT": "a date and time is YYYYMMDDHHMMSS or YYYY-MM-DDTHH:MM:SS or the beginning of it, a range two of them joined "
    "by '-'",
}

TEMPORAL: Final = frozenset(_UNITS)
"""The value representations that have ranges."""


def matching_moments(name: str, vr: str, text: str) -> str:
    """Return dates or times as PS3.5 writes them; what is none, and would match nothing, is refused.

    Years and months among dates become the ranges of their days, hours and minutes among times those of their seconds.
    Wildcards and lists go through, as some archives take them.

    Raises:
        UsageError: this is no date, time, range or list of them.
    """
    return ",".join(_plain(name, vr, one) for one in text.split(","))


def _plain(name: str, vr: str, text: str) -> str:
    plain = _ISO_DATE.sub(r"\1\2\3", text)
    if vr != "DA":
        plain = _CLOCK.sub("", plain)
    if "*" in plain or "?" in plain:
        if _WITH_WILDCARDS[vr].fullmatch(plain) and not _PART_OF_ISO_DATE.search(plain):
            return plain
        raise _mistake(name, vr)
    found = _RANGES[vr].fullmatch(plain)
    if found is None:
        raise _mistake(name, vr)
    if vr == "DA":
        return _whole_days(name, found)
    return _whole_seconds(plain) if vr == "TM" and found["one"] else plain


def _whole_seconds(text: str) -> str:
    """Return an hour or a minute as the range of its seconds, which archives compare with what they hold."""
    if len(text) >= len("HHMMSS"):
        return text
    return f"{text.ljust(6, '0')}-{text + '595959'[len(text) :]}.999999"


def _whole_days(name: str, found: re.Match[str]) -> str:
    """Return one day or nothing as it is, and what stands for several days as a range."""
    one = found["one"] or ""
    if not found["dash"] and len(one) in {0, len("YYYYMMDD")}:
        if one and int(one[6:]) > int(_last_day(one[:6])[6:]):
            raise UsageError(f"{name}: this month has no such day", argument="filters")
        return one
    start, end = (one, one) if one else (found["start"], found["end"])
    first, last = start and _first_day(start), end and _last_day(end)
    if first and last and first > last:
        raise UsageError(f"{name}: the range ends before it begins", argument="filters")
    return f"{first or ''}-{last or ''}"


def _first_day(text: str) -> str:
    return text + "0101"[len(text) - 4 :] if len(text) < 8 else text


def _last_day(text: str) -> str:
    text += "12" if len(text) == 4 else ""
    if len(text) == 6:
        text += f"{monthrange(max(int(text[:4]), 1), int(text[4:]))[1]:02}"
    return text


def _mistake(name: str, vr: str) -> UsageError:
    return UsageError(f"{name}: {_MISTAKES[vr]}", argument="filters")
