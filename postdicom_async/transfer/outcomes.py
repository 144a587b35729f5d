"""What a caller learns of a transfer: its outcomes as a stream, and its progress.

A transfer reports each instance once, as it ends; every report is a fold over these outcomes, and `Gathered` is the
fold. It holds counts, and of the outcomes themselves what its maker asked for: all of them, those that need attention,
or the few that a reader has not taken yet. So nothing here grows with the number of instances unless a caller wants it.
Producers of outcomes await `Gathered.room` before they begin the next instance: that is where a slow reader, or a
report that cannot be written, makes itself felt. `Meter` counts bytes and instances and calls the progress listener.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Hashable
from contextlib import aclosing
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from postdicom_async.disk.files import outlasting
from postdicom_async.disk.journal import Journal
from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.face import public_face
from postdicom_async.results import (
    BytesMoved,
    DownloadReport,
    InstanceFinished,
    OnProgress,
    Outcome,
    ProgressEvent,
    Status,
    Totals,
    UploadReport,
)
from postdicom_async.watching import watch_call, watch_instances

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import TracebackType

    from postdicom_async.events import OnEvent

ReportFile: TypeAlias = "str | os.PathLike[str]"

_Report = TypeVar("_Report", UploadReport, DownloadReport)

MOST_KEPT = 10_000  # of each kind, in a report that does not hold all
_MOST_WAITING = 256  # outcomes that a reader has not taken yet


class Gathered:
    """What became of the instances of one transfer so far: the fold over its outcomes.

    Attributes:
        counts: number of outcomes by status.
        keeps_all: whether every outcome is kept, or only those needing attention.
        on_outcome: called with each, if anybody listens.
    """

    def __init__(self, *, keeps_all: bool, journal: Journal | None = None, streams: bool = False) -> None:
        self.counts: Counter[Status] = Counter()
        self.keeps_all: bool = keeps_all
        self.on_outcome: Callable[[Outcome], None] | None = None
        self._journal = journal
        self._kept: list[tuple[int, Outcome]] = []
        self._waiting: deque[Outcome] | None = deque() if streams else None
        self._changed = asyncio.Event()

    def add(self, outcome: Outcome, number: int = 0) -> None:
        """Add the outcome of an instance; ``number`` is its place among those that are kept."""
        self.counts[outcome.status] += 1
        if self.on_outcome is not None:
            self.on_outcome(outcome)
        if self.keeps_all or not (outcome.ok or len(self._kept) >= MOST_KEPT):
            self._kept.append((number, outcome))
        if self._journal is not None:
            self._journal.write(outcome)
        if self._waiting is not None:
            self._waiting.append(outcome)
            self._changed.set()

    async def room(self) -> None:
        """Wait until another instance may begin.

        Raises:
            LocalFileError: the report cannot be written, so the instance's outcome would be lost.
        """
        if self._journal is not None and self._journal.problem is not None:
            raise self._journal.problem
        while self._waiting is not None and len(self._waiting) >= _MOST_WAITING:
            self._changed.clear()
            await self._changed.wait()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes kept, in the order of their numbers."""
        return tuple(outcome for _, outcome in sorted(self._kept, key=lambda one: one[0]))

    async def taken(self, engine: asyncio.Future[_Report]) -> AsyncGenerator[Outcome, None]:
        """Yield outcomes as they come until ``engine``, which adds them, has ended."""
        waiting = self._waiting
        if waiting is None:
            raise ValueError("outcomes are streamed only where that was asked for")
        engine.add_done_callback(lambda _: self._changed.set())
        while waiting or not engine.done():
            while waiting:
                yield waiting.popleft()
                self._changed.set()
            if not engine.done():
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> LocalFileError | None:
        """Make the report durable; return the error if it could not be written completely, otherwise None."""
        if self._journal is None:
            return None
        self._journal.close()
        return self._journal.problem


def watched(
    operation: str, on_event: OnEvent | None, engine: Callable[[Gathered], Awaitable[_Report]]
) -> Callable[[Gathered], Awaitable[_Report]]:
    """Return an engine as one call, whose instances are told of: see `watching`."""

    async def watched_engine(gathered: Gathered) -> _Report:
        gathered.on_outcome = watch_instances(operation, on_event)
        with watch_call(operation) as call:
            try:
                return await engine(gathered)
            finally:
                call.note_counts(gathered.counts)

    return watched_engine


async def gathered_into(
    report: ReportFile | None, engine: Callable[[Gathered], Awaitable[_Report]], *, with_paths: bool
) -> _Report:
    """Run a transfer whose outcomes go into the file ``report``, or, if that is None, into the returned report.

    Raises:
        LocalFileError: the file cannot be written. If that shows only at the end, ``report`` on the error is complete.
        PostdicomError: what ended the transfer; it takes precedence over a report that could not be written.
    """
    journal = None if report is None else Journal(report, with_paths=with_paths)
    gathered = Gathered(keeps_all=journal is None, journal=journal)
    result: _Report | None = None
    try:
        result = await engine(gathered)
    finally:
        unwritten = gathered.close()
    if unwritten is not None:
        unwritten.report = result
        raise unwritten
    return result


@public_face
class Outcomes(Generic[_Report]):
    """The outcomes of one transfer, each as its instance ends: ``async for outcome in outcomes``.

    The transfer starts when reading starts and goes no faster than the reader. Leaving the loop early ends it; inside
    ``async with`` it has ended by the time the block is left. An error that ends the whole transfer is raised after the
    last outcome, and its ``report`` holds the counts.
    """

    def __init__(self, engine: Callable[[Gathered], Awaitable[_Report]]) -> None:
        self._engine: Callable[[Gathered], Awaitable[_Report]] = engine
        self._report: _Report | None = None
        self._running: asyncio.Future[_Report] | None = None

    @property
    def report(self) -> _Report:
        """The counts, and at most 10,000 outcomes that need attention; known once all outcomes were read.

        Raises:
            UsageError: there are more to read, or an error ended the transfer.
        """
        if self._report is None:
            raise UsageError("read the outcomes to their end first", argument="report")
        return self._report

    async def __aiter__(self) -> AsyncGenerator[Outcome, None]:
        """Yield every outcome.

        Raises:
            UsageError: they were read before; make the call again for another transfer.
            PostdicomError: what ended the transfer.
        """
        if self._running is not None:
            raise UsageError("the outcomes of a transfer can be read once; make the call again for another one")
        gathered = Gathered(keeps_all=False, streams=True)
        self._running = asyncio.ensure_future(self._engine(gathered))
        try:
            async with aclosing(gathered.taken(self._running)) as outcomes:
                async for outcome in outcomes:
                    yield outcome
            self._report = self._running.result()
        finally:
            await self._end()

    async def _end(self) -> None:
        """End the transfer. If left early, this runs twice: now, and when the abandoned generator is collected."""
        if self._running is None:
            return
        self._running.cancel()
        await outlasting(self._running)

    async def __aenter__(self) -> Outcomes[_Report]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()


class Meter:
    """Totals of one transfer. Without a listener it only counts.

    Attributes:
        problem: what the listener raised; it is not called again. When bytes move, it is raised at once. When an
            instance
            has ended, it must not hide the outcomes of others: `check` raises it once those are noted.
    """

    def __init__(self, listener: OnProgress | None) -> None:
        if listener is not None and not callable(listener):
            raise UsageError("give a function that takes an event, or None", argument="progress")
        self.problem: Exception | None = None
        self._listener = listener
        self._instances_done = 0
        self._bytes_done = 0
        self._instances_total: int | None = None
        self._bytes_total: int | None = None
        self._reached: dict[Hashable, int] = {}

    def expect(self, instances: int, size: int | None) -> None:
        """Note how much there will be, once it is known."""
        self._instances_total = instances
        self._bytes_total = size

    def expect_fewer_bytes(self, size: int) -> None:
        """Note bytes that will not be sent after all."""
        if self._bytes_total is not None:
            self._bytes_total -= size

    def moved(self, size: int) -> None:
        """Count bytes that went over the wire for the first time."""
        self._bytes_done += size
        if self._listener is not None:
            self._say(BytesMoved(self._totals()))
            self.check()

    def reached(self, what: Hashable, size: int) -> None:
        """Count bytes of instance ``what`` up to ``size``; bytes counted in an earlier attempt do not count again."""
        before = self._reached.get(what, 0)
        if size > before:
            self._reached[what] = size
            self.moved(size - before)

    def finished(self, outcome: Outcome, what: Hashable = None) -> None:
        """Count an instance that has ended; ``what`` is the key its bytes were counted under."""
        self._instances_done += 1
        self._reached.pop(what, None)
        if self._listener is not None:
            self._say(InstanceFinished(self._totals(), outcome))

    def check(self) -> None:
        """Raise what the listener raised."""
        if self.problem is not None:
            raise self.problem

    def _say(self, event: ProgressEvent) -> None:
        if self._listener is None or self.problem is not None:  # it raised once, and is not called again
            return
        try:
            self._listener(event)
        except Exception as error:  # noqa: BLE001 - the caller's code; raised by `check`
            self.problem = error

    @property
    def bytes_done(self) -> int:
        """Bytes moved so far."""
        return self._bytes_done

    def _totals(self) -> Totals:
        return Totals(self._instances_done, self._instances_total, self._bytes_done, self._bytes_total)
