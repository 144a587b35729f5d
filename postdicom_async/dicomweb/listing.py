"""Which instances a study or series has, according to the archive (QIDO-RS).

Archives offer several ways to list them, and not every one works everywhere: some ignore a filter, some answer with an
empty list instead of an error, some truncate it. So no single list is believed if it contradicts what is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeAlias, TypeVar

from postdicom_async.dicom.header import is_uid
from postdicom_async.dicom.json_reading import DicomJson
from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.filters import INSTANCE_UID, SERIES_UID, STUDY_UID, Pairs
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.dicomweb.search import SearchQuery, find, query_to_act_on, uid_in
from postdicom_async.errors import NotFound, PostdicomError, ProtocolError, ServerError
from postdicom_async.results import InstanceUids
from postdicom_async.transfer.arrivals import Arrivals, Listed

_OPERATION = "list instances"
_PAGE = 200
_T = TypeVar("_T")
_Keep: TypeAlias = Callable[[Iterable[InstanceUids]], None]


async def list_instances(retrieval: Retrieval, target: Target, arrivals: Arrivals) -> bool:
    """Let ``arrivals`` adopt the archive's list of a target's instances, or None if it cannot be asked.

    Not every archive offers every list, and some answer with an empty one instead of an error. So a list that is empty,
    or lacks what has arrived, is used only if no other way gives a better one, and then False is returned.

    Raises:
        PostdicomError: the connection or the credentials failed.
    """
    before, poor = arrivals.listed, None
    for way in _ways(retrieval, target):
        found = arrivals.new_list()
        if await _listed(way, found) is not None:
            continue
        if await arrivals.adopt(found):
            if target.series is None:
                retrieval.learned.lists_by_series = way.func is _by_series
            return True
        poor = found if poor is None else poor
        await arrivals.adopt(before)
    await arrivals.adopt(poor)
    return False


async def list_as_counted(
    retrieval: Retrieval, target: Target, arrivals: Arrivals, count: Callable[[], Awaitable[int | None]]
) -> None:
    """Let ``arrivals`` adopt a list of an existing study: the first that agrees with the count, else the longest.

    ``count`` asks the archive how many there are; it is called again if the lists are shorter, since instances may have
    been deleted meanwhile.

    Raises:
        ProtocolError: every list is shorter than the count, or empty.
        PostdicomError: the archive cannot be asked.
    """
    expected, best = await count(), arrivals.new_list()
    first_problem: PostdicomError | None = None
    for way in _ways(retrieval, target):
        found = arrivals.new_list()
        problem = await _listed(way, found)
        first_problem = first_problem or problem
        if problem is None and found.size > best.size:
            best = found
        if problem is None and found.size and expected in (None, found.size):
            retrieval.learned.lists_by_series = way.func is _by_series
            break
    if not best.size and first_problem is not None:
        raise first_problem
    if best.size < max(1, expected or 0):
        expected = await count()
    if best.size < max(1, expected or 0):
        words = f"it has {'some' if expected is None else expected} instances, and lists {best.size}"
        raise ProtocolError(f"the archive contradicts itself about a study: {words}", operation=_OPERATION)
    await arrivals.adopt(best)


async def each_listed(retrieval: Retrieval, series: Target, keep: _Keep) -> None:
    """Pass on the instances of a series in the order of the archive's list, page by page, each perhaps more than once.

    Raises:
        PostdicomError: they cannot be listed.
    """
    await _of(retrieval, series, Route.SEARCH_INSTANCES_OF_SERIES, keep)


def _ways(retrieval: Retrieval, target: Target) -> list[partial[Coroutine[Any, Any, None]]]:
    """Return the ways to list the instances of a target, best first."""
    named = {"study", "series"} if target.series else {"study"}
    routes = [Route.SEARCH_INSTANCES_OF_SERIES, Route.SEARCH_INSTANCES_OF_STUDY]
    ways = [partial(_of, retrieval, target, route) for route in routes if retrieval.dialect.can(route, named)]
    can_by_series = {Route.SEARCH_SERIES_OF_STUDY, Route.SEARCH_INSTANCES_OF_SERIES} <= set(retrieval.dialect.routes)
    if target.series is None and can_by_series:
        learned = retrieval.learned.lists_by_series
        first = retrieval.dialect.lists_by_series if learned is None else learned
        ways.insert(0 if first else len(ways), partial(_by_series, retrieval, target))
    return ways


async def _listed(way: Callable[[_Keep], Awaitable[None]], found: Listed) -> PostdicomError | None:
    """List in one way; return the error if the list cannot be used: it is not offered, or contradicts the request."""
    try:
        await way(found.update)
    except (NotFound, ProtocolError, ServerError) as error:
        if error.temporary:
            raise
        return error
    return None


async def _by_series(retrieval: Retrieval, target: Target, found: _Keep) -> None:
    path = retrieval.dialect.path(Route.SEARCH_SERIES_OF_STUDY, study=target.study)
    search = _query(retrieval, path, key=SERIES_UID, below=((STUDY_UID, target.study),))
    series: set[str] = set()
    await _collect(retrieval, search, lambda item: uid_in(item, SERIES_UID), series.update)
    for one in series:
        if is_uid(one):
            await _of(retrieval, Target(target.study, one), Route.SEARCH_INSTANCES_OF_SERIES, found)


async def _of(retrieval: Retrieval, target: Target, route: Route, found: _Keep) -> None:
    path = retrieval.dialect.path(route, study=target.study, series=target.series or "")
    asked_for = ((STUDY_UID, target.study), *([] if target.series is None else [(SERIES_UID, target.series)]))
    pairs: Pairs = ()
    if route is Route.SEARCH_INSTANCES_OF_STUDY:
        pairs = (*asked_for[1:], ("includefield", STUDY_UID), ("includefield", SERIES_UID))
    named_series = target.series or "" if route is Route.SEARCH_INSTANCES_OF_SERIES else ""

    def uids(item: DicomJson) -> InstanceUids:
        # A server that leaves out the UIDs of the levels in the path means those.
        return InstanceUids(
            uid_in(item, STUDY_UID) or target.study,
            uid_in(item, SERIES_UID) or named_series,
            uid_in(item, INSTANCE_UID),
        )

    def keep(some: Iterable[InstanceUids]) -> None:
        found(one for one in some if all(map(is_uid, one)) and target.covers(one))

    await _collect(retrieval, _query(retrieval, path, pairs, key=INSTANCE_UID, below=asked_for), uids, keep)


def _query(retrieval: Retrieval, path: str, pairs: Pairs = (), *, key: str, below: Pairs) -> SearchQuery:
    page = min(_PAGE, retrieval.session.settings.limits.page_size)
    return query_to_act_on(retrieval, _OPERATION, path, pairs, key=key, below=below, page=page)


async def _collect(
    retrieval: Retrieval, search: SearchQuery, what: Callable[[DicomJson], _T], keep: Callable[[Iterable[_T]], None]
) -> None:
    """Page through a search, keeping only what is needed of each result: results are large, and there may be many."""
    async for page in find(retrieval.session, search, None, []):
        keep([what(item) for item in page])
        page.clear()
