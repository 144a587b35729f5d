"""uvicorn inside the running event loop, with the time-outs and limits that it lacks.

One port takes HTTP and WebSockets: a connection begins as `BoundedConnection`, and a request to upgrade hands it over
to `MuteWebSocket`. uvicorn waits for ever for the rest of a request's head, for its body, and for a client that stops
reading. So each connection has one timer, checked a few times per period, which knows what the archive waits for and
since when. Time counts only while the archive waits for the client, never the other way round.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AbstractContextManager, nullcontext, suppress
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.server import Server as WebSocketServer

from postdicom_async.emulator.context import ArchiveLimits
from postdicom_async.errors import UsageError

LARGEST_MESSAGE = 256 * 1024 * 1024

LEAST = 1024
"""Bytes of a body that must come in `ArchiveLimits.body_timeout`."""

_LOOKS = 4
"""Checks per period."""

_LINGER = 1
"""Seconds for a client to read the error before the connection is closed."""


class BoundedConnection(H11Protocol):
    """uvicorn's protocol; a client that is too slow, or one too many, gets an error and is disconnected."""

    limits: ArchiveLimits

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_for = ""
        self._since = 0.0
        self._received = 0
        self._unsent = 0
        self._is_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a head, or refuse the connection."""
        super().connection_made(transport)
        # Handlers find it as `request.state.transport`, to drop the connection where a test asks for that.
        self.app_state: dict[str, Any] = {**self.app_state, "transport": transport}
        # WebSockets are among them too, and have a limit of their own.
        if sum(isinstance(one, BoundedConnection) for one in self.connections) > self.limits.max_connections:
            self._tell_and_end(503, "too many connections are open")
        else:
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to `MuteWebSocket`, whose time-outs are its own."""
        if self._timer:  # the transport gets another protocol now, so nothing else would stop the timer
            self._timer.cancel()
        super().handle_websocket_upgrade(event)

    def data_received(self, data: bytes) -> None:
        """Take bytes; what comes after the end is dropped."""
        if not self._is_over:
            self._received += len(data)
            super().data_received(data)

    def _look(self) -> None:
        """Check what the archive waits for, and close the connection if it took too long."""
        now, waiting_for = self.loop.time(), self._what()
        if waiting_for != self._waiting_for or self._has_gone_on(waiting_for):
            self._waiting_for, self._since, self._received = waiting_for, now, 0
        patience = self.limits.head_timeout if waiting_for == "head" else self.limits.body_timeout
        if waiting_for and now - self._since >= patience:
            # Send a status only if no answer has begun: inside a body it would be read as data.
            is_answered = self.cycle is not None and self.cycle.response_started and waiting_for == "body"
            if waiting_for == "read" or is_answered:
                self.transport.abort()
            elif waiting_for == "head" and not self.conn.trailing_data[0]:
                self.transport.close()  # nothing was asked
            else:
                self._tell_and_end(408, f"the {waiting_for} of the request did not come in time")
        else:
            shortest = min(self.limits.head_timeout, self.limits.body_timeout)
            self._timer = self.loop.call_later(shortest / _LOOKS, self._look)

    def _what(self) -> str:
        """Return what the client has to do next: ``head``, ``body``, ``read``; empty when it waits for the archive."""
        if self.transport.get_write_buffer_size():
            return "read"
        if self.conn.their_state is h11.IDLE:  # between two requests uvicorn's own timer runs, until one begins
            return "head" if self.cycle is None or self.conn.trailing_data[0] else ""
        if self.conn.their_state is not h11.SEND_BODY:
            return ""
        is_ours = self.flow.read_paused or (self.cycle.waiting_for_100_continue and not self.cycle.response_complete)
        return "" if is_ours else "body"

    def _has_gone_on(self, waiting_for: str) -> bool:
        """Return whether the client has done enough since the time began to count; a head has one time for all."""
        if waiting_for == "read":
            before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
            return self._unsent != before
        return waiting_for == "body" and self._received >= LEAST

    def _tell_and_end(self, status: int, reason: str) -> None:
        """Answer past uvicorn, which is told that the connection is gone.

        The socket stays open for a moment: closed with bytes unread, it would discard the answer as well.
        """
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nX-Error-Reason: {reason}\r\n"
        self._is_over = True
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True  # wakes the handler, which would otherwise wait for the body for ever
            self.cycle.message_event.set()
        self.transport.write(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        self.transport.write_eof()
        self.transport.resume_reading()  # so that the client's end is seen
        self._timer = self.loop.call_later(_LINGER, self.transport.abort)


class MuteWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket without its log, which would show addresses and frames: they hold keys and patient data.

    Its logger is not registered, so nobody can turn it on.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.logger: logging.Logger = logging.Logger("postdicom_async.emulator.mute", logging.CRITICAL + 1)  # noqa: LOG001
        self.conn.logger = self.logger
        self.conn.debug = False  # decided by the logger before
        self.close_timeout: float = 1.0  # a client that is told of a bad frame need not answer


_PATIENCE = 0.5
"""Seconds for handlers to notice that their connections are gone."""

_TURNS = 5
"""Turns of the event loop until an accepted connection has reached its protocol: three, and some to spare."""


class QuietServer(uvicorn.Server):
    """uvicorn without signal handlers; when it stops, connections are cut at once."""

    def __init__(self, app: object, limits: ArchiveLimits) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]  # uvicorn's own types of ASGI are narrower than Starlette's
            http=type("Connection", (BoundedConnection,), {"limits": limits}),  # never httptools: it bounds no head
            ws=MuteWebSocket,
            ws_max_size=LARGEST_MESSAGE,
            ws_ping_timeout=60,
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=60,
            h11_max_incomplete_event_size=128 * 1024,  # the vendor's operations travel in a header
        )
        super().__init__(config)
        self.ready: asyncio.Event = asyncio.Event()
        self.stop: asyncio.Event = asyncio.Event()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
        """Leave the signals to whoever runs the event loop."""
        return nullcontext()

    async def main_loop(self) -> None:
        """Wait until `stop` is set."""
        self.ready.set()
        while not self.stop.is_set():
            await self.on_tick(0)  # renews the Date header
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.stop.wait()

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


async def stop_listening(server: asyncio.Server | WebSocketServer) -> None:
    """Close a server, and wait until the connections it accepted have reached their protocols, so that they can be cut.

    One that is between the two when an asyncio server closes would belong to nobody, its socket left to the garbage
    collector; so nothing is accepted for some turns before. uvloop does not let its sockets be touched, and loses none.
    """
    for bound in server.sockets:
        with suppress(NotImplementedError, RuntimeError):
            asyncio.get_running_loop().remove_reader(bound)
    for turn in range(2 * _TURNS):
        if turn == _TURNS:
            server.close()
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
