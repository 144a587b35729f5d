"""QIDO-RS (PS3.18 section 10.6): a search as its caller means it, as one stream of pages.

`find` is the only way to search: it makes as many searches as the URL's length requires, pages through each whatever
the server does about paging, and checks the results against the filters. How many instances an archive says a study has
is a search, too; which ones is in `listing`.
"""

from __future__ import annotations

import sys
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.to_thread

from postdicom_async.dicom.header import is_uid
from postdicom_async.dicom.json_reading import first_value
from postdicom_async.dicom.tags import JSON_TAG
from postdicom_async.dicomweb.dialects import ASKING_FOR_JSON, Route
from postdicom_async.dicomweb.filters import (
    SERIES_UID,
    STUDY_UID,
    Contradictions,
    Pairs,
    expectations,
    queries,
    query_string,
    wire_pairs,
)
from postdicom_async.dicomweb.json_answer import JsonAnswer, mark_of
from postdicom_async.disk.scratch import Marks
from postdicom_async.errors import AuthenticationFailed, PostdicomError, ProtocolError, ServerError, UsageError
from postdicom_async.http.answer import start
from postdicom_async.http.exchange import Call
from postdicom_async.http.redaction import safe_reason
from postdicom_async.http.retry import Repeat
from postdicom_async.paging import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Generator, Mapping

    from pydicom.dataset import Dataset

    from postdicom_async.dicom.json_reading import DicomJson
    from postdicom_async.dicomweb.dialects import Dialect
    from postdicom_async.dicomweb.retrieve import Retrieval, Target
    from postdicom_async.http.session import Session

_DATA_SETS = "postdicom_async.dicom.data_sets"


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search, as data.

    Attributes:
        operation: for error messages.
        path: the route, including its own query.
        pairs: filters and included fields, by tag.
        dialect: how they are written.
        key: the tag of the UID that every result has.
        limit: the most results wanted, None for all.
        offset: results to skip.
        page: results requested at a time; None for no paging.
        private: filter values, kept out of error texts.
        below: the UIDs in the path, by tag: results must belong to them.
        acted_on: something is done with the results, so that results that contradict the filters are an error.
        choices: what is asked for instead of ``pairs``, whose lists no archive matches; results are joined.
    """

    operation: str
    path: str
    pairs: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    key: str = STUDY_UID
    limit: int | None = None
    offset: int = 0
    page: int | None = 1000
    private: tuple[str, ...] = field(default=(), repr=False)
    dialect: Dialect = field(kw_only=True)
    below: tuple[tuple[str, str], ...] = ()
    acted_on: bool = False
    choices: tuple[Pairs, ...] = field(default=(), repr=False)


def query_to_act_on(
    retrieval: Retrieval,
    operation: str,
    path: str,
    pairs: Pairs = (),
    *,
    key: str,
    below: Pairs = (),
    limit: int | None = None,
    page: int | None = None,
) -> SearchQuery:
    """Return a search whose results will be acted on, in pages of ``page`` results unless there is a ``limit``."""
    return SearchQuery(
        operation,
        path,
        pairs,
        key=key,
        limit=limit,
        page=(limit or page or retrieval.session.settings.limits.page_size) if retrieval.dialect.pages else None,
        dialect=retrieval.dialect,
        below=below,
        acted_on=True,
    )


def to_dataset(item: DicomJson, warnings: list[str]) -> Dataset | Generator[None, None, Dataset]:
    """Convert a result for `Results`; a large one in steps."""
    from postdicom_async.dicom.data_sets import dataset_of_result

    return dataset_of_result(item, warnings.append)


def load_data_sets() -> Awaitable[object] | None:
    """Start to import pydicom in a thread, unless it is there: that takes about as long as the first answer.

    The import begins when the caller first waits, so that the request is already in flight.
    """
    if hasattr(sys.modules.get(_DATA_SETS), "dataset_of_result"):  # and not while another search is still importing it
        return None
    return start(_load())


async def _load() -> None:
    # Not in asyncio's default executor: all its threads may be busy with work that waits for this very search.
    await anyio.to_thread.run_sync(import_module, _DATA_SETS, limiter=anyio.CapacityLimiter(1))


class MayBeMore(ProtocolError):
    """A list that ended only because the archive repeated a page of exactly the size requested."""


class _Form(NamedTuple):
    """How a query is written: whether carets are encoded, whether it has paging parameters."""

    strict: bool
    paged: bool


class _Pages:
    """Pages through a search."""

    def __init__(self, session: Session, search: SearchQuery) -> None:
        check_page(search.limit, search.offset)
        self._session = session.one_call()
        self._search = search
        paged = search.page is not None
        self._form = _Form(strict=False, paged=paged)
        self._forms: list[_Form] = []  # to try if the first is refused, best first
        if any("^" in value for _, value in search.pairs):
            self._forms.append(_Form(strict=True, paged=paged))
        if paged and search.offset == 0:  # no particular page is needed
            self._forms.append(_Form(strict=True, paged=False))

    async def pages(self, at_most: int | None, warnings: list[str]) -> AsyncGenerator[list[DicomJson], None]:
        """Yield pages, or parts of pages, until the server has no more or repeats itself.

        A short page is not taken for the last one: servers cap pages below the size requested. So the end is an empty
        page, or one without anything new, which also stops at a server that ignores ``offset``. One that repeats the
        same results in exactly the size requested heeds ``limit`` alone: then there may be more.

        Raises:
            MayBeMore: there may be more, and the results will be acted on.
        """
        left = smaller(self._search.limit, at_most)
        offset = self._search.offset
        was_full = False
        with closing(Marks()) as seen:
            while left is None or left > 0:
                page = _Page(seen, self._search.key)
                wanted = self._page_size(left)
                async with aclosing(self._page(left, offset, warnings, page)) as parts:
                    async for fresh in parts:
                        left = None if left is None else left - len(fresh)
                        # The caller may empty the list: everything needed was counted before, or paging would end here.
                        yield fresh
                offset += page.size
                if not page.new and page.size and was_full:
                    self._tell_of_more(warnings)
                if not page.new or not self._form.paged:
                    return
                was_full = page.size == wanted

    def _tell_of_more(self, warnings: list[str]) -> None:
        note = "the archive gives the same page again and again: there may be more results than these"
        if self._search.acted_on:
            raise MayBeMore(note, operation=self._search.operation)
        if note not in warnings:
            warnings.append(note)

    def _page_size(self, left: int | None) -> int | None:
        return None if self._search.page is None else min(self._search.page, left or self._search.page)

    async def _page(
        self, left: int | None, offset: int, warnings: list[str], page: _Page
    ) -> AsyncGenerator[list[DicomJson], None]:
        """Yield the new results of a page, at most ``left``; ``page`` is told of all that came.

        A first page that is refused (400) is requested again in the next form the server may accept.
        """
        call, wanted = self._call(left, offset), left
        while True:
            answer = JsonAnswer(
                self._session,
                call,
                wanted=wanted,
                key=self._search.key,
                see_head=lambda headers: self._note(headers, warnings),
            )
            try:
                async with aclosing(answer.batches()) as batches:
                    async for batch in batches:
                        fresh = (await page.new_in(batch))[:left]
                        left = None if left is None else left - len(fresh)
                        batch.clear()
                        if fresh:
                            yield fresh
            except ServerError as error:
                if error.status != HTTPStatus.BAD_REQUEST or page.is_late or not self._forms:
                    raise
                refused = True
            else:
                refused = False
            if refused:
                self._form = self._forms.pop(0)
                call = self._call(left, offset)
            elif answer.was_left and left:
                wanted = None  # some results were known: those that follow are wanted after all
                page.begin_again()
            else:
                return

    def _call(self, left: int | None, offset: int) -> Call:
        search = self._search
        pairs = wire_pairs(search.pairs, search.dialect.filter_form)
        if self._form.paged:
            pairs += [("limit", str(self._page_size(left))), ("offset", str(offset))]
        query = query_string(pairs, strict=self._form.strict)
        joint = "&" if "?" in search.path else "?"
        return Call(
            search.operation,
            "GET",
            search.path + (joint + query if query else ""),
            Repeat.READ,
            headers=ASKING_FOR_JSON,
            private=search.private,
            search=True,
        )

    def _note(self, headers: Mapping[str, str], warnings: list[str]) -> None:
        if (warning := headers.get("warning")) is None:
            return
        note = safe_reason(warning, (*self._search.private, *self._session.secrets))
        if note and note not in warnings:
            warnings.append(note)


class _Page:
    """The new results of a page: those no earlier page had. Within a page only exact duplicates are left out.

    Attributes:
        size: results that came, new or not.
        new: how many different ones of them no earlier page had.
        is_late: whether a result has come already, of this page or an earlier one.
    """

    def __init__(self, seen: Marks, key: str) -> None:
        self.size: int = 0
        self.new: int = 0
        self._seen, self._key = seen, key
        self._number = seen.size + 1  # the page's number; larger than that of any earlier page with new results
        self._turns = Turns()

    @property
    def is_late(self) -> bool:
        return bool(self._seen.size or self.size)

    def begin_again(self) -> None:
        """Expect the page again from its beginning."""
        self._number = self._seen.size + 1
        self.size = 0

    async def new_in(self, batch: list[DicomJson]) -> list[DicomJson]:
        """Return the new results in a part of the page."""
        self.size += len(batch)
        fresh: list[DicomJson] = []
        first_with: dict[bytes, DicomJson] = {}
        wholes: dict[bytes, set[bytes]] = {}
        for item in batch:
            mark = await mark_of(item, self._key, self._turns)
            if self._seen.number_of(mark) not in (None, self._number):
                continue
            first = first_with.setdefault(mark, item)
            if first is not item:
                known = wholes.setdefault(mark, {await mark_of(first, self._key, self._turns, whole=True)})
                whole = await mark_of(item, self._key, self._turns, whole=True)
                if whole in known:
                    continue
                known.add(whole)
            fresh.append(item)
        self.new += sum(self._seen.add(mark, self._number) for mark in first_with)
        return fresh


def check_page(limit: int | None, offset: int) -> None:
    """Raise `UsageError` for an invalid ``limit`` or ``offset``."""
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UsageError("give a number from 1 on, or None for all", argument="limit")
    if not isinstance(offset, int) or offset < 0:
        raise UsageError("give a number from 0 on", argument="offset")


def smaller(one: int | None, other: int | None) -> int | None:
    """Return the smaller of two bounds, where None is no bound."""
    return min((n for n in (one, other) if n is not None), default=None)


_PAGING_BYTES = len("&limit=1234567&offset=1234567890")


async def find(
    session: Session, search: SearchQuery, at_most: int | None, warnings: list[str]
) -> AsyncGenerator[list[DicomJson], None]:
    """Yield the results page by page; the only way to search.

    Results that contradict the filters are counted in a single entry of ``warnings``, updated as they come.

    Raises:
        ProtocolError: there is such a result, and the results will be acted on.
    """
    checked = Contradictions(expectations((*search.pairs, *search.below), search.key), search.dialect.filter_form)
    async with aclosing(_joined(session, search, at_most, warnings)) as pages:
        async for page in pages:
            is_wrong = [checked.see(item) for item in page]
            if search.acted_on and any(is_wrong):
                raise ProtocolError(checked.text, operation=search.operation)
            checked.tell(warnings)
            yield page


async def first_result(session: Session, search: SearchQuery) -> DicomJson | None:
    """Return the first result, None if there is none; raises as `find` does."""
    async with aclosing(find(session, search, None, [])) as pages:
        async for page in pages:
            for item in page:
                return item
    return None


async def _joined(
    session: Session, search: SearchQuery, at_most: int | None, warnings: list[str]
) -> AsyncGenerator[list[DicomJson], None]:
    """Yield the results of as many searches as there are choices and the URL's length requires, each result once."""
    longest = search.dialect.url_bytes - len(session.url) - len(search.path) - _PAGING_BYTES

    def fits(pairs: Pairs) -> bool:
        return len(query_string(wire_pairs(pairs, search.dialect.filter_form), strict=True)) <= longest

    choices = search.choices or (search.pairs,)
    parts = [replace(search, pairs=pairs) for choice in choices for pairs in queries(choice, fits)]
    if len(parts) == 1:
        async with aclosing(_Pages(session, parts[0]).pages(at_most, warnings)) as pages:
            async for page in pages:
                yield page
        return
    skip, left = search.offset, smaller(search.limit, at_most)
    turns = Turns()
    with closing(Marks()) as known:
        for number, part in enumerate(parts):
            # A server that ignores the list of UIDs gives every part the same answer, so that many results may have
            # come before.
            whole = replace(part, offset=0, limit=None if left is None else skip + left + known.size)
            async with aclosing(_Pages(session, whole).pages(None, warnings)) as pages:
                async for page in pages:
                    fresh: list[DicomJson] = []
                    for item in page:
                        mark = await mark_of(item, search.key, turns)
                        if known.add(mark, number) or known.number_of(mark) == number:  # of no earlier part
                            fresh.append(item)
                    skipped = min(skip, len(fresh))
                    skip -= skipped
                    wanted = fresh[skipped:][:left]
                    left = None if left is None else left - len(wanted)
                    if wanted:
                        yield wanted
                    if left == 0:
                        return


# --- how many instances there are -------------------------------------------------------------------------------------

_COUNT_OF_STUDY = JSON_TAG["NumberOfStudyRelatedInstances"]
_COUNT_OF_SERIES = JSON_TAG["NumberOfSeriesRelatedInstances"]


async def count_instances(retrieval: Retrieval, target: Target) -> int | None:
    """Return how many instances the archive says a study or series has, None if it does not say.

    One small request, whereas listing a large study can take an archive longer than sending it. One result is
    requested: an archive that ignores the filter would otherwise send all it has, and another result than the one asked
    for proves nothing.
    """
    route, key, count = (
        (Route.SEARCH_STUDIES, STUDY_UID, _COUNT_OF_STUDY)
        if target.series is None
        else (Route.SEARCH_SERIES_OF_STUDY, SERIES_UID, _COUNT_OF_SERIES)
    )
    wanted = target.series or target.study
    path = retrieval.dialect.path(route, study=target.study)
    pairs = ((key, wanted), ("includefield", count))
    below = ((STUDY_UID, target.study),)
    search = query_to_act_on(retrieval, "count instances", path, pairs, key=key, below=below, limit=1)
    try:
        found = await first_result(retrieval.session, search)
    except AuthenticationFailed:  # the list would be refused for the same reason
        raise
    except PostdicomError:
        return None  # the request for the list will show what is wrong
    return None if found is None or uid_in(found, key) != wanted else as_count(first_value(found, count))


def as_count(value: object) -> int | None:
    """Return a count from an archive's answer, None if it is not a number."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


async def count_by_series(retrieval: Retrieval, study: str, most: int) -> dict[str, int] | None:
    """Return the number of instances by series of a study, None for more than ``most`` series or if unknown."""
    if not retrieval.dialect.can(Route.SEARCH_SERIES_OF_STUDY, {"study"}):
        return None
    path = retrieval.dialect.path(Route.SEARCH_SERIES_OF_STUDY, study=study)
    pairs = (("includefield", _COUNT_OF_SERIES),)
    # Not paged: the last page would cost one more request. A capped list does not add up to the study's count.
    search = query_to_act_on(retrieval, "list instances", path, pairs, key=SERIES_UID, below=((STUDY_UID, study),))
    search = replace(search, page=None)
    counts: dict[str, int] = {}
    try:
        async with aclosing(find(retrieval.session, search, most + 1, [])) as pages:
            async for page in pages:
                for item in page:
                    series, count = uid_in(item, SERIES_UID), as_count(first_value(item, _COUNT_OF_SERIES))
                    if not is_uid(series) or not count or series in counts:
                        return None
                    counts[series] = count
    except PostdicomError:
        return None  # the study is then requested as a whole, which will show what is wrong
    return counts if len(counts) <= most else None


def uid_in(item: DicomJson, tag: str) -> str:
    """Return a UID of a result, without padding; empty if there is none."""
    return str(first_value(item, tag) or "").strip("\0 \t\r\n")
