"""One way out to the network: slots, credentials, time-outs, repeats, caps and error mapping around an httpx transport.

A call is described by a `Call` and made with ``fetch`` (the whole answer, bounded) or ``stream`` (its body as it
arrives). Everything that can go wrong leaves here as an exception of ``postdicom_async.errors`` that holds nothing
private.
"""

from __future__ import annotations

import copy
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

import anyio
import httpx

from postdicom_async.errors import PostdicomError, UsageError
from postdicom_async.http.address import checked_url, refuse_open_credentials
from postdicom_async.http.answer import Answer, StreamedAnswer
from postdicom_async.http.call import Call, OriginPath
from postdicom_async.http.clocks import deadline_passed, within
from postdicom_async.http.credentials import Auth, credentials_from
from postdicom_async.http.exchange import Exchange
from postdicom_async.http.link import Link
from postdicom_async.http.patience import Patience
from postdicom_async.http.problems import Problem, connection_failed, problem_of_status
from postdicom_async.http.retry import Attempts, Repeat, decide
from postdicom_async.http.transport import ChosenTransport, choose_transport
from postdicom_async.settings import Settings

__all__ = ["Call", "Session"]

_log = logging.getLogger("postdicom_async")
_T = TypeVar("_T")


@dataclass(slots=True)
class _Making:
    """A call while it is made.

    Attributes:
        attempts: how many requests were begun.
        sent: whether the request under way has left, as far as can be told.
    """

    call: Call
    patience: Patience
    attempts: int = 0
    sent: bool = False


class Session:
    """An httpx transport with a slot limiter in front, one retry loop around, and our errors out of it."""

    def __init__(self, url: str, *, auth: Auth, settings: Settings, transport: httpx.AsyncBaseTransport | None) -> None:
        self.url: str = checked_url(url)
        self.settings = settings
        self._credentials = credentials_from(auth)
        self._link: Link | None = None
        self._patience: Patience | None = None
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
        """What must not show in a server's words."""
        return self._credentials.secrets()

    async def open(self) -> None:
        """Make the client; nothing is sent."""
        if self._link is not None:
            raise UsageError("this session is open already; make another one, or a copy with with_options(...)")
        self._link = Link(self.settings, self._chosen)

    async def close(self) -> None:
        """Close every connection. What is under way fails."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

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

    def one_call(self, *, at_once: bool = False) -> Session:
        """Return a session for all requests of one call of the library, which share its deadline and its patience.

        ``at_once`` says that they run side by side: the deadline is then kept by who makes them (`within`).
        """
        if self._patience is not None:
            return self  # part of a call already
        other = copy.copy(self)
        other._patience = self._new_patience(at_once=at_once)  # noqa: SLF001 - a copy of this very class
        return other

    def _new_patience(self, *, at_once: bool = False) -> Patience:
        return Patience(None if at_once else self.settings.timeouts.deadline, self.settings.retry.max_silences)

    def path_to(self, absolute: str) -> str:
        """Return the ``Call.path`` of an address on this server, which may lie outside the service's own path."""
        parts = urlsplit(absolute)
        query = f"?{parts.query}" if parts.query else ""
        return OriginPath(parts.path + query)

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
        making = self._making(call)
        return await self._in_time(making, lambda: attempt(lambda: self._send(making)))

    def pause(self, answer: StreamedAnswer) -> None:
        """Say that nobody reads an answer for now. Whoever waits for a slot may close it; `resume` tells."""
        if self._link is not None:
            self._link.pause(answer)

    def resume(self, answer: StreamedAnswer) -> bool:
        """Return whether an answer that was paused is still open; from now on it stays so."""
        paused = {} if self._link is None else self._link.paused
        return paused.pop(answer, answer) is None

    async def stream(self, call: Call) -> StreamedAnswer:
        """Make the call and return its answer as soon as the head is there; use it as ``async with``.

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
        """Whether the archive was silent so often that this session, made by `one_call`, retrieves nothing more."""
        return self._patience is not None and self._patience.is_over(Repeat.READ.name)

    def has_moved(self) -> None:
        """Note that an answer brought something, although it did not come to its end."""
        if self._patience is not None:
            self._patience.heard(Repeat.READ.name)

    def _making(self, call: Call) -> _Making:
        return _Making(call, self._patience or self._new_patience())

    async def _in_time(self, making: _Making, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Run the retry loop within what is left of the call's deadline."""
        patience, seconds, started = making.patience, self.settings.timeouts.deadline, time.monotonic()

        def late() -> PostdicomError:
            return deadline_passed(making.call.operation, seconds, sent=making.sent, attempts=making.attempts)

        try:
            return await within(patience.left, self._repeated(making, attempt), late)
        finally:
            patience.spend(time.monotonic() - started)

    async def _repeated(self, making: _Making, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Run attempts until one succeeds or `decide` gives up; `cloud.repeats` does the same for the WebSocket."""
        link, call, patience = self._open_link(), making.call, making.patience
        started = time.monotonic()
        refreshed = False
        if patience.is_over(call.kind):
            words = "the archive was silent too often and is not asked again"
            raise connection_failed(call.operation, words, sent=False)
        while True:
            making.attempts += 1
            problem: Problem | None = None
            try:
                result = await attempt()
            except Problem as caught:
                problem = caught
            if problem is None:
                link.budget.earn()
                return result
            # From here on outside the handler: an exception raised inside would keep the other as its context.
            making.sent = False
            if problem.rejected_header is not None and not refreshed:
                refreshed = True
                if await self._credentials.refresh(problem.rejected_header):
                    continue
            wait = decide(
                call.repeat,
                problem.failure,
                Attempts(making.attempts, time.monotonic() - started),
                self.settings.retry,
                chance=random.random(),  # noqa: S311 - jitter
                retry_after=problem.retry_after,
            )
            if wait is None or patience.is_over(call.kind) or not link.budget.spend():
                raise problem.final(attempts=making.attempts)
            _log.debug(
                "%s: attempt %d failed (%s), next in %.1f s",
                call.operation,
                making.attempts,
                problem.failure.name,
                wait,
            )
            await anyio.sleep(wait)

    async def _send(self, making: _Making) -> StreamedAnswer:
        """Make one request; return its answer's head, or raise `Problem`."""
        link, call = self._open_link(), making.call
        holder = object()
        await link.take_slot(holder)
        answer: StreamedAnswer | None = None
        silences = making.patience.silences
        try:
            header = await self._credentials.header()
            response = await self._exchanged(link, making, header)
            answer = StreamedAnswer(
                response,
                operation=call.operation,
                kind=call.kind,
                limits=self.settings.limits,
                timeouts=self.settings.timeouts,
                clock=link.clock,
                patience=making.patience,
                silences=silences,
                release=lambda: link.slots.release_on_behalf_of(holder),
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

    async def _exchanged(self, link: Link, making: _Making, header: str | None) -> httpx.Response:
        """Make the exchange and note what is to be known of it, however it ends."""
        patience, silences = making.patience, making.patience.silences
        exchange = Exchange(link, self.url, making.call, self.settings)
        try:
            return await exchange.run(header, self._credentials.httpx_auth)
        finally:
            making.sent = exchange.begun
            if exchange.met_silence:
                patience.met_silence(making.call.kind, silences)

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

    def _open_link(self) -> Link:
        if self._link is None or self._link.is_closed:
            raise UsageError("the session is not open; use it inside 'async with'")
        return self._link


def _of_the_connections(settings: Settings) -> tuple[object, ...]:
    return (
        settings.tls,
        settings.proxy,
        settings.use_environment_proxies,
        settings.timeouts.connect,
        settings.limits.connections,
        settings.allow_http_credentials,
    )
