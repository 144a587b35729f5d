"""Blocking disk work beside receiving: in a thread, or at once where that is quicker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import anyio

__all__ = ["Background", "in_background"]

_T = TypeVar("_T")


_PATIENCE = 0.003  # seconds that the event loop may stand still for one call
_SLOW_TURNS = 64


class Background:
    """A lane for disk work: the next call waits for the one before, and learns of its error.

    With ``at_once`` a call runs in the event loop as long as calls are quick: writing half a megabyte into the page
    cache takes less time than handing it to a thread. After a slow one the thread is used for a while.

    Work runs in the order it was given. A thread cannot be stopped, so ``finish`` must be awaited before anything
    that the work uses is closed; it waits even while the task is being cancelled.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._slow_turns = 0
        self._running: asyncio.Future[None] | None = None
        self._done: Callable[[], None] | None = None

    async def run(self, work: Callable[[], None], done: Callable[[], None] | None = None) -> None:
        """Start ``work`` once the call before it is done; raise what that one raised.

        ``done`` is called in the event loop after ``work`` has succeeded, at the latest in ``finish``.
        """
        await self.settle()
        if self._at_once and self._slow_turns == 0:
            self._run_here(work)
            if done is not None:
                done()
            return
        self._slow_turns = max(0, self._slow_turns - 1)
        self._running = asyncio.get_running_loop().run_in_executor(None, work)
        self._done = done

    def _run_here(self, work: Callable[[], None]) -> None:
        started = time.perf_counter()
        work()
        if time.perf_counter() - started > _PATIENCE:
            self._slow_turns = _SLOW_TURNS

    async def settle(self) -> None:
        """Wait for the call under way and raise what it raised."""
        if self._running is not None:
            await asyncio.wait([self._running])
            self._ended().result()

    async def finish(self) -> None:
        """Wait for the call under way, whatever becomes of it and of this task."""
        if self._running is None:
            return
        cancelled: asyncio.CancelledError | None = None
        while not self._running.done():
            try:
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([self._running])
            except asyncio.CancelledError as error:  # the shield holds off anyio's cancellation, not asyncio's
                cancelled = error
        self._ended()
        if cancelled is not None:
            raise cancelled

    def _ended(self) -> asyncio.Future[None]:
        running, done = self._running, self._done
        assert running is not None  # noqa: S101 - both callers have looked
        self._running = self._done = None
        if running.exception() is None and done is not None:
            done()
        return running


async def in_background(work: Callable[[], _T]) -> _T:
    """Run ``work`` in a thread and return its result; a cancellation waits until the thread has done with it."""
    lane = Background()
    results: list[_T] = []
    try:
        await lane.run(lambda: results.append(work()))
        await lane.settle()
    finally:
        await lane.finish()
    return results[0]
