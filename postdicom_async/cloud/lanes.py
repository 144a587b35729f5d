"""The sockets that carry parts of files, one unanswered part on each (JavaScript library)."""

from __future__ import annotations

import anyio

from postdicom_async.cloud.connection import Connection
from postdicom_async.cloud.problems import session_replaced
from postdicom_async.cloud.socket import FrameSocket
from postdicom_async.http.problems import Problem

__all__ = ["Lane", "Lanes"]


class Lane:
    """A place for one part on its way; its socket is opened when it is first needed, and again when it dropped."""

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


class Lanes:
    """A number of lanes, taken and given back; one that cannot be opened while another works is given up."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._working = [Lane(connection) for _ in range(number)]
        self._idle = list(self._working)
        self._room = anyio.Semaphore(number)
        self._first = anyio.Lock()

    async def take(self, session_uuid: str) -> tuple[Lane, FrameSocket]:
        """Wait for an idle lane, the one that was used last if possible; return it with its socket.

        Raises:
            Problem: there is none to be had now, or the account's session is another one by now.
            PostdicomError: the session is lost and cannot be brought up anew.
        """
        while True:
            await self._room.acquire()
            lane = self._idle.pop()
            try:
                return lane, await self._opened(lane, session_uuid)
            except BaseException as error:
                if not isinstance(error, Problem) or lane.is_open or not self._any_is_open:
                    self.give_back(lane)
                    raise
            # A service may allow fewer sockets than were asked for. The room of this one is never returned.
            self._working.remove(lane)

    @property
    def _any_is_open(self) -> bool:
        return any(lane.is_open for lane in self._working)

    async def _opened(self, lane: Lane, session_uuid: str) -> FrameSocket:
        if not self._any_is_open:
            async with self._first:  # or nobody could tell whether only the others are one too many
                if not self._any_is_open:
                    return await lane.socket(session_uuid)
        return await lane.socket(session_uuid)

    def give_back(self, lane: Lane) -> None:
        """Make a lane idle again."""
        self._idle.append(lane)
        self._room.release()

    async def close(self) -> None:
        """Close every socket; cancelled meanwhile, drop them."""
        try:
            async with anyio.create_task_group() as group:
                for lane in self._working:
                    group.start_soon(lane.close)
        finally:
            for lane in self._working:
                lane.cut()
