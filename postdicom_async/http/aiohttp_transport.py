"""The adapter to aiohttp: one httpx request out, one httpx answer back, and none of aiohttp's own additions.

aiohttp has a parser in C and uses Python's own TLS; the rest of the package knows only httpx. Things this adapter keeps
aiohttp from doing, each explained where it happens: repeating a request, truncating a body, dropping bytes that arrived
before a broken connection, taking a reset for the end of a body, losing an early answer when a write fails, letting
sockets linger.

This module imports aiohttp, which takes longer than most requests: it is imported with the first of them.
"""

from __future__ import annotations

# ruff: noqa: SLF001 - see `require_inside`
import asyncio
import ssl
import threading
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
import anyio
import anyio.to_thread
import httpx
from yarl import URL

from postdicom_async.face import translated
from postdicom_async.http.connections import Connecting, close_without_loop, require_inside
from postdicom_async.http.problems import UnreadableHead, refused_by_alert
from postdicom_async.http.tls import tls_context
from postdicom_async.settings import Tls

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from postdicom_async.settings import Settings

_READ_AHEAD = 128 * 1024  # bytes; aiohttp stops reading at twice this, so a slow reader holds that much of each answer
_PIECES_IN_A_ROW = 8
_FIELD = 64 * 1024  # bytes of the answer's head: its status line, or one field
_FIELDS = 256
_OWN_PIECE = 64 * 1024  # bytes; a piece this large is sent without being copied behind the request's head
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

require_inside(aiohttp.StreamReader, "_buffer", "_wait", "_read_nowait", "_read_nowait_chunk")
require_inside(aiohttp.ClientResponse, "_writer")


class AiohttpTransport(httpx.AsyncBaseTransport):
    """An httpx transport on aiohttp.

    It behaves as an httpx transport does: no redirects, no cookies, no decompression, no added headers, no proxies from
    the environment. It has no connection limit of its own; the session's limiter is in front of it.

    It can be created outside an event loop. The first request over TLS reads the system's certificates, in a thread, so
    that the event loop continues.

    State: connections belong to the event loop that made them, so there is one `Edge` for each loop. ``_context`` is
    set once, under a lock, by the thread that reads the certificates. ``_closings`` counts calls of `aclose`: a request
    that waits for them must not open a connection that nobody would close.

    Raises:
        UsageError: a certificate or key cannot be used.
    """

    def __init__(self, settings: Settings, *, proxy: str | None = None, context: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._proxy = proxy
        self._context = tls_context(settings.tls) if context is None and settings.tls != Tls() else context
        self._edges: dict[asyncio.AbstractEventLoop, Edge] = {}
        self._closings = 0
        self._reading = threading.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return as soon as the answer's head has arrived; the httpx errors raised hold no URL."""
        if self._context is None and (request.url.scheme == "https" or (self._proxy or "").startswith("https")):
            closings = self._closings
            limiter = anyio.CapacityLimiter(1)  # the threads of others may wait for this very request
            await anyio.to_thread.run_sync(self._read_certificates, abandon_on_cancel=True, limiter=limiter)
            if closings != self._closings:
                raise httpx.ConnectError("closed before there was a connection")
        loop = asyncio.get_running_loop()
        edge = self._edges.get(loop)
        if edge is None:
            self._leave([ended for ended in list(self._edges) if ended.is_closed()])
            self._edges[loop] = edge = Edge(connect=self._settings.timeouts.connect, proxy=self._proxy)
        return await edge.send(request, self._context)

    def _read_certificates(self) -> None:
        """Read them once, however many requests wait for them."""
        with self._reading:
            if self._context is None:
                self._context = tls_context(self._settings.tls)

    def _leave(self, loops: Iterable[asyncio.AbstractEventLoop]) -> None:
        """Close the connections that belong to event loops other than the running one."""
        for loop in loops:
            edge = self._edges.pop(loop, None)
            if edge is not None:
                edge.leave()

    async def aclose(self) -> None:
        """Close every connection."""
        self._closings += 1
        edge = self._edges.pop(asyncio.get_running_loop(), None)
        self._leave(list(self._edges))
        if edge is not None:
            await edge.close()


class Edge:
    """A pool of aiohttp connections in one event loop; its requests raise httpx's errors, with texts of our own.

    ``proxy`` may hold credentials; they go only into the header that takes them to the proxy.
    """

    def __init__(self, *, connect: float, proxy: str | None) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._proxy, self._proxy_headers = _without_credentials(proxy)
        self._session = aiohttp.ClientSession(
            connector=_connector(proxy),
            cookie_jar=_NoCookies(),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect),  # name, connection, proxy and handshake
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_NOT_ADDED,
            read_bufsize=_READ_AHEAD,
            max_line_size=_FIELD,
            max_field_size=_FIELD,
            max_headers=_FIELDS,
            middlewares=(_once,),
        )

    async def close(self) -> None:
        """Close every connection; requests in flight fail."""
        await self._session.close()

    def leave(self) -> None:
        """Close every connection from outside their event loop, which may have ended."""
        connector = self._session.connector
        if connector is None or connector.closed:
            return
        self._session.detach()
        with suppress(RuntimeError):  # it is just ending
            if self.loop.is_closed():
                close_without_loop(connector)
            else:
                self.loop.call_soon_threadsafe(connector._close)

    def __del__(self) -> None:
        """Close a forgotten pool, without aiohttp's warnings about objects that the user never saw."""
        if hasattr(self, "_session"):
            self.leave()

    async def send(self, request: httpx.Request, context: ssl.SSLContext | None) -> httpx.Response:
        """Send a request and return as soon as the answer's head has arrived."""
        headers, length, chunked = _head(request)
        body = _body_of(request, length)
        through: dict[str, Any] = {}
        if self._proxy is not None:
            through["proxy"] = self._proxy
            if request.url.scheme == "https":
                through["proxy_headers"] = self._proxy_headers
            else:
                headers += self._proxy_headers.items()
        with translated((httpx.TransportError, aiohttp.ClientError, ValueError), partial(_why_no_answer, body)):
            answer = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=headers,
                data=body,
                chunked=chunked or None,
                allow_redirects=False,
                ssl=True if context is None else context,
                **through,
            )
        if body is not None:
            body.is_answered = True
            if body.failure is not None:
                answer.close()
                raise body.failure
        return httpx.Response(
            answer.status,
            headers=answer.raw_headers,
            stream=_AnswerStream(answer),
            extensions={"http_version": b"HTTP/1.0" if answer.version == aiohttp.HttpVersion10 else b"HTTP/1.1"},
        )


def _why_no_answer(body: _Body | None, error: Exception) -> Exception:
    if isinstance(error, aiohttp.InvalidURL):
        return httpx.InvalidURL("the address cannot be used")
    if not isinstance(error, httpx.TransportError):  # a character that is not allowed in a header
        return httpx.LocalProtocolError("the request cannot be sent as it is")
    # An error of `_once` or of the connector. What stopped the sending says more than what followed from it.
    return body.failure if body is not None and body.failure is not None else error


def _head(request: httpx.Request) -> tuple[list[tuple[str, str]], int | None, bool]:
    """Return the request's headers in their original case, its Content-Length, and whether it is chunked."""
    headers, length, chunked = [], None, False
    for name, value in request.headers.raw:
        lowered = name.lower()
        if lowered == b"transfer-encoding":
            chunked = True  # aiohttp writes it itself
            continue
        if lowered == b"content-length":
            length = int(value)
        headers.append((name.decode("latin-1"), value.decode()))
    return headers, length, chunked


def _body_of(request: httpx.Request, length: int | None) -> _Body | None:
    try:
        if not request.content:
            return None
    except httpx.RequestNotRead:
        pass
    return _Body(request.stream, length)


def _without_credentials(proxy: str | None) -> tuple[str | None, dict[str, str]]:
    """Return a proxy's address without credentials, since aiohttp shows it in texts, and a header with them.

    The address is None for a proxy that `_connector` takes care of.
    """
    if proxy is None or not proxy.startswith("http"):
        return None, {}
    parts = urlsplit(proxy)
    credentials, at, host = parts.netloc.rpartition("@")
    if not at:
        return proxy, {}
    user, _, password = credentials.partition(":")
    encoded = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Proxy-Authorization": f"Basic {encoded}"}


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request once.

    aiohttp by itself repeats GET, PUT and DELETE when a connection breaks, and PostDICOM has GETs that create. It
    repeats only on its own errors: here they are turned into others before it sees them.
    """
    answer: aiohttp.ClientResponse | None = None
    try:
        with translated((aiohttp.ClientError, OSError), _broken):
            answer = await handler(request)
        return answer
    finally:
        if answer is None:
            await request.close()  # a request that failed or was cancelled must not read from its source any more


def _broken(error: Exception) -> httpx.TransportError:
    """Return httpx's error for an established connection that broke; the request may have arrived."""
    if isinstance(error, aiohttp.ClientResponseError):
        return UnreadableHead("the answer's head cannot be read")
    return refused_by_alert(str(error)) or httpx.ReadError("the connection broke")


def _connector(proxy: str | None) -> aiohttp.TCPConnector:
    """Return the connector; a SOCKS proxy is handled by it, any other one by the request."""
    if proxy is not None and proxy.startswith("socks"):
        from postdicom_async.http.socks import socks_connector

        return socks_connector(proxy)
    # The system's own resolver, even if aiodns is installed.
    return Connecting(proxied=proxy is not None, resolver=aiohttp.ThreadedResolver())


class _NoCookies(aiohttp.DummyCookieJar):
    """Keeps no cookies and parses none: aiohttp would log odd ones."""

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        """Keep none."""


# --- bodies ---------------------------------------------------------------------------------------------------------


class _Body(aiohttp.Payload):
    """A request's body, written by a task of aiohttp's.

    Attributes:
        failure: what its source raised, or the error that its length is not the announced one. The connection is then
            dropped.
        is_answered: whether the answer's head has arrived; failures after that are ignored.
    """

    def __init__(self, stream: object, length: int | None) -> None:
        super().__init__(stream)
        self.failure: Exception | None = None
        self.is_answered: bool = False
        self._length = length

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse: a body is sent, never read."""
        raise NotImplementedError

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it.

        A failure is not raised: the task that waits for the answer learns that the connection is gone, and may still
        find an answer that came before. aiohttp ends this task with the answer.
        """
        is_secure = writer.transport is not None and writer.transport.get_extra_info("sslcontext") is not None
        async with aclosing(self._measured()) as pieces:
            try:
                async for piece in pieces:
                    if not await _was_taken(piece, writer, is_secure=is_secure):
                        break
                    del piece  # not kept alive while the next is read
                else:
                    return
            except Exception as error:  # noqa: BLE001 - a source may raise anything; the caller gets it
                if not self.is_answered:
                    self.failure = error
        if self.failure is not None and writer.transport is not None:
            writer.transport.abort()
        await asyncio.get_running_loop().create_future()

    async def _measured(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces; the last, which completes the request, only when it is certain that no more follow."""
        left, last = self._length, b""
        source = aiter(self._value)
        try:
            async for piece in source:
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        raise httpx.LocalProtocolError("the body is longer than announced")
                    if left == 0:
                        last += piece
                        continue
                yield piece
                del piece
            if left:
                raise httpx.LocalProtocolError("the body is shorter than announced")
            yield last
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()


async def _was_taken(piece: bytes, writer: AbstractStreamWriter, *, is_secure: bool) -> bool:
    try:
        if is_secure:
            # A failing write discards received data that nobody has read, and with TLS it cannot be recovered: let the
            # event loop read first.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if len(piece) >= _OWN_PIECE:
            writer.send_headers()
        await writer.write(piece)
    except (OSError, aiohttp.ClientError):
        return False
    return True


async def _next_of(content: aiohttp.StreamReader) -> bytes:
    """Return the next bytes: a large piece as it came, small ones joined; empty at the end.

    ``readany`` would join large ones too: half a megabyte more for each answer, and copied.
    """
    while (problem := content.exception()) is None and not content.at_eof():
        if not content._buffer:
            await content._wait("read")
        elif len(content._buffer[0]) >= _OWN_PIECE:
            return content._read_nowait_chunk(-1)
        else:
            return content._read_nowait(-1)
    if problem is not None:
        raise problem
    return b""


class _AnswerStream(httpx.AsyncByteStream):
    """The answer's body as it arrives."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        """Release the connection of a forgotten answer: aiohttp's pool would keep it."""
        if not self._answer.closed:
            with suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self._answer.close)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._answer.content
        for turn in count(1):
            if turn % _PIECES_IN_A_ROW == 0:
                # anyio's scopes cancel a task only while it really waits, and a fast archive has always sent more by
                # then: the download would continue for a browser that has gone.
                await asyncio.sleep(0)
            problem: httpx.TransportError | None = None
            try:
                piece = await _next_of(content)
            except (aiohttp.ClientError, OSError, RuntimeError) as error:
                # aiohttp's public methods no longer read, but bytes that came before the connection broke may hold
                # whole instances.
                piece = content._read_nowait(-1)
                problem = None if piece else _broken(error)
            if problem is not None:
                raise problem
            if piece:
                yield piece
            elif content.exception() is None:  # otherwise the next turn raises it
                return

    def close_at_once(self) -> bool:
        """Give the connection back if that needs no waiting, as after most answers."""
        if not self._answer.content.is_eof() or self._answer._writer is not None:  # something is still being sent
            return False
        self._answer.release()
        return True

    async def aclose(self) -> None:
        """Give the connection back, or drop it when the body was not read to its end.

        It waits only for the end of a request that was answered before all of it was sent.
        """
        if self._answer.content.is_eof():
            self._answer.release()
        else:
            self._answer.close()
        await self._answer.wait_for_close()
