"""The work of one worker: it moves the instances of one chunk from source to target, and reports the result of each.

Nothing here knows of a ledger: it runs in the process of the job, or in one on another machine. `LocalDispatcher` runs
several chunks at once in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from postdicom_async.disk.files import Unusable, outlasting
from postdicom_async.errors import PostdicomError
from postdicom_async.jobs.compare_bytes import digest_of
from postdicom_async.jobs.ends.end import Feature, ListedInstance
from postdicom_async.jobs.plan import Chunk, ChunkEnd, ItemEnd
from postdicom_async.jobs.states import ItemVerdict, Reason, State, verdict_of
from postdicom_async.transfer.at_once import Limit, for_each
from postdicom_async.watching import CallWatch, watch_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.jobs.ends.end import End, Identified
    from postdicom_async.results import Outcome


_MOST_WAITING = 1024  # results that were not yet read


async def _at_once(_: int) -> None:
    return


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """How chunks are moved.

    Attributes:
        anonymize: rules applied to each instance on the way.
        pace: awaited with the size in bytes before each instance is sent.
        digests: compute a digest of each instance, for later comparison with what the target holds.
    """

    anonymize: Anonymization | None = None
    pace: Callable[[int], Awaitable[None]] = _at_once
    digests: bool = False


async def run_chunk(
    source: End, target: End, chunk: Chunk, options: ChunkOptions
) -> AsyncGenerator[ItemEnd | ChunkEnd, None]:
    """Move a chunk; yield the result of each item as it becomes known, and a `ChunkEnd` last.

    An item without a result was not started, or its outcome is unknown: it must be moved again.
    """
    # A streamed body can be read only once, so neither a digest nor anonymisation may read it before the store.
    if Feature.PASSES in target.features and options.anonymize is None and not options.digests:
        chunk = replace(chunk, wanted=replace(chunk.wanted, once=True))
    moving = _Moving(source, chunk, options)
    problem: PostdicomError | None = None
    try:
        async with aclosing(target.store(moving.opened(), anonymize=options.anonymize)) as outcomes:
            async for outcome in outcomes:
                if (end := moving.end_of(outcome)) is not None:
                    yield end
    except PostdicomError as error:
        problem = error
    if problem is None and moving.problem is None:
        for one in moving.open.values():  # the source has delivered all that it has of the wanted instances
            yield ItemEnd(one.series, one.uid, State.FAILED, Reason.NOT_ARRIVED, True, one.size)
    yield _chunk_end("target", problem) if problem is not None else _chunk_end("source", moving.problem)


def note_end(call: CallWatch, end: ItemEnd | ChunkEnd) -> None:
    """Add to the span of a chunk what it failed with."""
    if isinstance(end, ChunkEnd) and end.failed_end:
        call.note(failed_end=end.failed_end, failed_with=end.error)


def _chunk_end(which: str, problem: PostdicomError | None) -> ChunkEnd:
    if problem is None:
        return ChunkEnd()
    kind = type(problem).__name__
    return ChunkEnd(
        which, kind, problem.temporary, str(problem), problem.retry_after, getattr(problem, "disk_full", False)
    )


class _Moving:
    """One chunk that is being moved.

    Attributes:
        open: by UID, the instances that were not opened yet or have no result yet.
        problem: why the source could not be read to its end.
    """

    def __init__(self, source: End, chunk: Chunk, options: ChunkOptions) -> None:
        self.open: dict[str, ListedInstance] = {one.uid: one for one in chunk.wanted.instances}
        self.problem: PostdicomError | None = None
        self._source = source
        self._chunk = chunk
        self._options = options
        self._digests: dict[str, bytes] = {}
        self._came: set[str] = set()

    async def opened(self) -> AsyncGenerator[Identified, None]:
        """Yield the instances the source delivers; if it fails, note the error and end."""
        try:
            async with aclosing(self._source.open(self._chunk.wanted)) as instances:
                async for one in instances:
                    if not self._take(one):
                        continue
                    await self._options.pace(one.size if isinstance(one, Unusable) else one.body.length)
                    if self._options.digests and not isinstance(one, Unusable):
                        self._digests[one.label] = await digest_of(one.body)
                    yield one
        except PostdicomError as error:
            self.problem = error

    def _take(self, one: Identified) -> bool:
        """Return whether this instance was asked for and has not come before."""
        if not self._chunk.wanted.instances and one.label not in self._came:  # as a list would have it
            uids = one.uids if isinstance(one, Unusable) else one.header.uids
            size = one.size if isinstance(one, Unusable) else one.body.length
            self.open[one.label] = ListedInstance(uids.series_instance_uid if uids else "", one.label, size)
        # An archive may give an instance twice, or one that was not asked for: each item has one end.
        if one.label in self._came or one.label not in self.open:
            return False
        self._came.add(one.label)
        return True

    def end_of(self, outcome: Outcome) -> ItemEnd | None:
        """Translate a transfer outcome into an `ItemEnd`; None if no such item is open."""
        one = self.open.pop(outcome.where, None) if outcome.where in self._came else None
        if one is None:
            return None
        found = verdict_of(outcome)
        unsent = found.state is State.FAILED and outcome.uids is None  # it was never prepared for sending
        if unsent and found.reason != Reason.ANONYMIZE:
            found = ItemVerdict(found.state, Reason.UNREADABLE, found.temporary)
        digest = self._digests.pop(one.uid, b"") if found.state is State.DONE else b""
        return ItemEnd(
            one.series, one.uid, found.state, found.reason, found.temporary, outcome.size or one.size, digest
        )


# --- several at once, in this process --------------------------------------------------------------------------------


class LocalDispatcher:
    """A `plan.Dispatcher` on the event loop of the job.

    Args:
        source, target: open ends.
        options: how chunks are moved.
        at_once: limit of chunks at once; it may change at any time.
    """

    def __init__(self, source: End, target: End, options: ChunkOptions, *, at_once: Limit) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._at_once = at_once

    async def run(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[tuple[Chunk, ItemEnd | ChunkEnd], None]:
        """Take chunks while there is room; yield the items' results, and last for each chunk its `ChunkEnd`."""
        told: asyncio.Queue[tuple[Chunk, ItemEnd | ChunkEnd] | None] = asyncio.Queue(_MOST_WAITING)

        async def move(chunk: Chunk) -> None:
            with watch_call("job chunk") as call:
                async with aclosing(run_chunk(self._source, self._target, chunk, self._options)) as ends:
                    async for end in ends:
                        await told.put((chunk, end))
                        note_end(call, end)

        async def move_all() -> None:
            try:
                await for_each(chunks, move, at_once=self._at_once)
            finally:
                await told.put(None)

        moving = asyncio.ensure_future(move_all())
        try:
            while (one := await told.get()) is not None:
                yield one
            await moving
        finally:
            moving.cancel()
            while not moving.done():  # the reader is gone: nobody may block on the full queue
                while not told.empty():
                    told.get_nowait()
                await asyncio.wait([moving], timeout=0.05)
            await outlasting(moving)
