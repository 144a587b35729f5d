"""Measures how long an event loop was blocked, in processor time, which does not depend on the machine's load.

Garbage collection blocks the loop: ``tests/conftest.py`` freezes pytest's own objects, so that only the test's are
counted.
"""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import suppress
from typing import Self

__all__ = ["StallWatch"]


class StallWatch:
    """Ticks while it is entered; ``longest`` is the most processor time between two ticks."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Self:
        gc.collect()
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _tick(self) -> None:
        last = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.process_time()
            self.longest = max(self.longest, now - last)
            last = now
