"""The code in a worker process on another machine: an event loop of our own, which keeps the ends open.

A dask worker runs tasks in its threads and does not share its event loop. `carry` is the task: it hands its chunk to
this process's loop (`_Room`, in a thread of its own) and waits. The ends of a job are opened there once and kept for
later chunks; each is entered and left by one task (`_Kept`), as cancel scopes demand. An end that failed permanently
(credentials changed) is opened again for the next chunk. When the worker stops, its plugin cancels running work and
closes the ends; when it is killed, the operating system does.

No exception crosses the network: results are tuples of plain values. The ``repr`` of a parcel shows only numbers, since
dask logs tasks that failed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from distributed import Reschedule, WorkerPlugin

from postdicom_async.errors import PostdicomError
from postdicom_async.jobs.chunk_runner import note_end
from postdicom_async.jobs.plan import Chunk, ChunkEnd, ItemEnd
from postdicom_async.jobs.states import State
from postdicom_async.watching import watch_call

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Iterator

    from distributed import Worker

    from postdicom_async.jobs.ends.end import End


Landed: TypeAlias = tuple[list[tuple[Any, ...]], tuple[Any, ...]]
"""The results of items and chunk, as plain tuples with the fields of `ItemEnd` and `ChunkEnd`."""

VERSION: Final = version("postdicom-async")
PLUGIN: Final = "postdicom-async"
STOP_WITHIN: Final = 5.0
"""Seconds allowed for closing the ends; then the process ends anyway."""
IDLE: Final = 600.0
"""Seconds after which an unused end is closed."""


@dataclass(frozen=True, repr=False)
class Parcel:
    """What is sent to a worker.

    Attributes:
        job: a random word that identifies this run on a shared scheduler.
        chunk: the instances to move.
        source, target: where the ends are; no secrets. They can be pickled and hashed; ``open()`` returns the end with
            the credentials of the worker's machine, and may block.
        options: how to move it, and how fast; no secrets.
        version: of this package on the sending machine.
        trace: what takes the job's trace to the worker.
    """

    job: str
    chunk: Chunk
    source: Any = None
    target: Any = None
    options: Any = None
    version: str = field(default=VERSION)
    trace: dict[str, str] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return f"<chunk {self.chunk.number}, attempt {self.chunk.attempt}>"


class Refused(NamedTuple):
    """The answer of a worker with another version of this package."""

    version: str


class Broken(NamedTuple):
    """The answer after an unexpected exception; ``error`` is the name of its class."""

    error: str


WorkerAnswer: TypeAlias = Landed | Refused | Broken | None
"""None where the work was dropped: nobody waits for it."""
Work: TypeAlias = "Callable[[End, End, Parcel], AsyncGenerator[ItemEnd | ChunkEnd, None]]"
"""The work done with the open ends: yields the results of items and of the chunk."""


# --- ends, kept open -------------------------------------------------------------------------------------------------


class _Kept:
    """An open end, and the task that opened it and will close it.

    It is closed when unused: at once if it is ``stale``, otherwise after `IDLE` seconds, when it becomes stale.
    """

    def __init__(self, opened: Callable[[], End]) -> None:
        self.users = 0
        self.stale = False
        self._idle: asyncio.TimerHandle | None = None
        self._unused = asyncio.Event()
        self._end: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep(opened))

    async def _keep(self, opened: Callable[[], End]) -> None:
        problem: BaseException | None = None
        try:
            made = await asyncio.to_thread(opened)
            async with made as end:
                self._end.set_result(end)
                await self._unused.wait()
        except asyncio.CancelledError:
            self._end.cancel()
            raise
        except Exception as error:  # noqa: BLE001  it is raised for those who wait for the end
            problem = error
        if problem is not None and not self._end.done():
            self.stale = True
            self._end.set_exception(problem)
            self._end.exception()  # retrieved, so that asyncio does not log it when nobody waits

    async def get(self) -> End:
        """Wait until the end is open and return it; raise the error of opening it."""
        return await asyncio.shield(self._end)

    def enter(self) -> None:
        """Count one more user."""
        self.users += 1
        if self._idle is not None:
            self._idle.cancel()

    def leave(self) -> None:
        """Count one user less, and plan the closing when none is left."""
        self.users -= 1
        if not self.users:
            self._idle = asyncio.get_running_loop().call_later(0 if self.stale else IDLE, self._expire)

    def _expire(self) -> None:
        self.stale = True
        self._unused.set()

    async def close(self) -> None:
        """Close it, even while it is used."""
        self._expire()
        if not self._end.done():
            self._keeper.cancel()
        await asyncio.wait([self._keeper])


class _Room:
    """The event loop of this process, its thread, and the open ends. Only code in the loop touches ``_kept``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._kept: dict[Hashable, _Kept] = {}
        self._running: dict[asyncio.Task[Any], str] = {}
        self._dropped: set[asyncio.Task[Any]] = set()
        # A daemon: should closing hang, the process can end anyway.
        self._thread = threading.Thread(target=self._run, name="postdicom-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def run(self, parcel: Parcel, work: Coroutine[Any, Any, Landed]) -> Landed | None:
        """Run a coroutine in the loop and wait for it; None if it was dropped. Called by dask's threads."""
        return asyncio.run_coroutine_threadsafe(self._noted(parcel.job, work), self._loop).result()

    async def _noted(self, job: str, work: Coroutine[Any, Any, Landed]) -> Landed | None:
        task = asyncio.create_task(work)
        self._running[task] = job
        try:
            return await task
        except asyncio.CancelledError:
            if task in self._dropped:
                return None
            raise
        finally:
            del self._running[task]
            self._dropped.discard(task)

    @contextlib.contextmanager
    def end(self, spec: Any) -> Iterator[_Kept]:
        """Use an end, which is opened if necessary."""
        kept = self._kept.get(spec)
        if kept is None or kept.stale:
            kept = self._kept[spec] = _Kept(spec.open)
        kept.enter()
        try:
            yield kept
        finally:
            kept.leave()

    def drop(self, job: str) -> None:
        """Cancel the work of a job.

        It ends with None, not as work for another worker: a scheduler that has not heard yet that it is cancelled would
        give it out again at once, and then nothing would end it.
        """

        def cancel() -> None:
            for task, of in list(self._running.items()):
                if job == of:
                    self._dropped.add(task)
                    task.cancel()

        self._loop.call_soon_threadsafe(cancel)

    async def close(self) -> None:
        """Cancel the work, close the ends, end the thread. Called from another loop."""
        closing = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(closing), STOP_WITHIN)
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join, 1.0)

    async def _close(self) -> None:
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        await asyncio.gather(*(kept.close() for kept in self._kept.values()), return_exceptions=True)
        self._kept.clear()


_room: _Room | None = None
_guard = threading.Lock()


def _the_room() -> _Room:
    global _room  # one per process, created by the first task
    with _guard:
        if _room is None:
            _room = _Room()
        return _room


# --- what dask calls -------------------------------------------------------------------------------------------------


def carry_with(work: Work, parcel: Parcel) -> WorkerAnswer:
    """Do the work of a parcel with both ends open, and return its results.

    Raises:
        Reschedule: this worker stops; another has to do the work.
    """
    if parcel.version != VERSION:
        return Refused(VERSION)
    room = _the_room()
    broken = ""
    try:
        return room.run(parcel, _traced(room, work, parcel))
    except concurrent.futures.CancelledError:
        pass
    except Exception as error:  # noqa: BLE001  its frames and text may be private and must not leave
        broken = type(error).__name__
    if broken:
        return Broken(broken)
    raise Reschedule


async def _traced(room: _Room, work: Work, parcel: Parcel) -> Landed:
    with watch_call("job chunk", parcel.trace) as call:
        landed = await _carried(room, work, parcel)
        note_end(call, ChunkEnd(*landed[1]))
        return landed


async def _carried(room: _Room, work: Work, parcel: Parcel) -> Landed:
    items: list[tuple[Any, ...]] = []
    end = ChunkEnd()
    with room.end(parcel.source) as source, room.end(parcel.target) as target:
        at_source = await _opened(source, "source")
        if isinstance(at_source, ChunkEnd):
            return items, tuple(at_source)
        at_target = await _opened(target, "target")
        if isinstance(at_target, ChunkEnd):
            return items, tuple(at_target)
        async with contextlib.aclosing(work(at_source, at_target, parcel)) as coming:
            async for given in coming:
                if isinstance(given, ChunkEnd):
                    end = given
                else:
                    items.append((*given[:2], int(given.state), int(given.reason), *given[4:]))
        # Its credentials may have become invalid: the next chunk opens it again.
        if end.failed_end and not end.temporary:
            (source if end.failed_end == "source" else target).stale = True
    return items, tuple(end)


def unpacked(item: tuple[Any, ...]) -> ItemEnd:
    """Rebuild an `ItemEnd` from its tuple."""
    series, uid, state, *rest = item
    return ItemEnd(series, uid, State(state), *rest)


async def _opened(kept: _Kept, name: str) -> End | ChunkEnd:
    try:
        return await kept.get()
    except PostdicomError as error:
        said, temporary = f"on a worker: {error}", error.temporary
        return ChunkEnd(name, type(error).__name__, temporary, said, error.retry_after)
    except Exception as error:  # noqa: BLE001  its text may be private
        return ChunkEnd(name, type(error).__name__, temporary=False, message=f"on a worker: {type(error).__name__}")


class _Plugin(WorkerPlugin):
    """Closes the `_Room` when the worker stops."""

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002  dask's interface
        await stop()


async def greet(dask_worker: Worker) -> str:
    """Return this package's version on the worker, and register the plugin that closes its ends when it stops."""
    if PLUGIN not in dask_worker.plugins:
        await dask_worker.plugin_add(_Plugin(), PLUGIN)
    return VERSION


async def drop(job: str) -> None:
    """Cancel this process's work for a job."""
    if _room is not None:
        _room.drop(job)


async def stop() -> None:
    """Cancel all work of this process and close the ends."""
    global _room
    with _guard:
        room, _room = _room, None
    if room is not None:
        await room.close()
