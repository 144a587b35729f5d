"""What the doctor looks at, beside what is assumed of PostDICOM's service, where that is from, and how to change it.

The table is complete by construction: the routes and fields of the dialect and of `Wire` are walked, so that nothing
that is assumed can be left out of a report. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from postdicom_async.dicomweb.dialects import DIALECTS, Dialect, Route

if TYPE_CHECKING:
    from postdicom_async.vendor.wire import Wire

__all__ = ["Area", "Check", "Mark", "checks_for"]


class Mark(StrEnum):
    """Where an assumption is from."""

    DOCUMENTED = "documented"
    CS = "C# sample"
    NODE = "Node sample"
    STANDARD = "PS3.18"
    ASSUMED = "assumed"


class Area(StrEnum):
    """What a check is about."""

    CONNECTION = "Connection"
    SHAPES = "URL shapes"
    FILTERS = "Filters"
    PAGING = "Paging"
    ANSWERS = "Answers"
    OPERATIONS = "PostDICOM's operations"


_SAMPLES: Final = (Mark.CS, Mark.NODE)
_GUESS: Final = (Mark.ASSUMED,)
_STORES: Final = "not tried: it would store something"
_CHANGES: Final = "not tried: it would change something"
_FETCHES_ALL: Final = "not tried: it would fetch all of it"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        key: what a finding is filed under.
        area: what it is about.
        title: what is looked at.
        assumed: what the library takes for granted; empty where it takes either way.
        marks: where that is from.
        switch: how to change it.
        untried: what the report says when there is no finding.
    """

    key: str
    area: Area
    title: str
    assumed: str = ""
    marks: tuple[Mark, ...] = ()
    switch: str = ""
    untried: str = "not tried"


def checks_for(dialect: Dialect, other: Dialect, wire: Wire | None) -> list[Check]:
    """Return the lines of a report, in order; ``wire`` is None where there are no operations of PostDICOM's."""
    is_vendor = wire is not None
    return [
        *_connection(is_vendor=is_vendor),
        *_own_routes(dialect, is_vendor=is_vendor),
        *_other_routes(other),
        *(_dialect_fields(dialect) if is_vendor else _paging((Mark.STANDARD,), "Settings(limits=Limits(page_size=…))")),
        *([] if is_vendor else [*_filter_form(dialect, "DICOMWEB"), _url_bytes(dialect, "DICOMWEB")]),
        *_answers(is_vendor=is_vendor),
        *([] if wire is None else [*_operations(), *_wire_fields(wire)]),
    ]


def _connection(*, is_vendor: bool) -> list[Check]:
    marks = _SAMPLES if is_vendor else ()
    return [
        Check("reachable", Area.CONNECTION, "the service answers"),
        Check("tls", Area.CONNECTION, "encryption", "https", marks, "the address; Tls(…) for certificates"),
        Check(
            "credentials", Area.CONNECTION, "credentials", "HTTP Basic" if is_vendor else "", marks, "DicomWeb(auth=…)"
        ),
    ]


# --- the dialect ----------------------------------------------------------------------------------------------------

_UNTRIED_ROUTES: Final = {
    Route.STORE: _STORES,
    Route.STORE_IN_STUDY: _STORES,
    Route.STUDY: _FETCHES_ALL,
    Route.SERIES: _FETCHES_ALL,
}
_LEVELS: Final = (Route.SEARCH_SERIES_OF_STUDY, Route.SEARCH_INSTANCES_OF_SERIES, Route.INSTANCE)
_TRIED: Final = (Route.SEARCH_STUDIES, *_LEVELS, Route.SEARCH_INSTANCES_OF_STUDY)


def _own_routes(dialect: Dialect, *, is_vendor: bool) -> list[Check]:
    routes = dialect.routes if is_vendor else [route for route in _TRIED if route in dialect.routes]
    return [_own_route(dialect, route, is_vendor=is_vendor) for route in routes]


def _own_route(dialect: Dialect, route: Route, *, is_vendor: bool) -> Check:
    template = dialect.routes[route]
    stock = DIALECTS.get(dialect.name)
    # A changed route may hold a part of somebody's address.
    is_stock = stock is not None and stock.routes.get(route) == template
    switch = f"dialect=replace(POSTDICOM, routes={{**POSTDICOM.routes, Route.{route.name}: …}})" if is_vendor else ""
    return Check(
        f"route {route.name}",
        Area.SHAPES,
        route.value,
        template if is_stock else "changed by the caller",
        _SAMPLES if is_vendor else (Mark.STANDARD,),
        switch,
        _UNTRIED_ROUTES.get(route, "not tried"),
    )


def _other_routes(other: Dialect) -> list[Check]:
    routes = [*_LEVELS, Route.SEARCH_INSTANCES_OF_STUDY]
    return [
        Check(f"other {route.name}", Area.SHAPES, f"{route.value}, as in the {other.name} dialect")
        for route in routes
        if route in other.routes
    ]


def _dialect_fields(dialect: Dialect) -> list[Check]:
    """Return a check for each field of the dialect but its name and routes."""
    known = {
        "pages": _paging(_GUESS, "dialect=replace(POSTDICOM, pages=False)"),
        "instances_per_store": [
            Check(
                "instances_per_store",
                Area.ANSWERS,
                "instances in a store request",
                f"{dialect.instances_per_store or 'any number'}",
                _SAMPLES,
                "dialect=replace(POSTDICOM, instances_per_store=…)",
                _STORES,
            )
        ],
        "lists_by_series": [
            Check(
                "lists_by_series",
                Area.SHAPES,
                "instances of a study are listed",
                "series by series" if dialect.lists_by_series else "at once",
                _SAMPLES,
                "dialect=replace(POSTDICOM, lists_by_series=False, routes=… with SEARCH_INSTANCES_OF_STUDY)",
            )
        ],
        "filter_form": _filter_form(dialect, "POSTDICOM"),
        "url_bytes": [_url_bytes(dialect, "POSTDICOM")],
    }
    names = [field.name for field in fields(dialect) if field.name not in {"name", "routes"}]
    return [check for name in names for check in known[name]]


def _filter_form(dialect: Dialect, stock: str) -> list[Check]:
    """Return the checks of how filters are written: the one that is used, and what the archive makes of each."""
    marks = _SAMPLES if stock == "POSTDICOM" else (Mark.STANDARD,)
    used, other = f"{dialect.filter_form}s", "tag" if dialect.filter_form == "keyword" else "keyword"
    here = Area.FILTERS
    return [
        Check(
            "filter_form",
            here,
            "filters are written as",
            used,
            marks,
            f'dialect=replace({stock}, filter_form="{other}")',
        ),
        Check("keyword form", here, "search by keyword"),
        Check("tag form", here, "search by tag"),
    ]


def _url_bytes(dialect: Dialect, stock: str) -> Check:
    switch = f"dialect=replace({stock}, url_bytes=…)"
    return Check("url_bytes", Area.FILTERS, "the longest URL", f"{dialect.url_bytes} bytes", _GUESS, switch)


def _paging(marks: tuple[Mark, ...], switch: str) -> list[Check]:
    pages = "a short page is not taken for the last one"
    return [
        Check("limit", Area.PAGING, "limit", "taken; asked once more without if refused", marks, switch),
        Check("offset", Area.PAGING, "offset", "taken", marks, switch),
        Check("page limit", Area.PAGING, "results a page", pages, _GUESS, "Settings(limits=Limits(page_size=…))"),
    ]


# --- answers --------------------------------------------------------------------------------------------------------


def _answers(*, is_vendor: bool) -> list[Check]:
    guess = _GUESS if is_vendor else (Mark.STANDARD,)
    samples = _SAMPLES if is_vendor else (Mark.STANDARD,)
    reason = (Mark.CS,) if is_vendor else ()
    below = "leave retrieve_*_metadata, *_frames, *_rendered and *_thumbnail alone"
    either = "nothing to switch: whatever comes is taken"
    many, files = "204, or 200 with an empty list", "multipart/related of DICOM files"
    here = Area.ANSWERS
    return [
        Check("search type", here, "type of a search's answer", "DICOM JSON or JSON", guess, either),
        Check("no match", here, "search without a match", many, guess, either),
        Check("includefield", here, "includefield", "taken", guess, "leave fields= out of searches"),
        Check("retrieve type", here, "a retrieved instance", files, samples, either),
        Check("accept", here, "Accept header", "one of three, as stored first", guess, "nothing to switch: steps down"),
        Check("metadata", here, "metadata of an instance", "/metadata below its path", guess, below),
        Check("error status", here, "an instance that is not there", "404", guess, either),
        Check("error reason", here, "reason of a failure", "X-Error-Reason" if is_vendor else "", reason, either),
    ]


# --- PostDICOM's operations -----------------------------------------------------------------------------------------


def _operations() -> list[Check]:
    here, table = Area.OPERATIONS, "postdicom/operations.py, one line each"
    header, known = "GET with parameters in a header", (*_SAMPLES, Mark.DOCUMENTED)
    one_sample = (Mark.CS, Mark.DOCUMENTED)  # the Node sample has none of these
    ascii_only = "JSON in ASCII, with \\u escapes"
    names = "JSON or text; names of the service's JavaScript library"
    return [
        Check("folders", here, "searchfolder", header, known, table),
        Check("orders", here, "getpatientorderlist", header, one_sample, table),
        Check("properties", here, "getpatientorderproperties", header, one_sample, table),
        Check("tags", here, "getdicomtagcontent", header, one_sample, table, "not tried: only some accounts may"),
        Check("delete", here, "deleteorder", header, one_sample, table, _CHANGES),
        Check("changes", here, "the other eight", header, known, table, _CHANGES),
        Check("folder answer", here, "answer of searchfolder", names, _GUESS, "any other name is in .raw"),
        Check("order answer", here, "answer of getpatientorderlist", names, _GUESS, "any other name is in .raw"),
        Check("ascii", here, "names in any script", ascii_only, _GUESS, table),
    ]


_WIRE_MARKS: Final = {
    "true": (Mark.CS,),
    "false": (Mark.CS,),
    "inner_order_key": _SAMPLES,
    "sends_empty": _SAMPLES,
    "absent_list": (Mark.CS,),
    "header_bytes": _GUESS,
}
_WIRE_TITLES: Final = {
    "true": "a true boolean",
    "false": "a false boolean",
    "inner_order_key": "key of an order in createsharelink",
    "sends_empty": "parameters not given go out empty",
    "absent_list": "a list not given",
    "header_bytes": "bytes of parameters",
}
_WIRE_UNTRIED: Final = {"inner_order_key": "not tried: it would share something"}


def _wire_fields(wire: Wire) -> list[Check]:
    """Return a check for each field of `Wire`."""
    names = [field.name for field in fields(wire)]
    return [
        Check(
            f"wire {name}",
            Area.OPERATIONS,
            _WIRE_TITLES[name],
            str(getattr(wire, name)),
            _WIRE_MARKS[name],
            f"wire=Wire({name}=…)",
            _WIRE_UNTRIED.get(name, "not tried"),
        )
        for name in names
    ]
