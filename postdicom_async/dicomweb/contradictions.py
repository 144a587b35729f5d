"""Whether the results of a search are what was asked for, as far as that can be told for sure. Pure.

PS3.18 lets a server ignore what it does not support, and some ignore every filter written in the form they do not know:
then they answer with everything they have. Only what leaves no room is held against the answer: UIDs, dates, and a
Patient ID without wildcards; what a result does not have proves nothing, and names are matched in too many ways.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from postdicom_async.dicom.json_model import DicomJson, values_of
from postdicom_async.dicom.tags import keyword_of
from postdicom_async.dicomweb.filters import LISTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Contradictions", "Expectation", "contradicted", "expectations"]

_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_DAY = re.compile(r"[0-9]{8}")
_DAYS = re.compile(r"(?P<first>[0-9]{8})?-(?P<last>[0-9]{8})?|(?P<one>[0-9]{8})")

_Test: TypeAlias = "Callable[[str], bool | None]"


class Expectation(NamedTuple):
    """What every result must be.

    Attributes:
        tag: the attribute.
        holds: whether a value of it is what was asked for; None where that cannot be told.
    """

    tag: str
    holds: _Test


def expectations(pairs: Iterable[tuple[str, str]], key: str) -> list[Expectation]:
    """Return what can be expected of the results of a search.

    Args:
        pairs: tags and values asked for, those that the path names included.
        key: the tag of the UID that every result has, which tells the level. A filter on a level below matches by any
            of many series or instances, so that nothing follows for the result.
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
    """Return the tags of which a result has another value than was asked for."""
    return [one.tag for one in expected if _contradicts(one, item)]


def _contradicts(expected: Expectation, item: DicomJson) -> bool:
    """Whether there are values and none of them will do."""
    texts = [str(value).strip(" \0") for value in values_of(item, expected.tag) if isinstance(value, str | int)]
    told = [expected.holds(text) for text in texts if text]
    return bool(told) and all(one is False for one in told)


# --- what can be told for sure ----------------------------------------------------------------------------------------


def _uids(value: str) -> _Test:
    wanted = {one.strip(" \0") for one in LISTED.split(value)}
    return lambda text: text in wanted


def _patient_ids(value: str) -> _Test:
    """Compare without case; some archives take lists, and some an ID with its issuer behind carets."""
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
    _STUDY: _uids,
    _SERIES: _uids,
    _INSTANCE: _uids,
    "00100020": _patient_ids,  # Patient ID
    "00080020": _dates,  # Study Date
    "00100030": _dates,  # Patient's Birth Date
}
_BELOW: Final = {_STUDY: (_SERIES, _INSTANCE), _SERIES: (_INSTANCE,)}


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
        """Take note of a result; return whether it contradicts what was asked for."""
        self._results += 1
        tags = contradicted(self._expected, item)
        self._wrong += bool(tags)
        self._tags.update(dict.fromkeys(tags))
        return bool(tags)

    @property
    def text(self) -> str:
        """One line without any value."""
        names = " and ".join(keyword_of(int(tag, 16)) for tag in self._tags)
        return f"{self._wrong} of {self._results} results are not what was asked for by {names}{self._reason}"

    @property
    def _reason(self) -> str:
        return f": the archive seems to ignore filters written as {self._form}s; the doctor tells which form works"

    def tell(self, warnings: list[str]) -> None:
        """Put the line, if there is something to say, in the place of what an earlier one said."""
        if self._wrong:
            warnings[:] = [*(one for one in warnings if not one.endswith(self._reason)), self.text]
