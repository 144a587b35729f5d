"""The clocks around a request: silence, a least rate and deadlines, at next to no cost while bytes flow."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import httpx

from postdicom_async.http.patience import LeastRate, Patience
from postdicom_async.http.problems import connection_failed

if TYPE_CHECKING:
    from postdicom_async.bodies import Body
    from postdicom_async.errors import ConnectionFailed, PostdicomError
    from postdicom_async.settings import Timeouts

__all__ = ["Clock", "ReadWatch", "SentBody", "Watch", "deadline_passed", "least_rate_of", "within"]

_T = TypeVar("_T")


async def within(seconds: float | None, work: Awaitable[_T], late: Callable[[], PostdicomError]) -> _T:
    """Wait for ``work``; raise what ``late`` gives when that takes longer than ``seconds``, None for no bound.

    A cancellation or a `TimeoutError` of anybody else goes through.
    """
    if seconds is None:
        return await work
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
    raise late()


def deadline_passed(operation: str, seconds: float | None, *, sent: bool, attempts: int = 0) -> ConnectionFailed:
    """Return the error of a call that did not end within ``timeouts.deadline``."""
    error = connection_failed(operation, f"not done within the deadline of {seconds or 0:g} s", sent=sent)
    error.attempts = attempts
    return error


def least_rate_of(timeouts: Timeouts, idle: float) -> LeastRate:
    """Return what measures one direction. Silence shorter than ``idle`` is allowed, so no window is shorter than it."""
    return LeastRate(timeouts.least_rate, max(timeouts.least_rate_window, idle))


class Clock:
    """One timer for all the waits of a session, set anew only when it has run out or runs too long.

    A timer for each wait would cost as much as receiving a small piece. Moments are of `time.monotonic`.
    """

    def __init__(self) -> None:
        self.waits: set[Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf

    def ring(self, until: float) -> None:
        """Look at the waits at this moment, or before it."""
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


class Watch:
    """Ends a wait of the task that entered it, at a moment that may move: ``with watch: ...`` raises `TimeoutError`.

    It may be entered again and again.

    Attributes:
        until: when the wait ends; infinity while what is waited for is not the network.
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
        # As asyncio.timeout does it: a cancellation of somebody else's goes through.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError

    def expect(self, until: float) -> None:
        """End the wait at this moment. Does nothing when nobody waits any more."""
        if self._task is None or self._cancelled:
            return
        self.until = until
        self._clock.ring(until)

    def pause(self) -> None:
        """Let time pass: what is waited for now is not the network."""
        self.until = math.inf

    def end(self) -> None:
        """End the wait now."""
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self.until = math.inf
            self._task.cancel()


class ReadWatch(Watch):
    """Bounds each wait for a piece of an answer by silence and by the deadline of its call, and measures it.

    Attributes:
        waited: seconds that the last wait took.
        patience: the call's, where its deadline is to be kept here.
        by_deadline: whether it is the deadline that bounds the present wait.
    """

    def __init__(self, clock: Clock, idle: float) -> None:
        super().__init__(clock)
        self.waited: float = 0.0
        self.patience: Patience | None = None
        self.by_deadline: bool = False
        self._idle = idle
        self._since = 0.0

    def __enter__(self) -> None:
        super().__enter__()
        self._since = now = monotonic()
        self.expect(now + (self._idle if self.patience is None else self._allowed(self.patience)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.waited = monotonic() - self._since
        if self.patience is not None:
            self.patience.spend(self.waited)
        super().__exit__(kind, error, trace)

    def _allowed(self, patience: Patience) -> float:
        self.by_deadline = patience.left is not None and patience.left < self._idle
        return patience.left if patience.left is not None and self.by_deadline else self._idle


class SentBody(httpx.AsyncByteStream):
    """A body on its way out, as it comes or in one piece.

    The clock runs while a piece is being taken, not while its source makes the next one.

    Attributes:
        finished: whether the last piece has been handed over.
        too_slow: whether it was ended because the archive takes it too slowly.
    """

    def __init__(self, body: Body, watch: Watch, timeouts: Timeouts, answer: float, *, whole: bool) -> None:
        self.finished: bool = False
        self.too_slow: bool = False
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
            # A transport that knows the length does not come back after the last piece.
            self.finished = left <= 0
            given = monotonic()
            watch.expect(given + self._idle + (self._answer if self.finished else 0.0))
            size = len(piece)
            yield piece
            del piece  # each stream would hold two while the next is read
            watch.pause()
            if rate.is_too_slow(size, monotonic() - given) and not self.finished:
                self.too_slow = True
                watch.end()
        watch.expect(monotonic() + self._answer)


async def _in_one(body: Body) -> AsyncGenerator[bytes, None]:
    yield b"".join([piece async for piece in body.open()])
