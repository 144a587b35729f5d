"""Runs chunks in this process, several at once."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from postdicom_async.disk.threads import outlasting
from postdicom_async.jobs.chunk_runner import ChunkOptions, run_chunk
from postdicom_async.jobs.chunks import ChunkEnd
from postdicom_async.transfer.at_once import Limit, for_each

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from postdicom_async.jobs.chunks import Chunk, ItemEnd
    from postdicom_async.jobs.ends.end import End

__all__ = ["LocalDispatcher"]

_MOST_WAITING = 1024  # ends that were not taken yet


class LocalDispatcher:
    """A `chunks.Dispatcher` on the event loop of the job.

    Args:
        source, target: open ends.
        options: how chunks are moved.
        at_once: how many chunks; it may change at any time.
    """

    def __init__(self, source: End, target: End, options: ChunkOptions, *, at_once: Limit) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._at_once = at_once

    async def run(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[tuple[Chunk, ItemEnd | ChunkEnd], None]:
        """Take chunks as there is room for them; yield their items' ends, and for each chunk one `ChunkEnd`, last."""
        told: asyncio.Queue[tuple[Chunk, ItemEnd | ChunkEnd] | None] = asyncio.Queue(_MOST_WAITING)

        async def move(chunk: Chunk) -> None:
            async with aclosing(run_chunk(self._source, self._target, chunk, self._options)) as ends:
                async for end in ends:
                    await told.put((chunk, end))

        async def move_all() -> None:
            try:
                await for_each(chunks, move, at_once=self._at_once)
            finally:
                await told.put(None)

        moving = asyncio.ensure_future(move_all())
        try:
            while (one := await told.get()) is not None:
                yield one
            await moving
        finally:
            moving.cancel()
            while not moving.done():  # whoever still tells something must not wait for a reader that has gone
                while not told.empty():
                    told.get_nowait()
                await asyncio.wait([moving], timeout=0.05)
            await outlasting(moving)
