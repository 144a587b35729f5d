"""Pure: attribute matching of a search (PS3.4 section C.2.2.2).

A key is compared with one element of the DICOM JSON model. An empty key, or ``*`` alone, matches everything; any
other key matches nothing in an element without a value.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

LONGEST_KEY = 1024
"""Characters of a key that is compared: sixteen times the longest value of most attributes (PS3.5 section 6.2)."""

_NO_WILDCARDS = frozenset({"DA", "TM", "DT", "UI", "SL", "SS", "UL", "US", "SV", "UV", "FL", "FD", "AT"})
_NUMBERS = frozenset({"IS", "DS", "SL", "SS", "UL", "US", "SV", "UV", "FL", "FD"})
_WORDS = re.compile(r"[\s^=,]+")
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_ACR_DATE = re.compile(r"\d{4}\.\d{2}\.\d{2}")
_TIME = re.compile(r"(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?")
_DATE_TIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2})?(\d{2})?(\d{2})?(?:\.(\d{1,6}))?([+-]\d{4})?")

Span = tuple[datetime, datetime]
"""The first and the last microsecond a date or time of limited precision may mean."""

_MICROSECOND = timedelta(microseconds=1)


def is_universal(key: str) -> bool:
    """Return whether a key matches every entity."""
    return key in {"", "*"}


def matches(key: str, vr: str, values: list[Any], *, fuzzy: bool = False) -> bool:
    """Return whether any value of an element matches a key.

    Args:
        key: the value given in the query.
        vr: the value representation.
        values: the ``Value`` of the element in the DICOM JSON model.
        fuzzy: compare person names by the beginnings of their words.
    """
    if is_universal(key):
        return True
    present = [value for value in values if value is not None and value != ""]
    match = _matcher(key, vr, fuzzy=fuzzy)
    return any(match(value) for value in present)


def _matcher(key: str, vr: str, *, fuzzy: bool) -> Callable[[Any], bool]:
    if vr == "UI":
        wanted = set(uid_list(key))
        return lambda value: value in wanted
    if vr in {"DA", "TM", "DT"}:
        return lambda value: _in_range(key, vr, str(value))
    if vr == "PN":
        compare = fuzzy_name_matches if fuzzy else _name_matches
        return lambda value: compare(key, value)
    if vr in _NUMBERS and not _has_wildcard(key):
        return lambda value: _same_number(key, value)
    wildcards = vr not in _NO_WILDCARDS
    return lambda value: any(text_matches(part, str(value), wildcards=wildcards) for part in key.split("\\"))


def uid_list(key: str) -> list[str]:
    """Split a list of UIDs at commas or backslashes."""
    return [uid.strip() for uid in re.split(r"[,\\]", key) if uid.strip()]


def text_matches(pattern: str, text: str, *, wildcards: bool = True, ignore_case: bool = False) -> bool:
    """Return whether a text fits a pattern: ``*`` is any run, ``?`` any character; trailing blanks do not count."""
    pattern, text = pattern.rstrip(" "), text.rstrip(" ")
    if ignore_case:
        pattern, text = pattern.casefold(), text.casefold()
    if not wildcards or not _has_wildcard(pattern):
        return pattern == text
    return _wildcard_match(pattern, text)


def _has_wildcard(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _wildcard_match(pattern: str, text: str) -> bool:
    """Find the literals between the stars one after the other: the first at the start, the last at the end.

    Each step is one ``str`` search without backtracking, over a key of bounded length (`LONGEST_KEY`).
    """
    first, *between = pattern.split("*")
    if not between:
        return bool(_piece(first).fullmatch(text))
    start = _piece(first).match(text)
    end = len(text) - len(between[-1])
    if not start or end < start.end() or not _piece(between[-1]).match(text, end):
        return False
    at = start.end()
    for piece in filter(None, between[:-1]):
        found = _piece(piece).search(text, at, end)
        if not found:
            return False
        at = found.end()
    return True


@lru_cache(1024)
def _piece(piece: str) -> re.Pattern[str]:
    return re.compile(re.escape(piece).replace(r"\?", "."), re.DOTALL)


def _same_number(key: str, value: object) -> bool:
    try:
        return any(float(part) == float(str(value)) for part in key.split("\\"))
    except ValueError:
        return key.strip() == str(value).strip()


def _name_groups(value: Mapping[str, str] | str) -> list[str]:
    """Return the component groups of a person name, carets at their ends removed."""
    groups = value.split("=") if isinstance(value, str) else list(value.values())
    return [group.strip().rstrip("^ ") for group in groups]


def _name_matches(key: str, value: Mapping[str, str] | str) -> bool:
    """Compare with the whole name and with each of its component groups, without regard to case."""
    groups = _name_groups(value)
    names = ["=".join(groups), *groups]
    patterns = [part.strip().rstrip("^ ") for part in key.split("\\")]
    return any(text_matches(pattern, name, ignore_case=True) for pattern in patterns for name in names if name)


def fuzzy_name_matches(key: str, value: Mapping[str, str] | str) -> bool:
    """Return whether every word of the key begins a word of the name, in any order and case."""
    words = [word for word in _WORDS.split(key.replace("*", "").replace("?", "").casefold()) if word]
    found = [word for group in _name_groups(value) for word in _WORDS.split(group.casefold()) if word]
    return all(any(name.startswith(word) for name in found) for word in words)


def _in_range(key: str, vr: str, value: str) -> bool:
    """Compare a date or time with one value or a range; either end of a range may be open, and it is inclusive."""
    actual = time_span(vr, value)
    bounds = _range(vr, key)
    if actual is None or bounds is None:
        return key.strip() == value.strip()
    first, last = bounds
    return first <= actual[0] <= last


@lru_cache(1024)
def _range(vr: str, key: str) -> Span | None:
    single = time_span(vr, key)
    if single:
        return single
    for at in (index for index, char in enumerate(key) if char == "-"):
        start, end = key[:at].strip(), key[at + 1 :].strip()
        first = time_span(vr, start) if start else (datetime.min.replace(tzinfo=UTC),) * 2
        last = time_span(vr, _within_month(vr, end)) if end else (datetime.max.replace(tzinfo=UTC),) * 2
        if first and last and (start or end):
            return first[0], last[1]
    return None


def _within_month(vr: str, end: str) -> str:
    """Return the end of a range with a day past the end of its month moved to it: clients often send 20240231."""
    if vr not in {"DA", "DT"} or not (end[:8].isascii() and end[:8].isdigit() and len(end) >= 8):
        return end
    year, month, day = int(end[:4]), int(end[4:6]), int(end[6:8])
    if not (year and 1 <= month <= 12 and 29 <= day <= 31):
        return end
    return f"{end[:6]}{min(day, monthrange(year, month)[1]):02}{end[8:]}"


def time_span(vr: str, text: str) -> Span | None:
    """Return what a DA, TM or DT value may mean, None when it is none; times fall on one fixed day, and in UTC."""
    text = text.strip()
    try:
        if not text.isascii():
            return None
        if vr == "DA":
            found = _DATE.fullmatch(text.replace(".", "") if _ACR_DATE.fullmatch(text) else text)
            return _span(*found.groups()) if found else None
        if vr == "TM":
            found = _TIME.fullmatch(text.replace(":", ""))  # ACR-NEMA's colons
            return _span("2000", "1", "1", *found.groups()) if found else None
        found = _DATE_TIME.fullmatch(text)
        zone = _zone(found[8]) if found else None
        if not found or zone is None or (found[7] and not found[6]):
            return None
        return _span(*found.groups()[:7], zone=zone)
    except (ValueError, OverflowError):
        return None


def _span(
    year: str, month: str | None, day: str | None, hour: str | None = None, minute: str | None = None,
    second: str | None = None, fraction: str | None = None, *, zone: timezone = UTC,
) -> Span:  # fmt: skip
    """Return the first and the last microsecond of the smallest unit that is given."""
    microsecond = int((fraction or "").ljust(6, "0"))
    leap = min(int(second or 0), 59)  # a leap second counts as the one before it
    start = datetime(
        int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), leap, microsecond, tzinfo=zone
    )
    for given, unit in (
        (fraction, timedelta(microseconds=10 ** (6 - len(fraction or "")))),
        (second, timedelta(seconds=1)),
        (minute, timedelta(minutes=1)),
        (hour, timedelta(hours=1)),
        (day, timedelta(days=1)),
    ):
        if given:
            return start, start + unit - _MICROSECOND
    following = (start + timedelta(days=31)).replace(day=1) if month else start.replace(year=start.year + 1)
    return start, following - _MICROSECOND


def _zone(offset: str | None) -> timezone | None:
    """Return a time zone; None for an offset outside -1200 to +1400, which tells a range from a zone (PS3.5 6.2)."""
    if not offset:
        return UTC
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    if int(offset[3:]) > 59 or minutes > (720 if offset[0] == "-" else 840):
        return None
    return timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes))
