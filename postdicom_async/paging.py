"""Results that come in pages, read as a stream; each page is requested when the one before it is used up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from postdicom_async.face import public_face

if TYPE_CHECKING:
    from postdicom_async.dicom.json_reading import DicomJson

_T = TypeVar("_T")

_TURN = 0.01  # seconds

Convert: TypeAlias = "Callable[[DicomJson, list[str]], _T | Generator[None, None, _T]]"
"""Converts a DICOM JSON object to a result, adding warnings; a generator if that is slow, so that others get turns."""


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
    requests. ``raw`` gives the same results as DICOM JSON objects.

    Attributes:
        warnings: warnings so far, of the archive (``Warning`` header) and of parsing its answers; and how many results
            do not match the filters on UIDs, dates and Patient ID.
    """

    def __init__(
        self,
        pages: Callable[[int | None, list[str]], AsyncIterator[list[DicomJson]]],
        convert: Convert[_T],
        prepare: Callable[[], Awaitable[object] | None] = lambda: None,
    ) -> None:
        """Take a function that yields pages and one that converts results.

        ``prepare`` starts, in parallel with the first request, what ``convert`` needs; it is awaited before the first
        conversion.
        """
        self.warnings: list[str] = []
        self._pages = pages
        self._convert = convert
        self._prepare = prepare

    async def __aiter__(self) -> AsyncIterator[_T]:
        """Yield every result."""
        turns, ready = Turns(), self._prepare()
        async with _closing(self._pages(None, self.warnings)) as pages:
            async for page in pages:
                page.reverse()
                # no result is held longer than needed: the more there are, the longer Python's garbage collector takes
                while page:
                    yield await self._converted(page.pop(), turns, ready)
                    await turns()

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
        plain: Results[DicomJson] = Results(self._pages, lambda item, _warnings: item)
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
