"""QIDO-RS (PS3.18 section 10.6): all pages of a search as one stream, whatever the server does about paging."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import anyio.to_thread

from postdicom_async.dicom.json_model import DicomJson, NotDicomJson, dataset_of, first_value, objects_in
from postdicom_async.dicomweb.filters import query_string
from postdicom_async.dicomweb.media_types import ASKING_FOR_JSON
from postdicom_async.errors import ProtocolError, ServerError, UsageError
from postdicom_async.face import public_face
from postdicom_async.http.redaction import safe_reason
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Call, Session

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from postdicom_async.http.answer import Answer

__all__ = ["Listing", "Results", "Search", "check_page"]

_T = TypeVar("_T")
_IDENTITY = ("0020000D", "0020000E", "00080018", "00100020")  # Study, Series, SOP Instance UID, PatientID
_PARSED_ASIDE = 1 << 20  # a larger answer is parsed in a thread, so that the event loop goes on


@dataclass(frozen=True, slots=True)
class Search:
    """One search, as data.

    Attributes:
        operation: for error messages.
        path: the route, its own query included.
        pairs: filters and included fields, on the wire.
        key: the tag of the UID that every result has.
        limit: the most results wanted, None for all.
        offset: results to skip.
        page: results asked for per request; None where nothing is paged.
        private: filter values, kept out of error texts.
    """

    operation: str
    path: str
    pairs: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    key: str = "0020000D"
    limit: int | None = None
    offset: int = 0
    page: int | None = 1000
    private: tuple[str, ...] = field(default=(), repr=False)


@public_face
class Results(Generic[_T]):
    """Results of a search or of a metadata request, fetched as they are read.

    ``async for item in results``, ``await results.all()`` or ``await results.first()``. Each of them asks the archive
    anew. ``raw`` gives the same results as DICOM JSON objects.

    Attributes:
        warnings: what the archive (``Warning`` header) or the reading of its answer had to say, so far.
    """

    def __init__(
        self, pages: Callable[[int | None, list[str]], AsyncIterator[list[DicomJson]]], convert: _Convert[_T]
    ) -> None:
        self.warnings: list[str] = []
        self._pages = pages
        self._convert = convert

    async def __aiter__(self) -> AsyncIterator[_T]:
        """Yield every result."""
        async for page in self._pages(None, self.warnings):
            for item in page:
                yield self._convert(item, self.warnings)

    async def all(self) -> list[_T]:
        """Return every result."""
        return [item async for item in self]

    async def first(self) -> _T | None:
        """Return the first result, or None; only one is asked for."""
        async for page in self._pages(1, self.warnings):
            for item in page:
                return self._convert(item, self.warnings)
        return None

    @property
    def raw(self) -> Results[DicomJson]:
        """The same results as DICOM JSON objects (PS3.18 annex F), nothing left out."""
        plain: Results[DicomJson] = Results(self._pages, lambda item, _warnings: item)
        plain.warnings = self.warnings
        return plain


_Convert = Callable[[DicomJson, list[str]], _T]


def to_dataset(item: DicomJson, warnings: list[str]) -> Dataset:
    """Convert a result for `Results`."""
    return dataset_of(item, warnings.append)


class _Form(NamedTuple):
    """How a query is written: with a caret encoded, with paging parameters."""

    strict: bool
    paged: bool


def _forms(search: Search) -> list[_Form]:
    """Return the forms to try, best first. Without paging only where no page in particular was asked for."""
    paged = search.page is not None
    forms = [_Form(strict=False, paged=paged)]
    if any("^" in value for _, value in search.pairs):
        forms.append(_Form(strict=True, paged=paged))
    if paged and search.offset == 0:
        forms.append(_Form(strict=True, paged=False))
    return forms


class Listing:
    """Pages through a search."""

    def __init__(self, session: Session, search: Search) -> None:
        check_page(search.limit, search.offset)
        self._session = session.one_call()
        self._search = search
        self._form, *self._forms = _forms(search)

    async def pages(self, at_most: int | None, warnings: list[str]) -> AsyncIterator[list[DicomJson]]:
        """Yield pages until the server has no more, or repeats itself.

        A short page is not taken for the last one: servers cap pages below what was asked. So the end is an empty
        page, or one without anything new, which is also how a server that ignores ``offset`` shows.
        """
        left = _smaller(self._search.limit, at_most)
        offset = self._search.offset
        seen: set[str] = set()
        while left is None or left > 0:
            page = await self._page(left, offset, warnings, first=not seen)
            fresh = self._unseen(page, seen)[:left]
            left = None if left is None else left - len(fresh)
            offset += len(page)
            is_last = not fresh or not self._form.paged
            if fresh:
                yield fresh  # the caller's now, who may empty it
            if is_last:
                return

    async def _page(self, left: int | None, offset: int, warnings: list[str], *, first: bool) -> list[DicomJson]:
        """Ask for a page; a first page that is refused (400) is asked for in the next form the server may take."""
        while True:
            try:
                return await self._ask(left, offset, warnings)
            except ServerError as error:
                if error.status != HTTPStatus.BAD_REQUEST or not first or not self._forms:
                    raise
            self._form = self._forms.pop(0)

    async def _ask(self, left: int | None, offset: int, warnings: list[str]) -> list[DicomJson]:
        search = self._search
        pairs = list(search.pairs)
        if self._form.paged and search.page is not None:
            pairs += [("limit", str(min(search.page, left or search.page))), ("offset", str(offset))]
        query = query_string(pairs, strict=self._form.strict)
        joint = "&" if "?" in search.path else "?"
        answer = await self._session.fetch(
            Call(
                search.operation,
                "GET",
                search.path + (joint + query if query else ""),
                Repeat.READ,
                headers=ASKING_FOR_JSON,
                private=search.private,
                search=True,
            ),
            cap=self._session.settings.limits.json_bytes,
        )
        note = safe_reason(answer.headers.get("warning"), (*search.private, *self._session.secrets))
        if note and note not in warnings:
            warnings.append(note)
        return await read_objects(answer, search.operation)

    def _unseen(self, page: list[DicomJson], seen: set[str]) -> list[DicomJson]:
        """Return what no earlier page had. Within a page only what is equal as a whole is left out."""
        fresh: list[DicomJson] = []
        first_with: dict[str, DicomJson] = {}
        texts: dict[str, set[str]] = {}
        for item in page:
            mark = self._mark(item)
            if mark in seen:
                continue
            first = first_with.setdefault(mark, item)
            if first is not item:
                known = texts.setdefault(mark, {repr(first)})
                text = repr(item)
                if text in known:
                    continue
                known.add(text)
            fresh.append(item)
        seen.update(first_with)
        return fresh

    def _mark(self, item: DicomJson) -> str:
        """Return what tells a result apart. A UID alone does not: an archive may have it under two patients."""
        if not first_value(item, self._search.key):
            return repr(item)
        return "\n".join(str(first_value(item, tag)) for tag in _IDENTITY)


async def read_objects(answer: Answer, operation: str) -> list[DicomJson]:
    """Return the data sets of an answer, of which 204 and an empty body have none.

    Raises:
        ProtocolError: the body is not DICOM JSON.
    """
    found: list[DicomJson] | None = None
    try:
        if len(answer.body) > _PARSED_ASIDE:
            found = await anyio.to_thread.run_sync(objects_in, answer.body)
        else:
            found = objects_in(answer.body)
    except NotDicomJson:
        pass
    if found is None:
        raise ProtocolError(
            "the archive's answer is not DICOM JSON; is this the address of its DICOMweb service?",
            operation=operation,
            status=answer.status,
        )
    return found


def check_page(limit: int | None, offset: int) -> None:
    """Refuse page arguments that make no sense."""
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UsageError("limit: give a number from 1 on, or None for all")
    if not isinstance(offset, int) or offset < 0:
        raise UsageError("offset: give a number from 0 on")


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((n for n in (one, other) if n is not None), default=None)
