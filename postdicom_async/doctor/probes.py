"""The requests of the doctor that any DICOMweb archive can answer, each a read (PS3.18 sections 10.4 and 10.6)."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from anyio import to_thread

from postdicom_async.dicom.json_model import first_value
from postdicom_async.dicomweb.dialects import DICOM_JSON, INSTANCE_LADDER, Dialect, FilterForm, Route
from postdicom_async.dicomweb.filters import contradicted, expectations, query_string, wire_pairs
from postdicom_async.dicomweb.json_answer import refuse_cut_json
from postdicom_async.doctor.examination import (
    ANY_STATUS,
    Examination,
    Seen,
    Step,
    Verdict,
    known_type,
    made_up_uid,
    results_text,
    seen,
)
from postdicom_async.errors import AuthenticationFailed, ConnectionFailed, PostdicomError, ProtocolError
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Call
from postdicom_async.http.tls import tls_facts

if TYPE_CHECKING:
    from postdicom_async.http.answer import StreamedAnswer

__all__ = ["Probes"]

_STUDY_UID, _SERIES_UID, _INSTANCE_UID = "0020000D", "0020000E", "00080018"
_REFUSED_FORM: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE})
_RUNGS: Final = ("the first: transfer-syntax=*, so as stored", "the second: no transfer syntax", "the third: unquoted")
_HEAD_BYTES = 64 * 1024
_LONGEST_MADE_UP = len(f",2.25.{2**128}")
_TAGS: Final = {"study": _STUDY_UID, "series": _SERIES_UID}
_SEARCHED: Final = (
    (Route.SEARCH_SERIES_OF_STUDY, "series", _SERIES_UID),
    (Route.SEARCH_INSTANCES_OF_SERIES, "instance", _INSTANCE_UID),
)
_NO_UIDS: Final = "not tried: nothing was found to ask about"


class Probes:
    """The steps that any archive can take part in; later ones use what earlier ones found."""

    def __init__(self, examination: Examination) -> None:
        self._all = examination
        self._dialect = examination.dialect
        self._paged = examination.dialect.pages
        self._elsewhere: set[Route] = set()
        """What worked in the other family's shapes."""

    @property
    def steps(self) -> list[Step]:
        """The steps, in order."""
        return [
            Step(self._first_contact, essential=True),
            Step(self._encryption),
            Step(self._series_and_instances, essential=True),
            Step(self._instance, essential=True),
            Step(self._paging),
            Step(self._page_limit),
            Step(self._filters),
            Step(self._included_fields),
            Step(self._long_url),
            Step(self._metadata),
            Step(self._unknown_instance),
        ]

    # --- connection -------------------------------------------------------------------------------------------------

    async def _first_contact(self) -> None:
        """Search for one study, with all the repeats the caller allows."""
        started = time.monotonic()
        try:
            answer = await self._find_a_study()
        except PostdicomError as error:
            self._all.problem = error
            self._tell_failure(error)
            raise
        self._all.note("reachable", Verdict.NOTE, f"yes, after {time.monotonic() - started:.1f} s")
        secrets = self._all.session.secrets
        self._all.note("credentials", Verdict.NOTE, "accepted" if secrets else "none given, none asked for")
        self._all.note(f"route {Route.SEARCH_STUDIES.name}", True, answer.text)
        self._all.note("search type", answer.type in {"application/dicom+json", "application/json"}, answer.type)
        self._keep_study(answer)

    async def _find_a_study(self) -> Seen:
        answer = await self._first_search(accepted=frozenset({400}) if self._paged else frozenset())
        if answer.status == HTTPStatus.BAD_REQUEST:
            self._paged = False
            answer = await self._first_search(accepted=frozenset())
            self._all.note("limit", True, "refused with 400; an answer without")
        if answer.items is None:
            raise ProtocolError(
                "the archive's answer is not DICOM JSON; is this the address of its DICOMweb service?",
                operation="search for studies",
                status=answer.status,
            )
        return answer

    async def _first_search(self, accepted: frozenset[int]) -> Seen:
        path = self._studies("limit=1&offset=0" if self._paged else "")
        headers = {"Accept": DICOM_JSON}
        call = Call("search for studies", "GET", path, Repeat.READ, headers=headers, accepted=accepted)
        cap = self._all.session.settings.limits.json_bytes
        answer = await self._all.session.fetch(call, cap=cap, check=refuse_cut_json(call.operation))
        return await to_thread.run_sync(seen, answer.status, answer.headers, answer.body)

    def _tell_failure(self, error: PostdicomError) -> None:
        """File what a failed first contact says; the server's words stay out."""
        status = "" if error.status is None else f", {error.status}"
        if isinstance(error, ConnectionFailed):
            self._all.note("reachable", Verdict.OTHERWISE, f"no: {error.message}")  # words of ours, as no answer came
            return
        self._all.note("reachable", Verdict.NOTE, "yes")
        if isinstance(error, AuthenticationFailed):
            self._all.note("credentials", Verdict.OTHERWISE, f"refused{status}")
        else:
            self._all.note(f"route {Route.SEARCH_STUDIES.name}", Verdict.OTHERWISE, f"no search result{status}")

    def _keep_study(self, answer: Seen) -> None:
        study = next(iter(answer.items or ()), {})
        uid = first_value(study, _STUDY_UID)
        if isinstance(uid, str) and uid:
            self._all.study = study
            self._all.uids["study"] = uid

    async def _encryption(self) -> None:
        session = self._all.session
        is_open = urlsplit(session.url).scheme == "http"
        if is_open:
            self._all.note("tls", Verdict.OTHERWISE, "none: http, whoever listens on the way can read it")
        elif session.settings.proxy or session.settings.use_environment_proxies:
            self._all.note("tls", Verdict.AS_ASSUMED, "https, through a proxy")
        elif (facts := await tls_facts(session.url, session.settings)) is None:
            self._all.note("tls", Verdict.AS_ASSUMED, "https; its version could not be told")
        elif facts.days_left is None:
            self._all.note("tls", Verdict.OTHERWISE, f"{facts.version}, certificate not verified")
        else:
            self._all.note("tls", Verdict.AS_ASSUMED, f"{facts.version}, certificate good for {facts.days_left} days")

    # --- shapes -----------------------------------------------------------------------------------------------------

    async def _series_and_instances(self) -> None:
        """Go down from the study, in both families' shapes; what either finds serves for the next level."""
        for route, name, tag in _SEARCHED:
            # The own shapes last: what they find counts.
            uids = [await self._search(family, route, tag) for family in (self._all.other, self._dialect)]
            if found := [uid for uid in uids if uid]:
                self._all.uids[name] = found[-1]
        await self._listing_at_once()

    async def _search(self, family: Dialect, route: Route, tag: str) -> str | None:
        """Search below what is known; return the UID of what was found, if it is below that."""
        if not self._known(family, route):
            return None
        answer = await self._all.ask(self._with(family.path(route, **self._all.uids), "limit=1"))
        parents = [(_TAGS[name], uid) for name, uid in self._all.uids.items() if name in _TAGS]
        expected = expectations(parents, _INSTANCE_UID)
        is_below = not any(contradicted(expected, item) for item in answer.items or ())
        if answer.items and "?" in family.routes[route]:  # the parent is a filter, which may be ignored
            nobody = await self._all.ask(
                self._with(family.path(route, **dict.fromkeys(_TAGS, made_up_uid())), "limit=1")
            )
            is_below = is_below and not nobody.items
        worked = bool(answer.items) and is_below
        self._note_shape(family, route, worked, answer.text if is_below else f"{answer.text}, not of the one asked for")
        if family is self._dialect:
            self._require(route, worked=worked)
        found = first_value(next(iter(answer.items or ()), {}), tag) if worked else None
        return found if isinstance(found, str) else None

    def _known(self, family: Dialect, route: Route) -> bool:
        known = family.can(route, self._all.uids)
        if not known and route in family.routes:
            self._all.note(self._key(family, route), Verdict.UNKNOWN, _NO_UIDS)
        return known

    async def _listing_at_once(self) -> None:
        route = Route.SEARCH_INSTANCES_OF_STUDY
        family = next((one for one in (self._dialect, self._all.other) if one.can(route, self._all.uids)), None)
        if family is None:
            return
        answer = await self._all.ask(self._with(family.path(route, **self._all.uids), "limit=1"))
        is_needed = family is self._dialect and not answer.items
        instead = "; they are listed series by series" if is_needed else ""
        self._note_shape(family, route, bool(answer.items), answer.text + instead)
        by_series, _ = self._all.found.get(f"route {Route.SEARCH_INSTANCES_OF_SERIES.name}", (Verdict.UNKNOWN, ""))
        if self._dialect.lists_by_series and by_series is not Verdict.UNKNOWN:
            at_once = "at once would work too" if answer.items else "at once would not work"
            self._all.note("lists_by_series", by_series, at_once)

    async def _instance(self) -> None:
        """Ask for an instance and read its first bytes, in both families' shapes."""
        for family in (self._all.other, self._dialect):
            if self._known(family, Route.INSTANCE):
                await self._head_of_instance(family)

    async def _head_of_instance(self, family: Dialect) -> None:
        path = family.path(Route.INSTANCE, **self._all.uids)
        for rung, accept in enumerate(INSTANCE_LADDER):
            call = Call("doctor", "GET", path, Repeat.READ, headers={"Accept": accept}, accepted=ANY_STATUS)
            async with await self._all.once.stream(call) as answer:
                if answer.status not in _REFUSED_FORM or rung == len(INSTANCE_LADDER) - 1:
                    await self._tell_instance(family, answer, rung)
                    return

    async def _tell_instance(self, family: Dialect, answer: StreamedAnswer, rung: int) -> None:
        head = await answer.read_some(_HEAD_BYTES)
        kind, is_dicom = known_type(answer.content_type), b"DICM" in head
        worked = answer.ok and is_dicom
        text = f"{answer.status}, {kind}, {'DICOM' if is_dicom else 'not DICOM'}"
        self._note_shape(family, Route.INSTANCE, worked, text)
        if family is self._dialect:
            self._require(Route.INSTANCE, worked=worked)
            if worked:
                self._all.note("retrieve type", kind == "multipart/related", kind)
                self._all.note("accept", rung == 0, _RUNGS[rung])

    def _note_shape(self, family: Dialect, route: Route, worked: bool, text: str) -> None:
        is_own = family is self._dialect
        if worked and not is_own:
            self._elsewhere.add(route)
        self._all.note(self._key(family, route), worked if is_own else Verdict.NOTE, text)

    def _key(self, family: Dialect, route: Route) -> str:
        return f"{'route' if family is self._dialect else 'other'} {route.name}"

    def _require(self, route: Route, *, worked: bool) -> None:
        if not worked and self._all.problem is None:
            hint = f"; it does in those of {self._all.other.name}" if route in self._elsewhere else ""
            self._all.problem = ProtocolError(
                f"the archive does not answer in the URL shapes of the {self._dialect.name} dialect ({route}){hint}",
                operation="doctor",
            )

    # --- paging -----------------------------------------------------------------------------------------------------

    async def _paging(self) -> None:
        """Ask for the first two studies and for the second alone."""
        if not self._paged or "study" not in self._all.uids:
            return
        two = await self._page(2, 0)
        second = await self._page(1, 1)
        if two.items is None or second.items is None:
            self._all.note("limit", two.ok, two.text)
            self._all.note("offset", second.ok, second.text)
            return
        if len(two.items) < 2:
            for key in ("limit", "offset"):
                self._all.note(key, Verdict.UNKNOWN, "taken; there is too little to tell whether it is honoured")
            return
        limited = len(two.items) == 2 and len(second.items) <= 1
        self._all.note("limit", limited, "honoured" if limited else f"ignored: {results_text(len(two.items))} for 2")
        same = first_value(next(iter(second.items), {}), _STUDY_UID) == first_value(two.items[1], _STUDY_UID)
        self._all.note("offset", same, "honoured" if same else "ignored, or the order changes")

    async def _page_limit(self) -> None:
        """Ask for a whole page, and for what comes after it when it is shorter than asked for."""
        size = self._all.page_size
        if not self._paged or "study" not in self._all.uids:
            return
        page = await self._page(size, 0)
        if page.items is None:
            self._all.note("page limit", Verdict.OTHERWISE, page.text)
            return
        count, warning = len(page.items), ", with a Warning header" if page.has_warning else ""
        more = await self._page(1, count) if 0 < count < size else None
        known = {first_value(item, _STUDY_UID) for item in page.items}
        if more is not None and any(first_value(item, _STUDY_UID) not in known for item in more.items or ()):
            self._all.note("page limit", Verdict.AS_ASSUMED, f"hidden: {count} where {size} were asked for{warning}")
        else:
            self._all.note("page limit", Verdict.AS_ASSUMED, f"{results_text(count)} for {size}{warning}")

    async def _page(self, limit: int, offset: int) -> Seen:
        return await self._all.ask(self._studies(f"limit={limit}&offset={offset}"))

    # --- answers ----------------------------------------------------------------------------------------------------

    async def _filters(self) -> None:
        """Search by keyword and by tag: for a study that nobody has, and for the one that was found."""
        used = self._dialect.filter_form
        other: FilterForm = "tag" if used == "keyword" else "keyword"
        heeds_used, heeds_other = await self._heeds(used), await self._heeds(other)
        if heeds_used is None:
            self._all.note("filter_form", Verdict.UNKNOWN, "nothing was found to tell whether they are heeded")
            return
        also = {True: f"; so are {other}s", False: f"; {other}s are not", None: ""}[heeds_other]
        if heeds_used:
            self._all.note("filter_form", True, f"{used}s are heeded{also}")
            return
        if heeds_other:
            found, way_out = f"{used}s are not heeded, {other}s are", f'; set filter_form="{other}"'
        else:
            found, way_out = "neither keywords nor tags are heeded", "; whatever is searched for, check what comes back"
        self._all.note("filter_form", Verdict.OTHERWISE, found)
        if self._all.problem is None:
            message = f"searches do not bring what they ask for: in filters, {found}{way_out}"
            self._all.problem = ProtocolError(message, operation="doctor")

    async def _heeds(self, form: FilterForm) -> bool | None:
        """Return whether filters written like this are heeded, None if that cannot be told."""
        is_used = form == self._dialect.filter_form
        (name, _), *_ = wire_pairs([(_STUDY_UID, "")], form)
        nothing = await self._all.ask(self._studies(self._one_of(f"{name}={made_up_uid()}")))
        uid = self._all.uids.get("study")
        one = nothing if uid is None or nothing.items else await self._all.ask(self._studies(f"{name}={uid}"))
        found = [first_value(item, _STUDY_UID) for item in one.items or ()]
        heeds: bool | None = None if uid is None and not nothing.items else found == [uid] and not nothing.items
        text = f"ignored: {nothing.text} for a UID that nobody has" if nothing.items else one.text
        verdict = Verdict.UNKNOWN if heeds is None else heeds if is_used else Verdict.NOTE
        self._all.note(f"{form} form", verdict, text)
        if is_used and nothing.items:
            self._all.note("no match", Verdict.UNKNOWN, "not told: the search was not limited")
        elif is_used:
            self._all.note("no match", nothing.items is not None, nothing.text)
        return heeds

    async def _included_fields(self) -> None:
        pairs = [("includefield", "00081030"), (_STUDY_UID, self._all.uids.get("study", made_up_uid()))]
        query = query_string(wire_pairs(pairs, self._dialect.filter_form))
        wanted = await self._all.ask(self._studies(self._one_of(query)))
        self._all.note("includefield", wanted.items is not None, wanted.text)

    async def _long_url(self) -> None:
        """Search for as many studies that nobody has as fit into one URL."""
        room = (
            self._dialect.url_bytes - len(self._all.session.url) - len(self._studies(self._one_of("StudyInstanceUID=")))
        )
        uids = ",".join(made_up_uid() for _ in range(room // _LONGEST_MADE_UP))
        path = self._studies(self._one_of(query_string(wire_pairs([(_STUDY_UID, uids)], self._dialect.filter_form))))
        answer = await self._all.ask(path)
        words = "taken" if answer.items is not None else f"{answer.status}"
        self._all.note("url_bytes", answer.items is not None, f"about {self._dialect.url_bytes} bytes: {words}")

    async def _metadata(self) -> None:
        if self._dialect.can(Route.INSTANCE, self._all.uids):
            answer = await self._all.ask(self._dialect.path(Route.INSTANCE, "/metadata", **self._all.uids))
            self._all.note("metadata", bool(answer.items), answer.text)

    async def _unknown_instance(self) -> None:
        """Ask for an instance that is not there, to see how a failure looks."""
        nobody = {name: made_up_uid() for name in ("study", "series", "instance")}
        if not self._dialect.can(Route.INSTANCE, nobody):
            return
        path = self._dialect.path(Route.INSTANCE, **nobody)
        call = Call("doctor", "GET", path, Repeat.READ, headers={"Accept": INSTANCE_LADDER[1]}, accepted=ANY_STATUS)
        async with await self._all.once.stream(call) as answer:
            has_reason = bool(answer.headers.get("x-error-reason"))
            is_expected = answer.status == HTTPStatus.NOT_FOUND
            self._all.note("error status", is_expected, f"{answer.status}, {known_type(answer.content_type)}")
            self._all.note("error reason", has_reason or Verdict.NOTE, "X-Error-Reason" if has_reason else "none")

    # --- paths ------------------------------------------------------------------------------------------------------

    def _studies(self, query: str) -> str:
        return self._with(self._dialect.path(Route.SEARCH_STUDIES), query)

    def _one_of(self, query: str) -> str:
        """Return the query with a limit: an archive that ignores its filter would send all it has."""
        return f"{query}&limit=1" if self._paged else query

    def _with(self, path: str, query: str) -> str:
        if not query:
            return path
        return f"{path}{'&' if '?' in path else '?'}{query}"
