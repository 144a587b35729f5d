"""One request on its way out and the head of its answer: the request passed to the transport, and its time-outs.

An httpx client around the transport would cost as much time as all our own code: cookies, redirects and hooks that are
not used here. So the transport is called directly; only for an ``httpx.Auth`` is its flow driven.

The clocks are here too: every wait for the network, of a request or of its answer, is bounded by a `Watchdog`, and all
of them share the single timer of a `Clock`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, lru_cache
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

import httpx

from postdicom_async.bodies import Body
from postdicom_async.errors import AuthenticationFailed, UsageError
from postdicom_async.face import translated
from postdicom_async.http.endpoint import origin_of
from postdicom_async.http.problems import (
    Problem,
    connection_failed,
    problem_of_credentials,
    problem_of_exception,
    problem_of_timeout,
    refused_by_alert,
)
from postdicom_async.http.repeat import CallPatience, least_rate_of
from postdicom_async.http.retry import Failure, Repeat
from postdicom_async.watching import UNWATCHED, RequestWatch

if TYPE_CHECKING:
    from postdicom_async.http.session import SharedConnections
    from postdicom_async.settings import Settings, Timeouts


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as data.

    Attributes:
        operation: its name as a caller would say it; begins every error message.
        path: appended to the session's address; percent-encoded already, query included.
        repeat: the effect of a repeat.
        body: what to send, or None.
        accepted: statuses besides 2xx that the caller handles itself.
        private: values of the request that a server might echo, to be masked in its words.
        search: whether ``timeouts.search_answer`` applies instead of ``timeouts.answer``.
        metadata: whether it retrieves metadata; ``limits.parallel_searches`` applies, as it does to searches.
        not_taken: called after each attempt that was temporarily refused, not answered in time, cut off or failed.
    """

    operation: str
    method: str
    path: str = field(repr=False)
    repeat: Repeat
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: Body | None = field(default=None, repr=False)
    accepted: frozenset[int] = frozenset()
    private: Iterable[str] = field(default=(), repr=False)
    search: bool = False
    metadata: bool = False
    not_taken: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def is_listing(self) -> bool:
        """Whether it counts as a search: searches never take all connections away from transfers."""
        return self.search or self.metadata

    @property
    def kind(self) -> str:
        """The kind of request: an archive may be silent to one kind and answer others."""
        return "search" if self.search else self.repeat.name


_ALWAYS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "User-Agent": "postdicom-async",
}


def _with_own(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what always goes along, with a caller's own headers in place of those of the same name."""
    names = {name.lower() for name in headers}
    return {name: value for name, value in _ALWAYS.items() if name.lower() not in names} | dict(headers)


_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})


class OriginPath(str):
    """A path from the root of the server rather than below the service's address."""

    __slots__ = ()


@lru_cache(maxsize=8)  # an upload sends thousands of requests to one address
def _address_of(url: str) -> httpx.URL:
    return httpx.URL(url)


def request_of(
    url: str,
    call: Call,
    authorization: str | None,
    stream: httpx.AsyncByteStream | None,
    settings: Settings,
    more: Mapping[str, str] | None = None,
) -> httpx.Request:
    """Return the request of a call to the service at ``url``; ``stream`` is its body, ``more`` are headers.

    Raises:
        httpx.InvalidURL: the address cannot be used.
    """
    text = (origin_of(url) if isinstance(call.path, OriginPath) else url) + call.path
    address = _address_of(text) if stream is not None and "?" not in text else httpx.URL(text)
    headers = [(b"Host", address.netloc)]
    named = (_with_own(settings.headers) if settings.headers else _ALWAYS) | call.headers
    headers += [(name.encode(), value.encode()) for name, value in named.items()]
    if more:
        headers += [(name.encode(), value.encode()) for name, value in more.items()]
    if authorization is not None:
        headers.append((b"Authorization", authorization.encode()))
    if call.body is None:
        if call.method in _WITH_LENGTH:
            headers.append((b"Content-Length", b"0"))
    elif settings.chunked_upload:
        headers.append((b"Transfer-Encoding", b"chunked"))
    else:
        headers.append((b"Content-Length", b"%d" % call.body.length))
    request = httpx.Request(
        call.method,
        address,
        headers=headers,
        stream=stream or httpx.ByteStream(b""),
        extensions={"timeout": {"connect": settings.timeouts.connect, "read": None, "write": None, "pool": None}},
    )
    if stream is None:
        request.read()  # so that ``content`` is empty and not unread
    return request


# --- clocks -----------------------------------------------------------------------------------------------------------


class Clock:
    """One timer for all the waits of a session, reset only when it has expired or would ring too late.

    A timer for each wait would cost as much as receiving a small piece. Times are of `time.monotonic`.

    ``waits`` are the active watchdogs: each adds and removes itself. The timer rings at, or before, the earliest of
    their deadlines; moving a deadline later costs nothing, as the timer merely checks.
    """

    def __init__(self) -> None:
        self.waits: set[Watchdog] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf

    def ring(self, until: float) -> None:
        """Check the waits at this time, or before it."""
        if until < self._rings:
            self.close()
            self._rings = until
            self._timer = asyncio.get_running_loop().call_later(until - monotonic(), self._look)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings = None, math.inf

    def _look(self) -> None:
        self._timer, self._rings = None, math.inf
        now, following = monotonic(), math.inf
        for wait in list(self.waits):
            if wait.until <= now:
                wait.end()
            else:
                following = min(following, wait.until)
        if following < math.inf:
            self.ring(following)


class Watchdog:
    """Ends a wait of the task that entered it, at a time that may move: ``with watch: ...`` raises `TimeoutError`.

    It ends the wait by cancelling the task, as `asyncio.timeout` does, and takes the cancellation back on exit. It may
    be entered repeatedly, by one task at a time.

    Attributes:
        until: when the wait ends; infinity while the task is not waiting for the network.
    """

    def __init__(self, clock: Clock) -> None:
        self.until: float = math.inf
        self._clock = clock
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._cancelled = False

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        self._clock.waits.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.until = math.inf
        self._clock.waits.discard(self)
        task, self._task = self._task, None
        if not self._cancelled or task is None:
            return
        self._cancelled = False
        # As asyncio.timeout does it: a cancellation by somebody else passes through.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError

    def expect(self, until: float) -> None:
        """End the wait at this time. Does nothing if nobody waits any more."""
        if self._task is None or self._cancelled:
            return
        self.until = until
        self._clock.ring(until)

    def pause(self) -> None:
        """Stop the clock: the task is not waiting for the network now."""
        self.until = math.inf

    def end(self) -> None:
        """End the wait now."""
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self.until = math.inf
            self._task.cancel()


class ReadWatchdog(Watchdog):
    """Bounds each wait for a piece of an answer by the silence allowed and by its call's deadline, and measures it.

    Attributes:
        waited: seconds that the last wait took.
        patience: that of the call, if its deadline applies here.
        by_deadline: whether the deadline, not silence, bounds the current wait.
    """

    def __init__(self, clock: Clock, idle: float) -> None:
        super().__init__(clock)
        self.waited: float = 0.0
        self.patience: CallPatience | None = None
        self.by_deadline: bool = False
        self._idle = idle
        self._since = 0.0

    def __enter__(self) -> None:
        super().__enter__()
        self._since = now = monotonic()
        left = None if self.patience is None else self.patience.left
        self.by_deadline = left is not None and left < self._idle
        self.expect(now + (self._idle if left is None else min(left, self._idle)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.waited = monotonic() - self._since
        if self.patience is not None:
            self.patience.spend(self.waited)
        super().__exit__(kind, error, trace)


class SentBody(httpx.AsyncByteStream):
    """A body being sent, piecewise or in one piece.

    The clock runs while the archive takes a piece, not while the source produces the next one.

    Attributes:
        finished: whether the last piece has been passed to the transport.
        passed: bytes passed to it, over all times that it asked for the body.
        too_slow: whether it was ended because the archive took it too slowly.
    """

    def __init__(self, body: Body, watch: Watchdog, timeouts: Timeouts, answer: float, *, whole: bool) -> None:
        self.finished: bool = False
        self.too_slow: bool = False
        self.passed: int = 0
        self._body = body
        self._whole = whole
        self._watch = watch
        self._idle = timeouts.idle_write
        self._answer = answer
        self._timeouts = timeouts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body from its first byte."""
        watch = self._watch
        rate = least_rate_of(self._timeouts, self._idle)
        self.finished = False
        left = self._body.length
        watch.pause()
        async for piece in _in_one(self._body) if self._whole else self._body.open():
            left -= len(piece)
            # A transport that knows the length does not ask again after the last piece.
            self.finished = left <= 0
            given = monotonic()
            watch.expect(given + self._idle + (self._answer if self.finished else 0.0))
            size = len(piece)
            self.passed += size
            yield piece
            del piece  # otherwise each stream would hold two pieces while the next is read
            watch.pause()
            if rate.is_too_slow(size, monotonic() - given) and not self.finished:
                self.too_slow = True
                watch.end()
        watch.expect(monotonic() + self._answer)


async def _in_one(body: Body) -> AsyncGenerator[bytes, None]:
    yield b"".join([piece async for piece in body.open()])


# --- one request ------------------------------------------------------------------------------------------------------


# bytes; a body up to this size is sent in one piece: a socket accepts it without waiting for the peer
_AT_ONCE = 64 * 1024
_FAILURES = (TimeoutError, httpx.HTTPError, httpx.InvalidURL, ssl.SSLError)


@dataclass(slots=True)
class Exchange:
    """One request of a call.

    Attributes:
        link: the shared connections.
        url: the address of the service.
        call: what is asked for.
        settings: of the session.
        begun: whether it was passed to the transport, so that it may have left.
        met_silence: whether it ended because the archive was silent.
        sent: its body being sent.
        watch: who is told of it.
    """

    link: SharedConnections
    url: str
    call: Call
    settings: Settings
    begun: bool = False
    met_silence: bool = False
    sent: SentBody | None = None
    watch: RequestWatch = UNWATCHED

    async def run(self, header: str | None, auth: httpx.Auth | None) -> httpx.Response:
        """Send the request and wait for the head of the answer; silence is bounded, the total time is not.

        Raises:
            Problem: there is none.
            LocalFileError: the body cannot be read.
        """
        call, settings, timeouts = self.call, self.settings, self.settings.timeouts
        watch = Watchdog(self.link.clock)
        answer = min(timeouts.answer, timeouts.search_answer) if call.search else timeouts.answer
        if call.body is not None:
            is_small = call.body.length <= _AT_ONCE and not settings.chunked_upload
            self.sent = SentBody(call.body, watch, timeouts, answer, whole=is_small)
        with translated(_FAILURES, self._problem_of):
            request = request_of(self.url, call, header, self.sent, settings, self.watch.headers())
            self.begun = True
            with watch, quiet_http_logs(), self.watch.active():
                watch.expect(monotonic() + timeouts.connect + answer)
                transport = await self.link.transport()
                if auth is None:
                    return await transport.handle_async_request(request)
                return await _authenticated(transport, request, auth)

    def ended(self, status: int | None, received: int, error: BaseException | None) -> None:
        """Tell those who watch that its answer has been read, or that there will be none."""
        sent = 0 if self.sent is None else self.sent.passed
        self.watch.ended(status, sent, received, error.error if isinstance(error, Problem) else error)

    def _problem_of(self, error: Exception) -> Problem:
        operation = self.call.operation
        if isinstance(error, httpx.InvalidURL):
            return Problem(Failure.FINAL, UsageError("the address cannot be used", operation=operation))
        if isinstance(error, ssl.SSLError):  # httpx's own transport does not translate those after the handshake
            error = refused_by_alert(str(error)) or httpx.ReadError("the connection broke")
        self.met_silence = isinstance(error, TimeoutError | httpx.TimeoutException)
        if isinstance(error, httpx.HTTPError):
            return problem_of_exception(operation, error)
        if self.sent is not None and self.sent.too_slow:
            message = f"the archive takes less than {self.settings.timeouts.least_rate:g} bytes a second"
            return Problem(Failure.LOST, connection_failed(operation, message, sent=True))
        return problem_of_timeout(operation, sending=self.sent is not None and not self.sent.finished)


async def _authenticated(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, auth: httpx.Auth
) -> httpx.Response:
    """Drive the flow of an ``httpx.Auth`` as httpx's client does, which may take several requests."""
    flow = auth.async_auth_flow(request)
    try:
        with translated(AuthenticationFailed, problem_of_credentials):
            request = await anext(flow)
        while True:
            response = await transport.handle_async_request(request)
            response.request = request  # httpx.DigestAuth needs it to find the answer's cookies
            try:
                try:
                    following = await flow.asend(response)
                except StopAsyncIteration:
                    return _readable(response)
                await response.aread()
            except BaseException:
                await response.aclose()
                raise
            request = following
    finally:
        await flow.aclose()


def _readable(response: httpx.Response) -> httpx.Response:
    """Return an answer whose body can be read, even if the auth flow has already read and decompressed it."""
    if not response.is_stream_consumed:
        return response
    unpacked = {b"content-encoding", b"content-length", b"transfer-encoding"}
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in unpacked]
    return httpx.Response(response.status_code, headers=headers, content=response.content)


# --- logs -------------------------------------------------------------------------------------------------------------


_ours: ContextVar[bool] = ContextVar("postdicom_async_request", default=False)

_HTTP_LOGGERS = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "aiohttp.client",
    "aiohttp.internal",
)


def _not_ours(_record: logging.LogRecord) -> bool:
    return not _ours.get()


@cache
def _install_filters() -> None:
    for name in _HTTP_LOGGERS:
        logging.getLogger(name).addFilter(_not_ours)


@contextmanager
def quiet_http_logs() -> Iterator[None]:
    """Drop what httpx, httpcore and aiohttp log in this context: URLs, and headers of answers.

    Only requests made inside are affected; an application's own use of httpx logs as before.
    """
    _install_filters()
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
