"""The Cloud API's WebSocket: binary frames in and out, each request handled by itself, with the oddities asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import struct
from http import HTTPStatus
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from weakref import WeakSet

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from postdicom_async.emulator.cloud.dispatch import Asked, Dispatch, session_of
from postdicom_async.emulator.cloud.frames import SESSION, UPLOAD, BadFrame, decode_request, encode_response
from postdicom_async.emulator.cloud.parameters import BadParameters
from postdicom_async.emulator.hosts import is_known_host, may_connect
from postdicom_async.emulator.http_server import stop_listening

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine

    from websockets.asyncio.server import Server
    from websockets.http11 import Request as Opening
    from websockets.http11 import Response as Refused

    from postdicom_async.emulator.cloud.frames import Request
    from postdicom_async.emulator.cloud.oddities import Drop
    from postdicom_async.emulator.cloud.state import Cloud

__all__ = ["CloudListener"]

_LARGEST = 256 * 1024 * 1024
_BIG = 64 * 1024
_BIG_AT_ONCE = 16
"""So many requests with data are in memory at once, over all sockets."""

_QUIET = 0.05
"""Held back answers are given once no other has come for so many seconds."""

_PARTS = {(UPLOAD, 3), (UPLOAD, 4)}

_logger = logging.getLogger("postdicom_async.emulator.cloud")
# The library logs addresses and frames, which hold the keys and patient data; nobody can turn this logger on.
_SILENT = logging.Logger("postdicom_async.emulator.websockets", logging.CRITICAL + 1)  # noqa: LOG001


class CloudListener:
    """Listens for WebSockets and answers what comes over them."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._dispatch = Dispatch(cloud)
        self._connections: set[ServerConnection] = set()
        self._accepted: WeakSet[ServerConnection] = WeakSet()
        self._running: set[asyncio.Task[None]] = set()
        self._big = asyncio.Semaphore(_BIG_AT_ONCE)
        self._numbers = 0
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        cloud.cut = self._cut_from_anywhere

    async def start(self, bound: socket.socket) -> None:
        """Listen on a bound socket."""
        self._loop = asyncio.get_running_loop()
        self._server = await serve(
            self._serve,
            sock=bound,
            process_request=self._admit,
            create_connection=self._new_connection,  # type: ignore[arg-type]  # it is only called
            compression=None,
            max_size=_LARGEST,
            max_queue=4,
            open_timeout=self._cloud.context.options.limits.head_timeout,
            ping_timeout=60,
            close_timeout=1,
            server_header=None,
            logger=_SILENT,
        )

    async def stop(self) -> None:
        """Cut every connection and forget what is not done yet."""
        server, self._server = self._server, None
        if server is None:
            return
        self._cut()
        await stop_listening(server)
        for connection in self._accepted:  # those as well that have not asked for anything yet
            if hasattr(connection, "transport"):
                connection.transport.abort()
        await server.wait_closed()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _new_connection(self, *given: Any, **options: Any) -> ServerConnection:
        connection = ServerConnection(*given, **options)
        self._accepted.add(connection)
        return connection

    def _cut_from_anywhere(self) -> None:
        """Cut every connection, at once in the archive's own thread, else as soon as it gets to it."""
        if self._loop and self._loop is not _running_loop():
            self._loop.call_soon_threadsafe(self._cut)
        else:
            self._cut()

    def _cut(self) -> None:
        for connection in list(self._connections):
            connection.transport.abort()

    def _admit(self, connection: ServerConnection, opening: Opening) -> Refused | None:
        options, headers = self._cloud.context.options, opening.headers
        host, origins = "".join(headers.get_all("Host")[:1]), headers.get_all("Origin")
        if len(self._connections) >= options.limits.max_connections:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open\n")
        if not is_known_host(host, options.hosts):
            return connection.respond(HTTPStatus.MISDIRECTED_REQUEST, "the archive has another name\n")
        if not all(may_connect(origin, host, options.allow_origin) for origin in origins):
            return connection.respond(HTTPStatus.FORBIDDEN, "pages of this origin may not connect\n")
        return self._admit_client(connection, opening)

    def _admit_client(self, connection: ServerConnection, opening: Opening) -> Refused | None:
        path, _, query = opening.path.partition("?")
        if path.rstrip("/") not in {"", self._cloud.oddities.address_ends.rstrip("/")}:
            return connection.respond(HTTPStatus.NOT_FOUND, "there is nothing here\n")
        given, guesses, address = parse_qs(query), self._cloud.context.key_guesses, _address_of(connection)
        if guesses.begin(address):
            return connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "too many wrong keys came from there\n")
        if set(given) != {"ClientUniqueId"} or not self._cloud.is_api_key("".join(*given.values())):
            return connection.respond(HTTPStatus.FORBIDDEN, "ClientUniqueId is not known\n")
        guesses.right(address)
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        self._numbers += 1
        self._connections.add(connection)
        self._cloud.sockets = len(self._connections)
        try:
            await _Socket(self._cloud, self._dispatch, connection, self._numbers, self).read()
        finally:
            self._connections.discard(connection)
            self._cloud.sockets = len(self._connections)

    async def room(self, request: Request) -> bool:
        """Wait until a request's data may be in memory; return whether `leave` must be called."""
        is_big = len(request.data) > _BIG or len(request.text) > _BIG
        if is_big:
            await self._big.acquire()
        return is_big

    def leave(self) -> None:
        """Say that a request's data are gone."""
        self._big.release()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the reading; it goes on when its connection is gone."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


class _Socket:
    """One connection."""

    def __init__(
        self, cloud: Cloud, dispatch: Dispatch, connection: ServerConnection, number: int, listener: CloudListener
    ) -> None:
        self._cloud = cloud
        self._dispatch = dispatch
        self._connection = connection
        self._number = number
        self._listener = listener
        self._session = ""
        self._own_id = 0
        self._in_flight = 0
        self._held: list[bytes] = []
        self._random = Random(number)  # noqa: S311 - an order, not a secret

    async def read(self) -> None:
        """Take requests until the connection ends."""
        try:
            if self._cloud.oddities.greeting:
                await self._connection.send(_greeting())
            async for message in self._connection:
                await self._take(message)
        except (BadFrame, BadParameters) as bad:
            _logger.warning("socket %d is closed: %s", self._number, bad)
            await self._connection.close(1007, str(bad)[:100])
        except ConnectionClosed:
            pass

    async def _take(self, message: str | bytes) -> None:
        if isinstance(message, str):
            raise BadFrame("a text frame came")
        request = decode_request(message)
        asked = Asked(request, self._session, _address_of(self._connection))
        self._dispatch.note(asked, self._number)
        if asked.key in _PARTS:
            self._in_flight += 1
            most = self._cloud.most_in_flight
            most[self._number] = max(most[self._number], self._in_flight)
        drop = self._cloud.oddities.drop(asked.key)
        if drop and drop.when == "before":
            self._connection.transport.abort()
            return
        held = await self._listener.room(request)
        self._listener.spawn(self._handle(asked, drop, is_big=held))

    async def _handle(self, asked: Asked, drop: Drop | None, *, is_big: bool) -> None:
        oddities = self._cloud.oddities
        is_silent = oddities.take(oddities.missing, asked.key)
        try:
            if oddities.take(oddities.refused, asked.key):
                envelope = self._dispatch.refusal(asked, oddities.refusal_text)
            else:
                envelope = await self._cloud.context.run(self._dispatch.handle, asked)
                self._keep_session(asked, envelope)
        finally:
            request, asked = _without_data(asked.request), None  # type: ignore[assignment] # the data go before waiting
            if is_big:
                self._listener.leave()
        if drop and drop.when == "after":
            self._connection.transport.abort()
        elif not is_silent:
            await self._answer(request, envelope, drop)

    def _keep_session(self, asked: Asked, envelope: dict[str, Any]) -> None:
        if asked.key[0] == SESSION and envelope["ResponseCode"] == 1:
            self._session = session_of(asked.given)

    async def _answer(self, request: Request, envelope: dict[str, Any], drop: Drop | None) -> None:
        oddities = self._cloud.oddities
        key = request.message_type, request.management_type
        told = oddities.envelope(key, envelope) if oddities.envelope else envelope
        body = told if isinstance(told, bytes) else json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
        self._own_id += 1
        frame = encode_response(
            oddities.response_types.get(request.message_type, 18),
            self._own_id,
            request,
            body,
            success=oddities.success_flag,
            message=oddities.frame_text,
        )
        if oddities.latency:
            await asyncio.sleep(oddities.latency)
        if key in _PARTS:
            self._in_flight -= 1
        if drop:
            self._send_half(frame)
        elif oddities.shuffled:
            await self._hold(frame, oddities.shuffled)
        else:
            await self._send([frame])

    async def _hold(self, frame: bytes, enough: int) -> None:
        self._held.append(frame)
        if len(self._held) < enough:
            there = len(self._held)
            await asyncio.sleep(_QUIET)
            if len(self._held) != there or self._held[-1] is not frame:
                return  # another came, and waits now
        held, self._held = self._held, []
        self._random.shuffle(held)
        await self._send(held)

    async def _send(self, frames: list[bytes]) -> None:
        oddities, send = self._cloud.oddities, self._connection.send
        try:
            for frame in frames:
                if oddities.text_frames:
                    await send('{"ResponseCode":1}')
                if oddities.garbage:
                    for garbage in _garbage():
                        await send(garbage)
                for _ in range(2 if oddities.duplicates else 1):
                    await send(frame)
        except ConnectionClosed:
            pass

    def _send_half(self, frame: bytes) -> None:
        """Send the head of a WebSocket frame and half of what it announces, then close."""
        size = len(frame)
        if size < 126:
            head = struct.pack(">BB", 0x82, size)
        elif size < 65_536:
            head = struct.pack(">BBH", 0x82, 126, size)
        else:
            head = struct.pack(">BBQ", 0x82, 127, size)
        self._connection.transport.write(head + frame[: size // 2])
        self._connection.transport.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _address_of(connection: ServerConnection) -> str:
    """Return the address that a connection comes from."""
    peer: tuple[object, ...] | None = connection.remote_address
    return str(peer[0]) if peer else ""


def _without_data(request: Request) -> Request:
    return type(request)(request.message_type, request.message_id, request.management_type, "")


def _greeting() -> bytes:
    body = b'{"ResponseCode":1,"ResponseMessage":"welcome"}'
    return encode_response(2, 0, decode_request(struct.pack("<HIii", SESSION, 0, 0, 0)), body)


def _garbage() -> list[bytes]:
    """Return frames that answer nothing: noise, an unknown type, an unknown request, a frame cut short, none."""
    whole = encode_response(18, 1, decode_request(struct.pack("<HIii", SESSION, 0xFFFF_FFFF, 1, 0)), b'{"A":1}')
    return [b"\xff\xff" + secrets.token_bytes(30), b"\x63\x00" + whole[2:], whole, whole[:20], b""]
