"""The sockets that carry parts of files, one unanswered part on each (JavaScript library)."""

from __future__ import annotations

import anyio

from postdicom_async.cloud.connection import Connection
from postdicom_async.cloud.socket import FrameSocket
from postdicom_async.http.problems import Problem, connection_failed
from postdicom_async.http.retry import Failure

__all__ = ["Lane", "Lanes"]


class Lane:
    """A place for one part on its way; its socket is opened when it is first needed, and again when it dropped."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._socket: FrameSocket | None = None
        self._session_uuid = ""

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
            lost = connection_failed("upload", "the session was lost, and is opened anew", sent=False)
            raise Problem(Failure.NOT_SENT, lost)
        return self._socket

    async def close(self) -> None:
        """Close its socket."""
        if self._socket is not None:
            await self._socket.close()

    def cut(self) -> None:
        """Drop its socket at once."""
        if self._socket is not None:
            self._socket.cut()


class Lanes:
    """A number of lanes, taken and given back."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._all = [Lane(connection) for _ in range(number)]
        self._idle = list(self._all)
        self._room = anyio.Semaphore(number)

    async def take(self) -> Lane:
        """Wait for an idle lane; the one that was used last, so that no more sockets are opened than are needed."""
        await self._room.acquire()
        return self._idle.pop()

    def give_back(self, lane: Lane) -> None:
        """Make a lane idle again."""
        self._idle.append(lane)
        self._room.release()

    async def close(self) -> None:
        """Close every socket; cancelled meanwhile, drop them."""
        try:
            async with anyio.create_task_group() as group:
                for lane in self._all:
                    group.start_soon(lane.close)
        finally:
            for lane in self._all:
                lane.cut()
