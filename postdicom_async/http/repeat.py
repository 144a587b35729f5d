"""The one loop that repeats: over HTTP, over the WebSocket of the Cloud API, and for the parts of a file.

What differs between them is a `Policy`: what may be repeated, what counts, and what mends a failure.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio

from postdicom_async.events import AttemptFailed, GaveUp
from postdicom_async.http.problems import Problem
from postdicom_async.http.retry import Attempts, Failure, decide
from postdicom_async.http.tell import tell

if TYPE_CHECKING:
    from postdicom_async.events import OnEvent
    from postdicom_async.http.retry import Repeat, RetryBudget
    from postdicom_async.settings import Retry

__all__ = ["Policy", "repeat"]

_log = logging.getLogger("postdicom_async")
_T = TypeVar("_T")


class Policy:
    """Decides after each failed attempt of one call what comes next; `decide` says it, unless a subclass knows better.

    Args:
        operation: for the log and for events.
        kind: what a repeat would do.
        retry: the settings.
        budget: what all calls share.
        on_event: is told what happens.
        waits_only: only the waits between attempts count against ``retry.max_seconds``, not the attempts themselves.

    Attributes:
        made: attempts that were begun.
    """

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
        """Remove what an attempt failed of, and return None: the next follows at once. Else return what it failed of.

        Raises:
            PostdicomError: there is to be no other attempt.
        """
        return problem

    def wait_after(self, problem: Problem) -> float | None:
        """Return the seconds until the next attempt, None to give up."""
        return self._wait_after(problem, free=False)

    def _wait_after(self, problem: Problem, *, free: bool) -> float | None:
        """As `wait_after`. ``free`` takes nothing from the budget: for what has a bound of its own and is no outage."""
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
        """Wait before the next attempt, and tell of it."""
        status, name = problem.error.status, problem.failure.name
        _log.debug("%s: attempt %d failed (%s), next in %.1f s", self.operation, self.made, name, seconds)
        tell(self.on_event, AttemptFailed(self.operation, self.made, name, status, seconds))
        await anyio.sleep(seconds)
        self._waited += seconds

    def give_up(self, problem: Problem) -> None:
        """Tell that there will be no other attempt, where one might have helped."""
        if problem.failure is Failure.FINAL:
            return
        error = problem.error
        kind = type(error).__name__
        tell(self.on_event, GaveUp(self.operation, self.made, error.status, error.temporary, kind))


async def repeat(attempt: Callable[[], Awaitable[_T]], policy: Policy) -> _T:
    """Run attempts until one succeeds or the policy gives up; an attempt that may be repeated raises `Problem`.

    Raises:
        PostdicomError: what became of the last one.
    """
    while True:
        policy.made += 1
        problem: Problem | None = None
        try:
            result = await attempt()
        except Problem as caught:
            problem = caught
        if problem is None:
            policy.succeeded()
            return result
        # From here on outside the handler: an exception raised inside would keep the other as its context.
        problem = await policy.mend(problem)
        if problem is None:
            continue
        wait = policy.wait_after(problem)
        if wait is None:
            policy.give_up(problem)
            raise problem.final(attempts=policy.made)
        await policy.pause(problem, wait)
