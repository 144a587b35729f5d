"""Running work on several items in parallel, ending with one plain error on failure; and a limit several callers share.

The state of the workers and of the turnstile belongs to the event loop. The risk is a task that waits for ever: so
every turn is given back exactly once, by whoever took it, whether or not its work began; and a limit is polled, because
it may rise while nothing completes.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from postdicom_async.settings import Retry

_T = TypeVar("_T")

_END: Any = object()
_LOOK_AGAIN = 0.25  # seconds: a limit may rise while nothing completes


class Limit(Protocol):
    """How many may run; it may change at any time, as that of an `AtOnce` does."""

    @property
    def now(self) -> int:
        """How many may be in flight now; at least 1."""
        ...


async def for_each(items: AsyncIterator[_T], work: Callable[[_T], Awaitable[None]], *, at_once: int | Limit) -> None:
    """Run ``work`` on every item, ``at_once`` of them in parallel; an item is drawn only when there is room for it.

    When a limit falls, running work continues, and nothing new starts until there is room. The first exception cancels
    the rest and is raised as it is, not inside an exception group.

    All items are drawn by the calling task. They may come from a generator of the user's, and the time-outs and task
    groups it has entered belong to one task: cancelled through another, its failure would be lost.
    """
    await _Workers(items, work, at_once).run()


class _Workers(Generic[_T]):
    """Tasks that take another item when they finish one: creating a task per item costs as much as a request."""

    def __init__(self, items: AsyncIterator[_T], work: Callable[[_T], Awaitable[None]], at_once: int | Limit) -> None:
        self._items = items
        self._work = work
        self._at_once = at_once
        self._busy = 0
        self._idle: list[asyncio.Future[_T]] = []
        self._is_over = False
        self._waiting: asyncio.Future[None] | None = None  # for room
        self._timer: asyncio.TimerHandle | None = None
        self._failures: list[Exception] = []
        self._was_cancelled = False
        self._group = anyio.create_task_group()

    async def run(self) -> None:
        async with self._group:
            try:
                await self._room()
                async for item in self._items:
                    self._give(item)
                    await self._room()
            except Exception as error:  # noqa: BLE001 - raised in the end
                self._fail(error)
            finally:
                if self._timer is not None:
                    self._timer.cancel()
                self._items_are_over()
        if self._failures:
            raise self._failures[0]
        if self._was_cancelled:  # a cancelled scope may reach this task last, or not at all while it never waits
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise asyncio.CancelledError

    def _fail(self, error: Exception) -> None:
        self._failures.append(error)
        self._group.cancel_scope.cancel()

    def _has_room(self) -> bool:
        return self._busy < (self._at_once if isinstance(self._at_once, int) else self._at_once.now)

    async def _room(self) -> None:
        while not self._has_room():
            self._waiting = asyncio.get_running_loop().create_future()
            if not isinstance(self._at_once, int) and self._timer is None:
                self._look_again()
            await self._waiting

    def _look_again(self) -> None:
        """Poll whether the limit has risen while nothing completes."""
        self._timer = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._look_again)
        self._look()

    def _look(self) -> None:
        if self._waiting is not None and not self._waiting.done() and self._has_room():
            self._waiting.set_result(None)

    def _give(self, item: _T) -> None:
        self._busy += 1
        while self._idle:
            worker = self._idle.pop()
            if not worker.done():
                worker.set_result(item)
                return
        self._group.start_soon(self._run_one, item)

    def _items_are_over(self) -> None:
        self._is_over = True
        for worker in self._idle:
            if not worker.done():
                worker.set_result(_END)

    async def _run_one(self, item: _T) -> None:
        try:
            while item is not _END:
                try:
                    await self._work(item)
                finally:
                    self._busy -= 1
                    self._look()
                if self._is_over:
                    return
                waiting: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
                self._idle.append(waiting)
                item = await waiting
        except asyncio.CancelledError:
            # Its item is not done: treated as a normal completion, an upload would go on drawing items for ever.
            self._was_cancelled = True
            raise
        except Exception as error:  # noqa: BLE001 - raised in the end
            self._fail(error)


async def for_each_in_turn(
    items: AsyncIterator[_T], work: Callable[[_T], Awaitable[None]], turnstile: Turnstile
) -> None:
    """Do what `for_each` does, taking a turn for each item at a turnstile shared with others."""
    turns = 0  # taken and not given back

    async def in_turn() -> AsyncGenerator[_T, None]:
        nonlocal turns
        async for item in items:
            await turnstile.take()
            turns += 1
            yield item
            del item  # not kept alive while the next is awaited: it may hold bytes

    async def work_and_give_back(item: _T) -> None:
        nonlocal turns
        try:
            await work(item)
        finally:
            turns -= 1
            turnstile.give_back()

    try:
        async with aclosing(in_turn()) as begun:
            await for_each(begun, work_and_give_back, at_once=turnstile.limit)
    finally:
        for _ in range(turns):  # turns of work cancelled before it began: others would wait for them forever
            turnstile.give_back()


async def back_off(retry: Retry, rounds: int) -> None:
    """Wait before another round: full jitter over ``base`` seconds, doubled ``rounds`` times, at most ``cap``."""
    await asyncio.sleep(random.random() * min(retry.cap, retry.base * 2.0**rounds))  # noqa: S311 - jitter, no secret


class Turnstile:
    """Keeps the work of several callers within one limit: first come, first served.

    Every turn taken is given back, exactly once. A raised limit is noticed then, or by `look`.
    """

    def __init__(self, limit: Limit) -> None:
        self.limit: Limit = limit
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a turn."""
        if not self._waiting and self._busy < self.limit.now:
            self._busy += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn was granted at the same moment: nobody else would give it back
                self.give_back()
            raise

    def give_back(self) -> None:
        """End a turn."""
        self._busy -= 1
        self.look()

    def look(self) -> None:
        """Let waiting callers in, as far as there is room."""
        while self._waiting and self._busy < self.limit.now:
            turn = self._waiting.popleft()
            if not turn.done():
                self._busy += 1
                turn.set_result(None)


class UnderWay:
    """The requests in flight of one upload, or of several that share this.

    When one is refused, the fate of the others shows whether there were too many at once.
    """

    def __init__(self) -> None:
        self._running = 0
        self._taken = 0
        self._changed = anyio.Event()

    def begins(self) -> None:
        """Note that a request starts."""
        self._running += 1

    def ends(self, *, taken: bool) -> None:
        """Note that a request has ended; ``taken``: the archive accepted it."""
        self._running -= 1
        self._taken += taken
        self._changed.set()
        self._changed = anyio.Event()

    async def another_was_taken(self) -> bool:
        """Wait until the archive has accepted another request; False once none is in flight."""
        before = self._taken
        while self._running and self._taken == before:
            await self._changed.wait()
        return self._taken > before
