"""Which instances a study or series has, by the archive's own word (QIDO-RS)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from postdicom_async.dicom.json_model import DicomJson, first_value
from postdicom_async.dicom.uids import is_uid
from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.dicomweb.search import Listing, Search
from postdicom_async.errors import AuthenticationFailed, NotFound, PostdicomError, ProtocolError, ServerError
from postdicom_async.results import InstanceUids

__all__ = ["count_instances", "list_instances"]

_OPERATION = "list instances"
_STUDY = "0020000D"
_SERIES = "0020000E"
_INSTANCE = "00080018"
_COUNT_OF_STUDY = "00201208"  # Number of Study Related Instances
_COUNT_OF_SERIES = "00201209"  # Number of Series Related Instances
_PAGE = 200
_T = TypeVar("_T")


async def count_instances(retrieval: Retrieval, target: Target) -> int | None:
    """Return how many instances the archive says a study or series has, None where it does not say.

    One small request, where listing a large study takes an archive longer than sending it.
    """
    route, key, count = (
        (Route.SEARCH_STUDIES, _STUDY, _COUNT_OF_STUDY)
        if target.series is None
        else (Route.SEARCH_SERIES_OF_STUDY, _SERIES, _COUNT_OF_SERIES)
    )
    wanted = target.series or target.study
    search = Search(
        "count instances",
        retrieval.dialect.path(route, study=target.study),
        ((key, wanted), ("includefield", count)),
        key=key,
        page=None,
    )
    try:
        async for page in Listing(retrieval.session, search).pages(None, []):
            for item in page:
                if _uid(item, key) == wanted:
                    return _number(first_value(item, count))
    except AuthenticationFailed:
        raise
    except PostdicomError:
        pass  # then the list is asked for, and tells what is wrong
    return None


def _number(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


async def list_instances(retrieval: Retrieval, target: Target) -> set[InstanceUids] | None:
    """Return what the archive lists below a target, or None when it cannot be asked.

    What a server lists of other studies or series (some ignore what they do not understand) is left out.

    Raises:
        PostdicomError: the connection or the credentials failed.
    """
    try:
        if target.series is None and retrieval.dialect.lists_by_series:
            return await _by_series(retrieval, target)
        return await _of(retrieval, target)
    except (NotFound, ProtocolError, ServerError) as error:
        if error.temporary:
            raise
        return None


async def _by_series(retrieval: Retrieval, target: Target) -> set[InstanceUids]:
    path = retrieval.dialect.path(Route.SEARCH_SERIES_OF_STUDY, study=target.study)
    series = await _collect(retrieval, path, (), _SERIES, lambda item: _uid(item, _SERIES))
    found: set[InstanceUids] = set()
    for one in series:
        if is_uid(one):
            found |= await _of(retrieval, Target(target.study, one))
    return found


async def _of(retrieval: Retrieval, target: Target) -> set[InstanceUids]:
    route = Route.SEARCH_INSTANCES_OF_STUDY if target.series is None else Route.SEARCH_INSTANCES_OF_SERIES
    path = retrieval.dialect.path(route, study=target.study, series=target.series or "")
    fields = (_STUDY, _SERIES) if target.series is None else ()

    def uids(item: DicomJson) -> InstanceUids:
        # A server that leaves out the UIDs of the levels it was asked below means those.
        return InstanceUids(
            _uid(item, _STUDY) or target.study, _uid(item, _SERIES) or target.series or "", _uid(item, _INSTANCE)
        )

    found = await _collect(retrieval, path, fields, _INSTANCE, uids)
    return {one for one in found if all(map(is_uid, one)) and target.covers(one)}


async def _collect(
    retrieval: Retrieval, path: str, fields: tuple[str, ...], key: str, what: Callable[[DicomJson], _T]
) -> set[_T]:
    """Page through a search, keeping of each result only what is wanted: results are large, and there may be many."""
    page_size = min(_PAGE, retrieval.session.settings.limits.page_size)
    search = Search(
        _OPERATION,
        path,
        tuple(("includefield", field) for field in fields),
        key=key,
        page=page_size if retrieval.dialect.pages else None,
    )
    found: set[_T] = set()
    async for page in Listing(retrieval.session, search).pages(None, []):
        found.update(what(item) for item in page)
        page.clear()
    return found


def _uid(item: DicomJson, tag: str) -> str:
    return str(first_value(item, tag) or "").strip()
