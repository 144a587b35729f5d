"""What copies of a session share: the connections and the slots before them, the budget of repeats, the clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

from postdicom_async.errors import UsageError
from postdicom_async.http import tasks
from postdicom_async.http.clocks import Clock
from postdicom_async.http.retry import RetryBudget

if TYPE_CHECKING:
    import httpx

    from postdicom_async.http.answer import StreamedAnswer
    from postdicom_async.http.transport import ChosenTransport
    from postdicom_async.settings import Settings

__all__ = ["Link"]

_PAUSED_SECONDS = 1.0  # so long may an answer that nobody reads keep others waiting
_CLOSE_SECONDS = 5.0


class Link:
    """The open connections of a session and of its copies.

    Attributes:
        slots: one for each request in flight.
        listings: one for each of them that is a search or asks for metadata.
        budget: of repeats.
        clock: of all waits for the network.
        paused: answers that are open and that nobody reads, the oldest first.
        transport: makes the requests.
        is_closed: whether it is of no use any more.
    """

    def __init__(self, settings: Settings, chosen: ChosenTransport) -> None:
        self.slots: anyio.CapacityLimiter = anyio.CapacityLimiter(settings.limits.connections)
        self.listings: anyio.CapacityLimiter = anyio.CapacityLimiter(settings.limits.parallel_searches)
        self.budget: RetryBudget = RetryBudget(settings.retry.budget)
        self.clock: Clock = Clock()
        self.paused: dict[StreamedAnswer, None] = {}
        self.transport: httpx.AsyncBaseTransport = chosen.make()
        self.is_closed: bool = False
        self._loop = asyncio.get_running_loop()

    def enter_loop(self) -> None:
        """See to it that all of this works in the event loop that runs here.

        Raises:
            UsageError: another one is at work with it; what waits there for a slot would never be woken from here.
        """
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop.is_running():
            raise UsageError("the client is open in another event loop that is running; open one in each")
        self._loop = loop
        self.clock = Clock()  # the timer of a loop that has ended never rings

    async def close(self) -> None:
        """Close every connection. What is under way fails."""
        self.is_closed = True
        self.clock.close()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
            await self.transport.aclose()

    async def take_slot(self, holder: object, *, listing: bool) -> None:
        """Wait for a slot, and first for one of the few that searches and metadata may have of them.

        With one free there is no detour through the event loop.
        """
        if listing:
            await self._take(self.listings, holder)
        try:
            await self._take(self.slots, holder)
        except BaseException:
            if listing:
                self.listings.release_on_behalf_of(holder)
            raise

    async def _take(self, limiter: anyio.CapacityLimiter, holder: object) -> None:
        try:
            limiter.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            # Who reads the oldest may be waiting for this very request: without this both would wait for ever. Only
            # listings are ever paused, so that a slot of either kind comes free.
            for answer in list(self.paused)[:1]:
                self._take_back(answer)
            await limiter.acquire_on_behalf_of(holder)

    def give_back(self, holder: object, *, listing: bool) -> None:
        """Free a slot."""
        self.slots.release_on_behalf_of(holder)
        if listing:
            self.listings.release_on_behalf_of(holder)

    @property
    def _is_waited_for(self) -> bool:
        return bool(self.slots.statistics().tasks_waiting or self.listings.statistics().tasks_waiting)

    def pause(self, answer: StreamedAnswer) -> None:
        """Note that nobody reads an answer for now."""
        self.paused[answer] = None
        # Who waits already saw nothing to take back. A reader that comes back soon keeps its answer all the same.
        if self._is_waited_for:
            asyncio.get_running_loop().call_later(_PAUSED_SECONDS, self._take_back_if_wanted, answer)

    def _take_back_if_wanted(self, answer: StreamedAnswer) -> None:
        if self._is_waited_for:
            self._take_back(answer)

    def _take_back(self, answer: StreamedAnswer) -> None:
        if answer in self.paused:
            del self.paused[answer]
            tasks.start(answer.aclose())
