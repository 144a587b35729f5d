"""aiohttp connections that say why they could not be made, lose no received data, and release their sockets.

They use internals of aiohttp where it has no public way. `require_inside` makes sure that a version of aiohttp with
different internals is refused instead of half working.
"""

# ruff: noqa: SLF001

from __future__ import annotations

import os
import re
import select
import ssl
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

from postdicom_async.face import translated
from postdicom_async.http.problems import NeverConnected, explain

if TYPE_CHECKING:
    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader
    from aiohttp.tracing import Trace

_IDLE_SECONDS = 5.0  # about the shortest keep-alive of common servers, so that a dead connection is rarely picked
_LEFT_IN_THE_SOCKET = 1 << 20
_MOST_INTERIM = 32  # answers of status 1xx before the final one
_HEAD_ENDS = b"\r\n\r\n"


def require_inside(thing: object, *names: str) -> None:
    """Refuse a version of aiohttp that lacks internals used here; setting an attribute nobody reads would do nothing.

    Raises:
        RuntimeError: an attribute is missing.
    """
    if missing := [name for name in names if not hasattr(thing, name)]:
        kind = thing if isinstance(thing, type) else type(thing)
        raise RuntimeError(f"this version of aiohttp cannot be used: {kind.__name__} has no {', '.join(missing)}")


class _Protocol(ResponseHandler):
    """One connection.

    Attributes of aiohttp used here: ``_payload``, the body being read (None before its head has arrived), and
    ``_parser``. ``_interim`` counts answers of status 1xx before the final one.
    """

    _interim = 0

    def set_response_params(self, **options: Any) -> None:
        """Expect an answer."""
        self._payload = None
        self._interim = 0
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived: first a head, then whatever follows it.

        Otherwise aiohttp loses a whole answer if it cannot parse what follows it, such as the body of a 204.
        """
        while self._payload is None and 3 < (end := data.find(_HEAD_ENDS) + len(_HEAD_ENDS)) < len(data):
            super().data_received(data[:end])
            if self.exception() is not None:
                return
            data = data[end:]
        super().data_received(data)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Pass on a head, if it is acceptable.

        aiohttp would skip any number of interim answers (1xx), and takes an oddly spelled ``chunked`` for a body
        without a marked end.
        """
        head = data[0]
        if 100 <= head.code < 200 and head.code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._payload = None
            self._interim += 1
        is_odd = not head.chunked and "chunked" in str(head.headers.getall("Transfer-Encoding", ())).lower()
        if is_odd or self._interim > _MOST_INTERIM:
            self.set_exception(HttpProcessingError())
            if self.transport is not None:
                self.transport.abort()
            return
        super().feed_data(data, size)

    def close(self) -> None:
        """Release the socket now.

        aiohttp would first flush its buffer, which a silent server never accepts, and wait for a close_notify of TLS. A
        connection is closed when nobody wants more of it, or when all are closed: then whoever still reads from it gets
        an error. aiohttp would leave the reader waiting, or take the end of the connection for the end of the answer.
        """
        if self._payload is not None and not self._payload.is_eof() and self._payload.exception() is None:
            self._payload.set_exception(aiohttp.ClientConnectionError())
        self.abort()

    def is_connected(self) -> bool:
        """Whether a request may be sent on it. aiohttp asks when it picks an idle connection.

        Data that arrived without a request is not an answer: it is the end of the connection, which the event loop has
        not seen yet, or unsolicited bytes, which would be taken for the answer to the next request.
        """
        return (
            super().is_connected() and not self.should_close and not self._has_news() and not self._has_begun_another()
        )

    def _has_begun_another(self) -> bool:
        """Whether another answer has begun after the last one: it would be taken for the answer to the next request."""
        if self._parser is None or (self._payload is not None and not self._payload.is_eof()):
            return False
        try:
            return self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001 - whatever it is, there is something
            return True

    def _has_news(self) -> bool:
        socket = self.transport.get_extra_info("socket") if self.transport is not None else None
        if socket is None or socket.fileno() < 0:
            return socket is not None
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(socket.fileno(), select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([socket.fileno()], [], [], 0)[0])

    def connection_lost(self, exc: BaseException | None) -> None:
        """Read what still arrived, and tell a body that was cut off from one that ended."""
        if exc is not None:
            self._take_what_came()
        elif self._was_cut_off():
            exc = ConnectionAbortedError()
        body = self._payload
        was_whole = body is None or body.is_eof()
        super().connection_lost(exc)
        # aiohttp takes a reset for the end of a body delimited by the connection's end, and forgets the reader of a
        # body with malformed chunks.
        if body is not None and not was_whole and body.exception() is None and (exc is not None or not body.is_eof()):
            body.set_exception(aiohttp.ClientPayloadError("cut"))

    def _was_cut_off(self) -> bool:
        """Whether TLS ended without close_notify (RFC 8446 section 6.1): anybody on the path can cut a connection.

        asyncio and uvloop treat it as a normal end.
        """
        tls: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object") if self.transport is not None else None
        if tls is None:
            return False
        try:
            return bool(tls.read(1))
        except ssl.SSLZeroReturnError:
            return False
        except (OSError, ValueError):
            return True

    def _take_what_came(self) -> None:
        """Read what the system still holds: a server that refuses a request halfway says why and hangs up.

        Further writes then fail, and the event loop drops the connection without reading what it brought.
        """
        transport = self.transport
        if transport is None or os.name != "posix" or transport.get_extra_info("sslcontext") is not None:
            return
        socket = transport.get_extra_info("socket")
        taken = 0
        with suppress(OSError):
            while taken < _LEFT_IN_THE_SOCKET and (data := os.read(socket.fileno(), 1 << 16)):
                taken += len(data)
                self.data_received(data)


class _Connection(Connection):
    """A connection in use, released silently if its user forgot to."""

    def __del__(self, _warnings: Any = None, /) -> None:
        if self._protocol is not None:
            with suppress(RuntimeError):  # the event loop has ended
                drop = partial(self._connector._release, should_close=True)
                self._loop.call_soon_threadsafe(drop, self._key, self._protocol)


class Connecting(aiohttp.TCPConnector):
    """Makes our connections, and raises httpx's errors that say why one failed: the request has not left then."""

    def __init__(self, *, proxied: bool, **options: Any) -> None:
        super().__init__(
            limit=0,  # the session's limiter is in front of it
            keepalive_timeout=_IDLE_SECONDS,
            **options,
        )
        self._proxied = proxied
        require_inside(self, "_factory", "_conns", "_acquired", "_release", "_close")
        require_inside(ResponseHandler(loop=self._loop), "_payload", "_parser")
        make: Any = partial(_Protocol, loop=self._loop)
        self._factory = make

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Return a connection, an idle one or a new one."""
        with translated((aiohttp.ClientError, OSError, ValueError), self._why_not):
            connection = await super().connect(req, traces, timeout)
        connection.__class__ = _Connection
        return connection

    def _why_not(self, error: Exception) -> Exception:
        if isinstance(error, TimeoutError):
            return httpx.ConnectTimeout("no connection in time")
        if isinstance(error, aiohttp.InvalidURL):
            return httpx.InvalidURL("the address cannot be used")
        if isinstance(error, aiohttp.ClientResponseError):
            return NeverConnected(explain(f"tunnel error: {error.status}"))
        return NeverConnected(explain(system_words(error), proxied=self._proxied))


def close_without_loop(connector: aiohttp.BaseConnector) -> None:
    """Close the sockets of a connector whose event loop has ended; a regular close would need that loop."""
    idle = [protocol for kept in connector._conns.values() for protocol, _ in kept]
    for protocol in [*idle, *connector._acquired]:
        transport: Any = protocol.transport
        if hasattr(transport, "_ssl_protocol"):
            transport = transport._ssl_protocol._transport  # the transport below TLS
        if type(transport).__module__.startswith("asyncio."):  # uvloop closes its own
            with suppress(RuntimeError):  # of the loop, which has ended
                transport._call_connection_lost(None)
    with suppress(RuntimeError):
        connector._close()


def system_words(error: Exception) -> str:
    """Return the system's or OpenSSL's message, to be searched, never shown: aiohttp's text begins with the host."""
    behind = getattr(error, "os_error", error)
    text = f"{type(behind).__name__} {behind}"
    # asyncio says only that the call failed.
    return " ".join([text, *(os.strerror(int(number)) for number in re.findall(r"\[Errno (\d+)\]", text))])
