"""Work on several items at once, with one plain error out of it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["Limit", "UnderWay", "for_each"]

_T = TypeVar("_T")

_LOOK_AGAIN = 0.25  # seconds: a limit may rise while nothing ends


class Limit(Protocol):
    """How many may run, which may change at any time, as an `AtOnce` does."""

    @property
    def now(self) -> int:
        """How many may be under way now; at least 1."""
        ...


_END: Any = object()


async def for_each(items: AsyncIterator[_T], work: Callable[[_T], Awaitable[None]], *, at_once: int | Limit) -> None:
    """Run ``work`` on every item, ``at_once`` of them at a time; an item is drawn only when there is room for it.

    When a limit falls, what runs goes on, and nothing is begun before there is room again. The first exception cancels
    the rest and is raised as it is, not inside a group.
    """
    await _Workers(items, work, at_once).run()


class _Workers(Generic[_T]):
    """Tasks that go on with the next item when they are through with one: one for each item costs like a small request.

    One of them at most is drawing an item. Whoever has drawn one starts another worker where there is room, and none
    begins an item beyond the limit.
    """

    def __init__(self, items: AsyncIterator[_T], work: Callable[[_T], Awaitable[None]], at_once: int | Limit) -> None:
        self._items = items
        self._work = work
        self._at_once = at_once
        self._drawing = asyncio.Lock()
        self._count = 0
        self._is_over = False
        self._failures: list[Exception] = []
        self._group = anyio.create_task_group()
        self._watching = anyio.CancelScope()

    async def run(self) -> None:
        async with self._group:
            self._grow()
            with self._watching:
                while self._count:  # a limit may rise while nothing ends
                    await anyio.sleep(math.inf if isinstance(self._at_once, int) else _LOOK_AGAIN)
                    self._grow()
        if self._failures:
            raise self._failures[0]

    def _limit(self) -> int:
        return self._at_once if isinstance(self._at_once, int) else self._at_once.now

    def _grow(self) -> None:
        """Start a worker if it may begin an item, unless one is still drawing its own."""
        if self._count < self._limit() and not (self._is_over or self._failures or self._drawing.locked()):
            self._count += 1
            self._group.start_soon(self._run_one)

    async def _run_one(self) -> None:
        try:
            while self._count <= self._limit():
                async with self._drawing:
                    item = _END if self._is_over else await anext(self._items, _END)
                    self._is_over = item is _END
                if self._is_over:
                    break
                self._grow()
                await self._work(item)
        except Exception as error:  # noqa: BLE001 - raised in the end
            self._failures.append(error)
            self._group.cancel_scope.cancel()
        finally:
            self._count -= 1
            if not self._count:
                self._watching.cancel()


class UnderWay:
    """The requests of one upload that are under way: where one is refused, the others show whether it is by number."""

    def __init__(self) -> None:
        self._running = 0
        self._taken = 0
        self._changed = anyio.Event()

    def begins(self) -> None:
        """Note that one begins."""
        self._running += 1

    def ends(self, *, taken: bool) -> None:
        """Note that one has ended: the archive took it, or not."""
        self._running -= 1
        self._taken += taken
        self._changed.set()
        self._changed = anyio.Event()

    async def another_was_taken(self) -> bool:
        """Wait until the archive has taken another one; False when none is under way any more."""
        before = self._taken
        while self._running and self._taken == before:
            await self._changed.wait()
        return self._taken > before
