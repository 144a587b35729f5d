"""Work that goes on whether or not somebody waits for it, such as the closing of a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["start"]

_running: set[asyncio.Task[None]] = set()  # an event loop alone does not keep its tasks


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start the work in a task of its own, which is kept until it is done."""
    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task
