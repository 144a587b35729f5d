"""The live page's routes, all behind one access check, including the metrics and unknown paths.

Everything is read from the ledger. Commands are sent to the process that runs the job, through its control socket, and
its answer is shown. Metrics use Prometheus' text format 0.0.4.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from postdicom_async.errors import PostdicomError, UsageError
from postdicom_async.jobs.pages.page_assets import SCRIPT, STYLE, STYLE_SHEET, source_of
from postdicom_async.jobs.pages.serve_page import (
    NO_STUDY,
    items_page,
    live_page,
    live_parts,
    message_page,
    series_page,
    studies_page,
)
from postdicom_async.jobs.states import State, reason_text
from postdicom_async.jobs.summary import contradictions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from postdicom_async.jobs.ledger.reader import LedgerReader
    from postdicom_async.jobs.pages.eta import Forecast
    from postdicom_async.jobs.pages.serve import JobWatcher
    from postdicom_async.jobs.pages.serve_auth import BrowserSession, PageAccess
    from postdicom_async.jobs.pages.serve_page import JobSnapshot
    from postdicom_async.jobs.summary import ItemLine, Summary
    from postdicom_async.markup import Html


AskJob: TypeAlias = "Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]"

_PAGE = 100
_MOST_STREAMS = 16
_MOST_BODY = 8192
_INTERVAL = 1.0
_KEEP_ALIVE = 15.0
_POLICY = (
    f"default-src 'none'; style-src 'self' {source_of(STYLE)}; script-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_CLOSED = "Open the address that the command has printed. It works once; for another browser, start the command again."


class AuthGate:
    """Authenticates every request before anything else, and adds the security headers to every response.

    Args:
        app: the protected application.
        access: who has access.
        cookie: the name of the cookie; it includes the port, since cookies of a host are shared by all its ports.
    """

    def __init__(self, app: ASGIApp, access: PageAccess, cookie: str) -> None:
        self._app = app
        self._access = access
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or say why not."""
        if scope["type"] != "http":
            return  # no lifespan, no WebSocket

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope, Headers(scope=scope))
        await (refused or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        origin, place = headers.get("origin"), scope["path"]
        # Checked first: any web page can make its own host name resolve to this machine (DNS rebinding).
        if not self._access.is_known_host(headers.get("host", "")):
            return _told(421, "Not here", "This server is not known by that name.", back=False)
        if origin is not None and not self._access.is_own_origin(origin):
            return _told(403, "Not allowed", "Pages of other sites may not use this server.", back=False)
        cookies = cookie_parser(headers.get("cookie", ""))
        session = self._access.session(cookies.get(self._cookie, ""))
        scope["session_of_job"] = session
        if session is not None or (place == "/open" and scope["method"] == "GET"):
            return None
        if place == "/metrics" and self._access.may_read_metrics(headers.get("authorization", "")):
            return None
        return _told(401, "Closed", _CLOSED, back=False)


def _told(status: int, title: str, words: str, *, back: bool = True) -> HTMLResponse:
    return HTMLResponse(message_page(title, words, back=back), status)


class Pages:
    """The routes.

    Args:
        watch: looks at the job.
        access: whose token is exchanged here.
        ask: sends commands to the job; None without control.
        cookie: the name of the cookie.
        version: of this program.
    """

    def __init__(self, watch: JobWatcher, access: PageAccess, *, ask: AskJob | None, cookie: str, version: str) -> None:
        self._watch = watch
        self._access = access
        self._ask = ask
        self._cookie = cookie
        self._version = version
        self._streams = 0
        self._drawn: tuple[JobSnapshot, dict[str, Html]] | None = None
        self.ending: asyncio.Event = asyncio.Event()

    def app(self) -> ASGIApp:
        """Return the application, behind its gate."""
        routes = [
            Route("/open", self.open, methods=["GET"]),
            Route("/", self.job, methods=["GET"]),
            Route("/events", self.events, methods=["GET"]),
            Route("/studies", self.studies, methods=["GET"]),
            Route("/studies/{study}", self.series, methods=["GET"]),
            Route("/studies/{study}/{series}", self.instances, methods=["GET"]),
            Route("/items", self.items, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/style.css", self.style, methods=["GET"]),
            Route("/live.js", self.script, methods=["GET"]),
        ]
        if self._ask is not None:
            routes.append(Route("/control", self.control, methods=["POST"]))
        problems: Any = {PostdicomError: _problem}
        return AuthGate(Starlette(routes=routes, exception_handlers=problems), self._access, self._cookie)

    async def open(self, request: Request) -> Response:
        """Exchange the one-time token of the printed address for a cookie, and redirect to a clean address."""
        session = self._access.enter(request.query_params.get("token", ""))
        if session is None:
            return _told(401, "Closed", _CLOSED, back=False)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, session.cookie, httponly=True, samesite="strict", path="/")
        return answer

    async def job(self, request: Request) -> Response:
        """Return the page."""
        return HTMLResponse(live_page(await self._watch.look(), proof=self._proof(request)))

    def _proof(self, request: Request) -> str:
        session: BrowserSession | None = request.scope["session_of_job"]
        return session.proof if session is not None and self._ask is not None else ""

    async def events(self, request: Request) -> Response:
        """Stream the sections of the page that have changed, while the client stays connected."""
        if self._streams >= _MOST_STREAMS:
            return _told(503, "Too many", "Too many pages look at this job already.")
        return StreamingResponse(self._events(self._proof(request)), media_type="text/event-stream")

    async def _events(self, proof: str) -> AsyncIterator[str]:
        self._streams += 1
        shown: dict[str, str] = {}
        quiet = 0.0
        try:
            while not self.ending.is_set():
                name, told = await self._news(proof, shown)
                if told:
                    yield f"event: {name}\ndata: {json.dumps(told)}\n\n"
                elif quiet >= _KEEP_ALIVE:
                    yield ": still here\n\n"
                quiet = 0.0 if told or quiet >= _KEEP_ALIVE else quiet + _INTERVAL
                with suppress(TimeoutError):
                    async with asyncio.timeout(_INTERVAL):
                        await self.ending.wait()
        finally:
            self._streams -= 1

    async def _news(self, proof: str, shown: dict[str, str]) -> tuple[str, object]:
        """Return what has changed since it was ``shown``; every section the first time."""
        try:
            look = await self._watch.look()
        except PostdicomError as error:
            return "problem", error.message
        if self._drawn is None or self._drawn[0] is not look:  # once for everybody: there is one session
            self._drawn = look, live_parts(look, proof=proof)
        parts = self._drawn[1]
        news = {name: part for name, part in parts.items() if shown.get(name) != part}
        shown.update(news)
        # Only the content of each section: the browser has the section element already.
        return "parts", {name: part[part.index(">") + 1 : part.rindex("<")] for name, part in news.items()}

    async def studies(self, request: Request) -> Response:
        """Return a page of studies."""
        state = request.query_params.get("state", "")
        states = None if not state else [_state(state)]
        page = _page(request)
        lines, is_more = await self._watch.some(lambda reader: reader.studies(states=states), page, _PAGE)
        return HTMLResponse(studies_page(lines, state=state, page=page, is_more=is_more))

    async def series(self, request: Request) -> Response:
        """Return the series of a study."""
        study = _uid(request.path_params["study"])
        lines, _ = await self._watch.some(lambda reader: reader.series(study), 1, 10_000)
        return HTMLResponse(series_page(study, lines))

    async def instances(self, request: Request) -> Response:
        """Return a page of the instances of a series."""
        study, series = (_uid(request.path_params[name]) for name in ("study", "series"))

        def of_series(reader: LedgerReader) -> Iterator[ItemLine]:
            return (line for line in reader.items(study=study) if line.series == series)

        page = _page(request)
        lines, is_more = await self._watch.some(of_series, page, _PAGE)
        place = request.url.path
        return HTMLResponse(items_page(lines, place=place, query={}, page=page, is_more=is_more, of=study or NO_STUDY))

    async def items(self, request: Request) -> Response:
        """Return a page of the instances in a state, for a reason."""
        query = {name: request.query_params.get(name, "") for name in ("state", "reason")}
        states = [_state(query["state"])]
        reason = _number(query["reason"] or "0", "reason")

        page = _page(request)
        lines, is_more = await self._watch.some(
            lambda reader: reader.items(states=states, reasons=[reason]), page, _PAGE
        )
        return HTMLResponse(items_page(lines, place="/items", query=query, page=page, is_more=is_more))

    async def metrics(self, _: Request) -> Response:
        """Return the numbers for Prometheus."""
        look = await self._watch.look()
        text = metrics(look.summary, look.pace, version=self._version)
        return PlainTextResponse(text, headers={"Content-Type": CONTENT_TYPE})

    async def style(self, _: Request) -> Response:
        """Return the style sheet."""
        return Response(STYLE_SHEET, media_type="text/css")

    async def script(self, _: Request) -> Response:
        """Return the script."""
        return Response(SCRIPT, media_type="text/javascript")

    async def control(self, request: Request) -> Response:
        """Send a command to the job and show its answer."""
        session: BrowserSession = request.scope["session_of_job"]
        form = await _form(request)
        # A browser sends Origin with every POST; a request without it is not from a page.
        if request.headers.get("origin") is None or not self._access.is_proof(session, form.pop("proof", "")):
            return _told(403, "Not allowed", "Give orders on this server's own page.")
        ok, words = await self._order(form)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"ok": ok, "message": words})
        return _told(200 if ok else 409, "Done" if ok else "Not done", words)

    async def _order(self, form: Mapping[str, str]) -> tuple[bool, str]:
        assert self._ask is not None  # noqa: S101 - there is no such route without it
        try:
            order, words = order_of(form)
            answer = await self._ask(order)
        except PostdicomError as error:
            return False, error.message
        ok = bool(answer.get("ok"))
        return ok, words if ok else str(answer.get("error") or "the job refused")


def order_of(form: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return the command of a submitted form, and the message for its success. Pure.

    Raises:
        UsageError: it makes no sense.
    """
    do = form.get("do", "")
    if do in {"pause", "resume"}:
        return {"do": do}, "Paused: what runs is finished, and nothing else begins." if do == "pause" else "Resumed."
    if do == "retry":
        if "reason" not in form:
            return {"do": "retry"}, "Everything that failed is tried again, after what goes on now."
        reasons = [_number(form["reason"], "reason")]
        return {"do": "retry", "reasons": reasons}, "Those are tried again, after what goes on now."
    if do != "set":
        raise UsageError("that is no order")
    settings: dict[str, Any] = {}
    if rate := form.get("max_rate", "").strip():
        settings["max_rate"] = rate
    if at_once := form.get("at_once", "").strip():
        settings["at_once"] = _number(at_once, "at once")
    if not settings:
        raise UsageError("give a rate, or how many at once")
    return {"do": "set", **settings}, "Set."


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form; none if the body is too long or not a form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY:
            return {}
    with suppress(ValueError):
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20))
    return {}


def _problem(_: Request, error: Exception) -> Response:
    is_asked_for = isinstance(error, UsageError)
    return _told(400 if is_asked_for else 500, "That did not work", getattr(error, "message", "It failed."))


def _state(text: str) -> State:
    for state in State:
        if state.name.lower() == text:
            return state
    raise UsageError("there is no such state")


def _number(text: str, what: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    raise UsageError(f"{what}: give a number")


def _page(request: Request) -> int:
    return max(1, _number(request.query_params.get("page", "1"), "page"))


def _uid(text: str) -> str:
    return "" if text == NO_STUDY else text


# --- metrics ---------------------------------------------------------------------------------------------------------


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

_Sample = tuple[dict[str, str], float]


def metrics(summary: Summary, pace: Forecast, *, version: str) -> str:
    """Return all numbers of a job; unknown ones are left out."""
    return "".join(_lines(summary, pace, version))


def _lines(summary: Summary, pace: Forecast, version: str) -> Iterator[str]:
    facts = summary.facts
    who = {"job": facts.job, "verb": facts.verb, "source": facts.source, "target": facts.target}
    yield from _metric("info", "What the job is.", [({**who, "phase": facts.phase, "version": version}, 1)])
    states = [(state, summary.of(state)) for state in State]
    yield from _metric(
        "items",
        "Items by state; their sum was discovered.",
        [(_labels_of(s), c.instances) for s, c in states],
    )
    yield from _metric("bytes", "Bytes by state.", [(_labels_of(state), count.bytes) for state, count in states])
    reasons = [
        (
            {**_labels_of(line.state), "reason_code": str(line.reason), "reason": reason_text(line.reason)},
            line.instances,
        )
        for line in summary.reasons
    ]
    yield from _metric("reasons", "Items by state and reason.", reasons)
    plain = (
        ("studies", "Studies of the source.", summary.studies),
        ("studies_equal_by_count", "Studies that were equal by count and not listed.", summary.equal_by_count),
        ("expected_items", "Instances in studies that are not planned yet.", summary.expected),
        ("discovery_complete", "Whether every study has been found.", summary.discovery_complete),
        ("adds_up", "Whether sums that were kept apart are equal.", not contradictions(summary)),
        ("verified_items", "Items that were found at the target.", summary.verified),
        ("mismatched_items", "Items that were found absent or different.", summary.mismatches),
        ("working_seconds", "How long the job has worked.", summary.seconds),
        ("items_per_minute", "Recent pace.", pace.instances),
        ("bytes_per_minute", "Recent pace.", pace.bytes),
        ("done_ratio", "The part that is done.", pace.fraction),
        ("left_seconds", "Time that is left at the recent pace.", pace.seconds),
    )
    for name, words, value in plain:
        yield from _metric(name, words, [] if value is None else [({}, value)])


def _labels_of(state: State) -> dict[str, str]:
    return {"state": state.name.lower()}


def _metric(name: str, words: str, samples: Iterable[_Sample]) -> Iterator[str]:
    name = f"postdicom_job_{name}"
    yield f"# HELP {name} {words}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        escaped = {key: text.translate(_ESCAPED) for key, text in labels.items()}
        written = ",".join(f'{key}="{text}"' for key, text in escaped.items())
        number = f"{value:d}" if isinstance(value, int) else f"{value:.6f}"
        yield f"{name}{{{written}}} {number}\n" if written else f"{name} {number}\n"
