"""Several requests for one download, as many at once as make it faster.

What each lane receives is told to an `AtOnce` piece by piece, so that a lane more is tried, kept or given up while
large answers are under way. What an archive refuses because of the others goes back to the end of the queue: nothing
is lost by having asked for too much. An archive that refuses the only request ends the download, as it always did.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import anyio

from postdicom_async.dicomweb.receive import Receiver
from postdicom_async.errors import (
    AuthenticationFailed,
    LocalFileError,
    NotFound,
    PostdicomError,
    RateLimited,
    UsageError,
)
from postdicom_async.transfer.adaptive import AtOnce
from postdicom_async.transfer.progress import Meter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable

    from postdicom_async.dicomweb.retrieve import Retrieval, Target
    from postdicom_async.results import Outcome
    from postdicom_async.transfer.arrivals import Arrivals
    from postdicom_async.transfer.sinks import Sink

__all__ = ["Lanes"]

_ENDS_THE_JOB = (AuthenticationFailed, LocalFileError, RateLimited, UsageError)
_MOST_TIMES_BACK = 5


class Lanes:
    """The requests of one download.

    Attributes:
        last_error: of the latest `fetch`, what went wrong last, None where nothing did.
        not_found: the archive says that it does not hold the target.
    """

    def __init__(
        self,
        retrieval: Retrieval,
        target: Target,
        sink: Sink,
        arrivals: Arrivals,
        meter: Meter,
    ) -> None:
        self.last_error: PostdicomError | None = None
        self.not_found: NotFound | None = None
        self._retrieval = retrieval
        self._session = retrieval.session
        self._target = target
        self._sink = sink
        self._arrivals = arrivals
        self._meter = meter
        self._policy = AtOnce(self._session.settings.limits.parallel_retrieves)
        self._running = 0
        self._back: deque[tuple[Target, int]] = deque()
        self._look = anyio.Event()

    async def fetch(self, targets: AsyncGenerator[Target, None]) -> bool:
        """Receive everything; return whether each answer came to its end without damage.

        What goes wrong with one is noted, unless it ends the whole download.
        """
        self.last_error = None
        failures: list[Exception] = []
        ends: list[bool] = []

        async def guarded(target: Target, times_back: int) -> None:
            try:
                ends.append(await self._fetch_one(target, times_back))
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
                group.cancel_scope.cancel()
            finally:
                self._running -= 1
                self._look.set()

        async with anyio.create_task_group() as group:
            try:
                async for target, times_back in self._drawn(targets):
                    self._running += 1
                    group.start_soon(guarded, target, times_back)
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
                group.cancel_scope.cancel()
        await targets.aclose()
        if failures:
            raise failures[0]
        return all(ends)

    async def _drawn(self, targets: AsyncGenerator[Target, None]) -> AsyncGenerator[tuple[Target, int], None]:
        """Yield what is to be asked for, each when there is room for it; end when nothing is under way any more."""
        target: Target | None = None
        is_over = False
        while True:
            self._look = anyio.Event()
            if self._running < self._policy.now:
                target = None if is_over else await anext(targets, None)
                is_over = target is None
                if target is not None:
                    yield target, 0
                    continue
                if self._back:
                    yield self._back.popleft()
                    continue
            if not self._running:
                return
            await self._look.wait()

    async def _fetch_one(self, target: Target, times_back: int) -> bool:
        """Receive one resource; return whether its answer came to its end without damage."""
        if self._session.has_given_up:
            return False
        told = self._arrivals.answer()
        problem: PostdicomError | None = None
        try:
            receiver = Receiver(self._sink, target, told, meter=_LaneMeter(self._meter, self._moved))
            async with self._retrieval.open(target) as answer:
                await receiver.receive(answer, self._session.settings.limits.parts)
        except PostdicomError as error:
            problem = error
        finally:
            if told.saved:
                self._session.has_moved()
        if problem is None:
            return True
        if problem.temporary or isinstance(problem, RateLimited):
            self._policy.refused(time.monotonic())
            if self._running > 1 and times_back < _MOST_TIMES_BACK and not told.saved:
                self._back.append((target, times_back + 1))
                return True
        if isinstance(problem, _ENDS_THE_JOB):
            raise problem
        self.last_error = problem
        if isinstance(problem, NotFound) and target == self._target:
            self.not_found = problem
        return False

    def _moved(self, since: float, now: float, size: int) -> None:
        before = self._policy.now
        self._policy.done(since, now, size)
        if self._policy.now > before:
            self._look.set()


class _LaneMeter(Meter):
    """Passes on what a receiver tells, and tells when how much of it moved."""

    def __init__(self, meter: Meter, moved: Callable[[float, float, int], None]) -> None:
        super().__init__(None)
        self._meter = meter
        self._moved = moved
        self._since = time.monotonic()
        self._what: Hashable = None
        self._size = 0

    def reached(self, what: Hashable, size: int) -> None:
        """Count the bytes of an instance up to ``size``."""
        self._meter.reached(what, size)
        now = time.monotonic()
        self._moved(self._since, now, size - self._size if what == self._what else size)
        self._since, self._what, self._size = now, what, size

    def finished(self, outcome: Outcome, what: Hashable = None) -> None:
        """Count an instance that reached its end."""
        self._meter.finished(outcome, what)
