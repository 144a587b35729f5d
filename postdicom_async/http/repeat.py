"""How long a call continues: the one retry loop, the retry budget, the deadline, and patience with silence.

The loop serves HTTP, the WebSocket of the Cloud API, and the parts of a file. What differs between them is a `Policy`:
what may be repeated, what counts, and how a failure is repaired. Which failures may be repeated at all is decided in
``retry.py``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

import anyio

from postdicom_async.events import ArchiveSilent, AttemptFailed, GaveUp
from postdicom_async.http.problems import Problem, connection_failed
from postdicom_async.http.retry import Attempts, Failure, decide
from postdicom_async.watching import HTTP_LOG, attempt_number, say, tell

if TYPE_CHECKING:
    from postdicom_async.errors import ConnectionFailed, PostdicomError
    from postdicom_async.events import OnEvent
    from postdicom_async.http.retry import Repeat
    from postdicom_async.settings import Retry, Timeouts

_T = TypeVar("_T")


class RetryBudget:
    """Bounds repeats over a whole session, so that an outage does not cause a storm of requests.

    A repeat costs 1, each success earns a tenth, up to ``size``.
    """

    def __init__(self, size: int) -> None:
        self._size = float(size)
        self._left = float(size)

    def earn(self) -> None:
        """Note a success."""
        self._left = min(self._size, self._left + 0.1)

    def spend(self) -> bool:
        """Take one repeat from the budget; False when it is used up."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Policy:
    """Decides after each failed attempt of one call what comes next; uses `decide` unless a subclass overrides it.

    Args:
        operation: for the log and for events.
        kind: the effect of a repeat.
        retry: the settings.
        budget: shared by all calls.
        on_event: called with events.
        waits_only: whether only the waits between attempts count against ``retry.max_seconds``, not the attempts
            themselves.

    Attributes:
        made: number of attempts started.
        log: where repeats are logged.
    """

    log: logging.Logger = HTTP_LOG

    def __init__(
        self,
        operation: str,
        kind: Repeat,
        retry: Retry,
        budget: RetryBudget,
        *,
        on_event: OnEvent | None = None,
        waits_only: bool = False,
    ) -> None:
        self.made: int = 0
        self.operation = operation
        self.on_event = on_event
        self._kind = kind
        self._retry = retry
        self._budget = budget
        self._waits_only = waits_only
        self._waited = 0.0
        self._started = time.monotonic()

    def succeeded(self) -> None:
        """Note that an attempt succeeded."""
        self._budget.earn()

    async def mend(self, problem: Problem) -> Problem | None:
        """Repair the cause of a failure and return None, for an immediate next attempt; otherwise return the problem.

        Raises:
            PostdicomError: there must be no other attempt.
        """
        return problem

    def wait_after(self, problem: Problem) -> float | None:
        """Return the seconds until the next attempt, None to give up."""
        return self._wait_after(problem, free=False)

    def _wait_after(self, problem: Problem, *, free: bool) -> float | None:
        """As `wait_after`. With ``free`` the budget is not used: for repeats that have their own bound."""
        elapsed = self._waited if self._waits_only else time.monotonic() - self._started
        wait = decide(
            self._kind,
            problem.failure,
            Attempts(self.made, elapsed),
            self._retry,
            chance=random.random(),  # noqa: S311 - jitter
            retry_after=problem.retry_after,
        )
        return wait if wait is not None and (free or self._budget.spend()) else None

    async def pause(self, problem: Problem, seconds: float) -> None:
        """Wait ``seconds`` before the next attempt, and report it."""
        status, name = problem.error.status, problem.failure.name
        fields = self._fields(status) | {"failure": name, "next_in": round(seconds, 3)}
        why = name if status is None else f"{name}, {status}"
        text = "%s: attempt %d failed (%s), next in %.1f s"
        say(self.log, logging.INFO, fields, text, self.operation, self.made, why, seconds)
        tell(self.on_event, AttemptFailed(self.operation, self.made, name, status, seconds))
        await anyio.sleep(seconds)
        self._waited += seconds

    def was_silent(self, silences: int) -> None:
        """Report that a request timed out; ``silences`` is how often that has happened in this call."""
        say(self.log, logging.INFO, self._fields(None), "%s: no answer in time (%d)", self.operation, silences)
        tell(self.on_event, ArchiveSilent(self.operation, silences))

    def _fields(self, status: int | None) -> dict[str, str | int | float | None]:
        """Return what a log record of this call holds besides its text."""
        return {"operation": self.operation, "attempt": self.made, "status": status}

    def give_up(self, problem: Problem) -> None:
        """Report that there will be no other attempt, if one might have helped."""
        if problem.failure is Failure.FINAL:
            return
        error = problem.error
        kind = type(error).__name__
        why = kind if error.status is None else f"{kind}, {error.status}"
        fields = self._fields(error.status) | {"error": kind}
        say(self.log, logging.WARNING, fields, "%s: given up after attempt %d (%s)", self.operation, self.made, why)
        tell(self.on_event, GaveUp(self.operation, self.made, error.status, error.temporary, kind))


async def repeat(attempt: Callable[[], Awaitable[_T]], policy: Policy) -> _T:
    """Run attempts until one succeeds or the policy gives up; an attempt that may be repeated raises `Problem`.

    Raises:
        PostdicomError: the error of the last attempt.
    """
    while True:
        policy.made += 1
        attempt_number.set(policy.made)
        problem: Problem | None = None
        try:
            result = await attempt()
        except Problem as caught:
            problem = caught
        if problem is None:
            policy.succeeded()
            return result
        # Outside the handler from here on: an exception raised inside would keep the caught one as its context.
        problem = await policy.mend(problem)
        if problem is None:
            continue
        wait = policy.wait_after(problem)
        if wait is None:
            policy.give_up(problem)
            raise problem.final(attempts=policy.made)
        await policy.pause(problem, wait)


# --- silence and slowness ---------------------------------------------------------------------------------------------


class LeastRate:
    """Detects a stream that moves too slowly.

    Only seconds spent waiting for the network count. When the bytes of a window have arrived, counting restarts. So a
    stream judged slow had a whole window and moved fewer bytes in it. A stream that is slow from the start is detected
    when the first window is full; one that becomes slow later, before two have passed.

    Args:
        rate: bytes per second; with 0 nothing is too slow.
        window: seconds.
    """

    def __init__(self, rate: float, window: float) -> None:
        self._enough = rate * window
        self._window = window
        self._size = 0
        self._waited = 0.0

    def is_too_slow(self, size: int, waited: float) -> bool:
        """Note that ``size`` bytes arrived after ``waited`` seconds; return whether the stream is too slow."""
        self._size += size
        if self._size >= self._enough:
            self._size = 0
            self._waited = 0.0
            return False
        self._waited += waited
        return self._waited >= self._window


def least_rate_of(timeouts: Timeouts, idle: float) -> LeastRate:
    """Return the measure for one direction. Silence up to ``idle`` seconds is allowed, so no window is shorter."""
    return LeastRate(timeouts.least_rate, max(timeouts.least_rate_window, idle))


class CallPatience:
    """The time and the patience with silence that one call of the library has left, over all its requests.

    A call ends when its seconds are used up, and makes no more requests after several time-outs (silences) in a row.
    Parallel requests that all time out have met one silence together. Silence is judged by kind of request: an archive
    that answers searches may be silent to stores for ever, and a kind that was not silent itself is still tried,
    whatever others were.

    Attributes:
        left: seconds until the call's deadline, None if there is none.
        silences: how many were met, in a row or not. A request notes the number when it begins.
    """

    def __init__(self, seconds: float | None, most_silences: int) -> None:
        self.left: float | None = seconds
        self.silences: int = 0
        self._most = most_silences
        self._heard: dict[Hashable, int] = {}  # by kind: the number of silences when it was last answered
        self._silent: set[Hashable] = set()  # kinds that have been silent since

    def spend(self, seconds: float) -> None:
        """Use up some of the time."""
        if self.left is not None:
            self.left = max(0.0, self.left - seconds)

    def met_silence(self, kind: Hashable, before: int) -> None:
        """Note that a request timed out which began when `silences` was ``before``."""
        self._silent.add(kind)
        if before == self.silences:
            self.silences += 1

    def heard(self, kind: Hashable) -> None:
        """Note that a request of this kind got a complete answer, or at least something useful."""
        self._heard[kind] = self.silences
        self._silent.discard(kind)

    def is_over(self, kind: Hashable) -> bool:
        """Whether no more requests of this kind should be made."""
        return kind in self._silent and self.silences - self._heard.get(kind, 0) >= self._most


# --- deadlines --------------------------------------------------------------------------------------------------------


async def within(seconds: float | None, work: Awaitable[_T], late: Callable[[], PostdicomError]) -> _T:
    """Wait for ``work``; raise the error from ``late`` if that takes longer than ``seconds``, None for no bound.

    A cancellation or a `TimeoutError` from elsewhere passes through.
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
