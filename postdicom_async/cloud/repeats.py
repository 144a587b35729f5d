"""Runs attempts at a message until one succeeds or it makes no sense to go on, as a DICOMweb session does."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio

from postdicom_async.cloud.socket import Silence
from postdicom_async.http.problems import Problem
from postdicom_async.http.retry import Attempts, Failure, Repeat, RetryBudget, decide

if TYPE_CHECKING:
    from postdicom_async.settings import Retry

__all__ = ["Repeats"]

_log = logging.getLogger("postdicom_async")
_T = TypeVar("_T")


class Repeats:
    """The repeats of one API object, and their budget."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._budget = RetryBudget(retry.budget)

    async def run(self, operation: str, repeat: Repeat, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Run attempts until one succeeds or `decide` gives up.

        Raises:
            PostdicomError: what became of the last one.
        """
        started = time.monotonic()
        made = silences = 0
        while True:
            made += 1
            problem: Problem | None = None
            try:
                result = await attempt()
            except Problem as caught:
                problem = caught
            if problem is None:
                self._budget.earn()
                return result
            silences = silences + 1 if isinstance(problem, Silence) else 0
            spent = Attempts(made, time.monotonic() - started)
            if silences == self._retry.max_silences or not await self.pause(operation, repeat, problem.failure, spent):
                raise problem.final(attempts=made)

    async def pause(
        self,
        operation: str,
        repeat: Repeat,
        failure: Failure,
        spent: Attempts,
        *,
        budget: RetryBudget | None = None,
        free: bool = False,
    ) -> bool:
        """Wait before the next attempt; return False at once where there is to be none.

        ``free`` takes nothing from the budget: it is for what has a bound of its own and is no sign of an outage.
        """
        chance = random.random()  # noqa: S311 - jitter
        wait = decide(repeat, failure, spent, self._retry, chance=chance)
        if wait is None or not (free or (budget or self._budget).spend()):
            return False
        _log.debug("%s: attempt %d failed (%s), next in %.1f s", operation, spent.made, failure.name, wait)
        await anyio.sleep(wait)
        return True
