"""One connection as uvicorn sees it, with the bounds that uvicorn does not have.

uvicorn waits for ever for the rest of a request's head, for its body, and for a client that does not read on. Each
connection here has one timer that is looked at a few times a period: it says what the archive waits for, and how long.
Time only counts while the archive waits for the client, never while the client waits for it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from postdicom_async.emulator.context import ArchiveLimits

__all__ = ["BoundedConnection", "bounded"]

LEAST = 1024
"""Bytes of a body that must come in `ArchiveLimits.body_timeout`."""

_LOOKS = 4
"""How often a period is looked at."""

_LINGER = 1
"""Seconds that a client has to read why it is cut off."""


class BoundedConnection(H11Protocol):
    """uvicorn's protocol: whoever takes too long, or comes when there is no room, is told and cut off."""

    limits: ArchiveLimits

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_for = ""
        self._since = 0.0
        self._received = 0
        self._unsent = 0
        self._is_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, or refuse the connection."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._tell_and_end(503, "too many connections are open")
        else:
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; what comes after the end is of no use."""
        if not self._is_over:
            self._received += len(data)
            super().data_received(data)

    def _look(self) -> None:
        """See what the archive waits for, and cut the connection when that took too long."""
        now, waiting_for = self.loop.time(), self._what()
        if waiting_for != self._waiting_for or self._has_gone_on(waiting_for):
            self._waiting_for, self._since, self._received = waiting_for, now, 0
        patience = self.limits.head_timeout if waiting_for == "head" else self.limits.body_timeout
        if waiting_for and now - self._since >= patience:
            self._end(waiting_for)
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

    def _end(self, waiting_for: str) -> None:
        is_answered = self.cycle is not None and self.cycle.response_started and waiting_for == "body"
        if waiting_for == "read" or is_answered:
            self.transport.abort()
        elif waiting_for == "head" and not self.conn.trailing_data[0]:
            self.transport.close()  # nothing was asked
        else:
            self._tell_and_end(408, f"the {waiting_for} of the request did not come in time")

    def _tell_and_end(self, status: int, reason: str) -> None:
        """Answer beside uvicorn's own course, which is told that the connection is gone.

        The socket lives for a moment more: closed with bytes unread, it would take the answer along.
        """
        lines = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"X-Error-Reason: {reason}",
            "Content-Length: 0",
            "Connection: close",
        )
        self._is_over = True
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write("\r\n".join([*lines, "", ""]).encode())
        self.transport.write_eof()
        self.transport.resume_reading()
        self._timer = self.loop.call_later(_LINGER, self.transport.abort)


def bounded(limits: ArchiveLimits) -> Callable[..., asyncio.Protocol]:
    """Return the kind of connection that has these limits."""
    return type("BoundedConnection", (BoundedConnection,), {"limits": limits})
