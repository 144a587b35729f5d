"""The move phase: it splits studies into chunks, hands out the chunks, and records the results.

It holds the work under way, which only its own event loop changes: the chunks handed out, results of their items that
are not final, and the studies to retry, with times. Everything else is in the ledger. A study has ended when none of
its chunks is under way and no retry is planned.

What can go wrong: an end fails a chunk. While other chunks continue, the end is probed; if it is an outage, the chunk's
items become pending again without using up an attempt.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from postdicom_async import errors
from postdicom_async.disk.files import outlasting
from postdicom_async.jobs.context import could_not_be_listed, plan_study_or_fail
from postdicom_async.jobs.ends.end import Feature
from postdicom_async.jobs.ledger.schema import ItemRow, Stage
from postdicom_async.jobs.plan import ChunkEnd, ItemEnd, chunks_of, may_go_unlisted, unlisted_chunk
from postdicom_async.jobs.states import SETTLED, Reason, State, reason_code
from postdicom_async.jobs.summary import ItemLine
from postdicom_async.transfer.at_once import for_each

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from postdicom_async.jobs.context import Context
    from postdicom_async.jobs.ledger.schema import StudyRow
    from postdicom_async.jobs.plan import Chunk, Dispatcher


_STUDIES_AHEAD = 4  # studies whose instances are listed at once, while others move
_CHUNKS_AHEAD = 8
_MOST_UNLISTED = 2000  # the largest study, in instances, to move without a list: it may have to be listed after all


@dataclass(slots=True)
class _Out:
    """A chunk that was handed out.

    Attributes:
        open: items without a result so far.
        arrived: the number of instances received, if the chunk was not listed.
        held_back: items with a temporary failure, decided when the chunk has ended.
    """

    chunk: Chunk
    open: set[tuple[str, str]]
    held_back: list[ItemEnd] = field(default_factory=list)
    arrived: int = 0


class MovePhase:
    """The move phase of one run. Use it once.

    Args:
        context: of the job.
        dispatcher: runs chunks.
        gate: awaited before a chunk is handed out: pauses and time windows.
        splits_series: limit every chunk to ``JobOptions.chunk`` instances, even within a series.
    """

    def __init__(
        self,
        context: Context,
        dispatcher: Dispatcher,
        gate: Callable[[], Awaitable[None]],
        *,
        splits_series: bool = False,
    ) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._gate = gate
        self._splits_series = splits_series
        self._numbers = itertools.count(1)
        self._out: dict[int, _Out] = {}
        self._attempts: dict[tuple[int, str, str], int] = {}  # of what is out
        self._left: dict[int, int] = {}  # chunks of a study that have not ended
        self._rows: dict[int, StudyRow] = {}  # of the studies under way
        self._again: list[tuple[float, int, int]] = []  # when a study is tried again
        self._due: set[int] = set()  # the studies in it
        self._to_list: set[int] = set()  # those that did not come whole unlisted
        self._changed = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking: set[asyncio.Task[None]] = set()
        self._ahead: asyncio.Queue[Chunk | None] = asyncio.Queue(_CHUNKS_AHEAD)

    async def run(self) -> None:
        """Move everything that is pending.

        Raises:
            PostdicomError: an end fails; the outcome of each item is in the ledger.
        """
        tasks = [asyncio.ensure_future(self._plan_all()), asyncio.ensure_future(self._move_all()), self._failure]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in [*tasks, *self._asking]:
                task.cancel()
            # One await for all: a second cancellation meanwhile must not leave some of the tasks running.
            await outlasting(asyncio.gather(*tasks, *self._asking, return_exceptions=True))
        for task in tasks:
            if not task.cancelled() and (problem := task.exception()) is not None:
                raise problem

    async def _move_all(self) -> None:
        async with aclosing(self._chunks()) as chunks, aclosing(self._dispatcher.run(chunks)) as ends:
            async for chunk, end in ends:
                if not isinstance(end, ChunkEnd):
                    self._item_ended(chunk, end)
                elif end.failed_end or any(one.reason in _DOUBTFUL for one in self._out[chunk.number].held_back):
                    # Failures of single items may be an outage of the target too: that is how an upload reports a
                    # broken batch. An outage may last for hours, so other results are recorded meanwhile.
                    asking = asyncio.ensure_future(self._failed_chunk_ended(chunk, end))
                    self._asking.add(asking)
                    asking.add_done_callback(self._asked)
                else:
                    for one in (self._context.source, self._context.target):
                        self._context.outages.succeeded(one)
                    self._chunk_ended(chunk, end, is_outage=False)
        self._failure.cancel()  # nothing more can fail

    # --- what is given out -------------------------------------------------------------------------------------------

    async def _plan_all(self) -> None:
        """Queue the chunks of every study: first of studies planned earlier, then of the others."""
        await for_each(self._context.studies(Stage.PLANNED, Stage.FOUND), self._plan, at_once=_STUDIES_AHEAD)
        await self._ahead.put(None)

    async def _plan(self, study: StudyRow) -> None:
        context, options = self._context, self._context.options
        items = await context.ledger.items(study.id)
        # Anonymisation needs the list to plan its UIDs; and chunks for workers must be bounded in size.
        is_plain = Feature.UNLISTED in context.source.features and options.anonymize is None and not self._splits_series
        if is_plain and not items and may_go_unlisted(study, context.comparison, most=_MOST_UNLISTED):
            self._rows[study.id] = study
            self._left[study.id] = 1
            await self._ahead.put(unlisted_chunk(study, next(self._numbers)))
            return
        if study.stage is not Stage.PLANNED or could_not_be_listed(items):
            items = await plan_study_or_fail(context, study)
        for chunk in self._begun(study, items):
            await self._ahead.put(chunk)

    def _begun(self, study: StudyRow, items: list[ItemRow]) -> list[Chunk]:
        """Return the chunks of a study's pending items; without any, the study has ended."""
        for one in items:
            if one.state is State.PENDING:
                self._attempts[study.id, one.series, one.uid] = one.attempts
        most, splits = self._context.options.chunk, self._splits_series
        chunks = chunks_of(study, items, most=most, numbers=self._numbers, splits_series=splits)
        self._rows[study.id] = study
        self._left[study.id] = self._left.get(study.id, 0) + len(chunks)
        self._study_may_have_ended(study.id)
        return chunks

    async def _chunks(self) -> AsyncGenerator[Chunk, None]:
        """Yield chunks in the order to hand them out: first attempts, then retry waves."""
        while (chunk := await self._ahead.get()) is not None:
            yield await self._given_out(chunk)
        while self._out or self._again:
            self._changed.clear()
            wait = self._again[0][0] - time.monotonic() if self._again else None
            if wait is None or wait > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                continue
            study_id = heapq.heappop(self._again)[2]
            self._due.discard(study_id)
            study = self._rows[study_id]
            # Count this read as work under way: otherwise a chunk that ends meanwhile would mark the study as moved,
            # and after a kill the next process would skip the items read here.
            self._left[study_id] = self._left.get(study_id, 0) + 1
            if study_id in self._to_list:
                self._to_list.discard(study_id)
                items = await plan_study_or_fail(self._context, study)
            else:
                items = await self._context.ledger.items(study_id)
            self._left[study_id] -= 1
            for chunk in self._begun(study, items):
                yield await self._given_out(chunk)

    async def _given_out(self, chunk: Chunk) -> Chunk:
        if self._context.ledger.problem is not None:
            await self._context.ledger.commit()  # do not move what could not be recorded
        await self._gate()
        await self._context.outages.clear()
        keys = [(one.series, one.uid) for one in chunk.wanted.instances]
        self._out[chunk.number] = _Out(chunk, set(keys))
        self._context.ledger.run_items(chunk.study_id, keys)
        return chunk

    # --- what comes back ---------------------------------------------------------------------------------------------

    def _item_ended(self, chunk: Chunk, end: ItemEnd) -> None:
        out = self._out[chunk.number]
        if not chunk.wanted.instances:
            if not end.series:  # it has no UID: so too few will have arrived, and the study will be listed
                return
            out.arrived += 1
            running = ItemRow(end.series, end.uid, State.RUNNING, attempts=1, size=end.size)
            self._context.ledger.plan(chunk.study_id, [running])
        out.open.discard((end.series, end.uid))
        if end.state is not State.DONE and (end.temporary or end.reason == Reason.REFUSED):
            out.held_back.append(end)  # the `ChunkEnd` may tell the reason, such as rejected credentials
        else:
            self._settle(chunk, [end])

    async def _failed_chunk_ended(self, chunk: Chunk, end: ChunkEnd) -> None:
        """Find out whether the end that failed a chunk works at all; wait until it does."""
        failed = self._context.source if end.failed_end == "source" else self._context.target
        problem = _problem_of(end) if end.failed_end else errors.ConnectionFailed("instances were not taken")
        is_outage = await self._context.outages.outlasted(failed, problem)
        self._chunk_ended(chunk, end, is_outage=is_outage)

    def _asked(self, asking: asyncio.Task[None]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled() and (problem := asking.exception()) is not None and not self._failure.done():
            self._failure.set_exception(problem)

    def _chunk_ended(self, chunk: Chunk, end: ChunkEnd, *, is_outage: bool) -> None:
        """Record the results of a chunk's remaining items.

        After an outage they become pending without using up an attempt.
        """
        out = self._out.pop(chunk.number)
        again = end.temporary or not end.failed_end or end.error == errors.ProtocolError.__name__
        left = [ItemEnd(*key, State.FAILED, _reason_of(end), again) for key in out.open]
        if is_outage:
            pending = [one._replace(state=State.PENDING, reason=Reason.NONE) for one in (*out.held_back, *left)]
            self._settle(chunk, pending, attempt_counts=False)
            self._try_again(chunk, 0)
        else:
            reason = _reason_of(end)
            refused = end.failed_end == "target" and reason != Reason.UNEXPECTED
            held_back = [
                one._replace(reason=reason) if refused and one.reason == Reason.REFUSED else one
                for one in out.held_back
            ]
            for one in (*held_back, *left):
                made = self._attempts.get((chunk.study_id, one.series, one.uid), 0) + 1
                if one.temporary and made < self._context.options.attempts:
                    self._settle(chunk, [one._replace(state=State.PENDING)])
                    self._try_again(chunk, made)
                else:
                    self._settle(chunk, [one])
        if not chunk.wanted.instances:
            # The study is complete only if as many instances arrived as the source counts; otherwise it is listed.
            study = self._rows[chunk.study_id]
            if out.arrived == study.at_source:
                self._context.ledger.set_stage(study.id, Stage.PLANNED, planned=out.arrived)
            else:
                self._to_list.add(study.id)
                self._try_again(chunk, 0)
        self._left[chunk.study_id] -= 1
        self._study_may_have_ended(chunk.study_id)
        self._changed.set()

    def _try_again(self, chunk: Chunk, attempts: int) -> None:
        """Plan another attempt at all of a study's pending items, after the delay of a wave."""
        if chunk.study_id not in self._due:
            wait = self._context.options.wave(attempts) if attempts else 0.0
            self._due.add(chunk.study_id)
            heapq.heappush(self._again, (time.monotonic() + wait, chunk.number, chunk.study_id))

    def _settle(self, chunk: Chunk, ends: list[ItemEnd], *, attempt_counts: bool = True) -> None:
        self._context.ledger.settle(chunk.study_id, ends, attempt_counts=attempt_counts)
        for one in ends:
            made = self._attempts.pop((chunk.study_id, one.series, one.uid), 0) + attempt_counts
            if one.state in SETTLED:
                line = ItemLine(chunk.wanted.study, one.series, one.uid, one.state, one.reason, made, one.size)
                self._context.tell(line)

    def _study_may_have_ended(self, study_id: int) -> None:
        if not self._left.get(study_id) and study_id not in self._due:
            self._left.pop(study_id, None)
            self._rows.pop(study_id, None)
            self._context.ledger.set_stage(study_id, Stage.MOVED)


_DOUBTFUL = frozenset({int(Reason.CONNECTION), int(Reason.NOT_CONFIRMED)})
_REASONS = {
    errors.NotFound: Reason.GONE,
    errors.AuthenticationFailed: reason_code(status=403),
    errors.ConnectionFailed: Reason.CONNECTION,
    errors.RateLimited: reason_code(status=429),
    errors.LocalFileError: Reason.LOCAL_FILE,
    errors.ServerError: Reason.REFUSED,
}


def _reason_of(end: ChunkEnd) -> int:
    """Return the reason for a chunk's items that have no result of their own."""
    if end.failed_end == "source" and end.error in (errors.ServerError.__name__, errors.ProtocolError.__name__):
        return int(Reason.NOT_ARRIVED)
    named = {kind.__name__: reason for kind, reason in _REASONS.items()}
    return int(named.get(end.error, Reason.UNEXPECTED if end.failed_end else Reason.NONE))


def _problem_of(end: ChunkEnd) -> errors.PostdicomError:
    """Rebuild the error that ended a chunk, perhaps on another machine."""
    kinds = (errors.AuthenticationFailed, errors.ConnectionFailed, errors.RateLimited)
    if end.error == errors.LocalFileError.__name__:
        full = errors.LocalFileError(end.message, temporary=end.temporary)
        full.disk_full = end.disk_full
        return full
    if end.error == errors.UsageError.__name__:
        return errors.UsageError(end.message)
    kind = {one.__name__: one for one in kinds}.get(end.error, errors.PostdicomError)
    return kind(end.message, temporary=end.temporary, retry_after=end.retry_after)
