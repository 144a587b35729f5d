"""What decides over repeats of a message of the Cloud API, and what all messages of one API object share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from postdicom_async.cloud.socket import Silence
from postdicom_async.events import ArchiveSilent
from postdicom_async.http.repeat import Policy, RetryBudget, repeat, tell

if TYPE_CHECKING:
    from postdicom_async.http.problems import Problem
    from postdicom_async.http.retry import Repeat
    from postdicom_async.settings import Settings

__all__ = ["Repeats"]

_T = TypeVar("_T")


class Repeats:
    """The repeats of one API object, and their budget."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._budget = RetryBudget(settings.retry.budget)

    async def run(
        self, operation: str, kind: Repeat, attempt: Callable[[], Awaitable[_T]], *, at_most: int | None = None
    ) -> _T:
        """Run attempts until one succeeds or there is to be no other; ``at_most`` so many, where that is given.

        Raises:
            PostdicomError: what became of the last one.
        """
        retry = self._settings.retry
        if at_most is not None:
            retry = replace(retry, max_attempts=min(at_most, retry.max_attempts))
        return await repeat(attempt, _OfMessage(operation, kind, retry, self._budget, on_event=self._settings.on_event))


class _OfMessage(Policy):
    """Gives up too when the service was silent several times in a row."""

    _silences = 0

    def wait_after(self, problem: Problem) -> float | None:
        self._silences = self._silences + 1 if isinstance(problem, Silence) else 0
        if self._silences:
            tell(self.on_event, ArchiveSilent(self.operation, self._silences))
        return None if self._silences == self._retry.max_silences else super().wait_after(problem)
