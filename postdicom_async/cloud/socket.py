"""WebSockets of the Cloud API: requests out, answers matched by message id, nothing pending for ever.

A `FrameSocket` holds the requests that wait for an answer, by message id. Only `request` adds and removes them; the
task `_reader` hands each its answer. When the connection drops, is cut or is closed, all of them fail at once, and
each says whether its frame may have arrived. Late, duplicate and unrequested answers are dropped: a service may send
them, and they prove nothing. After half a frame the connection is aborted, as nothing else can follow it.

A `SocketPool` holds the sockets that carry parts of files, one unanswered part on each (JavaScript library).
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidProxyStatus, InvalidStatus, InvalidURI, WebSocketException
from websockets.protocol import State
from websockets.typing import Origin

from postdicom_async.cloud.frames import Response, addressed_to, decode_response
from postdicom_async.errors import AuthenticationFailed, ConnectionFailed, ProtocolError, UsageError
from postdicom_async.face import translated
from postdicom_async.http.endpoint import origin_of
from postdicom_async.http.problems import Problem, connection_failed, explain, problem_of_cause
from postdicom_async.http.retry import Failure
from postdicom_async.http.tls import tls_context
from postdicom_async.watching import CLOUD_LOG, UNWATCHED, attempt_number, watch_request

if TYPE_CHECKING:
    from postdicom_async.cloud.connection import Connection
    from postdicom_async.settings import Settings
    from postdicom_async.vendor.wire import CloudWire

_PING_EVERY = 20.0
_CLOSE_WITHIN = 2.0
_TOO_BIG = 1009
_NO_OPERATION = 0  # the number for none; the vendor's library never looks at it, so a service may leave it out

# The library logs addresses and frames, which hold the keys and patient data. A logger of our own, outside the
# hierarchy, can be turned on by no configuration.
_SILENT = logging.Logger("postdicom_async.websocket", logging.CRITICAL + 1)  # noqa: LOG001

_REFUSED_STATUSES = frozenset({401, 403})


class Silence(Problem):
    """A request was sent but not answered in time, on a connection that is still open."""


class _Connect(connect):
    """`connect` that follows no redirect: the address holds the API key."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def open_socket(url: str, *, settings: Settings, wire: CloudWire) -> FrameSocket:
    """Open a WebSocket.

    Raises:
        Problem: there is no connection, or the service refuses it.
        UsageError: a certificate or key cannot be used.
    """
    context = tls_context(settings.tls) if url.lower().startswith("wss:") else None
    with translated((OSError, WebSocketException, TimeoutError, ImportError, ValueError), _problem_of_opening):
        connection = await _Connect(
            url,
            ssl=context,
            origin=None if wire.origin is None else Origin(wire.origin),
            proxy=settings.proxy or settings.use_environment_proxies or None,
            compression=None,
            user_agent_header="postdicom-async",
            open_timeout=settings.timeouts.connect,
            ping_interval=_PING_EVERY,
            ping_timeout=settings.timeouts.answer,  # a busy service may stop reading, and a slow line may be full
            close_timeout=_CLOSE_WITHIN,
            max_size=settings.limits.json_bytes,
            logger=_SILENT,
        )
    return FrameSocket(connection, settings, wire.response_types, origin_of(url))


def _problem_of_opening(error: Exception) -> Problem:
    what = "open the WebSocket"
    if isinstance(error, InvalidProxyStatus):
        return problem_of_cause(what, explain(f"tunnel error: {error.response.status_code}"))
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in _REFUSED_STATUSES:
            refused = AuthenticationFailed("the service refused the connection", operation=what, status=status)
            return Problem(Failure.FINAL, refused)
        failed = connection_failed(what, "the service did not open a WebSocket", sent=False)
        failed.status = status
        return Problem(Failure.NOT_SENT, failed)
    if isinstance(error, ImportError):
        needed = UsageError(
            "a SOCKS proxy needs the package python-socks; install it, or name an HTTP proxy", argument="proxy"
        )
        return Problem(Failure.FINAL, needed)
    if isinstance(error, TimeoutError):
        return Problem(Failure.NOT_SENT, connection_failed(what, "no connection in time", sent=False))
    if isinstance(error, OSError):
        return problem_of_cause(what, explain(f"{error} {type(error).__name__}"))
    if isinstance(error, InvalidURI | ValueError):
        return Problem(Failure.FINAL, ProtocolError("the WebSocket's address cannot be used", operation=what))
    return Problem(Failure.NOT_SENT, connection_failed(what, "the service did not open a WebSocket", sent=False))


class FrameSocket:
    """An open WebSocket; any number of requests may be in flight on it."""

    def __init__(
        self, connection: ClientConnection, settings: Settings, response_types: frozenset[int], origin: str
    ) -> None:
        self._connection = connection
        self._timeouts = settings.timeouts
        self._on_event = settings.on_event
        self._origin = origin
        self._response_types = response_types
        self._pending: dict[int, asyncio.Future[Response]] = {}
        self._was_cut = False
        self._reader = asyncio.create_task(self._read(), name="postdicom-async: answers")

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        # After `cut` the library's state and the reader change only in the event loop's next turn.
        return not self._was_cut and self._connection.state is State.OPEN and not self._reader.done()

    async def request(
        self, operation: str, message_id: int, management_type: int, frame: bytes, *, within: float | None = None
    ) -> Response:
        """Send a frame and return its answer, which must come ``within`` seconds; ``timeouts.answer`` if not given.

        Raises:
            Problem: the connection is or was lost, no answer came in time, or one to another operation; it says whether
                the frame left.
        """
        if not self.is_open:
            raise Problem(Failure.NOT_SENT, connection_failed(operation, "the connection is closed", sent=False))
        watch = watch_request(operation, attempt_number.get(), "", self._origin, self._on_event, CLOUD_LOG)
        if watch is UNWATCHED:
            return await self._answered(operation, message_id, management_type, frame, within)
        received = 0
        ended_by: BaseException | None = None
        try:
            found = await self._answered(operation, message_id, management_type, frame, within)
            received = found.size
        except BaseException as error:
            ended_by = error.error if isinstance(error, Problem) else error
            raise
        finally:
            watch.ended(None, len(frame), received, ended_by)
            ended_by = None  # an exception and a frame that hold each other are freed late
        return found

    async def _answered(
        self, operation: str, message_id: int, management_type: int, frame: bytes, within: float | None
    ) -> Response:
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._pending[message_id] = answer

        def problem_of(error: TimeoutError | _Lost) -> Problem:
            if isinstance(error, _Lost):
                return error.problem(operation)
            message = "the service did not answer in time"
            return Silence(Failure.LOST, connection_failed(operation, message, sent=True))

        try:
            with translated((TimeoutError, _Lost), problem_of):
                await self._send(operation, frame)
                async with asyncio.timeout(within or self._timeouts.answer):
                    found = await answer
        finally:
            del self._pending[message_id]
            if answer.done() and not answer.cancelled():
                answer.exception()  # retrieved although nobody waits for it any more, or asyncio would log it
        if found.management_type not in (management_type, _NO_OPERATION):
            crossed = ProtocolError("an answer to another operation came", operation=operation)
            raise Problem(Failure.LOST, crossed)
        return found

    async def _send(self, operation: str, frame: bytes) -> None:
        def problem_of(error: TimeoutError | ConnectionClosed) -> Problem:
            if isinstance(error, ConnectionClosed):
                return _Lost().problem(operation)
            self._connection.transport.abort()  # half a frame may be out; nothing else can follow it
            message = "the service stopped taking data"
            return Problem(Failure.LOST, connection_failed(operation, message, sent=True))

        with translated((TimeoutError, ConnectionClosed), problem_of):
            async with asyncio.timeout(self._timeouts.idle_write) as limit:
                with self._moved_on(limit):
                    await self._connection.send(frame)

    @contextmanager
    def _moved_on(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Extend the time limit as long as the service takes data, however slowly."""
        loop, transport, idle = asyncio.get_running_loop(), self._connection.transport, self._timeouts.idle_write
        left = 0
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal left, timer
            before, left = left, transport.get_write_buffer_size()
            if left < before:
                limit.reschedule(loop.time() + idle)
            timer = loop.call_later(idle / 4, look)

        timer = loop.call_later(idle / 4, look)
        try:
            yield
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Close it; pending requests fail. If cancelled meanwhile, the connection is dropped."""
        try:
            # The library bounds the closing handshake, but not the time to send its own close frame.
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * _CLOSE_WITHIN):
                    await self._connection.close()
        finally:
            self.cut()

    def cut(self) -> None:
        """Drop it at once."""
        self._was_cut = True
        self._connection.transport.abort()
        self._reader.cancel()
        self._fail_pending()

    # --- answers -------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            async for message in self._connection:
                if isinstance(message, bytes):
                    self._take(message)
        except ConnectionClosed as closed:
            # A close code received is echoed; only a code that we sent first means that an answer was too big.
            ours = None if closed.rcvd_then_sent else closed.sent
            if ours is not None and ours.code == _TOO_BIG:
                self._fail_pending("an answer is larger than limits.json_bytes")
        finally:
            self._fail_pending()

    def _take(self, frame: bytes) -> None:
        """Pass an answer to its request; drop other frames, duplicates and late answers."""
        address = addressed_to(frame)
        if address is None or address[0] not in self._response_types:
            return
        waiting = self._pending.get(address[1])
        if waiting is None or waiting.done():
            return
        try:
            waiting.set_result(decode_response(frame))
        except ProtocolError as error:
            waiting.set_exception(_Lost(error.message))

    def _fail_pending(self, unreadable: str | None = None) -> None:
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(_Lost(unreadable))


class _Lost(Exception):
    """The answer to a request in flight is lost: with the connection, or because it cannot be read."""

    def __init__(self, unreadable: str | None = None) -> None:
        super().__init__()
        self._unreadable = unreadable

    def problem(self, operation: str) -> Problem:
        if self._unreadable is not None:
            return Problem(Failure.LOST, ProtocolError(self._unreadable, operation=operation))
        return Problem(Failure.LOST, connection_failed(operation, "the connection broke", sent=True))


def session_replaced() -> Problem:
    """Return the problem of a message that belongs to an account session that no longer exists."""
    lost = connection_failed("upload", "the session was lost, and is opened anew", sent=False)
    return Problem(Failure.NOT_SENT, lost)


def own_problem(problem: Problem) -> Problem:
    """Return a copy of the error of opening a session, for one of several callers that waited for it.

    One exception raised in several places would gather the tracebacks of all of them.
    """
    error = copy.copy(problem.error)
    if isinstance(error, ConnectionFailed):
        # a message of the opening may have arrived; the message that waited for it has not
        error.may_have_arrived = False
    return Problem(Failure.NOT_SENT if problem.failure is Failure.LOST else problem.failure, error)


# --- sockets for parts ----------------------------------------------------------------------------------------------


class SocketSlot:
    """A slot for one part in flight; its socket is opened when first needed, and reopened after it dropped."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._socket: FrameSocket | None = None
        self._session_uuid = ""

    @property
    def is_open(self) -> bool:
        """Whether it has an open socket."""
        return self._socket is not None and self._socket.is_open

    async def socket(self, session_uuid: str) -> FrameSocket:
        """Return an open socket, registered with this session of the account.

        Raises:
            Problem: there is none to be had now, or the account's session is another one by now.
            PostdicomError: the session is lost and cannot be brought up anew.
        """
        if self._socket is None or not self._socket.is_open or self._session_uuid != session_uuid:
            self.cut()
            self._socket, self._session_uuid = await self._connection.upload_socket()
        if self._session_uuid != session_uuid:
            raise session_replaced()
        return self._socket

    async def close(self) -> None:
        """Close its socket."""
        if self._socket is not None:
            await self._socket.close()

    def cut(self) -> None:
        """Drop its socket at once."""
        if self._socket is not None:
            self._socket.cut()


class SocketPool:
    """A number of slots, taken and given back; one that cannot be opened while another works is given up."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._working = [SocketSlot(connection) for _ in range(number)]
        self._idle = list(self._working)
        self._room = anyio.Semaphore(number)
        self._first = anyio.Lock()

    async def take(self, session_uuid: str) -> tuple[SocketSlot, FrameSocket]:
        """Wait for an idle slot, the one that was used last if possible; return it with its socket.

        Raises:
            Problem: there is none to be had now, or the account's session is another one by now.
            PostdicomError: the session is lost and cannot be brought up anew.
        """
        while True:
            await self._room.acquire()
            slot = self._idle.pop()
            try:
                return slot, await self._opened(slot, session_uuid)
            except BaseException as error:
                if not isinstance(error, Problem) or slot.is_open or not self._any_is_open:
                    self.give_back(slot)
                    raise
            # A service may allow fewer sockets than were asked for. The room of this one is never returned.
            self._working.remove(slot)

    @property
    def _any_is_open(self) -> bool:
        return any(slot.is_open for slot in self._working)

    async def _opened(self, slot: SocketSlot, session_uuid: str) -> FrameSocket:
        if not self._any_is_open:
            async with self._first:  # or nobody could tell whether only the others are one too many
                if not self._any_is_open:
                    return await slot.socket(session_uuid)
        return await slot.socket(session_uuid)

    def give_back(self, slot: SocketSlot) -> None:
        """Make a slot idle again."""
        self._idle.append(slot)
        self._room.release()

    async def close(self) -> None:
        """Close every socket; cancelled meanwhile, drop them."""
        try:
            async with anyio.create_task_group() as group:
                for slot in self._working:
                    group.start_soon(slot.close)
        finally:
            for slot in self._working:
                slot.cut()
