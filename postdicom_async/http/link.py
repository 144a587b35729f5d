"""What copies of a session share: the connections and the slots before them, the budget of repeats, the clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

from postdicom_async.http import tasks
from postdicom_async.http.clocks import Clock
from postdicom_async.http.retry import RetryBudget

if TYPE_CHECKING:
    from postdicom_async.http.answer import StreamedAnswer
    from postdicom_async.http.transport import ChosenTransport
    from postdicom_async.settings import Settings

__all__ = ["Link"]

_PAUSED_SECONDS = 1.0  # so long may an answer that nobody reads keep others waiting
_CLOSE_SECONDS = 5.0


class Link:
    """The open connections of a session and of its copies."""

    def __init__(self, settings: Settings, chosen: ChosenTransport) -> None:
        self.slots = anyio.CapacityLimiter(settings.limits.connections)
        self.budget = RetryBudget(settings.retry.budget)
        self.clock = Clock()
        self.paused: dict[StreamedAnswer, None] = {}  # answers that are open and that nobody reads, the oldest first
        self.transport = chosen.make()
        self.is_closed: bool = False

    async def close(self) -> None:
        """Close every connection. What is under way fails."""
        self.is_closed = True
        self.clock.close()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
            await self.transport.aclose()

    async def take_slot(self, holder: object) -> None:
        """Wait for a slot. With one free there is no detour through the event loop."""
        try:
            self.slots.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            # Who reads the oldest may be waiting for this very request: without this both would wait for ever.
            for answer in list(self.paused)[:1]:
                self._take_back(answer)
            await self.slots.acquire_on_behalf_of(holder)

    def pause(self, answer: StreamedAnswer) -> None:
        """Note that nobody reads an answer for now."""
        self.paused[answer] = None
        # Who waits already saw nothing to take back. A reader that comes back soon keeps its answer all the same.
        if self.slots.statistics().tasks_waiting:
            asyncio.get_running_loop().call_later(_PAUSED_SECONDS, self._take_back_if_wanted, answer)

    def _take_back_if_wanted(self, answer: StreamedAnswer) -> None:
        if self.slots.statistics().tasks_waiting:
            self._take_back(answer)

    def _take_back(self, answer: StreamedAnswer) -> None:
        if answer in self.paused:
            del self.paused[answer]
            tasks.start(answer.aclose())
