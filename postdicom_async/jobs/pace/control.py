"""The control socket of a running job, for this user alone: change its pace, pause it or stop it.

The process that runs a job listens; commands such as ``postdicom jobs set`` connect. Request and response are one line
of JSON each: ``{"do": "set", "max_rate": "40M"}``, ``{"ok": true, ...}`` or ``{"ok": false, "error": "one line"}``.
Only that process writes the job's ledger, so all changes go through this socket.

`ControlServer` holds the socket, and a task for each connection. The socket's name is derived from the ledger's path;
where the kernel can tell, the peer's user is checked. Nothing that a client sends can stop the job by accident:
overlong lines, slow clients and failing handlers are all survived.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import struct
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from postdicom_async.disk.private_files import HAS_UNIX_SOCKETS, PrivateSocket
from postdicom_async.errors import ConnectionFailed, LocalFileError, NotFound, PostdicomError, UsageError

if TYPE_CHECKING:
    from postdicom_async.jobs.pace.pace import Pace


Message: TypeAlias = dict[str, Any]
ControlHandler: TypeAlias = Callable[[Message], Awaitable[Message | None]]

_LINE = 64 * 1024  # of a question
_ANSWER = 16 * 1024 * 1024
_IDLE = 60.0  # seconds that a connection may be idle
_LAST_WORDS = 2.0  # seconds for answers under way when the server ends
_MOST_CONNECTIONS = 32
_AGAIN = 1.0  # seconds until connections are taken again when the process has too many files open
_LONGEST_PATH = 100  # bytes; sockets' paths are bounded by 104 or 108, and the folder holds a name for a moment
_SETTINGS = frozenset({"max_rate", "max_requests", "at_once", "windows"})
_NOT_YOURS = "this job is another user's"
_NO_SOCKETS = "a running job cannot be told anything on this system; stop it and start it with other settings"


class NoJobRuns(NotFound):
    """No process on this machine runs this job."""


def control_paths(ledger: Path) -> tuple[Path, ...]:
    """Return the paths at which the process that runs a ledger's job may listen; it uses the first that works.

    The state folder comes first: the session's runtime folder is emptied at logout, and jobs outlive that.
    """
    name = hashlib.blake2b(os.fsencode(ledger.resolve()), digest_size=10).hexdigest() + ".sock"
    user = os.geteuid() if HAS_UNIX_SOCKETS else 0
    state = os.environ.get("POSTDICOM_STATE")
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    places = [(Path(state) if state else home / "postdicom") / "control"]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(runtime) / "postdicom")
    places.append(Path(tempfile.gettempdir()) / f"postdicom-{user}")
    paths = [place / name for place in places if place.is_absolute()]
    return tuple(path for path in paths if len(os.fsencode(path)) <= _LONGEST_PATH) or (paths[-1],)


def handlers_of(
    pace: Pace, *, status: Callable[[], Awaitable[Message]], stop: Callable[[], object]
) -> dict[str, ControlHandler]:
    """Return the handlers of a running job: ``set``, ``pause``, ``resume``, ``status`` and ``stop``.

    ``set`` takes ``max_rate``, ``max_requests``, ``at_once`` and ``windows``; it, ``pause`` and ``resume`` answer with
    the present pace (`Pace.snapshot`), ``status`` with that and the result of ``status``.
    """

    async def change(message: Message) -> Message:
        values = {name: value for name, value in message.items() if name != "do"}
        if not values or not values.keys() <= _SETTINGS:
            raise UsageError(f"give one or more of {', '.join(sorted(_SETTINGS))}", operation="set")
        pace.set(**values)
        return pace.snapshot()

    def after(act: Callable[[], object]) -> ControlHandler:
        async def handler(_: Message) -> Message:
            act()
            return pace.snapshot()

        return handler

    async def tell(_: Message) -> Message:
        return {**pace.snapshot(), **await status()}

    async def end(_: Message) -> None:
        stop()

    return {"set": change, "pause": after(pace.pause), "resume": after(pace.resume), "status": tell, "stop": end}


# --- the job's side ---------------------------------------------------------------------------------------------------


class ControlServer:
    """Serves the control socket inside ``async with``. Handlers run in the job's own event loop.

    Args:
        path: where to listen; of several, the first that works.
        handlers: the handlers by name. A handler's result goes into the answer; a `PostdicomError` becomes its error.

    Attributes:
        path: where it listens; None if the system has no Unix sockets, or no path worked.
        problem: one line that says why it does not listen; None if it does.
    """

    def __init__(self, path: Path | Sequence[Path], handlers: Mapping[str, ControlHandler]) -> None:
        self.path: Path | None = None
        self.problem: str | None = None
        self._paths = [path] if isinstance(path, Path) else list(path)
        self._handlers = dict(handlers)
        self._socket: PrivateSocket | None = None
        self._connections: set[asyncio.Task[Any]] = set()
        self._answering: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        """Listen. If that fails the job runs all the same: see ``problem``.

        Raises:
            LedgerLocked: another process runs this job.
        """
        if not HAS_UNIX_SOCKETS:
            self.problem = _NO_SOCKETS
            return self
        for path in self._paths:
            try:
                self._socket = PrivateSocket(path)
            except LocalFileError as error:
                self.problem = self.problem or error.message
                continue
            self.path, self.problem = path, None
            self._listen()
            break
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening; answers under way have two seconds to complete."""
        listening, self._socket = self._socket, None
        if listening is not None:
            asyncio.get_running_loop().remove_reader(listening.socket.fileno())
            listening.close()
        here = asyncio.current_task()
        answering = self._answering - {here}
        if answering:
            await asyncio.wait(answering, timeout=_LAST_WORDS)
        left = {task for task in self._connections if task is not here}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def _listen(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.socket.fileno(), self._accept, self._socket.socket)

    # Accepted here, not by asyncio's server: one that is closed while it accepts (Python 3.11) leaves a socket open.
    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError:  # too many open files: the loop would call this again at once, for ever
            loop.remove_reader(listening.fileno())
            loop.call_later(_AGAIN, self._listen)
            return
        if len(self._connections) >= _MOST_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        begun = asyncio.Event()
        task = loop.create_task(self._converse(connection, begun))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # A task cancelled before its first step has closed nothing.
        task.add_done_callback(lambda _: None if begun.is_set() else connection.close())

    async def _converse(self, connection: socket.socket, begun: asyncio.Event) -> None:
        """Answer the requests of a connection until it closes."""
        begun.set()
        # A peer that disconnects or stays idle is not an error.
        with suppress(OSError, TimeoutError):
            is_ours = _is_ours(connection)
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LINE)
            try:
                while (line := await _next_line(reader)) is not None:
                    # Refused only after its request was read: closing with unread data would reset the connection.
                    if not is_ours:
                        await _say(writer, {"ok": False, "error": _NOT_YOURS})
                        break
                    await self._answer(line, writer)
            except BaseException:
                writer.transport.abort()  # a peer that does not read would keep it open
                raise
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of a task of ours
        self._answering.add(task)
        try:
            await _say(writer, await self._what_to_say(line))
        finally:
            self._answering.discard(task)

    async def _what_to_say(self, line: bytes) -> Message:
        message = _read(line)
        name = message.get("do") if message is not None else None
        handler = self._handlers.get(name) if isinstance(name, str) else None
        if message is None or handler is None:
            wanted = ", ".join(sorted(self._handlers))
            return {"ok": False, "error": f'give a line of JSON such as {{"do": "status"}}; known are {wanted}'}
        try:
            return {"ok": True, **(await handler(message) or {})}
        except PostdicomError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:  # noqa: BLE001 - no request may end the job
            return {"ok": False, "error": f"unexpected ({type(error).__name__})"}


async def _next_line(reader: asyncio.StreamReader) -> bytes | None:
    """Return a line, None at the end of the stream, empty for an overlong line."""
    try:
        async with asyncio.timeout(_IDLE):
            return await reader.readline() or None
    except ValueError:  # over the limit: the buffer was discarded, and the rest arrives as another line
        return b""


async def _say(writer: asyncio.StreamWriter, message: Message) -> None:
    writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    async with asyncio.timeout(_IDLE):
        await writer.drain()


def _is_ours(connection: Any) -> bool:
    """Whether the peer's process is this user's or root's; if the kernel cannot tell, folder permissions protect."""
    return (user := _peer(connection)) is None or user in {0, os.geteuid()}


def _peer(connection: Any) -> int | None:
    """Return the user id of a socket's peer process, None if the system cannot tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None or connection is None:
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    user: int = struct.unpack("3i", credentials)[1]
    return user


def _read(line: bytes) -> Message | None:
    """Parse a line, None if it is not a JSON object."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


# --- who asks ---------------------------------------------------------------------------------------------------------


async def ask(path: Path | Sequence[Path], message: Message, *, timeout: float = 5.0) -> Message:
    """Ask the process that runs a job, and return its answer: ``{"ok": ...}``.

    Args:
        path: where it listens; of several, the first that accepts.
        message: ``{"do": "pause"}``, for example.
        timeout: seconds to wait, in all.

    Raises:
        NoJobRuns: nothing listens there.
        ConnectionFailed: it did not answer, or ended first.
        UsageError: this system has no Unix sockets.
    """
    if not HAS_UNIX_SOCKETS:
        raise UsageError(_NO_SOCKETS)
    line = b""
    try:
        async with asyncio.timeout(timeout):
            for one in [path] if isinstance(path, Path) else path:
                connection = await _connection(one)
                if connection is not None:
                    line = await _answer_of(connection, message)
                    break
            else:
                raise NoJobRuns("no job runs here")
    except TimeoutError:
        line = b"{"
    answer = _read(line)
    if answer is None:
        words = f"the job does not answer within {timeout:g} s" if line else "the job ended before it answered"
        raise ConnectionFailed(words)
    return answer


async def ask_job(ledger: Path, message: Message) -> Message:
    """Ask the process that runs the job of a ledger: see `ask`, which raises the same."""
    return await ask(control_paths(ledger), message)


async def _connection(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    """Return a connection, None if nothing listens."""
    try:
        return await asyncio.open_unix_connection(str(path), limit=_ANSWER)
    except OSError as error:
        denied = isinstance(error, PermissionError)
    if denied:
        raise UsageError(_NOT_YOURS)
    return None


async def _answer_of(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], message: Message) -> bytes:
    reader, writer = connection
    try:
        if not _is_ours(writer.get_extra_info("socket")):
            raise UsageError(_NOT_YOURS)
        with suppress(OSError, ValueError):
            writer.write(json.dumps(message).encode() + b"\n")
            await writer.drain()
            return await reader.readline()
        return b""
    finally:
        writer.close()
