"""Search filters to a query string (PS3.18 section 8.3.4, matching by PS3.4 section C.2.2.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import TypeAlias
from urllib.parse import quote

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.valuerep import PersonName

from postdicom_async.dicom.json_model import tag_of
from postdicom_async.errors import UsageError

__all__ = ["FilterValue", "Filters", "filter_pairs", "include_pairs", "query_string"]

Moment: TypeAlias = date | datetime | time | str | None
FilterValue: TypeAlias = "str | int | date | datetime | time | PersonName | tuple[Moment, Moment] | list[str]"
"""Text (``*`` and ``?`` are wildcards), a date, a pair for a range (either end None), or a list of UIDs.

Dates as text are ``YYYYMMDD`` or ``YYYY-MM-DD``, ranges two of them joined by ``-``.
"""

Filters: TypeAlias = Mapping[str, FilterValue]
"""DICOM keyword or 8-hex tag, or a path of them joined with dots into sequences, to what it must match."""

_ISO_DATE = re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b", re.ASCII)
_PART_OF_ISO_DATE = re.compile(r"\b\d{4}-\d{1,2}\b", re.ASCII)
_IN_DATES = frozenset("0123456789-,*?")
_SAFE = "*?-,:"
_SAFE_IN_PRACTICE = _SAFE + "^"


def filter_pairs(filters: Filters | None) -> list[tuple[str, str]]:
    """Return wire names and values. Names go out as tags: every known server takes those.

    Raises:
        UsageError: an attribute is unknown or a value cannot be matched.
    """
    if filters is not None and not isinstance(filters, Mapping):
        raise UsageError("filters: give a mapping of DICOM keywords or tags to what they must match")
    return [(_attribute(name, "filters"), _value(name, value)) for name, value in (filters or {}).items()]


def include_pairs(fields: Iterable[str] | None) -> list[tuple[str, str]]:
    """Return the ``includefield`` parameters; ``"all"`` asks for everything the archive has.

    Raises:
        UsageError: an attribute is unknown, or this is nothing to take attributes from.
    """
    if fields is not None and not isinstance(fields, Iterable):
        raise UsageError('fields: give DICOM keywords or tags, or "all"')
    names = [fields] if isinstance(fields, str) else list(fields or ())
    return [("includefield", "all" if name == "all" else _attribute(name, "fields")) for name in names]


def query_string(pairs: Iterable[tuple[str, str]], *, strict: bool = False) -> str:
    """Return the pairs percent-encoded as UTF-8, as little as will do: Orthanc does not decode what it matches.

    ``strict`` encodes the caret of names too, as RFC 3986 has it; some servers answer 400 to a bare one.
    """
    safe = _SAFE if strict else _SAFE_IN_PRACTICE
    return "&".join(f"{name}={quote(value, safe=safe)}" for name, value in pairs)


def _attribute(name: str, argument: str) -> str:
    tags = [tag_of(part) for part in name.split(".")] if isinstance(name, str) else [None]
    known = [tag for tag in tags if tag is not None]
    if len(known) != len(tags):
        is_like_one = isinstance(name, str) and name.isascii() and name.replace(".", "").isalnum()
        shown = repr(name) if is_like_one else "a name"  # a value that stands in its place is not shown
        raise UsageError(f"{argument}: {shown} is neither a DICOM keyword nor a tag of 8 hex digits")
    return ".".join(known)


def _value(name: str, value: FilterValue) -> str:
    vr = _vr(name)
    if isinstance(value, tuple):
        if len(value) != 2 or value == (None, None):
            raise UsageError(f"filters: the range of {name} needs two ends, of which one may be None")
        text = f"{_moment(name, vr, value[0])}-{_moment(name, vr, value[1])}"
        return _dates(name, text) if vr == "DA" else text
    if isinstance(value, list):
        if not value:  # it would match everything
            raise UsageError(f"filters: the list of {name} is empty")
        text = ",".join(_text(name, item) for item in value)
        return _dates(name, text) if vr == "DA" else text
    if vr == "DA" and isinstance(value, time):
        raise UsageError(f"filters: {name} is a date; a time cannot match it")
    text = _moment(name, vr, value) if isinstance(value, date | time) else _text(name, value)
    return _dates(name, text) if vr == "DA" else text


def _vr(name: str) -> str:
    """Return the VR of an attribute, nothing for a private or unknown one."""
    tag = int(tag_of(name.rpartition(".")[2]) or "", 16)
    return dictionary_VR(tag) if dictionary_has_tag(tag) else ""


def _dates(name: str, text: str) -> str:
    """Return dates as PS3.5 writes them (section 6.2, DA); what is no date, and would match nothing, is refused.

    No more than that: some archives take parts of dates, days that no month has, and lists.
    """
    plain = _ISO_DATE.sub(r"\1\2\3", text)
    if set(plain) - _IN_DATES or any(one.count("-") > 1 for one in plain.split(",")) or _PART_OF_ISO_DATE.search(plain):
        raise UsageError(f"filters: {name}: a date is YYYYMMDD or YYYY-MM-DD, a range two of them joined by '-'")
    return plain


def _moment(name: str, vr: str, value: Moment) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime) and vr in {"DA", "TM"}:
        value = value.date() if vr == "DA" else value.time()
    if isinstance(value, datetime):
        return f"{value.year:04}{value:%m%d%H%M%S}"  # not every strftime pads the year
    if isinstance(value, date):
        return f"{value.year:04}{value:%m%d}"
    if isinstance(value, time):
        return value.strftime("%H%M%S")
    return _text(name, value)


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | PersonName):
        raise UsageError(f"filters: the value of {name} must be text, a number, a date, a range or a list of UIDs")
    text = str(value)
    if not all(char.isprintable() for char in text):
        raise UsageError(f"filters: the value of {name} holds a control character")
    return text
