"""A search as its caller means it: however long its lists of UIDs are, and held against what comes back."""

from __future__ import annotations

from contextlib import aclosing, closing
from dataclasses import replace
from typing import TYPE_CHECKING

from postdicom_async.dicomweb.contradictions import Contradictions, expectations
from postdicom_async.dicomweb.filters import query_string, wire_pairs
from postdicom_async.dicomweb.json_answer import mark_of
from postdicom_async.dicomweb.search import Listing, Search, smaller
from postdicom_async.dicomweb.url_length import Pairs, queries
from postdicom_async.disk.scratch import Marks
from postdicom_async.errors import ProtocolError
from postdicom_async.paging import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.dicom.json_model import DicomJson
    from postdicom_async.http.session import Session

__all__ = ["find"]

_PAGING_BYTES = len("&limit=1234567&offset=1234567890")


async def find(
    session: Session, search: Search, at_most: int | None, warnings: list[str]
) -> AsyncGenerator[list[DicomJson], None]:
    """Yield the results page by page; the one way to search.

    A contradiction between a result and what was asked for is one entry of ``warnings``, with numbers that grow.

    Raises:
        ProtocolError: there is one, and something will be done with the results.
    """
    checked = Contradictions(expectations((*search.pairs, *search.below), search.key), search.dialect.filter_form)
    async with aclosing(_joined(session, search, at_most, warnings)) as pages:
        async for page in pages:
            is_wrong = [checked.see(item) for item in page]
            if search.acted_on and any(is_wrong):
                raise ProtocolError(checked.text, operation=search.operation)
            checked.tell(warnings)
            yield page


async def _joined(
    session: Session, search: Search, at_most: int | None, warnings: list[str]
) -> AsyncGenerator[list[DicomJson], None]:
    """Yield the results of as many searches as the URL's length asks for, each result once."""
    parts = [replace(search, pairs=pairs) for pairs in queries(search.pairs, lambda one: _fits(session, search, one))]
    if len(parts) == 1:
        async with aclosing(Listing(session, search).pages(at_most, warnings)) as pages:
            async for page in pages:
                yield page
        return
    skip, left = search.offset, smaller(search.limit, at_most)
    turns = Turns()
    with closing(Marks()) as known:
        for number, part in enumerate(parts):
            # A server that ignores the list answers each part with the same: of that so many may have come before.
            whole = replace(part, offset=0, limit=None if left is None else skip + left + known.size)
            async with aclosing(Listing(session, whole).pages(None, warnings)) as pages:
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


def _fits(session: Session, search: Search, pairs: Pairs) -> bool:
    query = query_string(wire_pairs(pairs, search.dialect.filter_form), strict=True)
    return len(session.url) + len(search.path) + len(query) + _PAGING_BYTES <= search.dialect.url_bytes
