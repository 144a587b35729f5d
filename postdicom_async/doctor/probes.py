"""The doctor's requests to any DICOMweb archive, all reads (PS3.18 sections 10.4 and 10.6)."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from postdicom_async.dicom.json_reading import first_value
from postdicom_async.dicom.tags import JSON_TAG
from postdicom_async.dicomweb.dialects import INSTANCE_LADDER, Dialect, FilterForm, Route
from postdicom_async.dicomweb.filters import contradicted, expectations, query_string, wire_pairs
from postdicom_async.dicomweb.json_answer import NO_DICOM_JSON
from postdicom_async.doctor.examination import (
    Examination,
    KeptAnswer,
    Probe,
    Verdict,
    known_type,
    made_up_uid,
    results_text,
)
from postdicom_async.errors import AuthenticationFailed, ConnectionFailed, PostdicomError, ProtocolError
from postdicom_async.http.tls import tls_facts

if TYPE_CHECKING:
    from postdicom_async.http.answer import StreamedAnswer

_STUDY_UID = JSON_TAG["StudyInstanceUID"]
_SERIES_UID = JSON_TAG["SeriesInstanceUID"]
_INSTANCE_UID = JSON_TAG["SOPInstanceUID"]
_REFUSED_FORM: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE})
_RUNGS: Final = ("the first: transfer-syntax=*, so as stored", "the second: no transfer syntax", "the third: unquoted")
_HEAD_BYTES = 64 * 1024
_LONGEST_MADE_UP = len(f",2.25.{2**128}")
_TAGS: Final = {"study": _STUDY_UID, "series": _SERIES_UID}
_SEARCHED: Final = (
    (Route.SEARCH_SERIES_OF_STUDY, "series", _SERIES_UID),
    (Route.SEARCH_INSTANCES_OF_SERIES, "instance", _INSTANCE_UID),
)


class ArchiveProbes:
    """Probes for any archive; later ones use what earlier ones found."""

    def __init__(self, examination: Examination) -> None:
        self._exam = examination
        self._note = examination.note
        self._ask = examination.ask
        self._dialect = examination.dialect
        self._paged = examination.dialect.pages
        self._elsewhere: set[Route] = set()  # the routes that worked in the other family's shapes

    @property
    def probes(self) -> list[Probe]:
        """The probes, in order."""
        return [
            Probe(self._first_contact, essential=True),
            Probe(self._encryption),
            Probe(self._series_and_instances, essential=True),
            Probe(self._instance, essential=True),
            Probe(self._paging),
            Probe(self._page_limit),
            Probe(self._filters),
            Probe(self._included_fields),
            Probe(self._long_url),
            Probe(self._metadata),
            Probe(self._unknown_instance),
        ]

    # --- connection -------------------------------------------------------------------------------------------------

    async def _first_contact(self) -> None:
        """Search for one study, with all the repeats the caller allows."""
        started = time.monotonic()
        try:
            answer = await self._find_a_study()
        except PostdicomError as error:
            self._exam.problem = error
            self._tell_failure(error)
            raise
        self._note("reachable", Verdict.NOTE, f"yes, after {time.monotonic() - started:.1f} s")
        secrets = self._exam.session.secrets
        self._note("credentials", Verdict.NOTE, "accepted" if secrets else "none given, none asked for")
        self._note(f"route {Route.SEARCH_STUDIES.name}", True, answer.text)
        if answer.status != HTTPStatus.NO_CONTENT:  # which has no body, and so no type
            self._note("search type", answer.type in {"application/dicom+json", "application/json"}, answer.type)
        uid = answer.first(_STUDY_UID)
        if isinstance(uid, str) and uid:
            self._exam.study = next(iter(answer.items or ()), {})
            self._exam.uids["study"] = uid

    async def _find_a_study(self) -> KeptAnswer:
        search, session = "search for studies", self._exam.session
        refusable = frozenset({HTTPStatus.BAD_REQUEST.value}) if self._paged else frozenset[int]()
        answer = await self._ask(self._studies("limit=1&offset=0" if self._paged else ""), session, search, refusable)
        if answer.status == HTTPStatus.BAD_REQUEST:
            self._paged = False
            answer = await self._ask(self._studies(""), session, search, frozenset())
            self._note("limit", True, "refused with 400; an answer without")
        if answer.items is None:
            raise ProtocolError(
                NO_DICOM_JSON,
                operation=search,
                status=answer.status,
            )
        return answer

    def _tell_failure(self, error: PostdicomError) -> None:
        """File the finding of a failed first contact, without the server's words."""
        status = "" if error.status is None else f", {error.status}"
        if isinstance(error, ConnectionFailed):
            self._note("reachable", Verdict.OTHERWISE, f"no: {error.message}")  # our own words, as there was no answer
            return
        self._note("reachable", Verdict.NOTE, "yes")
        if isinstance(error, AuthenticationFailed):
            self._note("credentials", Verdict.OTHERWISE, f"refused{status}")
        else:
            self._note(f"route {Route.SEARCH_STUDIES.name}", Verdict.OTHERWISE, f"no search result{status}")

    async def _encryption(self) -> None:
        session = self._exam.session
        is_open = urlsplit(session.url).scheme == "http"
        if is_open:
            self._note("tls", Verdict.OTHERWISE, "none: http, whoever listens on the way can read it")
        elif session.settings.proxy or session.settings.use_environment_proxies:
            self._note("tls", Verdict.AS_ASSUMED, "https, through a proxy")
        elif (facts := await tls_facts(session.url, session.settings)) is None:
            self._note("tls", Verdict.AS_ASSUMED, "https; its version could not be told")
        elif facts.days_left is None:
            self._note("tls", Verdict.OTHERWISE, f"{facts.version}, certificate not verified")
        else:
            self._note("tls", Verdict.AS_ASSUMED, f"{facts.version}, certificate good for {facts.days_left} days")

    # --- shapes -----------------------------------------------------------------------------------------------------

    async def _series_and_instances(self) -> None:
        """Search the study's series and instances in both families' shapes; what either finds serves the next level."""
        for route, name, tag in _SEARCHED:
            # The archive's own shapes last: their findings count.
            uids = [await self._search(family, route, tag) for family in (self._exam.other, self._dialect)]
            if found := [uid for uid in uids if uid]:
                self._exam.uids[name] = found[-1]
        await self._listing_at_once()

    async def _search(self, family: Dialect, route: Route, tag: str) -> str | None:
        """Search below a known parent; return the UID found, if it belongs to that parent."""
        if not self._known(family, route):
            return None
        answer = await self._ask(_with(family.path(route, **self._exam.uids), "limit=1"))
        parents = [(_TAGS[name], uid) for name, uid in self._exam.uids.items() if name in _TAGS]
        expected = expectations(parents, _INSTANCE_UID)
        is_below = not any(contradicted(expected, item) for item in answer.items or ())
        if answer.items and "?" in family.routes[route]:  # the parent is a filter, which may be ignored
            nobody = await self._ask(_with(family.path(route, **dict.fromkeys(_TAGS, made_up_uid())), "limit=1"))
            is_below = is_below and not nobody.items
        worked = bool(answer.items) and is_below
        text = answer.text if is_below else f"{answer.text}, not of the one asked for"
        self._note_shape(family, route, worked=worked, text=text)
        found = answer.first(tag) if worked else None
        return found if isinstance(found, str) else None

    def _known(self, family: Dialect, route: Route) -> bool:
        known = family.can(route, self._exam.uids)
        if not known and route in family.routes:
            key = f"{'route' if family is self._dialect else 'other'} {route.name}"
            self._note(key, Verdict.UNKNOWN, "not tried: nothing was found to ask about")
        return known

    async def _listing_at_once(self) -> None:
        route = Route.SEARCH_INSTANCES_OF_STUDY
        family = next((one for one in (self._dialect, self._exam.other) if one.can(route, self._exam.uids)), None)
        if family is None:
            return
        answer = await self._ask(_with(family.path(route, **self._exam.uids), "limit=1"))
        is_needed = family is self._dialect and not answer.items
        instead = "; they are listed series by series" if is_needed else ""
        self._note_shape(family, route, worked=bool(answer.items), text=answer.text + instead, needed=False)
        by_series, _ = self._exam.found.get(f"route {Route.SEARCH_INSTANCES_OF_SERIES.name}", (Verdict.UNKNOWN, ""))
        if self._dialect.lists_by_series and by_series is not Verdict.UNKNOWN:
            at_once = "at once would work too" if answer.items else "at once would not work"
            self._note("lists_by_series", by_series, at_once)

    async def _instance(self) -> None:
        """Retrieve an instance's first bytes, in both families' shapes."""
        for family in (self._exam.other, self._dialect):
            if not self._known(family, Route.INSTANCE):
                continue
            path = family.path(Route.INSTANCE, **self._exam.uids)
            for rung, accept in enumerate(INSTANCE_LADDER):
                async with await self._exam.stream(path, accept) as answer:
                    if answer.status in _REFUSED_FORM and rung < len(INSTANCE_LADDER) - 1:
                        continue
                    await self._tell_instance(family, answer, rung)
                    break

    async def _tell_instance(self, family: Dialect, answer: StreamedAnswer, rung: int) -> None:
        is_dicom = b"DICM" in await answer.read_some(_HEAD_BYTES)
        kind, worked = known_type(answer.content_type), answer.ok and is_dicom
        text = f"{answer.status}, {kind}, {'DICOM' if is_dicom else 'not DICOM'}"
        self._note_shape(family, Route.INSTANCE, worked=worked, text=text)
        if worked and family is self._dialect:
            self._note("retrieve type", kind == "multipart/related", kind)
            self._note("accept", rung == 0, _RUNGS[rung])

    def _note_shape(self, family: Dialect, route: Route, *, worked: bool, text: str, needed: bool = True) -> None:
        """File how a family's shape did; the archive is unusable if a needed shape of its own fails."""
        if family is not self._dialect:
            self._note(f"other {route.name}", Verdict.NOTE, text)
            if worked:
                self._elsewhere.add(route)
            return
        self._note(f"route {route.name}", worked, text)
        if needed and not worked and self._exam.problem is None:
            hint = f"; it does in those of {self._exam.other.name}" if route in self._elsewhere else ""
            self._exam.problem = ProtocolError(
                f"the archive does not answer in the URL shapes of the {self._dialect.name} dialect ({route}){hint}",
                operation="doctor",
            )

    # --- paging -----------------------------------------------------------------------------------------------------

    async def _paging(self) -> None:
        """Ask for the first two studies and for the second alone."""
        if not self._paged or "study" not in self._exam.uids:
            return
        two = await self._page(2, 0)
        second = await self._page(1, 1)
        if two.items is None or second.items is None:
            self._note("limit", two.ok, two.text)
            self._note("offset", second.ok, second.text)
            return
        if len(two.items) < 2:
            for key in ("limit", "offset"):
                self._note(key, Verdict.UNKNOWN, "taken; there is too little to tell whether it is honoured")
            return
        limited = len(two.items) == 2 and len(second.items) <= 1
        self._note("limit", limited, "honoured" if limited else f"ignored: {results_text(len(two.items))} for 2")
        same = second.first(_STUDY_UID) == first_value(two.items[1], _STUDY_UID)
        self._note("offset", same, "honoured" if same else "ignored, or the order changes")

    async def _page_limit(self) -> None:
        """Ask for a whole page, and if it is shorter than that, for what follows it."""
        size = self._exam.page_size
        if not self._paged or "study" not in self._exam.uids:
            return
        page = await self._page(size, 0)
        if page.items is None:
            self._note("page limit", Verdict.OTHERWISE, page.text)
            return
        count, warning = len(page.items), ", with a Warning header" if page.has_warning else ""
        more = await self._page(1, count) if 0 < count < size else None
        known = {first_value(item, _STUDY_UID) for item in page.items}
        if more is not None and any(first_value(item, _STUDY_UID) not in known for item in more.items or ()):
            self._note("page limit", Verdict.AS_ASSUMED, f"hidden: {count} where {size} were asked for{warning}")
        else:
            self._note("page limit", Verdict.AS_ASSUMED, f"{results_text(count)} for {size}{warning}")

    async def _page(self, limit: int, offset: int) -> KeptAnswer:
        return await self._ask(self._studies(f"limit={limit}&offset={offset}"))

    # --- answers ----------------------------------------------------------------------------------------------------

    async def _filters(self) -> None:
        """Search by keyword and by tag, for a nonexistent study and for the one found."""
        used = self._dialect.filter_form
        other: FilterForm = "tag" if used == "keyword" else "keyword"
        heeds_used, heeds_other = await self._heeds(used), await self._heeds(other)
        if heeds_used is None:
            self._note("filter_form", Verdict.UNKNOWN, "nothing was found to tell whether they are heeded")
            return
        also = {True: f"; so are {other}s", False: f"; {other}s are not", None: ""}[heeds_other]
        if heeds_used:
            self._note("filter_form", True, f"{used}s are heeded{also}")
            return
        if heeds_other:
            found, way_out = f"{used}s are not heeded, {other}s are", f'; set filter_form="{other}"'
        else:
            found, way_out = "neither keywords nor tags are heeded", "; whatever is searched for, check what comes back"
        self._note("filter_form", Verdict.OTHERWISE, found)
        if self._exam.problem is None:
            message = f"searches do not bring what they ask for: in filters, {found}{way_out}"
            self._exam.problem = ProtocolError(message, operation="doctor")

    async def _heeds(self, form: FilterForm) -> bool | None:
        """Return whether filters in this form are applied; None if that cannot be determined."""
        is_used = form == self._dialect.filter_form
        (name, _), *_ = wire_pairs([(_STUDY_UID, "")], form)
        nothing = await self._ask(self._one_of(f"{name}={made_up_uid()}"))
        uid = self._exam.uids.get("study")
        one = nothing if uid is None or nothing.items else await self._ask(self._studies(f"{name}={uid}"))
        found = [first_value(item, _STUDY_UID) for item in one.items or ()]
        heeds: bool | None = None if uid is None and not nothing.items else found == [uid] and not nothing.items
        text = f"ignored: {nothing.text} for a UID that nobody has" if nothing.items else one.text
        verdict = Verdict.UNKNOWN if heeds is None else heeds if is_used else Verdict.NOTE
        self._note(f"{form} form", verdict, text)
        if is_used and nothing.items:
            self._note("no match", Verdict.UNKNOWN, "not told: the search was not limited")
        elif is_used:
            self._note("no match", nothing.items is not None, nothing.text)
        return heeds

    async def _included_fields(self) -> None:
        pairs = [
            ("includefield", JSON_TAG["StudyDescription"]),
            (_STUDY_UID, self._exam.uids.get("study", made_up_uid())),
        ]
        query = query_string(wire_pairs(pairs, self._dialect.filter_form))
        wanted = await self._ask(self._one_of(query))
        self._note("includefield", wanted.items is not None, wanted.text)

    async def _long_url(self) -> None:
        """Search for as many nonexistent studies as fit in one URL."""
        room = self._dialect.url_bytes - len(self._exam.session.url) - len(self._one_of("StudyInstanceUID="))
        uids = ",".join(made_up_uid() for _ in range(room // _LONGEST_MADE_UP))
        path = self._one_of(query_string(wire_pairs([(_STUDY_UID, uids)], self._dialect.filter_form)))
        answer = await self._ask(path)
        words = "taken" if answer.items is not None else f"{answer.status}"
        self._note("url_bytes", answer.items is not None, f"about {self._dialect.url_bytes} bytes: {words}")

    async def _metadata(self) -> None:
        if self._dialect.can(Route.INSTANCE, self._exam.uids):
            answer = await self._ask(self._dialect.path(Route.INSTANCE, "/metadata", **self._exam.uids))
            self._note("metadata", bool(answer.items), answer.text)

    async def _unknown_instance(self) -> None:
        """Ask for a nonexistent instance, to see how a failure looks."""
        nobody = {name: made_up_uid() for name in ("study", "series", "instance")}
        if not self._dialect.can(Route.INSTANCE, nobody):
            return
        path = self._dialect.path(Route.INSTANCE, **nobody)
        async with await self._exam.stream(path, INSTANCE_LADDER[1]) as answer:
            has_reason = bool(answer.headers.get("x-error-reason"))
            is_expected = answer.status == HTTPStatus.NOT_FOUND
            self._note("error status", is_expected, f"{answer.status}, {known_type(answer.content_type)}")
            self._note("error reason", has_reason or Verdict.NOTE, "X-Error-Reason" if has_reason else "none")

    # --- paths ------------------------------------------------------------------------------------------------------

    def _studies(self, query: str) -> str:
        return _with(self._dialect.path(Route.SEARCH_STUDIES), query)

    def _one_of(self, query: str) -> str:
        """Return a search for studies with a limit: an archive that ignores filters would send everything."""
        return self._studies(f"{query}&limit=1" if self._paged else query)


def _with(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}" if query else path
