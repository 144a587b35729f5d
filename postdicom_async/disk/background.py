"""Blocking disk work in a thread, one call at a time, while the caller goes on receiving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

__all__ = ["Background"]


class Background:
    """A lane for disk work: the next call waits for the one before, and learns of its error.

    Work runs in the order it was given. A thread cannot be stopped, so ``finish`` must be awaited before anything
    that the work uses is closed; it waits even while the task is being cancelled.
    """

    def __init__(self) -> None:
        self._running: asyncio.Future[None] | None = None
        self._done: Callable[[], None] | None = None

    async def run(self, work: Callable[[], None], done: Callable[[], None] | None = None) -> None:
        """Start ``work`` once the call before it is done; raise what that one raised.

        ``done`` is called in the event loop after ``work`` has succeeded, at the latest in ``finish``.
        """
        await self.settle()
        self._running = asyncio.get_running_loop().run_in_executor(None, work)
        self._done = done

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
