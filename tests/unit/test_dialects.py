"""The URL shapes, byte for byte."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async import DicomWeb
from postdicom_async.dicomweb.dialects import DIALECTS, DICOMWEB, POSTDICOM, Dialect, Route
from postdicom_async.errors import UsageError

UIDS = {"study": "1.2", "series": "1.2.3", "instance": "1.2.3.4"}

# PS3.18 sections 10.4.1, 10.5.1 and 10.6.1.
STANDARD = {
    Route.STORE: "/studies",
    Route.STORE_IN_STUDY: "/studies/1.2",
    Route.SEARCH_STUDIES: "/studies",
    Route.SEARCH_SERIES: "/series",
    Route.SEARCH_SERIES_OF_STUDY: "/studies/1.2/series",
    Route.SEARCH_INSTANCES: "/instances",
    Route.SEARCH_INSTANCES_OF_STUDY: "/studies/1.2/instances",
    Route.SEARCH_INSTANCES_OF_SERIES: "/studies/1.2/series/1.2.3/instances",
    Route.STUDY: "/studies/1.2",
    Route.SERIES: "/studies/1.2/series/1.2.3",
    Route.INSTANCE: "/studies/1.2/series/1.2.3/instances/1.2.3.4",
}

# As the vendor's samples address them.
VENDOR = {
    Route.STORE: "/",
    Route.SEARCH_STUDIES: "/studies",
    Route.SEARCH_SERIES_OF_STUDY: "/studies/series?0020000D=1.2",
    Route.SEARCH_INSTANCES_OF_SERIES: "/studies/series/instances?0020000E=1.2.3",
    Route.STUDY: "/studies/1.2",
    Route.SERIES: "/studies/series/1.2.3",
    Route.INSTANCE: "/studies/series/instances/1.2.3.4",
}


@pytest.mark.parametrize(
    ("dialect", "route", "path"),
    [(dialect, *row) for dialect, rows in ((DICOMWEB, STANDARD), (POSTDICOM, VENDOR)) for row in rows.items()],
    ids=str,
)
def test_path(dialect: Dialect, route: Route, path: str) -> None:
    assert dialect.path(route, **UIDS) == path


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_names_what_there_is(dialect: Dialect) -> None:
    assert DIALECTS[dialect.name] is dialect
    assert {Route.STORE, Route.SEARCH_STUDIES, Route.STUDY, Route.SERIES, Route.INSTANCE} <= set(dialect.routes)
    for route, template in dialect.routes.items():
        assert dialect.can(route, UIDS), route
        assert template.startswith("/")
        path = dialect.path(route, **dict.fromkeys(UIDS, "1/2?3&4=5"))
        assert "1/2" not in path
        assert path.count("/") == template.count("/")


def test_a_signature_can_be_read() -> None:
    assert len(str(inspect.signature(DicomWeb))) < 500
    assert repr(DICOMWEB) == "<Dialect dicomweb>"


def test_the_tables_are_complete() -> None:
    assert set(DICOMWEB.routes) == set(Route) == set(STANDARD)
    assert set(POSTDICOM.routes) == set(VENDOR)
    assert DIALECTS == {"dicomweb": DICOMWEB, "postdicom": POSTDICOM}


@pytest.mark.parametrize("route", sorted(set(Route) - set(VENDOR)))
def test_what_the_vendor_does_not_offer_is_refused(route: Route) -> None:
    with pytest.raises(UsageError, match="the postdicom dialect cannot"):
        POSTDICOM.path(route, **UIDS)


@pytest.mark.parametrize(
    ("route", "hint"),
    [
        (Route.SEARCH_SERIES, "give study_instance_uid"),
        (Route.SEARCH_INSTANCES, "give series_instance_uid"),
        (Route.SEARCH_INSTANCES_OF_STUDY, "give series_instance_uid"),
    ],
)
def test_the_refusal_says_what_to_give(route: Route, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        POSTDICOM.path(route, **UIDS)


@pytest.mark.parametrize(
    ("dialect", "route", "suffix", "path"),
    [
        (DICOMWEB, Route.STUDY, "/metadata", "/studies/1.2/metadata"),
        (DICOMWEB, Route.INSTANCE, "/frames/1,2", "/studies/1.2/series/1.2.3/instances/1.2.3.4/frames/1,2"),
        (POSTDICOM, Route.SERIES, "/metadata", "/studies/series/1.2.3/metadata"),
        (POSTDICOM, Route.SEARCH_SERIES_OF_STUDY, "/x", "/studies/series/x?0020000D=1.2"),
    ],
)
def test_suffix_stands_before_the_query(dialect: Dialect, route: Route, suffix: str, path: str) -> None:
    assert dialect.path(route, suffix, **UIDS) == path


@pytest.mark.parametrize(
    ("dialect", "route", "given_values", "can"),
    [
        (DICOMWEB, Route.SEARCH_INSTANCES_OF_SERIES, {"study", "series"}, True),
        (DICOMWEB, Route.SEARCH_INSTANCES_OF_SERIES, {"series"}, False),
        (POSTDICOM, Route.SEARCH_INSTANCES_OF_SERIES, {"series"}, True),
        (POSTDICOM, Route.SEARCH_INSTANCES_OF_STUDY, {"study"}, False),
        (DICOMWEB, Route.SEARCH_STUDIES, set(), True),
        (DICOMWEB, Route.STUDY, set(), False),
    ],
)
def test_can(dialect: Dialect, route: Route, given_values: set[str], can: bool) -> None:
    assert dialect.can(route, given_values) is can


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_value_never_leaves_its_segment(value: str) -> None:
    path = DICOMWEB.path(Route.SEARCH_SERIES_OF_STUDY, study=value)
    assert path.count("/") == 3
    assert not set(path) & set("?#& \r\n")
    query = POSTDICOM.path(Route.SEARCH_SERIES_OF_STUDY, study=value)
    assert (query.count("?"), query.count("&"), query.count("=")) == (1, 0, 1)


def test_a_dialect_is_data_that_can_be_changed() -> None:
    other = replace(DICOMWEB, name="own", routes={**DICOMWEB.routes, Route.STORE: "/upload"}, pages=False)
    assert other.path(Route.STORE) == "/upload"
    assert DICOMWEB.path(Route.STORE) == "/studies"


def test_how_filters_are_written() -> None:
    """PS3.18 has both forms; both samples of PostDICOM's write tags."""
    assert (DICOMWEB.filter_form, POSTDICOM.filter_form) == ("keyword", "tag")
    assert replace(POSTDICOM, filter_form="keyword").filter_form == "keyword"


@pytest.mark.parametrize(
    ("changed", "argument"),
    [({"filter_form": "Keyword"}, "filter_form"), ({"url_bytes": 100}, "url_bytes"), ({"url_bytes": "x"}, "url_bytes"),
     ({"url_bytes": True}, "url_bytes"), ({"pages": "no"}, "pages"), ({"lists_by_series": 1}, "lists_by_series"),
     ({"instances_per_store": 2.5}, "instances_per_store"), ({"instances_per_store": "x"}, "instances_per_store"),
     ({"instances_per_store": True}, "instances_per_store"), ({"instances_per_store": 0}, "instances_per_store"),
     ({"routes": {Route.STUDY: "/x/{stduy}"}}, "routes"), ({"routes": {"a study": "/x"}}, "routes"),
     ({"routes": {Route.STUDY: "x"}}, "routes"), ({"routes": {Route.STUDY: "/{study"}}, "routes")],
)  # fmt: skip
def test_fields_that_make_no_sense(changed: dict[str, Any], argument: str) -> None:
    with pytest.raises(UsageError, match=f"^{argument}: give"):
        replace(DICOMWEB, **changed)
