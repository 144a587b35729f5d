"""Blocking disk work in threads: one piece of it and its end, quick work in the loop itself, and a pool for durability.

The pool makes files durable, some at a time; what waits for it is bounded, so that the network is held back. One fsync
after another takes ten times as long as eight at once, which a file system writes down together. It never blocks the
event loop: work is given without waiting, and whoever gives it asks for `DiskPool.room` in between.

State of the pool: what waits belongs to the lock; what is in hand, and what has ended, to the event loop. A thread
takes the next work itself, and wakes the loop once for all that ended meanwhile: a change of thread costs more than a
small file.
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
"""Called in the event loop with what the work raised; it must not raise."""


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
        """Run ``work`` when a thread is free; it waits in memory until then.

        Where the system gives no more threads those that there are do it, and without any it is done here.
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
        """Count bytes off that were held."""
        self._held -= size
        if self._held < MOST_BYTES:
            self._room.set()

    def is_full(self) -> bool:
        """Whether `room` would wait."""
        return self._held >= MOST_BYTES

    async def room(self) -> None:
        """Wait until so little is held that there may be more."""
        await self._room.wait()

    def close(self) -> None:
        """Let the threads end. All work must have ended."""
        self._threads.shutdown(wait=False)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy = max(0, self._busy - 1)  # what was given to a thread that did not start may run late
                    return
                work, ended = self._waiting.popleft()
            problem: BaseException | None = None
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever gave the work
                problem = error
            with self._lock:
                self._ended.append((ended, problem))
                wake, self._woken = not self._woken, True
            del work, ended, problem  # nothing of it stays while the thread waits
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
    """Give the pool of the running event loop: all downloads together write so much at once and hold so much."""
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
    """Run ``work`` in a thread and return its result; a cancellation waits until the thread has done with it."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    await outlasting(running)
    await anyio.lowlevel.checkpoint_if_cancelled()
    return running.result()


async def outlasting(future: asyncio.Future[Any]) -> None:
    """Wait until a future is done, however it ends, and then only let a cancellation through.

    A thread cannot be stopped: what its work uses may be closed only when the work has ended.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([future])
        except asyncio.CancelledError as error:  # the shield holds off anyio's cancellation, not asyncio's
            cancelled = error
    if not future.cancelled():
        future.exception()  # so that asyncio knows it to be seen
    if cancelled is not None:
        raise cancelled


class QuickWork:
    """Disk work that takes microseconds on most disks, less than handing it to a thread and back.

    It is done in the event loop as long as it is quick. After a slow call (a network drive, a sleeping disk) a thread
    does it for a while. The work must close what it opens before it returns.
    """

    def __init__(self) -> None:
        self._slow_turns = 0

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` and return its result."""
        return self.here(work) if self.is_quick() else await asyncio.to_thread(work)

    def is_quick(self) -> bool:
        """Whether the next work is to be done `here`; if not, in a thread."""
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
