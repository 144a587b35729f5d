"""Work on several items at once, with one plain error out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["for_each"]

_T = TypeVar("_T")


async def for_each(items: AsyncIterator[_T], work: Callable[[_T], Awaitable[None]], *, at_once: int) -> None:
    """Run ``work`` on every item, ``at_once`` of them at a time; an item is drawn only when there is room for it.

    The first exception cancels the rest and is raised as it is, not inside a group.
    """
    failures: list[Exception] = []
    room = anyio.Semaphore(at_once)

    async def guarded(item: _T) -> None:
        try:
            await work(item)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
            group.cancel_scope.cancel()
        finally:
            room.release()

    async with anyio.create_task_group() as group:
        try:
            await room.acquire()
            async for item in items:
                group.start_soon(guarded, item)
                await room.acquire()
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
            group.cancel_scope.cancel()
    if failures:
        raise failures[0]
