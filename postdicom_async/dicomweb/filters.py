"""Search filters: how they are written into a URL or several, and whether a result is what they ask for. Pure.

PS3.18 section 8.3.4 has the form, PS3.4 section C.2.2.2 the matching, PS3.5 section 6.2 how dates and times are
written. A server may ignore what it does not support, and some ignore every filter written in the form they do not
know: then they answer with everything they have. So results are checked against the filters, but only where a mismatch
is certain: UIDs, dates, and a Patient ID without wildcards. An absent attribute proves nothing, and names are matched
in too many ways.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

from postdicom_async.dicom.json_reading import DicomJson, values_of
from postdicom_async.dicom.tags import JSON_TAG, checked_tag, keyword_of, tag_of_keyword, vr_of_tag
from postdicom_async.dicomweb.dialects import FilterForm
from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pydicom.valuerep import PersonName

STUDY_UID, SERIES_UID = JSON_TAG["StudyInstanceUID"], JSON_TAG["SeriesInstanceUID"]
INSTANCE_UID = JSON_TAG["SOPInstanceUID"]

RangeEnd: TypeAlias = date | datetime | time | str | None
FilterValue: TypeAlias = "str | int | date | datetime | time | PersonName | tuple[RangeEnd, RangeEnd] | list[str]"
"""Text (``*`` and ``?`` are wildcards), a date, a pair for a range (either end None), or a list.

Dates as text are ``YYYYMMDD`` or ``YYYY-MM-DD``, ranges two of them joined by ``-``; ``YYYY`` and ``YYYYMM`` stand for
all days of a year or a month. Times are ``HHMMSS`` or ``HH:MM:SS`` or the beginning of one.
"""

Filters: TypeAlias = Mapping[str, FilterValue]
"""DICOM keyword or tag (``GGGGEEEE``, ``0xGGGGEEEE``, ``(GGGG,EEEE)``), or a path of them joined with dots into
sequences, to what it must match."""

LISTED: Final = re.compile(r"[,\\]")
"""The separators of a list of UIDs (PS3.4 section C.2.2.2.2): a comma, and the backslash of DICOM itself."""

_TAGS = re.compile(r"[0-9A-F]{8}(\.[0-9A-F]{8})*")
_SAFE = "*?-,:"
_SAFE_IN_PRACTICE = _SAFE + "^"


def filter_pairs(filters: Filters | None) -> list[tuple[str, str]]:
    """Return pairs of tag and value; `wire_pairs` writes the tags as a dialect wants them.

    Raises:
        UsageError: an attribute is unknown or a value cannot be matched.
    """
    if filters is not None and not isinstance(filters, Mapping):
        raise UsageError("give a mapping of DICOM keywords or tags to what they must match", argument="filters")
    return [(_attribute(name, "filters"), _value(name, value)) for name, value in (filters or {}).items()]


def filter_choices(filters: Filters | None) -> list[Pairs]:
    """Return the searches that together match what filters match, none if that is one: lists of other values than UIDs.

    PS3.4 section C.2.2.2.2 knows lists of UIDs only; an archive looks for another with its commas, and finds nothing.
    """
    given = filters or {}
    lists = {name: value for name, value in given.items() if isinstance(value, list) and not _is_uid(name)}
    if all(len(value) == 1 for value in lists.values()):
        return []
    alike = filter_pairs({name: value for name, value in given.items() if name not in lists})
    values = [[(_attribute(name, "filters"), _value(name, one)) for one in value] for name, value in lists.items()]
    return [(*alike, *chosen) for chosen in product(*values)]


def _is_uid(name: str) -> bool:
    return vr_of(_attribute(name, "filters")) == "UI"


def include_pairs(fields: Iterable[str] | None) -> list[tuple[str, str]]:
    """Return the ``includefield`` parameters, as tags; ``"all"`` asks for everything the archive has.

    Raises:
        UsageError: an attribute is unknown, or ``fields`` is not an iterable of names.
    """
    if fields is not None and not isinstance(fields, Iterable):
        raise UsageError('give DICOM keywords or tags, or "all"', argument="fields")
    names = [fields] if isinstance(fields, str) else list(fields or ())
    return [("includefield", "all" if name == "all" else _attribute(name, "fields")) for name in names]


def wire_pairs(pairs: Iterable[tuple[str, str]], form: FilterForm) -> list[tuple[str, str]]:
    """Return the pairs with every attribute written in a form (PS3.18 section 8.3.4: ``{attributeID}``).

    A tag without a keyword, or a path that contains one, stays a tag.
    """
    if form == "tag":
        return list(pairs)
    return [(name, _keywords(value)) if name == "includefield" else (_keywords(name), value) for name, value in pairs]


def _keywords(path: str) -> str:
    """Return the keywords for tags joined with dots, or the text itself if there are none."""
    if not _TAGS.fullmatch(path):
        return path  # "all", and parameters that are not attributes
    tags = [int(part, 16) for part in path.split(".")]
    keywords = [keyword_of(tag) for tag in tags]
    # Repeating groups share one keyword; retired elements have an empty one.
    is_sure = all(keyword and tag_of_keyword(keyword) == tag for keyword, tag in zip(keywords, tags, strict=True))
    return ".".join(keywords) if is_sure else path


def query_string(pairs: Iterable[tuple[str, str]], *, strict: bool = False) -> str:
    """Return the pairs percent-encoded as UTF-8, but only where needed: Orthanc does not decode what it matches.

    ``strict`` also encodes the caret of names, as RFC 3986 requires; some servers answer 400 to a bare one.
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
        if not value:  # an empty filter would match everything
            raise UsageError(f"the list of {name} is empty", argument="filters")
        text = ",".join(_text(name, item) for item in value)
    else:
        text = _moment(name, vr, value) if isinstance(value, date | time) else _text(name, value)
    return matching_moments(name, vr, text) if vr in TEMPORAL else text


def _range(name: str, vr: str, value: tuple[RangeEnd, RangeEnd]) -> str:
    if len(value) != 2 or value == (None, None):
        raise UsageError(f"the range of {name} needs two ends, of which one may be None", argument="filters")
    if vr and vr not in TEMPORAL:
        raise UsageError(f"{name} is neither a date nor a time; only those are matched by a range", argument="filters")
    return f"{_moment(name, vr, value[0])}-{_moment(name, vr, value[1])}"


def vr_of(path: str) -> str:
    """Return the VR of an attribute, given as a tag or a path of tags; empty for a private or unknown one."""
    return vr_of_tag(int(path.rpartition(".")[2], 16))


def _moment(name: str, vr: str, value: RangeEnd) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime) and vr in {"DA", "TM"}:
        value = value.date() if vr == "DA" else value.time()
    if isinstance(value, datetime):
        return f"{value.year:04}{value:%m%d%H%M%S}"  # not every strftime pads the year
    if isinstance(value, date):
        if vr == "TM":
            raise UsageError(f"{name} is a time; a date cannot match it", argument="filters")
        return f"{value.year:04}{value:%m%d}"
    if isinstance(value, time):
        if vr in {"DA", "DT"}:  # its digits would be read as a year
            raise UsageError(f"{name} is a date; a time cannot match it", argument="filters")
        return value.strftime("%H%M%S")
    return _text(name, value)


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) or not (isinstance(value, str | int) or _is_person_name(value)):
        raise UsageError(
            f"the value of {name} must be text, a number, a date, a range or a list of UIDs", argument="filters"
        )
    text = str(value)
    if not all(char.isprintable() for char in text):
        raise UsageError(f"the value of {name} holds a control character", argument="filters")
    return text


def _is_person_name(value: object) -> bool:
    from pydicom.valuerep import PersonName  # loaded already where there is one

    return isinstance(value, PersonName)


_T = TypeVar("_T")
Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""A query: pairs of a tag, or the name of another parameter, and a value."""


def in_pieces(items: Sequence[_T], fits: Callable[[Sequence[_T]], bool]) -> list[Sequence[_T]]:
    """Return consecutive pieces that fit, in order, as few as halving yields; a single item always passes."""
    if len(items) < 2 or fits(items):
        return [items]
    middle = len(items) // 2
    return in_pieces(items[:middle], fits) + in_pieces(items[middle:], fits)


def queries(pairs: Pairs, fits: Callable[[Pairs], bool]) -> list[Pairs]:
    """Return queries that fit and together match what ``pairs`` match: lists of UIDs are halved, the longest first.

    A query without such a list is returned as it is, however long.
    """
    if not pairs or fits(pairs):
        return [pairs]
    lists = [_listed_uids(name, value) for name, value in pairs]
    longest = max(range(len(lists)), key=lambda n: len(lists[n]))
    if len(lists[longest]) < 2:
        return [pairs]
    uids, name = lists[longest], pairs[longest][0]
    halves = uids[: len(uids) // 2], uids[len(uids) // 2 :]
    parts = [(*pairs[:longest], (name, ",".join(half)), *pairs[longest + 1 :]) for half in halves]
    return [query for part in parts for query in queries(part, fits)]


def _listed_uids(name: str, value: str) -> list[str]:
    """Return the UIDs of a filter that is a list of them (PS3.4 section C.2.2.2.2), each once."""
    is_attribute = all(len(part) == 8 for part in name.split("."))
    if not is_attribute or vr_of(name) != "UI":
        return []
    return [uid for uid in dict.fromkeys(LISTED.split(value)) if uid]


_DAY = re.compile(r"[0-9]{8}")
_DAYS = re.compile(r"(?P<first>[0-9]{8})?-(?P<last>[0-9]{8})?|(?P<one>[0-9]{8})")

_Test: TypeAlias = "Callable[[str], bool | None]"


class Expectation(NamedTuple):
    """A condition that every result must meet.

    Attributes:
        tag: the attribute.
        holds: whether a value of it is what was asked for; None if that cannot be told.
    """

    tag: str
    holds: _Test


def expectations(pairs: Iterable[tuple[str, str]], key: str) -> list[Expectation]:
    """Return the conditions that the results of a search must meet.

    Args:
        pairs: tags and values asked for, including those in the path.
        key: the tag of the UID that every result has, which defines the level. A filter on a lower level matches if any
            of many series or instances does, so nothing follows for the result.
    """
    found: list[Expectation] = []
    for tag, value in pairs:
        make = _SURE.get(tag)
        if make is None or tag in _BELOW.get(key, ()) or not value or "*" in value or "?" in value:
            continue
        if (holds := make(value)) is not None:
            found.append(Expectation(tag, holds))
    return found


def contradicted(expected: Iterable[Expectation], item: DicomJson) -> list[str]:
    """Return the tags whose value in a result is not what was asked for."""
    return [one.tag for one in expected if _contradicts(one, item)]


def _contradicts(expected: Expectation, item: DicomJson) -> bool:
    """Whether there are values and none of them is what was asked for."""
    texts = [str(value).strip(" \0") for value in values_of(item, expected.tag) if isinstance(value, str | int)]
    told = [expected.holds(text) for text in texts if text]
    return bool(told) and all(one is False for one in told)


# --- certain mismatches -----------------------------------------------------------------------------------------------


def _one_of(value: str) -> _Test:
    wanted = {one.strip(" \0") for one in LISTED.split(value)}
    return lambda text: text in wanted


def _patient_ids(value: str) -> _Test:
    """Compare case-insensitively; some archives accept lists, and some an ID followed by carets and its issuer."""
    wanted = {one.strip(" \0").casefold() for one in (value, value.partition("^")[0], *LISTED.split(value))}
    return lambda text: text.casefold() in wanted or text.partition("^")[0].casefold() in wanted


def _dates(value: str) -> _Test | None:
    ranges = [_DAYS.fullmatch(one) for one in value.split(",")]
    bounds = [
        (found["one"] or found["first"] or "", found["one"] or found["last"] or "9" * 8)
        for found in ranges
        if found is not None
    ]
    if len(bounds) != len(ranges):
        return None

    def holds(text: str) -> bool | None:
        day = text.replace(".", "") if text.count(".") == 2 else text  # ACR-NEMA's dots
        if not _DAY.fullmatch(day):
            return None
        return any(first <= day <= last for first, last in bounds)

    return holds


_SURE: Final = {
    STUDY_UID: _one_of,
    SERIES_UID: _one_of,
    INSTANCE_UID: _one_of,
    JSON_TAG["PatientID"]: _patient_ids,
    JSON_TAG["StudyDate"]: _dates,
    JSON_TAG["PatientBirthDate"]: _dates,
}
_BELOW: Final = {STUDY_UID: (SERIES_UID, INSTANCE_UID), SERIES_UID: (INSTANCE_UID,)}


# --- in words ---------------------------------------------------------------------------------------------------------


class Contradictions:
    """Counts, over all results of a search, those that are not what was asked for."""

    def __init__(self, expected: Iterable[Expectation], form: str) -> None:
        self._expected = list(expected)
        self._form = form
        self._results = 0
        self._wrong = 0
        self._tags: dict[str, None] = {}

    def see(self, item: DicomJson) -> bool:
        """Note a result; return whether it contradicts what was asked for."""
        self._results += 1
        tags = contradicted(self._expected, item)
        self._wrong += bool(tags)
        self._tags.update(dict.fromkeys(tags))
        return bool(tags)

    @property
    def text(self) -> str:
        """One line for ``warnings``, without any value."""
        names = " and ".join(keyword_of(int(tag, 16)) for tag in self._tags)
        return f"{self._wrong} of {self._results} results are not what was asked for by {names}{self._reason}"

    @property
    def _reason(self) -> str:
        return f": the archive seems to ignore filters written as {self._form}s; the doctor tells which form works"

    def tell(self, warnings: list[str]) -> None:
        """Add the line to ``warnings``, if there is something to say, in place of an earlier one."""
        if self._wrong:
            warnings[:] = [*(one for one in warnings if not one.endswith(self._reason)), self.text]


_ISO_DATE = re.compile(r"(?<![0-9])([0-9]{4})-([0-9]{2})-([0-9]{2})(?![0-9])")
_CLOCK = re.compile(r"(?<=[0-9]):(?=[0-9])|(?<=[0-9])T(?=[0-9])")
_PART_OF_ISO_DATE = re.compile(r"\b[0-9]{4}-[0-9]{1,2}\b")

# Nonexistent days are accepted as ends of ranges: 20240231 is common, and archives compare it as text.
_MONTH_DIGITS, _DAY_DIGITS = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
_TIME = r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?"
_ZONE = "(?:[+-](?:0[0-9]|1[0-4])[0-5][0-9])?"
_UNITS: Final = {
    "DA": f"[0-9]{{4}}(?:{_MONTH_DIGITS}{_DAY_DIGITS}?)?",
    "TM": _TIME,
    "DT": f"[0-9]{{4}}(?:{_MONTH_DIGITS}(?:{_DAY_DIGITS}(?:{_TIME})?)?)?{_ZONE}",
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
"""The value representations that can be matched by a range."""


def matching_moments(name: str, vr: str, text: str) -> str:
    """Return dates or times as PS3.5 writes them; anything else would match nothing, and is refused.

    Years and months become ranges of days, hours and minutes ranges of seconds. Wildcards and lists are passed on, as
    some archives accept them.

    Raises:
        UsageError: it is not a date, time, range or list of them.
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
    """Return an hour or a minute as the range of its seconds, which archives compare with their values."""
    if len(text) >= len("HHMMSS"):
        return text
    return f"{text.ljust(6, '0')}-{text + '595959'[len(text) :]}.999999"


def _whole_days(name: str, found: re.Match[str]) -> str:
    """Return a single day or an empty value as it is, and anything that covers several days as a range."""
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
