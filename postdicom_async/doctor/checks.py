"""The doctor's checks: what is assumed of an archive, the source of that assumption, and how to change it.

All routes are covered, and a test compares the report with the fields of the dialect and of `Wire`, so that no
assumption can be left out. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from postdicom_async.dicomweb.dialects import DIALECTS, Dialect, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postdicom_async.vendor.wire import Wire


class Mark(StrEnum):
    """The source of an assumption."""

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
        key: the key of its finding.
        area: what it is about.
        title: what is examined.
        assumed: what the library assumes; empty if it accepts anything.
        marks: the sources of the assumption.
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
    """Return the lines of a report, in order; ``wire`` is None for archives without PostDICOM's operations."""
    is_vendor = wire is not None
    samples = _SAMPLES if is_vendor else ()
    basic = "HTTP Basic" if is_vendor else ""
    return [
        Check("reachable", Area.CONNECTION, "the service answers"),
        Check("tls", Area.CONNECTION, "encryption", "https", samples, "the address; Tls(…) for certificates"),
        Check("credentials", Area.CONNECTION, "credentials", basic, samples, "DicomWeb(auth=…)"),
        *_shapes(dialect, other, is_vendor=is_vendor),
        *_fields(dialect, is_vendor=is_vendor),
        *_answers(is_vendor=is_vendor),
        *([] if wire is None else _operations(wire)),
    ]


# --- the dialect ----------------------------------------------------------------------------------------------------

_UNTRIED_ROUTES: Final = {
    Route.STORE: _STORES,
    Route.STORE_IN_STUDY: _STORES,
    Route.STUDY: _FETCHES_ALL,
    Route.SERIES: _FETCHES_ALL,
}
_LEVELS: Final = (Route.SEARCH_SERIES_OF_STUDY, Route.SEARCH_INSTANCES_OF_SERIES, Route.INSTANCE)
_OTHER: Final = (*_LEVELS, Route.SEARCH_INSTANCES_OF_STUDY)


def _shapes(dialect: Dialect, other: Dialect, *, is_vendor: bool) -> Iterator[Check]:
    """Yield a check for each route of the dialect, and for those of the other family that are tried as well."""
    stock = DIALECTS[dialect.name].routes if dialect.name in DIALECTS else {}
    marks = _SAMPLES if is_vendor else (Mark.STANDARD,)
    for route in dialect.routes if is_vendor else (Route.SEARCH_STUDIES, *_OTHER):
        if template := dialect.routes.get(route):
            # A changed route may contain part of a private address.
            shape = template if stock.get(route) == template else "changed by the caller"
            switch = f"dialect=replace(POSTDICOM, routes={{**POSTDICOM.routes, Route.{route.name}: …}})"
            untried = _UNTRIED_ROUTES.get(route, "not tried")
            key = f"route {route.name}"
            yield Check(key, Area.SHAPES, route.value, shape, marks, switch if is_vendor else "", untried)
    for route in _OTHER:
        if route in other.routes:
            yield Check(f"other {route.name}", Area.SHAPES, f"{route.value}, as in the {other.name} dialect")


def _fields(dialect: Dialect, *, is_vendor: bool) -> list[Check]:
    """Return a check for each field of the dialect but its name and routes, and for filters in searches."""
    change = "dialect=replace(POSTDICOM, {})" if is_vendor else "dialect=replace(DICOMWEB, {})"
    page_size = "Settings(limits=Limits(page_size=…))"
    pages, marks = (change.format("pages=False"), _GUESS) if is_vendor else (page_size, (Mark.STANDARD,))
    writes = _SAMPLES if is_vendor else (Mark.STANDARD,)
    used, other = f"{dialect.filter_form}s", "tag" if dialect.filter_form == "keyword" else "keyword"
    one_form = change.format(f'filter_form="{other}"')
    store = f"{dialect.instances_per_store or 'any number'}"
    several = change.format("instances_per_store=…")
    listed = "series by series" if dialect.lists_by_series else "at once"
    at_once = change.format("lists_by_series=False, routes=… with SEARCH_INSTANCES_OF_STUDY")
    vendor = [
        Check("instances_per_store", Area.ANSWERS, "instances in a store request", store, _SAMPLES, several, _STORES),
        Check("lists_by_series", Area.SHAPES, "instances of a study are listed", listed, _SAMPLES, at_once),
    ]
    here, short = Area.PAGING, "a short page is not taken for the last one"
    longest = f"{dialect.url_bytes} bytes"
    return [
        Check("limit", here, "limit", "taken; asked once more without if refused", marks, pages),
        Check("offset", here, "offset", "taken", marks, pages),
        Check("page limit", here, "results a page", short, _GUESS, page_size),
        *(vendor if is_vendor else []),
        Check("filter_form", Area.FILTERS, "filters are written as", used, writes, one_form),
        Check("keyword form", Area.FILTERS, "search by keyword"),
        Check("tag form", Area.FILTERS, "search by tag"),
        Check("url_bytes", Area.FILTERS, "the longest URL", longest, _GUESS, change.format("url_bytes=…")),
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


_WIRE_FIELDS: Final = {
    "true": ("a true boolean", (Mark.CS,), "not tried"),
    "false": ("a false boolean", (Mark.CS,), "not tried"),
    "inner_order_key": ("key of an order in createsharelink", _SAMPLES, "not tried: it would share something"),
    "sends_empty": ("parameters not given go out empty", _SAMPLES, "not tried"),
    "absent_list": ("a list not given", (Mark.CS,), "not tried"),
    "header_bytes": ("bytes of parameters", _GUESS, "not tried"),
}
"""What each field of `Wire` says, where that is from, and what is said of it where it was not tried."""


def _operations(wire: Wire) -> list[Check]:
    """Return the checks of PostDICOM's operations, and one for each field of ``wire``."""
    here, table = Area.OPERATIONS, "postdicom/operations.py, one line each"
    header, known = "GET with parameters in a header", (*_SAMPLES, Mark.DOCUMENTED)
    one_sample = (Mark.CS, Mark.DOCUMENTED)  # the Node sample lacks these
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
        *(
            Check(f"wire {name}", here, title, str(getattr(wire, name)), marks, f"wire=Wire({name}=…)", untried)
            for name, (title, marks, untried) in _WIRE_FIELDS.items()
        ),
    ]
