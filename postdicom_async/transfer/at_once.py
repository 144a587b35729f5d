"""Work on several items at once, with one plain error out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

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


async def for_each(items: AsyncIterator[_T], work: Callable[[_T], Awaitable[None]], *, at_once: int | Limit) -> None:
    """Run ``work`` on every item, ``at_once`` of them at a time; an item is drawn only when there is room for it.

    When a limit falls, what runs goes on, and nothing is begun before there is room again. The first exception cancels
    the rest and is raised as it is, not inside a group.
    """
    failures: list[Exception] = []
    running = 0
    ended = anyio.Event()

    async def guarded(item: _T) -> None:
        nonlocal running
        try:
            await work(item)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
            group.cancel_scope.cancel()
        finally:
            running -= 1
            ended.set()

    async def room() -> None:
        nonlocal ended
        while running >= (at_once if isinstance(at_once, int) else at_once.now):
            ended = anyio.Event()
            with anyio.move_on_after(None if isinstance(at_once, int) else _LOOK_AGAIN):
                await ended.wait()

    async with anyio.create_task_group() as group:
        try:
            await room()
            async for item in items:
                running += 1
                group.start_soon(guarded, item)
                await room()
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
            group.cancel_scope.cancel()
    if failures:
        raise failures[0]


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
