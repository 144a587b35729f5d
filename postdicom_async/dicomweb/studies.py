"""Which studies an archive has, by its own word (QIDO-RS), for what is to be concluded from the list."""

from __future__ import annotations

from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Final, NamedTuple

from postdicom_async.dicom.json_model import first_value
from postdicom_async.dicom.uids import is_uid
from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.find import find
from postdicom_async.dicomweb.listing import as_count
from postdicom_async.dicomweb.search import Search
from postdicom_async.disk.scratch import Marks
from postdicom_async.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from postdicom_async.dicom.json_model import DicomJson
    from postdicom_async.dicomweb.retrieve import Retrieval
    from postdicom_async.dicomweb.url_length import Pairs

__all__ = ["FoundStudy", "ask_study", "each_study", "probe"]

_OPERATION: Final = "list studies"
_STUDY, _DATE, _COUNT = "0020000D", "00080020", "00201208"
_FIELDS: Final = (("includefield", _DATE), ("includefield", _COUNT))


class FoundStudy(NamedTuple):
    """A study: its UID, its date as YYYYMMDD or "", and how many instances it has, None where that is not said."""

    uid: str
    date: str
    instances: int | None


async def each_study(
    retrieval: Retrieval, filters: Pairs, since: str, until: str
) -> AsyncGenerator[list[FoundStudy], None]:
    """Yield every study that matches, each once; of dated ones only those within ``since`` and ``until``.

    Raises:
        PostdicomError: they cannot be listed, or the list contradicts what was asked for.
    """
    with closing(Marks()) as known:
        search = _search(retrieval, (*filters, *_FIELDS))
        async with aclosing(find(retrieval.session, search, None, [])) as pages:
            async for page in pages:
                some = [_found(item) for item in page]
                page.clear()
                yield [one for one in some if known.add(one.uid.encode()) and _is_within(one.date, since, until)]


async def ask_study(retrieval: Retrieval, study: str) -> FoundStudy | None:
    """Return one study, None where a search for it finds nothing.

    Raises:
        PostdicomError: it cannot be asked, or answers with something else.
    """
    search = _search(retrieval, ((_STUDY, study), *_FIELDS), limit=1)
    async with aclosing(find(retrieval.session, search, None, [])) as pages:
        async for page in pages:
            for item in page:
                found = _found(item)
                if found.uid != study:
                    raise ProtocolError("the archive answers with another study", operation=_OPERATION)
                return found
    return None


async def probe(retrieval: Retrieval) -> None:
    """Ask for one study.

    Raises:
        PostdicomError: what is wrong with the archive now.
    """
    async with aclosing(find(retrieval.session, _search(retrieval, (), limit=1), None, [])) as pages:
        async for _ in pages:
            return


def _search(retrieval: Retrieval, pairs: Pairs, *, limit: int | None = None) -> Search:
    page = limit or retrieval.session.settings.limits.page_size
    return Search(
        _OPERATION,
        retrieval.dialect.path(Route.SEARCH_STUDIES),
        tuple(pairs),
        key=_STUDY,
        limit=limit,
        page=page if retrieval.dialect.pages else None,
        private=tuple(value for name, value in pairs if name != "includefield"),
        dialect=retrieval.dialect,
        acted_on=True,
    )


def _found(item: DicomJson) -> FoundStudy:
    uid = str(first_value(item, _STUDY) or "").strip("\0 ")
    if not is_uid(uid):
        raise ProtocolError("the archive lists a study without a valid UID", operation=_OPERATION)
    date = str(first_value(item, _DATE) or "").strip("\0 ").replace(".", "")
    is_date = len(date) == 8 and date.isascii() and date.isdigit()
    return FoundStudy(uid, date if is_date else "", as_count(first_value(item, _COUNT)))


def _is_within(date: str, since: str, until: str) -> bool:
    return not date or ((not since or since <= date) and (not until or date <= until))
