"""Which studies an archive has, according to itself (QIDO-RS), for callers that rely on the list being complete.

Archives truncate their lists: at the page size, at a few thousand results however they are paged, or at some number
without any paging. So a list is taken for complete only if the archive, asked for what follows it, has nothing, and if
its length is not a multiple of a thousand. Otherwise it is requested anew by ranges of study dates, halved until each
list is shorter than one that was truncated. Studies without a date are in no range: only those in the first list are
known, and `Studies.may_lack_undated` says so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from http import HTTPStatus
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from postdicom_async.dicom.header import is_uid
from postdicom_async.dicom.json_reading import first_value, values_of
from postdicom_async.dicom.tags import JSON_TAG
from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.filters import LISTED, STUDY_UID
from postdicom_async.dicomweb.search import MayBeMore, SearchQuery, as_count, find, first_result, query_to_act_on
from postdicom_async.disk.scratch import Marks
from postdicom_async.errors import ProtocolError, ServerError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.dicom.json_reading import DicomJson
    from postdicom_async.dicomweb.filters import Pairs
    from postdicom_async.dicomweb.retrieve import Retrieval

_OPERATION: Final = "list studies"
_DATE, _COUNT = JSON_TAG["StudyDate"], JSON_TAG["NumberOfStudyRelatedInstances"]
_PATIENT_ID = JSON_TAG["PatientID"]
_MODALITIES = JSON_TAG["ModalitiesInStudy"]
_FIELDS: Final = (("includefield", _DATE), ("includefield", _COUNT))
_DAY: Final = 8
_EARLIEST, _LATEST = "19000101", "20991231"  # used if no date is known
_ROUND: Final = 1000  # archives that page still truncate at a multiple of this
_USUAL_CUTS: Final = frozenset({12, 25, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096})


class FoundStudy(NamedTuple):
    """A study: its UID, its date as YYYYMMDD or "", and its number of instances, None if unknown.

    ``patients`` is 2 or more where the archive is seen to list it under more than one Patient ID.
    """

    uid: str
    date: str
    instances: int | None
    patients: int = 1


class _Range(NamedTuple):
    """Days as YYYYMMDD, both inclusive; "" is no bound."""

    first: str = ""
    last: str = ""

    def holds(self, date: str) -> bool:
        """Whether a date is in the range; an empty date is in every range."""
        return not date or ((not self.first or self.first <= date) and (not self.last or date <= self.last))

    def within(self, other: _Range) -> _Range:
        """Return the intersection."""
        return _Range(max(self.first, other.first), min(filter(None, (self.last, other.last)), default=""))

    @property
    def is_empty(self) -> bool:
        return bool(self.first and self.last and self.first > self.last)

    @property
    def pairs(self) -> Pairs:
        """The filter that asks for it."""
        if not self.first and not self.last:
            return ()
        return ((_DATE, self.first if self.first == self.last else f"{self.first}-{self.last}"),)


@dataclass(slots=True)
class _List:
    """The result of one search.

    Attributes:
        size: number of different studies.
        results: number of results, including duplicates.
        days: number of studies by date.
        is_cut: there may be more.
        is_paged: the archive heeds ``offset``.
    """

    size: int = 0
    results: int = 0
    days: Counter[str] = field(default_factory=Counter)
    is_cut: bool = False
    is_paged: bool = True


class Studies:
    """The studies that match some filters. Use it once.

    Args:
        retrieval: of the archive.
        filters: tags and values.
        since, until: dates as YYYYMMDD; dated studies outside are left out.

    Attributes:
        may_lack_undated: the archive truncates its list, so studies without a date may be missing. Known at the end.
    """

    def __init__(self, retrieval: Retrieval, filters: Pairs, since: str = "", until: str = "") -> None:
        self.may_lack_undated: bool = False
        self._retrieval = retrieval
        self._dates = [value for name, value in filters if name == _DATE]
        self._others = tuple(pair for pair in filters if pair[0] != _DATE)
        asked = next((value for name, value in filters if name == _MODALITIES), "")
        self._modalities = set() if set("*?") & set(asked) else {one.strip() for one in LISTED.split(asked)} - {""}
        self._wanted = _Range(since, until)
        self._known = Marks()
        self._cut_at = 0  # the longest list that may have been cut

    async def each(self) -> AsyncGenerator[list[FoundStudy], None]:
        """Yield every study, some at a time, each only once; again, without a count, where it has a second Patient ID.

        An archive that files by Patient ID (Orthanc) lists it once for each, and counts each by itself.

        Raises:
            ProtocolError: the list contradicts the filters, or is truncated whatever the range.
            PostdicomError: they cannot be listed.
        """
        with closing(self._known):
            whole = _List()
            async with aclosing(self._list(tuple((_DATE, one) for one in self._dates), whole)) as slices:
                async for some in slices:
                    yield some
            if not whole.is_cut:
                return
            undated = whole.days[""]
            dated = 0
            ranges = _halves(self._filtered().within(self._wanted), whole.days)
            while ranges:
                days = ranges.pop()
                found = _List()
                async with aclosing(self._list(days.pairs, found)) as slices:
                    async for some in slices:
                        yield some
                if not found.is_cut:
                    dated += found.size
                elif days.first == days.last and days.first:
                    dated += self._of_one_day(found)
                else:
                    ranges += _halves(days, found.days)
            self.may_lack_undated = not self._dates and dated + undated != whole.size

    def _filtered(self) -> _Range:
        """Return the range of dates that the filters ask for."""
        if not self._dates:
            return _Range()
        first, dash, last = self._dates[0].partition("-")
        ends = [one for one in (first, last) if one]
        if len(self._dates) > 1 or not all(len(one) == _DAY and one.isdigit() for one in ends):
            raise _cut("for the StudyDate asked for")
        return _Range(first, last if dash else first)

    def _of_one_day(self, found: _List) -> int:
        """Return the size of a list for one day; without paging it is complete unless it looks truncated."""
        if found.is_paged or not found.size or found.size % 10 == 0 or found.size in _USUAL_CUTS:
            raise _cut("of one day")
        return found.size

    async def _list(self, pairs: Pairs, found: _List) -> AsyncGenerator[list[FoundStudy], None]:
        """Yield new studies; ``found`` is told of all."""
        more = (("includefield", _MODALITIES),) if self._modalities else ()
        search = _search(self._retrieval, (*self._others, *pairs, *_FIELDS, *more))
        with closing(Marks()) as here:
            grows = True
            while grows:  # studies stored meanwhile follow at the end
                async with aclosing(self._part(replace(search, offset=found.results), here, found)) as slices:
                    async for some in slices:
                        yield some
                grows = not found.is_cut and found.size > 0 and await self._grows(search, here, found)
        if found.is_cut:
            self._cut_at = max(self._cut_at, found.size)

    async def _part(self, search: SearchQuery, here: Marks, found: _List) -> AsyncGenerator[list[FoundStudy], None]:
        try:
            async with aclosing(find(self._retrieval.session, search, None, [])) as pages:
                async for page in pages:
                    self._check_modalities(page)
                    found.results += len(page)
                    some, again = _told_apart(page, here)
                    page.clear()
                    found.days.update(one.date for one in some)
                    found.size += len(some)
                    new = [one for one in some if self._wanted.holds(one.date) and self._known.add(one.uid.encode())]
                    yield new + [one for one in again if self._wanted.holds(one.date)]
        except MayBeMore:
            found.is_cut, found.is_paged = True, False
        except ServerError as error:
            if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise
            found.is_cut = True

    def _check_modalities(self, page: list[DicomJson]) -> None:
        """Refuse studies of other modalities than requested: an archive may ignore filters that it does not know.

        UIDs, dates and Patient IDs are checked for every search whose results are acted on.
        """
        for item in page if self._modalities else ():
            has = {str(value).strip() for value in values_of(item, _MODALITIES)} - {""}
            if has and not has & self._modalities:
                words = "the archive lists studies of other modalities than were asked for by ModalitiesInStudy"
                raise ProtocolError(words, operation=_OPERATION)

    async def _grows(self, search: SearchQuery, here: Marks, found: _List) -> bool:
        """Find out whether a list is complete; return whether something new follows it."""
        behind = await self._behind(search, found.results)
        if behind and here.number_of(behind.encode()) is None:
            return True
        found.is_paged = behind == ""
        found.is_cut = found.size % _ROUND == 0 if found.is_paged else found.size >= self._cut_at
        return False

    async def _behind(self, search: SearchQuery, results: int) -> str | None:
        """Return a study that follows after ``results`` results, "" if there is none; None if that cannot be asked."""
        if search.page is None:
            return None
        try:
            item = await first_result(self._retrieval.session, replace(search, offset=results, limit=1, page=1))
        except ServerError as error:
            if error.temporary:
                raise
            return None
        return "" if item is None else _found(item).uid


def _told_apart(page: list[DicomJson], here: Marks) -> tuple[list[FoundStudy], list[FoundStudy]]:
    """Return the studies that are new in a list, and those that it names again under another Patient ID."""
    new: list[FoundStudy] = []
    again: list[FoundStudy] = []
    for item in page:
        one, patient = _found(item), crc32(_text(item, _PATIENT_ID).encode("utf-8", "surrogatepass"))
        mark = one.uid.encode()
        if here.add(mark, patient):
            new.append(one)
        elif here.number_of(mark) != patient:
            again.append(one._replace(instances=None, patients=2))
    return new, again


def _halves(days: _Range, seen: Counter[str]) -> list[_Range]:
    """Split a range in two, with about the same number of studies in each, as far as known. Pure."""
    if days.is_empty:
        return []
    dates = sorted(one for one in seen if one and days.holds(one))
    if dates:
        before = list(accumulate(seen[one] for one in dates))
        middle = dates[bisect_left(before, (before[-1] + 1) // 2)]
        if middle == dates[-1] and middle != days.first:
            middle = _day_after(middle, -1)
    else:
        ends = [date.fromisoformat(one) for one in (days.first or _EARLIEST, days.last or _LATEST)]
        middle = f"{date.fromordinal((ends[0].toordinal() + ends[1].toordinal()) // 2):%Y%m%d}"
    halves = [_Range(days.first, middle), _Range(_day_after(middle, 1), days.last)]
    return [one for one in halves if not one.is_empty]


def _day_after(day: str, number: int) -> str:
    with suppress(ValueError):  # the archive may say 20240231
        return f"{date.fromisoformat(day) + timedelta(number):%Y%m%d}"
    return f"{int(day) + number:08}"


def _cut(what: str) -> ProtocolError:
    words = f"the archive does not list all studies {what}: name fewer by filters, such as ModalitiesInStudy"
    return ProtocolError(words, operation=_OPERATION)


async def ask_study(retrieval: Retrieval, study: str) -> FoundStudy | None:
    """Return one study, None if a search does not find it.

    Raises:
        PostdicomError: the archive cannot be asked, or answers with another study.
    """
    pairs = ((STUDY_UID, study), *_FIELDS, ("includefield", _PATIENT_ID))
    # An archive that files by Patient ID has a study twice. Without pages: these would be asked for until one is empty.
    search = replace(_search(retrieval, pairs, limit=2), page=None)
    async with aclosing(find(retrieval.session, search, None, [])) as pages:
        items = [item async for page in pages for item in page]
    if not items:
        return None
    found = _found(items[0])
    if found.uid != study:
        raise ProtocolError("the archive answers with another study", operation=_OPERATION)
    patients = {_text(item, _PATIENT_ID) for item in items if _found(item).uid == study}
    # each of two entries counts only its own instances: then no count says that all is there
    return found._replace(patients=len(patients), instances=found.instances if len(patients) == 1 else None)


async def probe(retrieval: Retrieval) -> None:
    """Search for any one study.

    Raises:
        PostdicomError: what is wrong with the archive now.
    """
    await first_result(retrieval.session, _search(retrieval, (), limit=1))


def _search(retrieval: Retrieval, pairs: Pairs, *, limit: int | None = None) -> SearchQuery:
    path = retrieval.dialect.path(Route.SEARCH_STUDIES)
    private = tuple(value for name, value in pairs if name != "includefield")
    return replace(query_to_act_on(retrieval, _OPERATION, path, pairs, key=STUDY_UID, limit=limit), private=private)


def _text(item: DicomJson, tag: str) -> str:
    return str(first_value(item, tag) or "").strip("\0 ")


def _found(item: DicomJson) -> FoundStudy:
    uid = _text(item, STUDY_UID)
    if not is_uid(uid):
        raise ProtocolError("the archive lists a study without a valid UID", operation=_OPERATION)
    date = _text(item, _DATE).replace(".", "")
    is_date = len(date) == 8 and date.isascii() and date.isdigit()
    return FoundStudy(uid, date if is_date else "", as_count(first_value(item, _COUNT)))
