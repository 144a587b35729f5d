"""uvicorn inside the running event loop, and the sockets that are listened on."""

from __future__ import annotations

import asyncio
import socket
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Protocol

import uvicorn

from postdicom_async.emulator.connection import bounded
from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from postdicom_async.emulator.context import ArchiveLimits

__all__ = ["QuietServer", "listen", "stop_listening"]

_PATIENCE = 0.5
"""Seconds that handlers get to notice that their connections are gone."""

_TURNS = 5
"""Turns of the event loop from a connection's being accepted to its protocol's having it: three, and some to spare."""


class QuietServer(uvicorn.Server):
    """uvicorn without signal handlers and without waiting: connections are cut when it stops."""

    def __init__(self, app: object, limits: ArchiveLimits) -> None:
        super().__init__(_config(app, limits))
        self.ready: asyncio.Event = asyncio.Event()
        self.stop: asyncio.Event = asyncio.Event()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Leave the signals to whoever runs the event loop."""
        return nullcontext()

    async def main_loop(self) -> None:
        """Wait until `stop` is set."""
        self.ready.set()
        while not self.stop.is_set():
            await self.on_tick(0)  # renews the Date header
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), 1)

    def cut(self, client: object) -> None:
        """Drop the connection that comes from an address, without another byte."""
        for connection in list(self.server_state.connections):
            peer: tuple[object, ...] = connection.transport.get_extra_info("peername") or ()
            if peer[:2] == client:
                connection.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cut the connections and stop."""
        for server in self.servers:
            await stop_listening(server)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        running = set(self.server_state.tasks)
        if running:
            _, running = await asyncio.wait(running, timeout=_PATIENCE)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for bound in sockets or []:
            bound.close()


def _config(app: object, limits: ArchiveLimits) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=bounded(limits),  # type: ignore[arg-type]  # never httptools, which has no bound for a head
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_keep_alive=60,
        h11_max_incomplete_event_size=128 * 1024,  # the vendor's operations travel in a header
    )


class _Server(Protocol):
    @property
    def sockets(self) -> Iterable[socket.socket]: ...

    def close(self) -> object: ...


async def stop_listening(server: _Server) -> None:
    """Close a server, and wait until the connections it accepted are known to their protocols, to be cut as well.

    One that the closing of an asyncio server finds in between would be nobody's, and its socket left to the garbage;
    so nothing is accepted for some turns before. uvloop does not let its sockets be touched, and loses none.
    """
    for bound in server.sockets:
        with suppress(NotImplementedError, RuntimeError):
            asyncio.get_running_loop().remove_reader(bound)
    await _some_turns()
    server.close()
    await _some_turns()


async def _some_turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; port 0 is a free one.

    Raises:
        UsageError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio only switches Nagle's algorithm off where the protocol is named; with it, every answer waits 40 ms
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return bound
