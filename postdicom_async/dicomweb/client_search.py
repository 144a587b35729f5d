"""Search and metadata: the attributes an archive returns for its studies, series and instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.dicom.header import checked_uid
from postdicom_async.dicomweb.dialects import ASKING_FOR_JSON, Dialect, Route
from postdicom_async.dicomweb.filters import (
    INSTANCE_UID,
    SERIES_UID,
    STUDY_UID,
    Filters,
    filter_choices,
    filter_pairs,
    include_pairs,
)
from postdicom_async.dicomweb.json_answer import JsonAnswer
from postdicom_async.dicomweb.retrieve import target_of
from postdicom_async.dicomweb.search import SearchQuery, check_page, find, load_data_sets, to_dataset
from postdicom_async.dicomweb.table import ResultTable
from postdicom_async.errors import UsageError
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Session
from postdicom_async.paging import Results
from postdicom_async.watching import watched_pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from pydicom.dataset import Dataset

    from postdicom_async.dicom.json_reading import DicomJson
    from postdicom_async.dicomweb.retrieve import Target

_TAGS = {"study": STUDY_UID, "series": SERIES_UID}  # by the placeholders of a dialect


class ClientSearch:
    """QIDO-RS and retrieve metadata. Part of `DicomWeb`, which documents its arguments and errors."""

    _session: Session
    _dialect: Dialect

    def search_for_studies(
        self,
        filters: Filters | None = None,
        *,
        fields: Iterable[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        fuzzymatching: bool = False,
    ) -> Results[Dataset]:
        """Find studies (PS3.18 section 10.6).

        Results are checked against the filters on UIDs, dates and Patient ID; if those were ignored, ``warnings`` of
        the result says so. Filters are written in the form of ``dialect.filter_form``. A list of UIDs that is too long
        for one URL (``dialect.url_bytes``) is split into several searches, whose results are joined; so is a list of
        anything else, into one for each value, since archives match lists of UIDs only.

        Args:
            filters: DICOM keyword or 8-hex tag, to the value it must match: text with ``*`` and ``?``, a date, a pair
                of dates for a range, or a list of UIDs or of other values, one of which must match.
            fields: attributes to return besides the standard ones, or ``"all"``.
            limit: the most results wanted; None for all. Pages are fetched as they are needed.
            offset: results to skip.
            fuzzymatching: ask for fuzzy matching of names; not every archive supports it.
        """
        return self._search(
            "search for studies", Route.SEARCH_STUDIES, {}, filters, fields, limit, offset, fuzzymatching, STUDY_UID
        )

    def search_for_series(
        self,
        filters: Filters | None = None,
        *,
        study_instance_uid: str | None = None,
        fields: Iterable[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        fuzzymatching: bool = False,
    ) -> Results[Dataset]:
        """Find series, of one study or of all; arguments as for `search_for_studies`."""
        route = Route.SEARCH_SERIES if study_instance_uid is None else Route.SEARCH_SERIES_OF_STUDY
        uids = _given(study_instance_uid=study_instance_uid)
        return self._search("search for series", route, uids, filters, fields, limit, offset, fuzzymatching, SERIES_UID)

    def search_for_instances(
        self,
        filters: Filters | None = None,
        *,
        study_instance_uid: str | None = None,
        series_instance_uid: str | None = None,
        fields: Iterable[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        fuzzymatching: bool = False,
    ) -> Results[Dataset]:
        """Find instances, of one series, one study or all; arguments as for `search_for_studies`."""
        uids = _given(study_instance_uid=study_instance_uid, series_instance_uid=series_instance_uid)
        route = {
            frozenset[str](): Route.SEARCH_INSTANCES,
            frozenset({"study"}): Route.SEARCH_INSTANCES_OF_STUDY,
        }.get(frozenset(uids), Route.SEARCH_INSTANCES_OF_SERIES)
        if route is Route.SEARCH_INSTANCES_OF_SERIES and not self._dialect.can(route, uids):
            raise UsageError("give it too, this archive addresses a series by its study", argument="study_instance_uid")
        return self._search(
            "search for instances", route, uids, filters, fields, limit, offset, fuzzymatching, INSTANCE_UID
        )

    def _search(
        self,
        operation: str,
        route: Route,
        uids: dict[str, str],
        filters: Filters | None,
        fields: Iterable[str] | None,
        limit: int | None,
        offset: int,
        fuzzymatching: bool,
        key: str,
    ) -> Results[Dataset]:
        matching, choices = filter_pairs(filters), filter_choices(filters)
        others = (*include_pairs(fields), *([("fuzzymatching", "true")] if fuzzymatching else []))
        search = SearchQuery(
            operation,
            self._dialect.path(route, **uids),
            (*matching, *others),
            key=key,
            limit=limit,
            offset=offset,
            page=self._session.settings.limits.page_size if self._dialect.pages else None,
            private=tuple(dict.fromkeys(value for pairs in (matching, *choices) for _, value in pairs)),
            dialect=self._dialect,
            below=tuple((_TAGS[name], uid) for name, uid in uids.items()),
            choices=tuple((*chosen, *others) for chosen in choices),
        )
        check_page(limit, offset)
        return Results(
            watched_pages(operation, lambda at_most, warnings: find(self._session, search, at_most, warnings)),
            to_dataset,
            load_data_sets,
            ResultTable(operation, key),
        )

    # --- metadata ------------------------------------------------------------------------------------------------

    def retrieve_study_metadata(self, study_instance_uid: str) -> Results[Dataset]:
        """Return the attributes of all instances of a study, without bulk data (PS3.18 section 10.4.1.1.2)."""
        return self._metadata(target_of(study_instance_uid))

    def retrieve_series_metadata(self, study_instance_uid: str, series_instance_uid: str) -> Results[Dataset]:
        """Return the attributes of all instances of a series; see `retrieve_study_metadata`."""
        return self._metadata(target_of(study_instance_uid, series_instance_uid))

    def retrieve_instance_metadata(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
    ) -> Results[Dataset]:
        """Return the attributes of one instance; see `retrieve_study_metadata`."""
        return self._metadata(target_of(study_instance_uid, series_instance_uid, sop_instance_uid))

    def _metadata(self, target: Target) -> Results[Dataset]:
        operation = f"retrieve metadata of {target.route}"
        path = target.path(self._dialect, "/metadata")

        def pages(at_most: int | None, _warnings: list[str]) -> AsyncIterator[list[DicomJson]]:
            call = Call(operation, "GET", path, Repeat.READ, headers=ASKING_FOR_JSON, metadata=True)
            return JsonAnswer(self._session.one_call(), call, wanted=at_most, key=INSTANCE_UID).batches()

        return Results(
            watched_pages(operation, pages), to_dataset, load_data_sets, ResultTable(operation, INSTANCE_UID)
        )


def _given(**uids: str | None) -> dict[str, str]:
    """Return the UIDs that were given, validated, by the name of their placeholder in a route."""
    return {name.partition("_")[0]: checked_uid(uid, name) for name, uid in uids.items() if uid is not None}
