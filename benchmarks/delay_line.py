"""Simulates a long-distance line between a client and a server on this machine: delay, and a rate per connection.

Run as ``python -m benchmarks.delay_line FD PORT ROUND_TRIP RATE``: FD is an inherited listening socket, PORT the
server's, ROUND_TRIP in seconds, RATE in bytes a second for each connection and way (0 for no limit). A connection costs
its first byte one round trip, as TCP's handshake does; slow start and loss are left out.

Each way of a connection is a queue. A piece read at ``t`` is due at ``t`` plus half a round trip, and occupies the line
for its length over the rate, counted in the line's own time and not from when this process woke up: so a late wake-up
costs nothing. The queue is bounded: when it is full nothing more is read, and the sender waits as on a real line.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import cast

PIECE = 64 << 10
#: Bytes held of one way. More than the line carries in half a round trip, or the bound would limit the rate.
MOST_HELD = 8 << 20
#: Python's epoll wakes up to a millisecond late.
COARSE = 0.001
END = b""


@dataclass(slots=True, eq=False)
class Way:
    """One way of one connection.

    Attributes:
        source, target: sockets.
        delay: seconds a byte is under way.
        rate: bytes a second; 0 for no limit.
        opens_at: nothing leaves earlier than the delay after that.
        held: bytes in the queue.
        ended: the end of the stream was passed on.
    """

    source: socket.socket
    target: socket.socket
    delay: float
    rate: float
    opens_at: float
    held: int = 0
    ended: bool = False
    _queue: deque[tuple[float, memoryview]] = field(default_factory=deque)
    _free_at: float = 0.0
    _blocked: bool = False
    _saw_end: bool = False

    @property
    def wants_more(self) -> bool:
        """Whether there is room for another piece, and may be one."""
        return not self._saw_end and self.held + PIECE <= MOST_HELD

    @property
    def wants_to_write(self) -> bool:
        """Whether something is late because the receiver does not take it."""
        return self._blocked

    def take(self, now: float) -> None:
        """Read a piece."""
        try:
            piece = self.source.recv(PIECE)
        except BlockingIOError:
            return
        self._saw_end = not piece
        self.held += len(piece)
        self._queue.append((max(now, self.opens_at) + self.delay, memoryview(piece)))

    def due(self) -> float | None:
        """Return when the next piece has come through; None where there is none, or the receiver is not ready."""
        if not self._queue or self._blocked:
            return None
        due, piece = self._queue[0]
        return max(due, self._free_at) + self._seconds(piece)

    def _seconds(self, piece: memoryview) -> float:
        return len(piece) / self.rate if self.rate else 0.0

    def unblock(self, now: float) -> None:
        """Continue after the receiver was slow: the line was full meanwhile, so no lost time is made up."""
        self._blocked = False
        self._free_at = now - self._seconds(self._queue[0][1])

    def give(self, now: float) -> None:
        """Write the pieces that are due."""
        while (at := self.due()) is not None and at <= now:
            due, piece = self._queue.popleft()
            if not piece:
                self.target.shutdown(socket.SHUT_WR)
                self.ended = True
                return
            try:
                sent = self.target.send(piece)
            except BlockingIOError:
                sent = 0
            self.held -= sent
            self._free_at = at
            if sent < len(piece):
                self._queue.appendleft((due, piece[sent:]))
                self._blocked = True


class Line:
    """All connections of a delay line."""

    def __init__(self, listener: socket.socket, port: int, round_trip: float, rate: float) -> None:
        self._listener, self._port, self._round_trip, self._rate = listener, port, round_trip, rate
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._pairs: dict[socket.socket, tuple[Way, Way]] = {}  # by either socket: what comes out of it, what goes in

    def run(self) -> None:
        """Carry bytes for ever."""
        while True:
            self.turn()

    def turn(self, most: float | None = None) -> None:
        """Wait for events and handle them once."""
        for key, events in self._wait(most):
            one = cast("socket.socket", key.fileobj)
            if one is self._listener:
                self._accept()
            elif one in self._pairs:
                self._guarded(one, events)
        now = time.monotonic()
        for one in list(self._pairs):
            if one in self._pairs and (at := self._pairs[one][1].due()) is not None and at <= now:
                self._guarded(one, 0)

    def _wait(self, most: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        dues = [at for _, into in self._pairs.values() if (at := into.due()) is not None]
        if not dues:
            return self._selector.select(most)
        left = min(dues) - time.monotonic()
        if left >= COARSE:
            return self._selector.select(left - COARSE)
        time.sleep(max(left, 0.0))
        return self._selector.select(0)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            client.close()
            return
        opens_at = time.monotonic() + self._round_trip
        up = Way(client, server, self._round_trip / 2, self._rate, opens_at)
        down = Way(server, client, self._round_trip / 2, self._rate, opens_at)
        self._pairs |= {client: (up, down), server: (down, up)}
        for one in (client, server):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(one, selectors.EVENT_READ)

    def _guarded(self, one: socket.socket, events: int) -> None:
        """Read from a socket and write to it, as far as it can be done; end both ways when one of them is broken."""
        out, into = self._pairs[one]
        try:
            now = time.monotonic()
            if events & selectors.EVENT_READ and out.wants_more:
                out.take(now)
            if events & selectors.EVENT_WRITE and into.wants_to_write:
                into.unblock(now)
            into.give(now)
        except OSError:
            self._drop(out)
            return
        if out.ended and into.ended:
            self._drop(out)
            return
        for socket_ in (out.source, out.target):
            self._watch(socket_)

    def _watch(self, one: socket.socket) -> None:
        """Ask for what the socket is wanted for now; one that is asked for nothing would be told of all the same."""
        out, into = self._pairs[one]
        wanted = (selectors.EVENT_READ if out.wants_more else 0) | (selectors.EVENT_WRITE if into.wants_to_write else 0)
        key = self._selector.get_map().get(one)
        if key is None:
            if wanted:
                self._selector.register(one, wanted)
        elif not wanted:
            self._selector.unregister(one)
        elif key.events != wanted:
            self._selector.modify(one, wanted)

    def _drop(self, way: Way) -> None:
        for one in (way.source, way.target):
            if one in self._selector.get_map():
                self._selector.unregister(one)
            del self._pairs[one]
            one.close()


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    Line(listener, int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])).run()


if __name__ == "__main__":
    main()
