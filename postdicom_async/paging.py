"""Results that come in pages, read as a stream; each page is requested when the one before it is used up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeAlias, TypeVar

from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.markup import Html, element, joined, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pandas import DataFrame

    from postdicom_async.dicom.json_reading import DicomJson

_T = TypeVar("_T")

_TURN = 0.01  # seconds

Convert: TypeAlias = "Callable[[DicomJson, list[str]], _T | Generator[None, None, _T]]"
"""Converts a DICOM JSON object to a result, adding warnings; a generator if that is slow, so that others get turns."""


_SHOWN_ROWS = 10


class Tabular(Protocol):
    """How results become tables; see `dicomweb.table.ResultTable`."""

    operation: str

    @property
    def headings(self) -> list[str]:
        """The columns of `cells`."""
        ...

    def cells(self, item: DicomJson) -> list[str]:
        """Return what may be shown of a result: nothing that names a patient."""
        ...

    async def frame(
        self, items: AsyncIterator[DicomJson], columns: Iterable[str] | None, warnings: list[str]
    ) -> DataFrame:
        """Read all results into a data frame."""
        ...


class Turns:
    """Lets the event loop continue during long work: ``await turns()`` often."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def __call__(self) -> None:
        """Let other tasks run if it is time."""
        if time.monotonic() - self._since > _TURN:
            await asyncio.sleep(0)
            self._since = time.monotonic()


@public_face
class Results(Generic[_T]):
    """Results of a search or of a metadata request, fetched as they are read.

    ``async for item in results``, ``await results.all()`` or ``await results.first()``. Each of them sends new
    requests. ``raw`` gives the same results as DICOM JSON objects, ``await results.to_pandas()`` a data frame.

    A data set's elements are converted when they are first looked at. One that could not be is left out, and is in
    ``warnings`` as soon as its result is given.

    In a notebook it shows how many results were read so far and, of the first of them, UIDs, study dates, modalities
    and counts: nothing that names a patient, and nothing is asked for that.

    Attributes:
        warnings: warnings so far, of the archive (``Warning`` header) and of parsing its answers; and how many results
            do not match the filters on UIDs, dates and Patient ID.
    """

    def __init__(
        self,
        pages: Callable[[int | None, list[str]], AsyncIterator[list[DicomJson]]],
        convert: Convert[_T],
        prepare: Callable[[], Awaitable[object] | None] = lambda: None,
        tabular: Tabular | None = None,
    ) -> None:
        """Take a function that yields pages and one that converts results.

        ``prepare`` starts, in parallel with the first request, what ``convert`` needs; it is awaited before the first
        conversion.
        """
        self.warnings: list[str] = []
        self._pages = pages
        self._convert = convert
        self._prepare = prepare
        self._tabular = tabular
        self._read: int | None = None
        self._shown: list[list[str]] = []

    async def __aiter__(self) -> AsyncIterator[_T]:
        """Yield every result."""
        turns, ready = Turns(), self._prepare()
        self._read, self._shown = 0, []
        async with _closing(self._pages(None, self.warnings)) as pages:
            async for page in pages:
                self._note(page)
                page.reverse()
                # no result is held longer than needed: the more there are, the longer Python's garbage collector takes
                while page:
                    yield await self._converted(page.pop(), turns, ready)
                    await turns()

    if not TYPE_CHECKING:  # a type checker refuses it by itself

        def __iter__(self) -> NoReturn:
            """Say how to iterate."""
            raise UsageError("results are read as they come: 'async for one in results', or 'await results.all()'")

    async def all(self) -> list[_T]:
        """Return every result."""
        return [item async for item in self]

    async def first(self) -> _T | None:
        """Return the first result, or None; only one is requested."""
        ready = self._prepare()
        async with _closing(self._pages(1, self.warnings)) as pages:
            async for page in pages:
                for item in page:
                    return await self._converted(item, Turns(), ready)
        return None

    async def to_pandas(self, *, columns: Iterable[str] | None = None) -> DataFrame:
        """Return every result as a row of a pandas data frame (extra ``pandas``), which may hold patient data.

        Columns are named by keyword and typed by the data dictionary, whatever came: text and UIDs ``string``, dates
        ``datetime64[s]``, times ``timedelta64[us]`` since midnight, integers ``Int64``, other numbers ``Float64``. What
        may have several values, such as ModalitiesInStudy, holds tuples; names of persons are one text,
        ``Doe^Jane=ideographic=phonetic``. What cannot be read is empty and counted in ``warnings``. Memory holds the
        frame and a few thousand results. Sequences and bytes are left out; ``raw`` has them.

        Args:
            columns: keywords or tags of the columns wanted, in this order; by default those that PS3.18 has an archive
                return, and whatever else came. What an archive does not return by itself is asked for by ``fields`` of
                the search.

        Raises:
            UsageError: pandas is not installed, or a column is none; nothing was asked.
        """
        if self._tabular is None:
            raise UsageError("these results are objects of their own, with no columns")
        items = self.raw
        try:
            return await self._tabular.frame(items.__aiter__(), columns, self.warnings)
        finally:
            self._read, self._shown = items._read, items._shown  # noqa: SLF001 - of the same kind

    def _repr_html_(self) -> str:
        name = "Results" if self._tabular is None else f"Results: {self._tabular.operation}"
        ways = ("async for", "await results.all()", "await results.to_pandas()")
        if self._read is None:
            codes: list[str | Html] = [part for way in ways for part in (", ", element("code", way))]
            return element("p", f"{name}. Nothing was asked yet: ", *codes[1:], ".")
        warned = (
            [f" Of {len(self.warnings):,} warnings tells ", element("code", ".warnings"), "."] if self.warnings else []
        )
        note = element("p", f"{name}. {self._read:,} read so far.", *warned)
        if not self._shown or self._tabular is None:
            return note
        return joined(note, table(self._tabular.headings, self._shown, of=self._read))

    def _note(self, page: list[DicomJson]) -> None:
        """Remember what may be shown of the first results of a pass."""
        self._read = (self._read or 0) + len(page)
        if self._tabular is not None and len(self._shown) < _SHOWN_ROWS:
            self._shown += [self._tabular.cells(item) for item in page[: _SHOWN_ROWS - len(self._shown)]]

    async def _converted(self, item: DicomJson, turns: Turns, ready: Awaitable[object] | None) -> _T:
        if ready is not None:
            await ready
        made = self._convert(item, self.warnings)
        if not isinstance(made, Generator):
            return made
        while True:
            try:
                next(made)
            except StopIteration as end:
                result: _T = end.value
                return result
            await turns()

    @property
    def raw(self) -> Results[DicomJson]:
        """The same results as DICOM JSON objects (PS3.18 annex F), nothing left out."""
        plain: Results[DicomJson] = Results(self._pages, lambda item, _warnings: item, tabular=self._tabular)
        plain.warnings = self.warnings
        return plain


@asynccontextmanager
async def _closing(pages: AsyncIterator[list[DicomJson]]) -> AsyncGenerator[AsyncIterator[list[DicomJson]], None]:
    """Close the page generator when it is left early, so that its connection is free at once."""
    try:
        yield pages
    finally:
        if isinstance(pages, AsyncGenerator):
            await pages.aclose()
