"""Blocking disk work in a thread, and waiting for it whatever becomes of the task that waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

__all__ = ["QuickWork", "in_background", "outlasting"]

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

    A thread cannot be stopped: what its work uses is closed after it has let go of it.
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
    does it for a while. What it opens must be closed when it returns.
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
