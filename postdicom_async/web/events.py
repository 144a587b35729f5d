"""The progress of a job, or of one transfer, as server-sent events for an ``EventSource`` in a page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from postdicom_async.disk.files import in_background
from postdicom_async.errors import PostdicomError
from postdicom_async.face import public_face
from postdicom_async.jobs.job import Job
from postdicom_async.web.statuses import text_for_clients

if TYPE_CHECKING:
    from postdicom_async.results import OnProgress, ProgressEvent, Totals

Watched: TypeAlias = "Job | Callable[[OnProgress], Awaitable[Any]]"
"""A job, or a function that begins a transfer with the ``progress=`` it is given."""


class ProgressTold(NamedTuple):
    """An event: its name, ``"progress"`` or ``"ended"``, and what it says, for JSON."""

    name: str
    content: dict[str, Any]


@public_face
async def sse(work: Watched, *, every: float = 1.0, alive: float = 15.0) -> AsyncGenerator[str, None]:
    """Yield server-sent events (WHATWG HTML, section 9.2), as text, until the work has ended.

    ::

        return events_response(sse(job))
        return events_response(sse(lambda tell: archive.upload(folder, progress=tell)))

    Closing the generator cancels a transfer; a job goes on, since it may have several watchers.

    Args:
        work: a job, or a function that begins a transfer.
        every: seconds between two looks; an event is sent only if something has changed.
        alive: seconds after which a comment is sent where nothing was, so that no proxy takes the connection for dead.

    Yields:
        ``progress`` with what `progress_events` tells, and last ``ended``.
    """
    silent = 0.0
    async with aclosing(_looks(work, every)) as looks:
        async for told in looks:
            if told is not None:
                silent = 0.0
                yield f"event: {told.name}\ndata: {json.dumps(told.content)}\n\n"
            elif (silent := silent + every) >= alive:
                silent = 0.0
                yield ": still here\n\n"


@public_face
async def progress_events(work: Watched, *, every: float = 1.0) -> AsyncGenerator[ProgressTold, None]:
    """Yield the progress of a job or a transfer whenever it has changed, for any other way to tell it.

    ``progress`` of a job has ``phase``, ``paused``, ``discovered`` and ``counts`` by state; of a transfer
    ``instances_done``, ``instances_total``, ``bytes_done`` and ``bytes_total``, totals being None where they are
    unknown. ``ended`` has ``problem``, empty on success, and for a transfer ``counts`` by outcome. Nothing in them is
    private. See `sse` for what closing does. An exception that is no `PostdicomError` is raised.
    """
    async with aclosing(_looks(work, every)) as looks:
        async for told in looks:
            if told is not None:
                yield told


async def _looks(work: Watched, every: float) -> AsyncGenerator[ProgressTold | None, None]:
    """Look every so often; yield what has changed, None if nothing has."""
    ending: asyncio.Future[Any]
    look: Callable[[], Awaitable[dict[str, Any] | None]]
    if isinstance(work, Job):
        ending, look = asyncio.ensure_future(work.wait()), partial(_of_job, work)
    else:
        transfer = _Transfer()
        ending, look = asyncio.ensure_future(work(transfer.tell)), transfer.look
    before: dict[str, Any] | None = None
    try:
        is_running = True
        while is_running:
            is_running = not ending.done()  # checked before the look, so that the last change is told
            now = await look()
            yield ProgressTold("progress", now) if now not in (before, None) else None
            before = now
            if is_running:
                await asyncio.wait((ending,), timeout=every)
        yield ProgressTold("ended", _end_of(ending))
    finally:
        ending.cancel()  # of a job it is the waiting alone
        await asyncio.gather(ending, return_exceptions=True)


async def _of_job(job: Job) -> dict[str, Any] | None:
    """Return the progress of a job. Its ledger is a file, so it is read in a thread, without blocking other clients."""
    summary = await in_background(job.summary)
    return {
        "phase": summary.facts.phase,
        "paused": job.pace.paused,
        "discovered": summary.discovered,
        "counts": {state.name.lower(): count.instances for state, count in summary.counts.items()},
    }


class _Transfer:
    """The latest totals of a transfer: it tells them more often than anybody wants to hear."""

    def __init__(self) -> None:
        self._totals: Totals | None = None

    def tell(self, event: ProgressEvent) -> None:
        """Note an event."""
        self._totals = event.totals

    async def look(self) -> dict[str, Any] | None:
        """Return the totals, None before there are any."""
        totals = self._totals
        if totals is None:
            return None
        return {
            "instances_done": totals.instances_done,
            "instances_total": totals.instances_total,
            "bytes_done": totals.bytes_done,
            "bytes_total": totals.bytes_total,
        }


def _end_of(ending: asyncio.Future[Any]) -> dict[str, Any]:
    """Return how it ended; what is no error of this library is raised."""
    problem, result = "", None
    try:
        result = ending.result()
    except PostdicomError as error:
        problem, result = text_for_clients(error), error.report
    counts = getattr(result, "counts", None)
    if not isinstance(counts, Mapping) or not hasattr(result, "ok"):  # a job's summary has counts of its own
        return {"problem": problem}
    return {"problem": problem, "counts": {status.name.lower(): number for status, number in counts.items()}}
