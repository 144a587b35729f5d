"""A server of a few lines in threads, for clients that block, and what it can answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["RawServer", "answer", "raw_server"]


class RawServer:
    """Runs a function for each connection, which gets the socket after the head of the first request.

    Attributes:
        url: its address.
        heads: the heads of the requests that came first on each connection.
        met: set when a request has come.
        left: set when a client has hung up while it was being answered.
        sent: bytes that `send` has passed to the system.
    """

    def __init__(self, serve: Callable[[RawServer, socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url: str = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heads: list[bytes] = []
        self.met = threading.Event()
        self.left = threading.Event()
        self.sent: int = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            self.heads.append(head)
            self.met.set()
            self._serve(self, connection)

    def send(self, connection: socket.socket, data: bytes) -> None:
        """Send, and note when the client has hung up."""
        try:
            connection.sendall(data)
        except OSError:
            self.left.set()
            raise
        self.sent += len(data)

    def until_left(self, connection: socket.socket) -> None:
        """Wait for the client to hang up."""
        with suppress(OSError):
            while connection.recv(65536):
                pass
        self.left.set()

    def close(self) -> None:
        """Stop, and drop every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._thread.join()


@contextmanager
def raw_server(serve: Callable[[RawServer, socket.socket], None]) -> Iterator[RawServer]:
    """Run one while the block lasts."""
    server = RawServer(serve)
    try:
        yield server
    finally:
        server.close()


def answer(status: str, body: bytes = b"", content_type: str = "application/dicom+json", extra: str = "") -> bytes:
    """Return a whole answer, after which the connection is closed."""
    kind = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {status}\r\n{kind}{extra}Connection: close\r\n\r\n".encode() + body
