"""One way out to the network: slots, credentials, time-outs, repeats, caps and error mapping around an httpx client.

A call is described by a `Call` and made with ``fetch`` (the whole answer, bounded) or ``stream`` (its body as it
arrives). Everything that can go wrong leaves here as an exception of ``postdicom_async.errors`` that holds nothing
private.
"""

from __future__ import annotations

import asyncio
import copy
import ipaddress
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

import anyio
import httpx

from postdicom_async.errors import UsageError
from postdicom_async.http.answer import Answer, StreamedAnswer
from postdicom_async.http.bodies import Body
from postdicom_async.http.credentials import Auth, Credentials, credentials_from
from postdicom_async.http.problems import Problem, problem_of_exception, problem_of_status, problem_of_timeout
from postdicom_async.http.redaction import origin_of, quiet_http_logs
from postdicom_async.http.retry import Attempts, Failure, Repeat, RetryBudget, decide
from postdicom_async.http.transport import READ_AHEAD, ChosenTransport, PyreqwestTransport, choose_transport
from postdicom_async.settings import Settings

__all__ = ["Call", "Session", "is_loopback"]

_log = logging.getLogger("postdicom_async")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as data.

    Attributes:
        operation: what the caller would call it; the head of every error message.
        path: appended to the session's address; percent-encoded already, query included.
        repeat: what a repeat would do.
        body: what to send, or None.
        accepted: statuses besides 2xx that the caller reads itself.
        private: values of the request that a server might repeat in its words.
        read_ahead: a large answer is expected: read some of it ahead, which is quicker where it comes in small pieces.
            If it is cut within the first 64 KiB, those may be lost.
    """

    operation: str
    method: str
    path: str
    repeat: Repeat
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: Body | None = field(default=None, repr=False)
    accepted: frozenset[int] = frozenset()
    private: Iterable[str] = field(default=(), repr=False)
    read_ahead: bool = False


class _OriginPath(str):
    """A path from the root of the server instead of below the service's address."""

    __slots__ = ()


class _Link:
    """What copies of a session share: the client, the slots, the budget."""

    def __init__(self, settings: Settings, chosen: ChosenTransport, credentials: Credentials) -> None:
        self.slots = anyio.CapacityLimiter(settings.limits.connections)
        self.budget = RetryBudget(settings.retry.budget)
        self.paused: dict[StreamedAnswer, None] = {}  # answers that are open and that nobody reads, the oldest first
        self._closing: set[asyncio.Task[None]] = set()
        transport = chosen.make()
        self.ends_itself = isinstance(transport, PyreqwestTransport)
        self.client = httpx.AsyncClient(
            transport=transport, auth=credentials.httpx_auth, trust_env=False, follow_redirects=False
        )

    async def take_slot(self, holder: object) -> None:
        """Wait for a slot. With one free there is no detour through the event loop."""
        try:
            self.slots.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            self._take_back_one()
            await self.slots.acquire_on_behalf_of(holder)

    def _take_back_one(self) -> None:
        # Who reads it may be waiting for this very request: without this both would wait for ever.
        answer = next(iter(self.paused), None)
        if answer is not None:
            del self.paused[answer]
            closing = asyncio.get_running_loop().create_task(answer.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


class Session:
    """An httpx client with a slot limiter in front, one retry loop around, and our errors out of it."""

    def __init__(self, url: str, *, auth: Auth, settings: Settings, transport: httpx.AsyncBaseTransport | None) -> None:
        self.url: str = _checked_url(url)
        self.settings = settings
        self._credentials = credentials_from(auth)
        self._link: _Link | None = None
        _refuse_open_credentials(self.url, self._credentials, settings)
        if transport is None:
            self._chosen = choose_transport(self.url, settings)
        else:
            self._chosen = ChosenTransport("custom", lambda: transport)

    @property
    def transport_name(self) -> str:
        """``"pyreqwest"``, ``"httpx"`` or ``"custom"``."""
        return self._chosen.name

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not show in a server's words."""
        return self._credentials.secrets()

    async def open(self) -> None:
        """Make the client; nothing is sent."""
        if self._link is not None:
            raise UsageError("this session is open already; make another one, or a copy with with_options(...)")
        self._link = _Link(self.settings, self._chosen, self._credentials)

    async def close(self) -> None:
        """Close every connection. What is under way fails."""
        link, self._link = self._link, None
        if link is not None:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await link.client.aclose()

    def with_settings(self, settings: Settings) -> Session:
        """Return a session on the same connections with other time-outs, retry and limits.

        Raises:
            UsageError: a setting that belongs to the connections themselves would change.
        """
        if _of_the_connections(settings) != _of_the_connections(self.settings):
            raise UsageError(
                "with_options: tls, proxy, timeouts.connect and limits.connections belong to the open connections; "
                "make a new session for other values"
            )
        other = copy.copy(self)
        other.settings = settings
        return other

    def path_to(self, absolute: str) -> str:
        """Return the ``Call.path`` of an address on this server, which may lie outside the service's own path."""
        parts = urlsplit(absolute)
        query = f"?{parts.query}" if parts.query else ""
        return _OriginPath(parts.path + query)

    # --- calls ---------------------------------------------------------------------------------------------------

    async def fetch(
        self, call: Call, *, cap: int, check: Callable[[Answer], Awaitable[Problem | None]] | None = None
    ) -> Answer:
        """Make the call and read its whole answer, at most ``cap`` bytes.

        ``check`` may find that what came is not all, although nobody broke anything off: that is a failed attempt.

        Raises:
            PostdicomError: any kind but a transfer error.
        """

        async def attempt(send: Callable[[], Awaitable[StreamedAnswer]]) -> Answer:
            async with await send() as streamed:
                answer = await streamed.read_all(cap)
            problem = await check(answer) if check is not None else None
            if problem is not None:
                raise problem
            return answer

        return await self.read(call, attempt)

    async def read(self, call: Call, attempt: Callable[[Callable[[], Awaitable[StreamedAnswer]]], Awaitable[_T]]) -> _T:
        """Run an attempt until it succeeds or is given up, and return what it does.

        It gets what makes the request and gives the head of an answer, which it closes itself, and raises `Problem` for
        what a repeat may mend.
        """
        return await self._repeated(call, lambda: attempt(lambda: self._send(call)))

    def pause(self, answer: StreamedAnswer) -> None:
        """Say that nobody reads an answer for now. Whoever waits for a slot may close it; `resume` tells."""
        if self._link is not None:
            self._link.paused[answer] = None

    def resume(self, answer: StreamedAnswer) -> bool:
        """Return whether an answer that was paused is still open; from now on it stays so."""
        paused = {} if self._link is None else self._link.paused
        return paused.pop(answer, answer) is None

    async def stream(self, call: Call) -> StreamedAnswer:
        """Make the call and return its answer as soon as the head is there; use it as ``async with``.

        It holds a slot until it is closed. Only getting the head is repeated; a body that breaks raises from
        ``chunks()``.
        """

        async def attempt() -> StreamedAnswer:
            return await self._send(call)

        return await self._repeated(call, attempt)

    async def _repeated(self, call: Call, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Run attempts until one succeeds or `decide` gives up. The only retry loop of the library."""
        link = self._open_link()
        started = time.monotonic()
        made = 0
        refreshed = False
        while True:
            made += 1
            problem: Problem | None = None
            try:
                result = await attempt()
            except Problem as caught:
                problem = caught
            if problem is None:
                link.budget.earn()
                return result
            # From here on outside the handler: an exception raised inside would keep the other as its context.
            if problem.rejected_header is not None and not refreshed:
                refreshed = True
                if await self._credentials.refresh(problem.rejected_header):
                    continue
            wait = decide(
                call.repeat,
                problem.failure,
                Attempts(made, time.monotonic() - started),
                self.settings.retry,
                chance=random.random(),  # noqa: S311 - jitter
                retry_after=problem.retry_after,
            )
            if wait is None or not link.budget.spend():
                raise problem.final(attempts=made)
            _log.debug("%s: attempt %d failed (%s), next in %.1f s", call.operation, made, problem.failure.name, wait)
            await anyio.sleep(wait)

    async def _send(self, call: Call) -> StreamedAnswer:
        """Make one request; return its answer's head, or raise `Problem`."""
        link = self._open_link()
        holder = object()
        await link.take_slot(holder)
        answer: StreamedAnswer | None = None
        try:
            header = await self._credentials.header()
            response = await self._exchange(link, call, header)
            answer = StreamedAnswer(
                response,
                operation=call.operation,
                limits=self.settings.limits,
                idle=self.settings.timeouts.idle_read,
                release=lambda: link.slots.release_on_behalf_of(holder),
                ends_itself=link.ends_itself,
            )
            if not (answer.ok or answer.status in call.accepted):
                raise await self._refusal(call, answer, header)
        except BaseException:
            if answer is not None:
                await answer.aclose()
            else:
                link.slots.release_on_behalf_of(holder)
            raise
        return answer

    async def _exchange(self, link: _Link, call: Call, header: str | None) -> httpx.Response:
        """Send the request and wait for the head of the answer; silence is bounded, the whole is not."""
        timeouts = self.settings.timeouts
        problem: Problem | None = None
        response: httpx.Response | None = None
        watch = asyncio.timeout(timeouts.connect + timeouts.answer)
        stream = _WatchedBody(call.body, watch, timeouts.idle_write, timeouts.answer) if call.body else None
        try:
            request = _request(link.client, self.url, call, header, stream, timeouts.connect, self.settings)
            async with watch:
                with quiet_http_logs():
                    response = await link.client.send(request, stream=True)
        except TimeoutError:
            problem = problem_of_timeout(call.operation, sending=stream is not None and not stream.finished)
        except httpx.InvalidURL:
            problem = Problem(Failure.FINAL, UsageError("the address cannot be used", operation=call.operation))
        except httpx.HTTPError as error:
            problem = problem_of_exception(call.operation, error)
        if problem is not None or response is None:
            raise problem or AssertionError
        return response

    async def _refusal(self, call: Call, answer: StreamedAnswer, header: str | None) -> Problem:
        body = await answer.read_some(self.settings.limits.error_bytes)
        return problem_of_status(
            call.operation,
            answer.status,
            answer.headers,
            body,
            sent=(*call.private, *self.secrets),
            now=datetime.now(UTC),
            authorization=header,
        )

    def _open_link(self) -> _Link:
        if self._link is None or self._link.client.is_closed:
            raise UsageError("the session is not open; use it inside 'async with'")
        return self._link


# --- the request ------------------------------------------------------------------------------------------------


class _WatchedBody(httpx.AsyncByteStream):
    """A body on its way out. Each time the socket takes a piece, the clock of silence starts anew."""

    def __init__(self, body: Body, watch: asyncio.Timeout, idle: float, answer: float) -> None:
        self._body = body
        self._watch = watch
        self._idle = idle
        self._answer = answer
        self.finished = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        now = asyncio.get_running_loop().time
        self.finished = False
        left = self._body.length
        async for piece in self._body.open():
            left -= len(piece)
            # A transport that knows the length does not come back after the last piece.
            self.finished = left <= 0
            self._expect(now() + self._idle + (self._answer if self.finished else 0.0))
            yield piece
        self._expect(now() + self._answer)

    def _expect(self, deadline: float) -> None:
        if self._watch.when() is not None and not self._watch.expired():
            self._watch.reschedule(deadline)


def _request(
    client: httpx.AsyncClient,
    url: str,
    call: Call,
    authorization: str | None,
    stream: _WatchedBody | None,
    connect: float,
    settings: Settings,
) -> httpx.Request:
    headers = {"Accept-Encoding": "identity", "User-Agent": "postdicom-async", **call.headers}
    if authorization is not None:
        headers["Authorization"] = authorization
    if call.body is not None and not settings.chunked_upload:
        headers["Content-Length"] = str(call.body.length)
    return client.build_request(
        call.method,
        (origin_of(url) if isinstance(call.path, _OriginPath) else url) + call.path,
        headers=headers,
        content=stream,
        timeout=httpx.Timeout(None, connect=connect),
        extensions={READ_AHEAD: call.read_ahead},
    )


# --- the address ------------------------------------------------------------------------------------------------


def _checked_url(url: str) -> str:
    """Return the address without a trailing slash.

    Raises:
        UsageError: it is not an absolute http(s) address, or holds credentials or a query.
    """
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except (ValueError, AttributeError):
        raise UsageError("url: not an address; give something like https://archive.example/dicom-web") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_valid:
        raise UsageError("url: give an absolute address such as https://archive.example/dicom-web")
    if parts.username is not None or parts.password is not None:
        raise UsageError("url: leave user and password out of the address and give them as auth=(user, password)")
    if parts.query or parts.fragment:
        raise UsageError("url: leave out everything from '?' or '#' on")
    if any(not char.isprintable() or char.isspace() for char in url):
        raise UsageError("url: the address holds a space or a control character")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Return whether an address leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _refuse_open_credentials(url: str, credentials: Credentials, settings: Settings) -> None:
    open_road = urlsplit(url).scheme == "http" and not is_loopback(url)
    if open_road and credentials.present and not settings.allow_http_credentials:
        raise UsageError(
            f"url: credentials would travel unencrypted to {origin_of(url)}; use https://, "
            "or set allow_http_credentials if that network is trusted"
        )


def _of_the_connections(settings: Settings) -> tuple[object, ...]:
    return (
        settings.tls,
        settings.proxy,
        settings.use_environment_proxies,
        settings.timeouts.connect,
        settings.limits.connections,
        settings.allow_http_credentials,
    )


def same_origin(url: str, other: str) -> bool:
    """Return whether two absolute addresses lead to the same scheme, host and port."""
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default
