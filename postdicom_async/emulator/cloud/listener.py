"""The Cloud API's WebSocket: binary frames in and out, each request handled separately, with the configured oddities.

The listener holds the open sockets and the requests in progress; both belong to the event loop's thread. A request
continues when its socket is closed, as in a real service. `_Socket` is one connection: its session, and the answers
held back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from random import Random
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import Frame, Opcode

from postdicom_async.emulator.answers import base_url
from postdicom_async.emulator.cloud import frames
from postdicom_async.emulator.cloud.dispatch import AskedRequest, Dispatch, session_of
from postdicom_async.emulator.cloud.oddities import Drop
from postdicom_async.emulator.cloud.state import Cloud
from postdicom_async.emulator.doors import is_known_host, may_connect
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.parameters import BadParameters

_BIG = 64 * 1024
_BIG_AT_ONCE = 16
"""The limit of requests with data in memory at once, over all sockets."""

_QUIET = 0.05
"""Answers held back are sent after this many seconds without another one."""

_PARTS = {(frames.UPLOAD, 3), (frames.UPLOAD, 4)}

_logger = logging.getLogger("postdicom_async.emulator.cloud")


class CloudListener:
    """Accepts WebSockets and answers the requests on them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._dispatch = Dispatch(cloud)
        self._open: set[WebSocket] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._loop = asyncio.get_running_loop()
        self.big: asyncio.Semaphore = asyncio.Semaphore(_BIG_AT_ONCE)
        cloud.cut = self._cut_from_anywhere

    async def stop(self) -> None:
        """Cancel the requests in progress; the server has closed all connections before."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _cut_from_anywhere(self) -> None:
        """Cut every connection: at once in the archive's own thread, else as soon as its event loop gets there."""
        try:
            is_here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_here = False
        if is_here:
            self._cut()
        else:
            self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for socket in list(self._open):
            socket.state.transport.abort()

    async def serve(self, socket: WebSocket) -> None:
        """Handle one WebSocket, or refuse it."""
        status, reason = self._refused(socket)
        if status:
            await socket.send_denial_response(PlainTextResponse(f"{reason}\n", status))
            return
        self._numbers += 1
        self._open.add(socket)
        self.cloud.sockets = len(self._open)
        try:
            await socket.accept()
            await _Socket(self.cloud, self._dispatch, socket, self._numbers, self).read()
        except WebSocketDisconnect:
            pass
        finally:
            self._open.discard(socket)
            self.cloud.sockets = len(self._open)

    def _refused(self, socket: WebSocket) -> tuple[int, str]:
        """Return status and reason if a WebSocket may not be opened, else status 0.

        Browsers send no preflight for a WebSocket, so the page's origin is checked here.
        """
        context, oddities = self.cloud.context, self.cloud.oddities
        host, origins = socket.headers.get("host", ""), socket.headers.getlist("origin")
        if len(self._open) >= context.options.limits.max_connections:
            return 503, "too many connections are open"
        if not is_known_host(host, context.hosts):
            return 421, "the archive has another name"
        if not all(may_connect(origin, host, context.options.allow_origin) for origin in origins):
            return 403, "pages of this origin may not connect"
        if socket.url.path.rstrip("/") not in {"", oddities.address_ends.rstrip("/")}:
            return 404, "there is nothing here"
        address = socket.client.host if socket.client else ""
        # The key in the address may be a guess like any other.
        if context.key_guesses.begin(address):
            return 429, "too many wrong keys came from there"
        given = socket.query_params.multi_items()
        if [name for name, _ in given] != ["ClientUniqueId"] or not self.cloud.is_api_key(given[0][1]):
            return 403, "ClientUniqueId is not known"
        context.key_guesses.right(address)
        return 0, ""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task beside the reading; it continues when its connection is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


class _Socket:
    """One connection."""

    def __init__(
        self, cloud: Cloud, dispatch: Dispatch, socket: WebSocket, number: int, listener: CloudListener
    ) -> None:
        self._cloud = cloud
        self._dispatch = dispatch
        self._socket = socket
        self._transport: asyncio.Transport = socket.state.transport
        self._number = number
        self._listener = listener
        self._address = socket.client.host if socket.client else ""
        self._base = base_url(socket)
        self._session = ""
        self._own_id = 0
        self._in_flight = 0
        self._held: list[bytes] = []
        self._random = Random(number)  # noqa: S311 - an order, not a secret

    async def read(self) -> None:
        """Take requests until the connection ends."""
        try:
            if self._cloud.oddities.greeting:
                body = b'{"ResponseCode":1,"ResponseMessage":"welcome"}'
                await self._socket.send_bytes(
                    frames.encode_response(2, 0, frames.CloudRequest(frames.SESSION, 0, 0, ""), body)
                )
            while (message := await self._socket.receive())["type"] != "websocket.disconnect":
                await self._take(message.get("bytes"))
        except (frames.BadFrame, BadParameters) as bad:
            _logger.warning("socket %d is closed: %s", self._number, bad)
            await self._socket.close(1007, str(bad)[:100])

    async def _take(self, frame: bytes | None) -> None:
        if frame is None:
            raise frames.BadFrame("a text frame came")
        request = frames.decode_request(frame)
        asked = AskedRequest(request, self._session, self._address, self._base)
        self._dispatch.note(asked, self._number)
        if asked.key in _PARTS:
            self._in_flight += 1
            most = self._cloud.most_in_flight
            most[self._number] = max(most[self._number], self._in_flight)
        drop = self._cloud.oddities.drop(asked.key)
        if drop and drop.when == "before":  # as if the request had been lost in transit
            self._transport.abort()
            return
        is_big = len(request.data) > _BIG or len(request.text) > _BIG
        if is_big:  # the next message is not read before there is room: TCP flow control slows the client
            await self._listener.big.acquire()
        self._listener.spawn(self._handle(asked, drop, is_big=is_big))

    async def _handle(self, asked: AskedRequest, drop: Drop | None, *, is_big: bool) -> None:
        oddities, request = self._cloud.oddities, asked.request
        is_silent = oddities.take(oddities.missing, asked.key)
        try:
            if oddities.take(oddities.refused, asked.key):
                envelope = self._dispatch.refusal(asked, oddities.refusal_text)
            else:
                envelope = await self._cloud.context.run(self._dispatch.handle, asked)
                if asked.key[0] == frames.SESSION and envelope["ResponseCode"] == 1:
                    self._session = session_of(asked.given)
        finally:
            # Free the data before others get their turn: the answer may be delayed for long.
            request = frames.CloudRequest(request.message_type, request.message_id, request.management_type, "")
            del asked
            if is_big:
                self._listener.big.release()
        if drop and drop.when == "after":
            self._transport.abort()
        elif not is_silent:
            await self._answer(request, envelope, drop)

    async def _answer(self, request: frames.CloudRequest, envelope: Json, drop: Drop | None) -> None:
        oddities = self._cloud.oddities
        key = request.message_type, request.management_type
        told = oddities.envelope(key, envelope) if oddities.envelope else envelope
        body = told if isinstance(told, bytes) else json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
        self._own_id += 1
        kind, flag, text = (
            oddities.response_types.get(request.message_type, 18),
            oddities.success_flag,
            oddities.frame_text,
        )
        frame = frames.encode_response(kind, self._own_id, request, body, success=flag, message=text)
        if oddities.latency:
            await asyncio.sleep(oddities.latency)
        if key in _PARTS:
            self._in_flight -= 1
        if drop:  # in the middle of the answer
            whole = Frame(Opcode.BINARY, frame).serialize(mask=False)
            self._transport.write(whole[: len(whole) - (len(frame) + 1) // 2])
            self._transport.close()
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
                return  # another answer has come, and waits now
        held, self._held = self._held, []
        self._random.shuffle(held)
        await self._send(held)

    async def _send(self, messages: list[bytes]) -> None:
        oddities = self._cloud.oddities
        with suppress(WebSocketDisconnect, RuntimeError):  # the socket is closed, perhaps for a bad frame
            for frame in messages:
                if oddities.text_frames:
                    await self._socket.send_text('{"ResponseCode":1}')
                for garbage in _garbage() if oddities.garbage else ():
                    await self._socket.send_bytes(garbage)
                for _ in range(2 if oddities.duplicates else 1):
                    await self._socket.send_bytes(frame)


def _garbage() -> list[bytes]:
    """Return frames that answer nothing: noise, an unknown type, an unknown request, half a frame, an empty one."""
    whole = frames.encode_response(18, 1, frames.CloudRequest(frames.SESSION, 0xFFFF_FFFF, 1, ""), b'{"A":1}')
    return [b"\xff\xff" + secrets.token_bytes(30), b"\x63\x00" + whole[2:], whole, whole[:20], b""]
