"""A scripted HTTP/1.1 server on a real socket, for showing what a client does when things go wrong.

    async with FaultyServer([Reply(503), Reply(200, body=b"x" * 100, cut_after=50, reset=True)]) as server:
        await client.get(server.url)
    server.requests[0].body

The script is one `Reply` for every request, a list with one entry a request, or a function of the complete
request. Requests beyond the end of a list are answered 501 and make the context fail when it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import itertools
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from tests.support.exchange import Reply, Request
from tests.support.stream_server import StreamServer
from tests.support.wire import read_body, read_head

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["FaultyServer", "Handler", "Reply", "Request", "Script", "unused_port"]

Handler = Callable[[Request], Reply | Awaitable[Reply]]
Script = Reply | Handler | Iterable[Reply | Handler]
OnAccept = Literal["serve", "silent", "reset", "close"]

READ = 65536
FOR_EVER = 3600.0
LINGER = 2.0
HEAD_LIMIT = 4 * 1024 * 1024
OK = Reply()
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def unused_port() -> int:
    """Find a loopback port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class FaultyServer:
    """The server; see the module.

    Attributes:
        requests: every request received, complete or not, in the order in which reading ended.
        connections: how many were accepted.
        open_connections: how many are open now.
        in_flight: requests begun and not yet answered.
        peak_in_flight: the most there ever were.
        disconnects: answers during which the client disconnected.
        unexpected: requests beyond the end of the script.
        failures: exceptions of the test's own handlers.

    ``read_rate``: bytes of a request's body read per second, unless its `Reply` sets another rate.
    """

    def __init__(
        self,
        script: Script = OK,
        *,
        on_head: Callable[[Request], Reply | None] | None = None,
        on_accept: OnAccept = "serve",
        ssl_context: ssl.SSLContext | None = None,
        keep_bodies: bool = True,
        read_rate: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.requests: list[Request] = []
        self.connections = self.open_connections = self.in_flight = self.peak_in_flight = 0
        self.disconnects = self.unexpected = 0
        self.failures: list[Exception] = []
        self._script = _steps(script)
        self._on_head, self._on_accept, self._ssl = on_head, on_accept, ssl_context
        self._keep_bodies, self._host = keep_bodies, host
        self._reading = Reply(read_rate=read_rate)
        tls = ssl_context if on_accept == "serve" else None
        self._server = StreamServer(self._connection, host=host, ssl=tls, limit=HEAD_LIMIT)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
        if kind is None and self.failures:
            raise AssertionError("a handler of the test failed") from self.failures[0]
        if kind is None and self.unexpected:
            raise AssertionError(f"{self.unexpected} requests more than the script has answers")

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        await self._server.close()

    def refuse(self) -> None:
        """From now on refuse connections; those that are open stay."""
        self._server.refuse()

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._server.port

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return f"{'https' if self._ssl else 'http'}://{self._host}:{self.port}"

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of the requests that arrived whole."""
        return [request.body for request in self.requests if request.complete]

    async def until(self, condition: Callable[[Self], bool], timeout: float = 5.0) -> None:
        """Wait until a condition on the server is true."""
        async with asyncio.timeout(timeout):
            while not condition(self):
                await asyncio.sleep(0.005)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self.open_connections += 1
        try:
            if self._on_accept == "silent":
                await asyncio.sleep(FOR_EVER)
            elif self._on_accept == "reset":
                _reset_on_close(writer)
            else:
                while self._on_accept == "serve" and await self._exchange(reader, writer, number):
                    pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            self.disconnects += 1
        finally:
            self.open_connections -= 1
            await _hang_up(writer)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """Serve one request; True if the connection may carry another."""
        head = await read_head(reader, number)
        if head is None:
            return False
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            step = self._next_step(head)
            early = step if isinstance(step, Reply) else None
            if head.header("expect").lower() == "100-continue" and not (early and early.answer_before_body):
                writer.write(CONTINUE)
            request = await self._receive(head, reader, early)
            reply = early or await self._ask(step, request)
            return await _Answer(reply, request, reader, writer).give()
        finally:
            self.in_flight -= 1

    def _next_step(self, head: Request) -> Reply | Handler:
        early = self._on_head(head) if self._on_head else None
        if early is not None:
            return early
        try:
            return next(self._script)
        except StopIteration:
            self.unexpected += 1
            return Reply(501)

    async def _ask(self, step: Reply | Handler, request: Request) -> Reply:
        assert callable(step)
        try:
            answer = step(request)
            reply = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            self.failures.append(error)
            return Reply(501)
        if reply.acts_on_the_body:
            self.failures.append(ValueError("faults in reading the request come from a list or on_head"))
        return reply

    async def _receive(self, head: Request, reader: asyncio.StreamReader, early: Reply | None) -> Request:
        """Read as much of the body as the reply allows, and record the request whatever happens."""
        plan = early or self._reading
        limits = (
            plan.drop_mid_request_after,
            plan.stop_reading_after,
            0 if plan.answer_before_body else None,
        )
        limit = min((limit for limit in limits if limit is not None), default=None)
        kept, digest, size, complete = bytearray(), hashlib.sha256(), 0, False
        try:
            async with contextlib.aclosing(read_body(head, reader, limit, plan.read_rate)) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    digest.update(piece)
                    if self._keep_bodies:
                        kept += piece
            complete = limit is None or head.framing == "none"
        finally:
            request = replace(head, body=bytes(kept), size=size, sha256=digest.hexdigest(), complete=complete)
            self.requests.append(request)
        return request


class _Answer:
    """Sends one reply on one connection."""

    def __init__(
        self, reply: Reply, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reply, self.request, self.reader, self.writer = reply, request, reader, writer

    async def give(self) -> bool:
        """Answer, or fail to, as scripted; return True if the connection may carry another request."""
        reply = self.reply
        if reply.silent or reply.stop_reading_after is not None:
            await asyncio.sleep(FOR_EVER)
        if reply.drop_after_request or reply.drop_mid_request_after is not None:
            return self._end()
        await asyncio.sleep(reply.delay_before)
        await self._write()
        if reply.answer_before_body and reply.lingering and not reply.reset:
            await self._linger()
        return self._end() if reply.closes else True

    def _end(self) -> bool:
        if self.reply.reset:
            _reset_on_close(self.writer)
        return False

    async def _write(self) -> None:
        self.writer.write(self.reply.head() if self.reply.raw is None else self.reply.raw)
        await self.writer.drain()
        while self.reply.again is not None:
            self.writer.write(self.reply.again)
            await self.writer.drain()
            await asyncio.sleep(self.reply.pause)
        if self.reply.raw is None and self.request.method != "HEAD":
            await self._write_body()

    async def _write_body(self) -> None:
        reply, chunked = self.reply, self.reply.framing == "chunked"
        stops = [stop for stop in (reply.cut_after, reply.stall_after) if stop is not None]
        for piece in _pieces(reply, min(stops, default=None)):
            self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self.writer.drain()
            await asyncio.sleep(reply.pause)
        if reply.stall_after is not None:
            await asyncio.sleep(FOR_EVER)
        if chunked and reply.cut_after is None:
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()
        if reply.cut_after is not None and reply.reset:
            # An RST discards what is still in flight; this lets the bytes before the cut arrive.
            await asyncio.sleep(0.02)

    async def _linger(self) -> None:
        if self.writer.can_write_eof():
            self.writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while await self.reader.read(READ):
                    pass


def _steps(script: Script) -> itertools.repeat[Reply | Handler] | itertools.chain[Reply | Handler]:
    if isinstance(script, Reply) or callable(script):
        return itertools.repeat(script)
    return itertools.chain(script)


def _pieces(reply: Reply, stop: int | None) -> Iterable[bytes]:
    left = stop
    for block in [reply.body] if isinstance(reply.body, bytes) else reply.body:
        for start in range(0, len(block), reply.chunk_size):
            piece = block[start : start + reply.chunk_size][:left]
            if not piece:
                return
            left = None if left is None else left - len(piece)
            yield piece


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    handle = writer.get_extra_info("socket")
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close without waiting for a peer that does not read."""
    writer.close()
    try:
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
