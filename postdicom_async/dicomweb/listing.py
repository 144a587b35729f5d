"""Which instances a study or series has, by the archive's own word (QIDO-RS)."""

from __future__ import annotations

from postdicom_async.dicom.json_model import DicomJson, first_value
from postdicom_async.dicom.uids import is_uid
from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.dicomweb.search import Listing, Search
from postdicom_async.errors import NotFound, ProtocolError, ServerError
from postdicom_async.results import InstanceUids

__all__ = ["list_instances"]

_OPERATION = "list instances"
_STUDY = "0020000D"
_SERIES = "0020000E"
_INSTANCE = "00080018"


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
    found: set[InstanceUids] = set()
    for item in await _items(retrieval, path, key=_SERIES, fields=()):
        series = _uid(item, _SERIES)
        if is_uid(series):
            found |= await _of(retrieval, Target(target.study, series))
    return found


async def _of(retrieval: Retrieval, target: Target) -> set[InstanceUids]:
    route = Route.SEARCH_INSTANCES_OF_STUDY if target.series is None else Route.SEARCH_INSTANCES_OF_SERIES
    path = retrieval.dialect.path(route, study=target.study, series=target.series or "")
    items = await _items(retrieval, path, key=_INSTANCE, fields=(_STUDY, _SERIES) if target.series is None else ())
    # A server that leaves out the UIDs of the levels it was asked below means those.
    uids = (
        InstanceUids(
            _uid(item, _STUDY) or target.study, _uid(item, _SERIES) or target.series or "", _uid(item, _INSTANCE)
        )
        for item in items
    )
    return {one for one in uids if all(map(is_uid, one)) and target.covers(one)}


async def _items(retrieval: Retrieval, path: str, *, key: str, fields: tuple[str, ...]) -> list[DicomJson]:
    search = Search(
        _OPERATION,
        path,
        tuple(("includefield", field) for field in fields),
        key=key,
        page=retrieval.session.settings.limits.page_size if retrieval.dialect.pages else None,
    )
    return [item async for page in Listing(retrieval.session, search).pages(None, []) for item in page]


def _uid(item: DicomJson, tag: str) -> str:
    return str(first_value(item, tag) or "").strip()
