"""Search filters to a query string (PS3.18 section 8.3.4, matching by PS3.4 section C.2.2.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from postdicom_async.dicom.tags import checked_tag, keyword_of, tag_of_keyword, vr_of_tag
from postdicom_async.dicomweb.dialects import FilterForm
from postdicom_async.dicomweb.moments import TEMPORAL, matching_moments
from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from pydicom.valuerep import PersonName

__all__ = ["LISTED", "FilterValue", "Filters", "filter_pairs", "include_pairs", "query_string", "vr_of", "wire_pairs"]

Moment: TypeAlias = date | datetime | time | str | None
FilterValue: TypeAlias = "str | int | date | datetime | time | PersonName | tuple[Moment, Moment] | list[str]"
"""Text (``*`` and ``?`` are wildcards), a date, a pair for a range (either end None), or a list of UIDs.

Dates as text are ``YYYYMMDD`` or ``YYYY-MM-DD``, ranges two of them joined by ``-``; ``YYYY`` and ``YYYYMM`` stand for
all days of a year or a month. Times are ``HHMMSS`` or ``HH:MM:SS`` or the beginning of it.
"""

Filters: TypeAlias = Mapping[str, FilterValue]
"""DICOM keyword or tag (``GGGGEEEE``, ``0xGGGGEEEE``, ``(GGGG,EEEE)``), or a path of them joined with dots into
sequences, to what it must match."""

LISTED: Final = re.compile(r"[,\\]")
"""What stands between the UIDs of a list (PS3.4 section C.2.2.2.2): a comma, and the backslash of DICOM itself."""

_TAGS = re.compile(r"[0-9A-F]{8}(\.[0-9A-F]{8})*")
_SAFE = "*?-,:"
_SAFE_IN_PRACTICE = _SAFE + "^"


def filter_pairs(filters: Filters | None) -> list[tuple[str, str]]:
    """Return tags and values; `wire_pairs` writes the names as a dialect wants them.

    Raises:
        UsageError: an attribute is unknown or a value cannot be matched.
    """
    if filters is not None and not isinstance(filters, Mapping):
        raise UsageError("filters: give a mapping of DICOM keywords or tags to what they must match")
    return [(_attribute(name, "filters"), _value(name, value)) for name, value in (filters or {}).items()]


def include_pairs(fields: Iterable[str] | None) -> list[tuple[str, str]]:
    """Return the ``includefield`` parameters, as tags; ``"all"`` asks for everything the archive has.

    Raises:
        UsageError: an attribute is unknown, or this is nothing to take attributes from.
    """
    if fields is not None and not isinstance(fields, Iterable):
        raise UsageError('fields: give DICOM keywords or tags, or "all"')
    names = [fields] if isinstance(fields, str) else list(fields or ())
    return [("includefield", "all" if name == "all" else _attribute(name, "fields")) for name in names]


def wire_pairs(pairs: Iterable[tuple[str, str]], form: FilterForm) -> list[tuple[str, str]]:
    """Return the pairs with every attribute written in a form (PS3.18 section 8.3.4: ``{attributeID}``).

    What has no keyword, or a part without one in a path into a sequence, stays a tag.
    """
    if form == "tag":
        return list(pairs)
    return [(name, _keywords(value)) if name == "includefield" else (_keywords(name), value) for name, value in pairs]


def _keywords(path: str) -> str:
    """Return the keywords for tags joined with dots, or the text itself where there are none."""
    if not _TAGS.fullmatch(path):
        return path  # "all", and parameters that are no attributes
    tags = [int(part, 16) for part in path.split(".")]
    keywords = [keyword_of(tag) for tag in tags]
    # Repeating groups share one keyword, that of retired elements is empty.
    is_sure = all(keyword and tag_of_keyword(keyword) == tag for keyword, tag in zip(keywords, tags, strict=True))
    return ".".join(keywords) if is_sure else path


def query_string(pairs: Iterable[tuple[str, str]], *, strict: bool = False) -> str:
    """Return the pairs percent-encoded as UTF-8, as little as will do: Orthanc does not decode what it matches.

    ``strict`` encodes the caret of names too, as RFC 3986 has it; some servers answer 400 to a bare one.
    """
    safe = _SAFE if strict else _SAFE_IN_PRACTICE
    return "&".join(f"{name}={quote(value, safe=safe)}" for name, value in pairs)


def _attribute(name: str, argument: str) -> str:
    parts = name.split(".") if isinstance(name, str) else [name]
    return ".".join(f"{checked_tag(part, argument):08X}" for part in parts)


def _value(name: str, value: FilterValue) -> str:
    vr = vr_of(_attribute(name, "filters"))
    if isinstance(value, tuple):
        text = _range(name, vr, value)
    elif isinstance(value, list):
        if not value:  # it would match everything
            raise UsageError(f"filters: the list of {name} is empty")
        text = ",".join(_text(name, item) for item in value)
    else:
        text = _moment(name, vr, value) if isinstance(value, date | time) else _text(name, value)
    return matching_moments(name, vr, text) if vr in TEMPORAL else text


def _range(name: str, vr: str, value: tuple[Moment, Moment]) -> str:
    if len(value) != 2 or value == (None, None):
        raise UsageError(f"filters: the range of {name} needs two ends, of which one may be None")
    if vr and vr not in TEMPORAL:
        raise UsageError(f"filters: {name} is neither a date nor a time; only those are matched by a range")
    return f"{_moment(name, vr, value[0])}-{_moment(name, vr, value[1])}"


def vr_of(path: str) -> str:
    """Return the VR of an attribute, given as a tag or a path of tags; nothing for a private or unknown one."""
    return vr_of_tag(int(path.rpartition(".")[2], 16))


def _moment(name: str, vr: str, value: Moment) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime) and vr in {"DA", "TM"}:
        value = value.date() if vr == "DA" else value.time()
    if isinstance(value, datetime):
        return f"{value.year:04}{value:%m%d%H%M%S}"  # not every strftime pads the year
    if isinstance(value, date):
        if vr == "TM":
            raise UsageError(f"filters: {name} is a time; a date cannot match it")
        return f"{value.year:04}{value:%m%d}"
    if isinstance(value, time):
        if vr in {"DA", "DT"}:  # its digits would be taken for those of a year
            raise UsageError(f"filters: {name} is a date; a time cannot match it")
        return value.strftime("%H%M%S")
    return _text(name, value)


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) or not (isinstance(value, str | int) or _is_person_name(value)):
        raise UsageError(f"filters: the value of {name} must be text, a number, a date, a range or a list of UIDs")
    text = str(value)
    if not all(char.isprintable() for char in text):
        raise UsageError(f"filters: the value of {name} holds a control character")
    return text


def _is_person_name(value: object) -> bool:
    from pydicom.valuerep import PersonName  # loaded already where there is one

    return isinstance(value, PersonName)
