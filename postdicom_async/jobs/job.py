"""The job object of the public API: start, watch, pause, change, wait, stop.

`Job` holds the open ledger with its lock, the two ends, the control socket, and the task that works; that task opens
all of them and closes them whatever happens. It is made by `jobs.copy`, `jobs.sync`, `jobs.verify` and `jobs.resume`.
Leaving ``async with`` stops the work cleanly, and the next job of the same pair continues where it stopped. A slow
consumer of ``async for`` slows the job down: no chunk is started while 1024 outcomes wait.

What can go wrong: the task is cancelled before its first step. Then it has opened nothing and will close nothing, so
`stop` releases the ledger in its place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from postdicom_async.disk.files import in_background, outlasting
from postdicom_async.errors import JobStopped, UsageError
from postdicom_async.face import public_face
from postdicom_async.jobs.chunk_runner import ChunkOptions, LocalDispatcher
from postdicom_async.jobs.context import Context, JobOptions
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.machines.scheduler import paced_here
from postdicom_async.jobs.pace.control import ControlServer, control_paths, handlers_of
from postdicom_async.jobs.pace.outage_policy import OutagePatience
from postdicom_async.jobs.pace.outages import Outages
from postdicom_async.jobs.pace.pace import Pace
from postdicom_async.jobs.run import Retries, Run, unreached_in
from postdicom_async.jobs.watch_job import JobWatch

if TYPE_CHECKING:
    from postdicom_async.events import OnEvent
    from postdicom_async.jobs.ends.end import End
    from postdicom_async.jobs.ledger.ledger import Ledger
    from postdicom_async.jobs.machines.dispatcher import DaskDispatcher
    from postdicom_async.jobs.summary import ItemLine, Summary


_AT_ONCE = 6  # chunks
_MOST_WAITING = 1024  # outcomes that the consumer has not read yet


@dataclass(frozen=True, slots=True)
class JobParts:
    """The parts of a job: an open ledger, two ends, options, where chunks run, and who is told.

    ``opened`` closes the ends; without it they are not open yet, and not paced.
    """

    ledger: Ledger
    source: End
    target: End
    options: JobOptions = field(default_factory=JobOptions)
    pace: Pace = field(default_factory=Pace)
    patience: float = OutagePatience().outage
    elsewhere: DaskDispatcher | None = None
    on_event: OnEvent | None = None
    opened: AsyncExitStack | None = None


@public_face
class Job:
    """A running job. Made by `jobs.copy`, `jobs.sync` and so on; use it in ``async with``, or `wait` for it.

    ::

        async with await jobs.copy("old:", "new:") as job:
            async for item in job:
                ...
        print(job.summary().counts)
    """

    def __init__(self, parts: JobParts) -> None:
        self._parts = parts
        self._retries = Retries()
        self._waiting: deque[ItemLine] | None = None
        self._watch: JobWatch | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._has_begun = False
        self._working = asyncio.ensure_future(self._work())

    @property
    def path(self) -> Path:
        """Its ledger file."""
        return self._parts.ledger.path

    def summary(self) -> Summary:
        """Return the progress. It reads the ledger and blocks: call it in a thread where that matters."""
        reader = LedgerReader(self.path)
        try:
            return reader.summary()
        finally:
            reader.close()

    async def wait(self) -> Summary:
        """Wait for the end of the job and return its summary.

        Raises:
            JobStopped: it was told to stop.
            PostdicomError: it could not continue; repeating the same call resumes it.
        """
        await asyncio.wait([self._working])
        self._result()
        return await in_background(self.summary)

    async def __aiter__(self) -> AsyncGenerator[ItemLine, None]:
        """Yield the outcome of each item from now on; a slow consumer slows the job down.

        Raises:
            PostdicomError: the error that ended the job, after the last item.
        """
        if self._waiting is not None:
            raise UsageError("the outcomes of a job are read by one reader at a time")
        waiting = self._waiting = deque()
        self._working.add_done_callback(lambda _: self._news.set())
        try:
            while waiting or not self._working.done():
                while waiting:
                    yield waiting.popleft()
                    self._room.set()
                if not self._working.done():
                    self._news.clear()
                    await self._news.wait()
        finally:
            self._waiting = None
            self._room.set()
        self._result()

    def _result(self) -> None:
        """Raise the error that ended the job; this task's own cancellation has surfaced in the awaits before."""
        if self._working.cancelled():
            raise JobStopped("the job was told to stop; the same call again goes on where it stopped")
        self._working.result()

    # --- while it runs -----------------------------------------------------------------------------------------------

    @property
    def pace(self) -> Pace:
        """The rates and time windows of the job: `pause`, `resume` and `set` change them at once."""
        return self._parts.pace

    def pause(self) -> None:
        """Start no further chunks; those under way are finished."""
        self.pace.pause()

    def resume(self) -> None:
        """Continue after `pause`."""
        self.pace.resume()

    @property
    def is_running(self) -> bool:
        """Whether the job is still running."""
        return not self._working.done()

    async def stop(self) -> None:
        """Stop the job cleanly: transfers under way are cancelled, and all known outcomes are in the ledger."""
        self._working.cancel()
        await outlasting(self._working)
        if not self._has_begun:  # cancelled before its first step: nobody else closes the ledger and the ends
            self._has_begun = True
            if self._parts.opened is not None:
                await self._parts.opened.aclose()
            await self._parts.ledger.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- the work ----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        self._has_begun = True
        parts = self._parts
        if parts.opened is None:
            pace_ends(parts.source, parts.target, parts.pace, parts.elsewhere, parts.on_event)
        patience = OutagePatience(outage=parts.patience)
        gate = parts.pace.wait_until_open
        self._watch = watch = JobWatch(parts.ledger, parts.on_event)
        ledger = parts.ledger
        outages = Outages(
            parts.source,
            parts.target,
            patience=patience,
            tell=ledger.note,
            watch=watch,
            unreached=unreached_in(ledger),
            reached=lambda end: ledger.put(f"reached_{end}", True),
            gate=gate,
        )
        context = Context(parts.ledger, parts.source, parts.target, parts.options, outages, self._tell)
        options = ChunkOptions(parts.options.anonymize, parts.pace.bytes, parts.options.needs_digests)
        local = LocalDispatcher(parts.source, parts.target, options, at_once=_ChunksAtOnce(parts.pace))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(parts.ledger)
            await stack.enter_async_context(watch)
            if parts.opened is not None:
                stack.push_async_exit(parts.opened)
            else:
                await stack.enter_async_context(parts.source)
                await stack.enter_async_context(parts.target)
            if parts.elsewhere is not None:
                await stack.enter_async_context(parts.elsewhere)
            handlers = handlers_of(parts.pace, status=self._status, stop=self._working.cancel)
            handlers["retry"] = self._retries.ask
            control = await stack.enter_async_context(ControlServer(control_paths(self.path), handlers))
            if control.problem is not None:
                parts.ledger.note(control.problem)
            await Run(context, parts.elsewhere or local, parts.pace, self._gate, self._retries, watch).go()

    async def _status(self) -> dict[str, Any]:
        phase = self._parts.ledger.fact("phase")
        counts = await self._parts.ledger.counts()
        return {"phase": phase, "counts": {state.name.lower(): count for state, (count, _) in counts.items()}}

    async def _gate(self) -> None:
        await self.pace.wait_until_open()
        await self._room.wait()

    def _tell(self, line: ItemLine) -> None:
        if self._watch is not None:
            self._watch.item(line)
        if self._waiting is not None:
            self._waiting.append(line)
            self._news.set()
            if len(self._waiting) >= _MOST_WAITING:
                self._room.clear()


def pace_ends(
    source: End, target: End, pace: Pace, elsewhere: DaskDispatcher | None = None, on_event: OnEvent | None = None
) -> None:
    """Limit the rate of both ends' requests, before they are opened; ``on_event`` is told of these."""
    request = pace.request if elsewhere is None else paced_here(pace, elsewhere)
    for end in (source, target):
        if isinstance(end, ArchiveEnd):
            end.pace_requests(request, on_event)


class _ChunksAtOnce:
    """The present limit of chunks at once, from the pace; an `at_once.Limit`."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    @property
    def now(self) -> int:
        return self._pace.at_once or _AT_ONCE
