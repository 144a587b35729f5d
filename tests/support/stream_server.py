"""A TCP server of a few lines for tests, which leaves no connection behind when it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Self

from postdicom_async.emulator.http_server import stop_listening

__all__ = ["Serve", "StreamServer"]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class StreamServer:
    """Runs a coroutine for each connection, in a task that ends with the server.

    ``receive_buffer``: bytes that the system buffers at most before the coroutine reads; other options are those of
    `asyncio.start_server`.
    """

    def __init__(
        self, serve: Serve, *, host: str = "127.0.0.1", receive_buffer: int | None = None, **options: Any
    ) -> None:
        self._serve, self._host, self._options = serve, host, options
        self._receive_buffer = receive_buffer
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self._host, 0, **self._options)
        bound = self._server.sockets[0]
        if self._receive_buffer is not None:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self.port: int = bound.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def refuse(self) -> None:
        """Refuse new connections from now on; open ones stay."""
        assert self._server is not None
        self._server.close()

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        assert self._server is not None
        await stop_listening(self._server)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0)  # an aborted connection is closed in the next turn of the loop

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
