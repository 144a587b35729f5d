"""A TCP proxy that cuts a connection at a byte, passes answers on byte by byte, or takes requests slowly."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from tests.support.stream_server import StreamServer

__all__ = ["Cut", "CuttingProxy"]

READ = 65536


@dataclass(frozen=True)
class Cut:
    """Where the first connection ends.

    Attributes:
        down: after so many bytes from the service; None for never.
        up: after so many bytes to the service; None for never.
        reset: with a reset instead of a clean end.
    """

    down: int | None = None
    up: int | None = None
    reset: bool = True


class CuttingProxy:
    """Stands between a client and a service.

    ``dribble``: answers byte by byte. ``pause``: seconds after each piece of a request that is passed on;
    ``stall_after``: so many bytes of them, and no more.

    Attributes:
        down: how many bytes the first connection's service has sent.
        up: how many its client has.
    """

    def __init__(
        self,
        target: str,
        cut: Cut | None = None,
        *,
        dribble: bool = False,
        stall_after: int | None = None,
        pause: float = 0,
    ) -> None:
        parts = urlsplit(target)
        self._host, self._port = parts.hostname, parts.port
        self._cut = cut or Cut()
        self._dribble = dribble
        self._stall_after = stall_after
        self._pause = pause
        self._first = True
        # Without a small buffer the system would take megabytes before anybody reads.
        self._server = StreamServer(self._serve, receive_buffer=READ if pause else None)
        self.url = ""
        self.down = self.up = 0

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self.url = f"ws://127.0.0.1:{self._server.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        first, self._first = self._first, False
        cut = self._cut if first else Cut()
        service_in, service_out = await asyncio.open_connection(self._host, self._port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(client_in, service_out, cut.up, first, "up"))
                group.create_task(self._pass(service_in, client_out, cut.down, first, "down"))
        except* (_Over, ConnectionError):
            pass
        finally:
            for writer in (client_out, service_out):
                if cut.reset:
                    writer.transport.abort()
                else:
                    writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, limit: int | None, first: bool, way: str
    ) -> None:
        passed = 0
        while data := await source.read(READ):
            piece = data if limit is None else data[: limit - passed]
            if self._dribble and way == "down":
                for at in range(len(piece)):
                    target.write(piece[at : at + 1])
                    await target.drain()
                    await asyncio.sleep(0)
            else:
                target.write(piece)
                await target.drain()
            passed += len(piece)
            if way == "up":
                await asyncio.sleep(self._pause)
                while self._stall_after is not None and passed > self._stall_after:
                    await asyncio.sleep(0.01)
            if first:
                setattr(self, way, passed)
            if passed == limit:
                raise _Over
        raise _Over


class _Over(Exception):
    """The connection is to end."""
