"""Searches and metadata of the synchronous client, as DICOM JSON."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

from postdicom_async.dicomweb.dialects import ASKING_FOR_JSON, Route
from postdicom_async.dicomweb.filters import (
    INSTANCE_UID,
    SERIES_UID,
    STUDY_UID,
    Pairs,
    filter_choices,
    filter_pairs,
    include_pairs,
    wire_pairs,
)
from postdicom_async.dicomweb.json_answer import JsonAnswer
from postdicom_async.dicomweb.search import SearchQuery, check_page, find
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.sync.asking import Asking, Params, pairs_of, required, with_query
from postdicom_async.sync.failures import as_callers_catch_it

if TYPE_CHECKING:
    from postdicom_async.dicom.json_reading import DicomJson
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.dicomweb.retrieve import Target

_LOG = logging.getLogger(__name__)

SearchFilters: TypeAlias = Mapping[str, Any]
"""DICOM keywords or tags to what they must match: text, a number, a date, or a list of texts."""


class Searching(Asking):
    """Part of `DICOMwebClient`, which documents its arguments and errors."""

    def search_for_studies(
        self,
        fuzzymatching: bool | None = None,
        limit: int | None = None,
        offset: int | None = None,
        fields: Iterable[str] | None = None,
        search_filters: SearchFilters | None = None,
        get_remaining: bool = False,
        additional_params: Params | None = None,
    ) -> list[dict[str, Any]]:
        """Find studies (PS3.18 section 10.6).

        Args:
            fuzzymatching: ask for fuzzy matching of names, or ask not to.
            limit: the most results wanted; with ``get_remaining`` how many are asked for at a time.
            offset: results to skip.
            fields: attributes to return besides the standard ones.
            search_filters: DICOM keywords or tags to what they must match.
            get_remaining: get what the archive did not give at once too.
            additional_params: further parameters of the query, which replace those of the same name.

        Returns:
            The results as DICOM JSON (PS3.18 annex F). What the archive says in a ``Warning`` header, and results that
            contradict the filters, are logged as warnings.

        Raises:
            UsageError: an argument is wrong; it is a ``ValueError``.
            HTTPError: the archive refused; ``response.status_code`` says how.
            PostdicomError: it could not be asked.
        """
        paging = _Paging(limit, offset, get_remaining, fuzzymatching)
        return self._found(
            "studies", Route.SEARCH_STUDIES, {}, STUDY_UID, search_filters, fields, paging, additional_params
        )

    def search_for_series(
        self,
        study_instance_uid: str | None = None,
        fuzzymatching: bool | None = None,
        limit: int | None = None,
        offset: int | None = None,
        fields: Iterable[str] | None = None,
        search_filters: SearchFilters | None = None,
        get_remaining: bool = False,
        additional_params: Params | None = None,
    ) -> list[dict[str, Any]]:
        """Find series, of one study or of all; see `search_for_studies`."""
        paging = _Paging(limit, offset, get_remaining, fuzzymatching)
        route = Route.SEARCH_SERIES if study_instance_uid is None else Route.SEARCH_SERIES_OF_STUDY
        uids = {} if study_instance_uid is None else {"study": self._target(study_instance_uid).study}
        return self._found("series", route, uids, SERIES_UID, search_filters, fields, paging, additional_params)

    def search_for_instances(
        self,
        study_instance_uid: str | None = None,
        series_instance_uid: str | None = None,
        fuzzymatching: bool | None = None,
        limit: int | None = None,
        offset: int | None = None,
        fields: Iterable[str] | None = None,
        search_filters: SearchFilters | None = None,
        get_remaining: bool = False,
        additional_params: Params | None = None,
    ) -> list[dict[str, Any]]:
        """Find instances, of one series, one study or all; see `search_for_studies`."""
        paging = _Paging(limit, offset, get_remaining, fuzzymatching)
        route, uids = Route.SEARCH_INSTANCES, dict[str, str]()
        if study_instance_uid is not None:
            route, uids["study"] = Route.SEARCH_INSTANCES_OF_STUDY, self._target(study_instance_uid).study
        if series_instance_uid is not None:
            route = Route.SEARCH_INSTANCES_OF_SERIES
            uids["series"] = self._target("1.2", series_instance_uid).series or ""
            if not self._routes.can(route, uids):
                raise UsageError("give it too, a series is addressed by its study", argument="study_instance_uid")
        return self._found("instances", route, uids, INSTANCE_UID, search_filters, fields, paging, additional_params)

    def _found(
        self,
        what: str,
        route: Route,
        uids: dict[str, str],
        key: str,
        search_filters: SearchFilters | None,
        fields: Iterable[str] | None,
        paging: _Paging,
        additional_params: Params | None,
    ) -> list[DicomJson]:
        filters = _filters(search_filters)
        matching, choices = tuple(filter_pairs(filters)), filter_choices(filters)
        pairs_of(additional_params)  # refuses what is no mapping
        additional = dict(additional_params or {})
        paging = paging.replaced_by(additional)
        others = (*include_pairs(fields), *paging.fuzzy)

        def kept(pairs: Pairs) -> Pairs:
            written = wire_pairs((*pairs, *others), self._routes.filter_form)
            named = zip((*pairs, *others), written, strict=True)
            return tuple(pair for pair, (name, _) in named if not {pair[0], name} & set(additional))  # those replace it

        # what may have to be split into several searches is paged by the engine
        whole = paging.all_pages or bool(choices) or any("," in value for _, value in matching)

        async def search(archive: DicomWeb) -> list[DicomJson]:
            query = SearchQuery(
                f"search for {what}",
                with_query(self._routes.path(route, **uids), additional),
                kept(matching) if whole else (*kept(matching), *paging.pairs),
                key=key,
                limit=None if paging.all_pages else paging.limit,
                offset=paging.offset if whole else 0,
                page=paging.page(archive.settings.limits.page_size) if whole else None,
                private=tuple(dict.fromkeys(value for pairs in (matching, *choices) for _, value in pairs)),
                dialect=self._routes,
                below=tuple((_TAGS[name], uid) for name, uid in uids.items()),
                choices=tuple(dict.fromkeys(map(kept, choices))),
            )
            warnings: list[str] = []
            results: list[DicomJson] = []
            async with aclosing(find(archive.internals.session, query, None, warnings)) as pages:
                async for page in pages:
                    results += page
            for note in warnings:
                _LOG.warning("search for %s: %s", what, note)
            return results

        return self._run(search, f"search for {what}")

    # --- metadata -----------------------------------------------------------------------------------------------------

    def retrieve_study_metadata(
        self, study_instance_uid: str, additional_params: Params | None = None
    ) -> list[dict[str, Any]]:
        """Return the attributes of all instances of a study as DICOM JSON, without bulk data.

        Raises:
            UsageError: an argument is wrong; it is a ``ValueError``.
            HTTPError: the archive refused.
            PostdicomError: it could not be asked.
        """
        return self._metadata(self._target(required("study_instance_uid", study_instance_uid)), additional_params)

    def retrieve_series_metadata(
        self, study_instance_uid: str, series_instance_uid: str, additional_params: Params | None = None
    ) -> list[dict[str, Any]]:
        """Return the attributes of all instances of a series; see `retrieve_study_metadata`."""
        series = required("series_instance_uid", series_instance_uid)
        return self._metadata(self._target(study_instance_uid, series), additional_params)

    def retrieve_instance_metadata(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        additional_params: Params | None = None,
    ) -> dict[str, Any]:
        """Return the attributes of one instance; see `retrieve_study_metadata`."""
        target = self._instance(study_instance_uid, series_instance_uid, sop_instance_uid)
        found = self._metadata(target, additional_params)
        if not found:
            with as_callers_catch_it():
                raise ProtocolError("the archive answered with no metadata", operation="retrieve metadata of instance")
        return found[0]

    def _metadata(self, target: Target, params: Params | None) -> list[DicomJson]:
        path = self._path(target, "/metadata", params)
        call = Call(
            f"retrieve metadata of {target.route}", "GET", path, Repeat.READ, headers=ASKING_FOR_JSON, metadata=True
        )

        async def read(archive: DicomWeb) -> list[DicomJson]:
            results: list[DicomJson] = []
            answer = JsonAnswer(archive.internals.session.one_call(), call, wanted=None, key=INSTANCE_UID)
            async with aclosing(answer.batches()) as batches:
                async for batch in batches:
                    results += batch
            return results

        return self._run(read, call.operation)


_TAGS = {"study": STUDY_UID, "series": SERIES_UID}  # by the placeholders of a dialect


class _Paging:
    """Which part of the results is wanted.

    Attributes:
        limit: the most results, or with ``all_pages`` the size of a page.
        offset: results to skip.
        all_pages: whether to go on until there are no more.
        pairs: the parameters of a single request, as the caller wants them and no others.
        fuzzy: the parameter for fuzzy matching.
    """

    def __init__(self, limit: int | None, offset: int | None, all_pages: bool, fuzzy: bool | None) -> None:
        check_page(limit, offset or 0)
        if not isinstance(fuzzy, bool | None):
            raise UsageError("give True, False or None", argument="fuzzymatching")
        self.limit: int | None = limit
        self.offset: int = offset or 0
        self.all_pages: bool = bool(all_pages)
        given = [("limit", limit), ("offset", offset)]
        self.pairs: list[tuple[str, str]] = [(name, str(value)) for name, value in given if value is not None]
        self.fuzzy: list[tuple[str, str]] = [] if fuzzy is None else [("fuzzymatching", str(fuzzy).lower())]
        self._was = (limit, offset, all_pages, fuzzy)

    def page(self, usual: int) -> int | None:
        """Return how many results to ask for at a time; None to ask for no number."""
        return self.limit or (usual if self.all_pages or self.offset else None)

    def replaced_by(self, additional: dict[str, object]) -> _Paging:
        """Return what holds with parameters of the caller's own, which are taken out of them."""
        limit, offset, all_pages, fuzzy = self._was
        if not {"limit", "offset"} & set(additional):
            return self
        try:
            limit = int(str(additional.pop("limit", limit))) if "limit" in additional else limit
            offset = int(str(additional.pop("offset", offset))) if "offset" in additional else offset
        except ValueError:
            raise UsageError("limit and offset are numbers", argument="additional_params") from None
        return _Paging(limit, offset, all_pages, fuzzy)


def _filters(search_filters: SearchFilters | None) -> dict[str, Any]:
    """Return filters as the engine takes them: any sequence or set is a list, a truth or a fraction is a text.

    Raises:
        UsageError: they are no mapping.
    """
    if search_filters is not None and not isinstance(search_filters, Mapping):
        raise UsageError("give a mapping of DICOM keywords or tags to what they must match", argument="search_filters")
    return {name: _matched(value) for name, value in (search_filters or {}).items()}


def _matched(value: object) -> object:
    if isinstance(value, list | tuple | set | frozenset):
        return [str(one) for one in value]
    return str(value) if isinstance(value, bool | float) else value
