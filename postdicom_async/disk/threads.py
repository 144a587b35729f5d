"""Blocking disk work in threads: single jobs, quick work in the event loop itself, and a pool that makes files durable.

The pool makes files durable, several at a time; its backlog is bounded, so that the network is slowed down. One fsync
after another takes ten times as long as eight at once, which a file system commits together. It never blocks the event
loop: work is submitted without waiting, and its producer awaits `DiskPool.room` in between.

State of the pool: the queue belongs to the lock; work in progress, and results, to the event loop. A thread takes the
next work by itself, and wakes the loop once for all results: a thread switch costs more than a small file.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import anyio
import anyio.lowlevel

AT_ONCE = 8
MOST_BYTES = 8 << 20

WhenDone: TypeAlias = Callable[[BaseException | None], None]
"""Called in the event loop with the exception of the work, or None; it must not raise."""


class DiskPool:
    """Runs work in up to `AT_ONCE` threads. Its methods are called in the event loop it was made in."""

    def __init__(self) -> None:
        self.users: int = 0
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="postdicom-disk")
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], None], WhenDone]] = deque()
        self._busy = 0
        self._has_threads = False
        self._ended: deque[tuple[WhenDone, BaseException | None]] = deque()
        self._woken = False
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()

    def start(self, work: Callable[[], None], ended: WhenDone) -> None:
        """Run ``work`` when a thread is free; it is queued in memory until then.

        If the system gives no more threads, the existing ones do it; without any it is done here.
        """
        with self._lock:
            self._waiting.append((work, ended))
            if self._busy == AT_ONCE and self._has_threads:
                return
            self._busy += 1
        try:
            self._threads.submit(self._run)
        except RuntimeError:
            if not self._has_threads:
                self._run()
        else:
            self._has_threads = True

    def hold(self, size: int) -> None:
        """Count bytes that wait to be written; give the same number back with `release`."""
        self._held += size
        if self._held >= MOST_BYTES:
            self._room.clear()

    def release(self, size: int) -> None:
        """Count off bytes that were held."""
        self._held -= size
        if self._held < MOST_BYTES:
            self._room.set()

    def is_full(self) -> bool:
        """Whether `room` would wait."""
        return self._held >= MOST_BYTES

    async def room(self) -> None:
        """Wait until few enough bytes are held."""
        await self._room.wait()

    def close(self) -> None:
        """End the threads. All work must have ended."""
        self._threads.shutdown(wait=False)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy = max(0, self._busy - 1)  # a thread that seemed not to start may run late
                    return
                work, ended = self._waiting.popleft()
            problem: BaseException | None = None
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - passed to the submitter's callback
                problem = error
            with self._lock:
                self._ended.append((ended, problem))
                wake, self._woken = not self._woken, True
            del work, ended, problem  # no references stay while the thread waits
            if wake:
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        with self._lock:
            self._woken = False
            told, self._ended = self._ended, deque()
        for ended, problem in told:
            ended(problem)


_shared: dict[asyncio.AbstractEventLoop, DiskPool] = {}


@contextmanager
def shared_pool() -> Iterator[DiskPool]:
    """Yield the pool of the running event loop: its limits apply to all downloads together."""
    loop = asyncio.get_running_loop()
    pool = _shared.get(loop) or _shared.setdefault(loop, DiskPool())
    pool.users += 1
    try:
        yield pool
    finally:
        pool.users -= 1
        if not pool.users:
            del _shared[loop]
            pool.close()


# --- one piece of work ------------------------------------------------------------------------------------------------


_T = TypeVar("_T")

_QUICK = 0.003  # seconds that the event loop may stand still for one call
_SLOW_TURNS = 64


async def in_background(work: Callable[[], _T]) -> _T:
    """Run ``work`` in a thread and return its result; a cancellation waits until the thread is done."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    await outlasting(running)
    await anyio.lowlevel.checkpoint_if_cancelled()
    return running.result()


async def outlasting(future: asyncio.Future[Any]) -> None:
    """Wait until a future is done, however it ends, and only then let a cancellation through.

    A thread cannot be stopped: resources of its work may be closed only when the work has ended.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([future])
        except asyncio.CancelledError as error:  # the shield holds off anyio's cancellation, not asyncio's
            cancelled = error
    if not future.cancelled():
        future.exception()  # so that asyncio does not report it as never retrieved
    if cancelled is not None:
        raise cancelled


class QuickWork:
    """Disk work that takes microseconds on most disks, less than a round trip to a thread.

    It runs in the event loop as long as it is quick. After a slow call (a network drive, a sleeping disk) it runs in a
    thread for a while. The work must close whatever it opens before it returns.
    """

    def __init__(self) -> None:
        self._slow_turns = 0

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` and return its result."""
        return self.here(work) if self.is_quick() else await asyncio.to_thread(work)

    def is_quick(self) -> bool:
        """Whether the next work is to run `here`; otherwise in a thread."""
        self._slow_turns, slow = max(0, self._slow_turns - 1), self._slow_turns
        return not slow

    def here(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in this thread and return its result, noting whether it was quick."""
        started = time.perf_counter()
        try:
            return work()
        finally:
            if time.perf_counter() - started > _QUICK:
                self._slow_turns = _SLOW_TURNS
