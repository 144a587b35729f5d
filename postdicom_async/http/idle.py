"""A bound on silence that costs next to nothing while bytes flow."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["IdleWatch"]


class IdleWatch:
    """Bounds each wait on a stream: ``with watch: chunk = await ...`` raises `TimeoutError` when it takes too long.

    One timer serves all waits: ``asyncio.timeout`` around every chunk costs as much as receiving a small one.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._waiting_since: float | None = None
        self._cancelling = 0
        self._expired = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        self._waiting_since = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting_since = None
        if not self._expired or self._task is None:
            return
        self._expired = False
        # As asyncio.timeout does it: a cancellation of somebody else's goes through.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._waiting_since is None:
            return  # nobody waits; the next wait sets a timer again
        left = self._waiting_since + self._seconds - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._look, loop)
        elif self._task is not None:
            self._expired = True
            self._task.cancel()
