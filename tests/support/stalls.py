"""How long an event loop stood still, in time of the processor, which does not depend on how busy the machine is."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

__all__ = ["StallWatch", "of_this_test_alone"]


@contextmanager
def of_this_test_alone() -> Iterator[None]:
    """Let Python's collector, which stops everything, look at what came since only: tests hold much besides."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class StallWatch:
    """Ticks while it is entered; ``longest`` is the most that this process computed between two ticks."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Self:
        self._alone = of_this_test_alone()
        self._alone.__enter__()
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._alone.__exit__(None, None, None)

    async def _tick(self) -> None:
        last = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.process_time()
            self.longest = max(self.longest, now - last)
            last = now
