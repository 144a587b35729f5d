"""What differs between DICOMweb servers: URL shapes, one object for each family, and media types. Pure.

A route is a path below the service's address with ``{placeholders}``, including the query if a family of servers
addresses by query. Everything assumed about PostDICOM's service is here, in `POSTDICOM`, and can be changed with
``dataclasses.replace``. Media types are the same for all families: what is asked for goes down a ladder until a server
takes it, and what a server declares is read laxly.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import quote

from postdicom_async.errors import UsageError
from postdicom_async.face import public_face

if TYPE_CHECKING:
    from collections.abc import Iterable

FilterForm: TypeAlias = Literal["keyword", "tag"]
"""How attributes are written in a query: ``PatientName=DOE*`` or ``00100010=DOE*`` (PS3.18 section 8.3.4)."""

_SHORTEST_URL = 128  # room for a path with three short UIDs: below that nothing could be split into several requests
_ROUTE = re.compile(r"/(?:[^{}]|\{(?:study|series|instance)\})*")


class Route(StrEnum):
    """What a URL addresses."""

    STORE = "store"
    STORE_IN_STUDY = "store in a study"
    SEARCH_STUDIES = "search studies"
    SEARCH_SERIES = "search series"
    SEARCH_SERIES_OF_STUDY = "search series of a study"
    SEARCH_INSTANCES = "search instances"
    SEARCH_INSTANCES_OF_STUDY = "search instances of a study"
    SEARCH_INSTANCES_OF_SERIES = "search instances of a series"
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


@public_face
@dataclass(frozen=True, slots=True)
class Dialect:
    """How to talk to one family of servers.

    Attributes:
        name: what messages call it, and for those of `DIALECTS` what ``--dialect`` takes.
        routes: what the family offers; a request for an absent one is refused before anything is sent.
        pages: searches are paged with ``limit`` and ``offset``.
        instances_per_store: the most instances in one store request, None if the family sets no limit.
        lists_by_series: to list the instances of a study, list its series first. If False, that is still done when the
            archive does not offer a list of all of them.
        filter_form: ``"keyword"`` or ``"tag"``. PS3.18 has both; some archives heed only one and ignore the other.
        url_bytes: the longest URL sent if there is a choice; longer lists of UIDs and of frames are split into several
            requests. The limits of servers and proxies start at 2,048 bytes.
    """

    name: str
    routes: dict[Route, str]
    pages: bool = True
    instances_per_store: int | None = None
    lists_by_series: bool = False
    filter_form: FilterForm = "keyword"
    url_bytes: int = 2000

    def __repr__(self) -> str:
        """Return its name alone: it stands in signatures."""
        return f"<Dialect {self.name}>"

    def __post_init__(self) -> None:
        """Refuse values that make no sense: later they would send a request somewhere else, or fail as a bare error."""
        for route, template in self.routes.items():
            if not isinstance(route, Route) or not _ROUTE.fullmatch(template):
                raise UsageError(
                    "give Route members and paths from / on, with {study}, {series} and {instance}", argument="routes"
                )
        for name in ("pages", "lists_by_series"):
            if type(getattr(self, name)) is not bool:
                raise UsageError("give True or False", argument=name)
        if self.filter_form not in {"keyword", "tag"}:
            raise UsageError('give "keyword" or "tag"', argument="filter_form")
        most = self.instances_per_store
        if most is not None and (type(most) is not int or most < 1):
            raise UsageError("give a number from 1 on, or None", argument="instances_per_store")
        if type(self.url_bytes) is not int or self.url_bytes < _SHORTEST_URL:
            raise UsageError(f"give a number from {_SHORTEST_URL} on", argument="url_bytes")

    def can(self, route: Route, values: Iterable[str]) -> bool:
        """Whether the route exists and needs only placeholders that ``values`` names."""
        template = self.routes.get(route, "")
        needed = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        return route in self.routes and needed <= set(values)

    def path(self, route: Route, suffix: str = "", **values: str) -> str:
        """Return the path and query of a route; ``suffix`` is appended to the path, before the query.

        Raises:
            UsageError: this family of servers has no such route.
        """
        template = self.routes.get(route)
        if template is None:
            raise UsageError(f"the {self.name} dialect cannot {route}; {self._instead(route)}")
        path, mark, query = template.partition("?")
        safe = {name: quote(value, safe="") for name, value in values.items()}
        return path.format(**safe) + suffix + mark + query.format(**safe)

    def _instead(self, route: Route) -> str:
        family = [other for other in self.routes if other.value.startswith(route.value.rsplit(" of ", 1)[0])]
        needed = {name for other in family for _, name, _, _ in string.Formatter().parse(self.routes[other]) if name}
        return (
            f"give {' and '.join(f'{name}_instance_uid' for name in sorted(needed))}" if needed else "it is not offered"
        )


# PS3.18 sections 10.4 to 10.6.
DICOMWEB: Final = Dialect(
    "dicomweb",
    {
        Route.STORE: "/studies",
        Route.STORE_IN_STUDY: "/studies/{study}",
        Route.SEARCH_STUDIES: "/studies",
        Route.SEARCH_SERIES: "/series",
        Route.SEARCH_SERIES_OF_STUDY: "/studies/{study}/series",
        Route.SEARCH_INSTANCES: "/instances",
        Route.SEARCH_INSTANCES_OF_STUDY: "/studies/{study}/instances",
        Route.SEARCH_INSTANCES_OF_SERIES: "/studies/{study}/series/{series}/instances",
        Route.STUDY: "/studies/{study}",
        Route.SERIES: "/studies/{study}/series/{series}",
        Route.INSTANCE: "/studies/{study}/series/{series}/instances/{instance}",
    },
)

# PostDICOM addresses series and instances without their parents (C# sample and Node sample). The sample has one
# instance in a store request; whether more are accepted, and whether searches are paged, is not known: one is assumed,
# and that paging parameters do no harm (a search refused with them is repeated once without). Both samples write
# filters as tags.
POSTDICOM: Final = Dialect(
    "postdicom",
    {
        Route.STORE: "/",
        Route.SEARCH_STUDIES: "/studies",
        Route.SEARCH_SERIES_OF_STUDY: "/studies/series?0020000D={study}",
        Route.SEARCH_INSTANCES_OF_SERIES: "/studies/series/instances?0020000E={series}",
        Route.STUDY: "/studies/{study}",
        Route.SERIES: "/studies/series/{series}",
        Route.INSTANCE: "/studies/series/instances/{instance}",
    },
    instances_per_store=1,
    lists_by_series=True,
    filter_form="tag",
)

DIALECTS: Final = {dialect.name: dialect for dialect in (DICOMWEB, POSTDICOM)}


# --- media types (PS3.18 section 8.7) ---------------------------------------------------------------------------------

DICOM_JSON: Final = "application/dicom+json"

ASKING_FOR_JSON: Final = {"Accept": DICOM_JSON, "Accept-Encoding": "gzip"}
"""Headers for search results or metadata. Those compress well; instances hardly do, and are requested uncompressed."""

# Accept headers to try, best first. The first keeps the stored transfer syntax (PS3.18 section 8.7.3.5.2); without it a
# server decompresses an archive copy. Old Orthanc and dcm4chee refuse the parameter, so the next one omits it.
_ANY_SYNTAX = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_QUOTED = 'multipart/related; type="application/dicom"'
_UNQUOTED = "multipart/related; type=application/dicom"

INSTANCE_LADDER: Final[tuple[str, ...]] = (_ANY_SYNTAX, _QUOTED, _UNQUOTED)
"""Accept headers for a study, series or instance."""

FRAME_LADDER: Final[tuple[str, ...]] = (
    'multipart/related; type="application/octet-stream"; transfer-syntax=*',
    'multipart/related; type="application/octet-stream"',
    'multipart/related; type="image/jpeg"; transfer-syntax=*',
    "*/*",
)
"""Accept headers for frames and bulk data: as stored, then uncompressed, then anything."""


@dataclass(frozen=True, slots=True)
class ContentType:
    """A parsed Content-Type: the lower-case type and its parameters by lower-case name."""

    essence: str
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def is_multipart(self) -> bool:
        """Whether it is multipart/related, or another multipart type that some servers declare instead."""
        return self.essence.startswith("multipart/")

    @property
    def is_json(self) -> bool:
        """Whether it is DICOM JSON or plain JSON; servers use either."""
        return self.essence in ("application/dicom+json", "application/json")

    @property
    def is_xml(self) -> bool:
        """Whether it is Native DICOM XML or plain XML."""
        return self.essence in ("application/dicom+xml", "application/xml", "text/xml")


# Laxer than the grammar: an unquoted value may hold characters that need quotes, as in type=application/dicom.
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_LONGEST = 4096


def parse_media_type(value: str | None) -> ContentType:
    """Return a parsed Content-Type header; an absent or malformed one has an empty type."""
    text = (value or "")[:_LONGEST]
    essence = text.partition(";")[0].strip().lower()
    parameters = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain.strip()
        for name, quoted, plain in _PARAMETER.findall(text)
    }
    return ContentType(essence, parameters)
