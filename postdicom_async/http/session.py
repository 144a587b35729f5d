"""The network session: slots, credentials, time-outs, repeats, caps and error mapping around an httpx transport.

A request is described by a `Call` and made with ``fetch`` (the whole answer, bounded) or ``stream`` (its body as it
arrives). Everything that can go wrong leaves here as an exception of ``postdicom_async.errors`` that contains nothing
private.

State: a `Session` is settings and credentials. Its copies (``with_settings``, ``one_call``) share `SharedConnections`,
which own everything that is open: the transport, the slots before it, the retry budget, the clock. They belong to one
event loop at a time.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx

from postdicom_async.errors import AuthenticationFailed, PostdicomError, UsageError
from postdicom_async.events import Event, OnEvent
from postdicom_async.face import translated
from postdicom_async.http.answer import Answer, StreamedAnswer, start
from postdicom_async.http.credentials import Auth, Credentials, Road, Unset, credentials_from
from postdicom_async.http.endpoint import ChosenTransport, checked_url, choose_transport, refuse_open_credentials
from postdicom_async.http.exchange import Call, Clock, Exchange, OriginPath
from postdicom_async.http.problems import Problem, connection_failed, problem_of_credentials, problem_of_status
from postdicom_async.http.repeat import CallPatience, Policy, RetryBudget, deadline_passed, repeat, within
from postdicom_async.http.retry import Failure, Repeat
from postdicom_async.settings import Settings
from postdicom_async.watching import UNWATCHED, watch_request

_T = TypeVar("_T")


class _Making(Policy):
    """A call in progress, and the decisions after each attempt.

    Attributes:
        sent: whether the current request has left, as far as known.
    """

    def __init__(
        self,
        call: Call,
        link: SharedConnections,
        patience: CallPatience,
        credentials: Credentials,
        settings: Settings,
        on_event: OnEvent | None,
    ) -> None:
        super().__init__(call.operation, call.repeat, settings.retry, link.budget, on_event=on_event)
        self.call = call
        self.patience = patience
        self.sent: bool = False
        self._credentials = credentials
        self._is_refreshed = False

    async def mend(self, problem: Problem) -> Problem | None:
        """Get another token if one was refused; a second refusal in a row is final."""
        self.sent = False
        rejected, may_refresh = problem.rejected_header, not self._is_refreshed
        self._is_refreshed = False
        if rejected is None or not may_refresh:
            return problem
        try:
            self._is_refreshed = await self._credentials.refresh(rejected)
        except AuthenticationFailed as error:
            return problem_of_credentials(error) or Problem(Failure.FINAL, error)
        return None if self._is_refreshed else problem

    def wait_after(self, problem: Problem) -> float | None:
        """Also give up if the archive was silent too often."""
        if self.call.not_taken is not None and problem.failure is not Failure.FINAL:
            self.call.not_taken()
        return None if self.patience.is_over(self.call.kind) else super().wait_after(problem)

    def met_silence(self, before: int) -> None:
        """Note that a request timed out; ``before`` is the number of silences when it began."""
        self.patience.met_silence(self.call.kind, before)
        self.was_silent(self.patience.silences)


class Session:
    """An httpx transport with a connection limit before it and one retry loop around it, raising our own errors."""

    def __init__(self, url: str, *, auth: Auth, settings: Settings, transport: httpx.AsyncBaseTransport | None) -> None:
        self.url: str = checked_url(url)
        self.settings = settings
        self._transport = transport
        self._credentials = credentials_from(auth, Road(settings, transport))
        self._link: SharedConnections | None = None
        self._was_closed = False
        self._patience: CallPatience | None = None
        self._watch: OnEvent | None = None
        refuse_open_credentials(self.url, self._credentials, settings)
        if transport is None:
            self._chosen = choose_transport(self.url, settings)
        else:
            self._chosen = ChosenTransport("custom", lambda: transport)

    @property
    def transport_name(self) -> str:
        """``"aiohttp"``, or ``"custom"`` for one that was passed."""
        return self._chosen.name

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values to be masked in a server's words."""
        return (*self._credentials.secrets(), *self.settings.headers.values())

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        return self._link is not None

    async def open(self) -> None:
        """Make ready for requests; nothing is sent."""
        if self._link is not None:
            raise UsageError("this session is open already; make another one, or a copy with with_options(...)")
        self._link, self._was_closed = SharedConnections(self.settings, self._chosen, self._transport), False

    async def close(self) -> None:
        """Close every connection. What is under way fails."""
        link, self._link = self._link, None
        if link is not None:
            self._was_closed = True
            await link.close()

    def with_settings(self, settings: Settings, *, auth: Auth | Unset = Unset.UNSET) -> Session:
        """Return a session on the same connections with other time-outs, retry and limits, or other credentials.

        Raises:
            UsageError: a setting that belongs to the connections themselves would change, or ``auth`` is invalid or
                would travel unencrypted.
        """
        if _of_the_connections(settings) != _of_the_connections(self.settings):
            raise UsageError(
                "tls, proxy, timeouts.connect, limits.connections and limits.parallel_searches belong to the open "
                "connections; make a new session for other values",
                operation="with_options",
            )
        if isinstance(auth, Unset):
            return self._copy(settings=settings)
        credentials = credentials_from(auth, Road(settings, self._transport))
        refuse_open_credentials(self.url, credentials, settings)
        return self._copy(settings=settings, _credentials=credentials)

    def watched_by(self, watch: OnEvent) -> Session:
        """Return a session that tells ``watch`` too of what it meets, before whom its settings name."""
        return self._copy(_watch=watch)

    def _tell_both(self, event: Event) -> None:
        if self._watch is not None:
            self._watch(event)
        if self.settings.on_event is not None:
            self.settings.on_event(event)

    def _copy(self, **changed: object) -> Session:
        other = copy.copy(self)
        vars(other).update(changed)
        return other

    def one_call(self, *, at_once: bool = False) -> Session:
        """Return a session for all requests of one library call, which share its deadline and its patience.

        ``at_once`` says that they run in parallel: the deadline is then enforced by the caller (`within`).
        """
        if self._patience is not None:
            return self  # part of a call already
        return self._copy(_patience=self._new_patience(at_once=at_once))

    def _new_patience(self, *, at_once: bool = False) -> CallPatience:
        return CallPatience(None if at_once else self.settings.timeouts.deadline, self.settings.retry.max_silences)

    def path_to(self, absolute: str) -> str:
        """Return the ``Call.path`` of an address on this server, which may be outside the service's own path."""
        parts = urlsplit(absolute)
        query = f"?{parts.query}" if parts.query else ""
        return OriginPath(parts.path + query)

    # --- calls ---------------------------------------------------------------------------------------------------

    async def fetch(
        self, call: Call, *, cap: int, check: Callable[[Answer], Awaitable[Problem | None]] | None = None
    ) -> Answer:
        """Make the call and read its whole answer, at most ``cap`` bytes.

        ``check`` may find an answer incomplete although it ended normally: that counts as a failed attempt.

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
        """Run ``attempt`` until it succeeds or is given up, and return its result.

        ``attempt`` gets a function that makes the request and returns the head of its answer. It must close the answer
        itself, and raise `Problem` for failures that a repeat may fix.
        """
        making = self._making(call)
        return await self._in_time(making, lambda: attempt(lambda: self._send(making)))

    def pause(self, answer: StreamedAnswer) -> None:
        """Note that nobody reads an answer for now. A request waiting for a slot may close it; `resume` tells."""
        if self._link is not None:
            self._link.pause(answer)

    def resume(self, answer: StreamedAnswer) -> bool:
        """Return whether a paused answer is still open; if so, it stays open."""
        paused = {} if self._link is None else self._link.paused
        return paused.pop(answer, answer) is None

    async def stream(self, call: Call) -> StreamedAnswer:
        """Make the call and return its answer as soon as the head has arrived; use it as ``async with``.

        It holds a slot until it is closed. Only getting the head is repeated; a body that breaks raises from
        ``chunks()``.
        """
        making = self._making(call)
        answer = await self._in_time(making, lambda: self._send(making))
        if making.patience.left is not None:
            answer.keep_deadline()
        return answer

    @property
    def has_given_up(self) -> bool:
        """Whether this session, made by `one_call`, retrieves nothing more because the archive was silent too often."""
        return self._patience is not None and self._patience.is_over(Repeat.READ.name)

    def has_moved(self) -> None:
        """Note that an answer brought something useful, although it broke."""
        if self._patience is not None:
            self._patience.heard(Repeat.READ.name)

    def _making(self, call: Call) -> _Making:
        patience = self._patience or self._new_patience()
        on_event = self.settings.on_event if self._watch is None else self._tell_both
        return _Making(call, self._open_link(), patience, self._credentials, self.settings, on_event)

    async def _in_time(self, making: _Making, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Run the retry loop within what is left of the call's deadline."""
        patience, seconds, started = making.patience, self.settings.timeouts.deadline, time.monotonic()

        def late() -> PostdicomError:
            error = deadline_passed(making.operation, seconds, sent=making.sent, attempts=making.made)
            making.give_up(Problem(Failure.LOST, error))
            return error

        try:
            return await within(patience.left, self._repeated(making, attempt), late)
        finally:
            patience.spend(time.monotonic() - started)

    async def _repeated(self, making: _Making, attempt: Callable[[], Awaitable[_T]]) -> _T:
        if making.patience.is_over(making.call.kind):
            words = "the archive was silent too often and is not asked again"
            raise connection_failed(making.operation, words, sent=False)
        return await repeat(attempt, making)

    async def _send(self, making: _Making) -> StreamedAnswer:
        """Make one request; return its answer's head, or raise `Problem`."""
        link, call = self._open_link(), making.call
        if self.settings.before_request is not None:
            # before a slot is taken: a caller that throttles requests occupies no connection
            await self.settings.before_request()
        holder = object()
        await link.take_slot(holder, listing=call.is_listing)
        release = partial(link.give_back, holder, listing=call.is_listing)
        answer: StreamedAnswer | None = None
        exchange, silences = Exchange(link, self.url, call, self.settings), making.patience.silences
        try:
            with translated(AuthenticationFailed, problem_of_credentials):
                header = await self._credentials.header()
            exchange.watch = watch_request(call.operation, making.made, call.method, self.url, self.settings.on_event)
            try:
                response = await exchange.run(header, self._credentials.httpx_auth)
            finally:
                making.sent = exchange.begun
                if exchange.met_silence:
                    making.met_silence(silences)
            answer = StreamedAnswer(
                response,
                operation=call.operation,
                kind=call.kind,
                limits=self.settings.limits,
                timeouts=self.settings.timeouts,
                clock=link.clock,
                patience=making.patience,
                in_vain=partial(making.met_silence, silences),
                release=release,
                ended=None if exchange.watch is UNWATCHED else exchange.ended,
            )
            if not (answer.ok or answer.status in call.accepted):
                raise await self._refusal(call, answer, header)
        except BaseException as error:
            if answer is not None:
                await answer.aclose()
            else:
                release()
                exchange.ended(None, 0, error)
            raise
        return answer

    async def _refusal(self, call: Call, answer: StreamedAnswer, header: str | None) -> Problem:
        body = await answer.read_some(self.settings.limits.error_bytes)
        return problem_of_status(
            call.operation,
            answer.status,
            answer.headers,
            body,
            # even a token that has been refreshed meanwhile
            sent=(*call.private, *self.secrets, *(header or "").split()),
            now=datetime.now(UTC),
            authorization=header,
            address=self.url,
        )

    def _open_link(self) -> SharedConnections:
        if self._was_closed or (self._link is not None and self._link.is_closed):
            raise UsageError("the session is closed: its 'async with' has ended")
        if self._link is None:
            raise UsageError("the session is not open; use it inside 'async with'")
        self._link.enter_loop()
        return self._link


def _of_the_connections(settings: Settings) -> tuple[object, ...]:
    return (
        settings.tls,
        settings.proxy,
        settings.use_environment_proxies,
        settings.timeouts.connect,
        settings.limits.connections,
        settings.limits.parallel_searches,
        settings.allow_http_credentials,
    )


# --- shared by the copies of a session --------------------------------------------------------------------------------


_PAUSED_SECONDS = 1.0  # how long an answer that nobody reads may keep others waiting
_CLOSE_SECONDS = 5.0


class SharedConnections:
    """The open connections of a session and of its copies.

    Attributes:
        slots: one per request in flight.
        listings: a second one for each request that is a search or asks for metadata.
        budget: the retry budget.
        clock: times all waits for the network.
        paused: open answers that nobody reads at the moment, the oldest first.
        is_closed: whether it can no longer be used.
    """

    def __init__(self, settings: Settings, chosen: ChosenTransport, transport: httpx.AsyncBaseTransport | None) -> None:
        self.slots: anyio.CapacityLimiter = anyio.CapacityLimiter(settings.limits.connections)
        self.listings: anyio.CapacityLimiter = anyio.CapacityLimiter(settings.limits.parallel_searches)
        self.budget: RetryBudget = RetryBudget(settings.retry.budget)
        self.clock: Clock = Clock()
        self.paused: dict[StreamedAnswer, None] = {}
        self._chosen = chosen
        self._transport = transport
        self._making = threading.Lock()
        self.is_closed: bool = False
        self._loop = asyncio.get_running_loop()

    def enter_loop(self) -> None:
        """Bind everything to the running event loop.

        Raises:
            UsageError: another running loop uses it; tasks that wait there for a slot could not be woken from here.
        """
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop.is_running():
            raise UsageError("the client is open in another event loop that is running; open one in each")
        self._loop = loop
        self.clock = Clock()  # the timer of a loop that has ended never rings

    async def close(self) -> None:
        """Close every connection. What is under way fails."""
        self.is_closed = True
        self.clock.close()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
            if self._transport is not None:
                await self._transport.aclose()

    async def transport(self) -> httpx.AsyncBaseTransport:
        """Return the transport, made in a thread for the first request, so that the event loop continues.

        Raises:
            httpx.ConnectError: the connections were closed meanwhile: nobody would close another one.
        """
        if self._transport is not None:
            return self._transport
        limiter = anyio.CapacityLimiter(1)  # the threads of others may all be busy, waiting for this very request
        transport = await anyio.to_thread.run_sync(self._make_transport, abandon_on_cancel=True, limiter=limiter)
        if self.is_closed:
            raise httpx.ConnectError("closed before there was a connection")
        return transport

    def _make_transport(self) -> httpx.AsyncBaseTransport:
        with self._making:  # once, however many requests wait for it
            if self._transport is None:
                self._transport = self._chosen.make()
            return self._transport

    async def take_slot(self, holder: object, *, listing: bool) -> None:
        """Wait for a slot; with ``listing``, first for one of the few that searches and metadata may use.

        If one is free, it is taken without a detour through the event loop.
        """
        if listing:
            await self._take(self.listings, holder)
        try:
            await self._take(self.slots, holder)
        except BaseException:
            if listing:
                self.listings.release_on_behalf_of(holder)
            raise

    async def _take(self, limiter: anyio.CapacityLimiter, holder: object) -> None:
        try:
            limiter.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            # The reader of the oldest paused answer may be waiting for this very request: without this both would wait
            # for ever. Only listings are ever paused, so this frees a slot of either kind.
            for answer in list(self.paused)[:1]:
                self._take_back(answer)
            await limiter.acquire_on_behalf_of(holder)

    def give_back(self, holder: object, *, listing: bool) -> None:
        """Free a slot."""
        self.slots.release_on_behalf_of(holder)
        if listing:
            self.listings.release_on_behalf_of(holder)

    @property
    def _is_waited_for(self) -> bool:
        return bool(self.slots.statistics().tasks_waiting or self.listings.statistics().tasks_waiting)

    def pause(self, answer: StreamedAnswer) -> None:
        """Note that nobody reads an answer for now."""
        self.paused[answer] = None
        # Requests that were waiting before found no paused answer to close. A reader that resumes soon still keeps its
        # answer.
        if self._is_waited_for:
            asyncio.get_running_loop().call_later(_PAUSED_SECONDS, self._take_back_if_wanted, answer)

    def _take_back_if_wanted(self, answer: StreamedAnswer) -> None:
        if self._is_waited_for:
            self._take_back(answer)

    def _take_back(self, answer: StreamedAnswer) -> None:
        if answer in self.paused:
            del self.paused[answer]
            start(answer.aclose())
