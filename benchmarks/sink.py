"""A store server that costs next to nothing: reads every byte, answers as STOW-RS does, keeps nothing.

Run as ``python -m benchmarks.sink FD LEAST`` with a listening socket inherited as file descriptor FD; several may
share it. It knows the benchmark's own instances by the prefix of their UIDs, and that between the UID in the file meta
group of one and that of the next there are at least LEAST bytes. Whatever is not a store gets an empty list.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from typing import TYPE_CHECKING, cast

from benchmarks.names import INSTANCE_PREFIX, UID_LENGTH

if TYPE_CHECKING:
    from io import BufferedReader

NEEDLE = INSTANCE_PREFIX.encode()
PIECE = 1 << 20
#: Bytes of the last piece kept before the new one: a UID and the class before it may be cut in two.
KEPT = 512
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Scanner:
    """Finds the UIDs of the instances in a body that arrives in pieces, looking only where one may be."""

    def __init__(self, least: int) -> None:
        self._least = least
        self.buffer = bytearray(KEPT + PIECE)
        self.room = memoryview(self.buffer)[KEPT:]
        self._next = KEPT
        self._found: list[tuple[str, str]] = []

    def start(self) -> None:
        self._next, self._found = KEPT, []

    def took(self, size: int) -> None:
        """Say that `size` bytes were put into `room`."""
        end = KEPT + size
        while self._next < end:
            at = self.buffer.find(NEEDLE, self._next, end)
            if at < 0 or at + UID_LENGTH > end:
                self._next = max(self._next, end - UID_LENGTH)
                break
            uid = self.buffer[at : at + UID_LENGTH].decode()
            if not self._found or self._found[-1][1] != uid:  # it is in the data set once more
                self._found.append((self._class_before(at), uid))
            self._next = at + self._least
        self._next -= size
        self.buffer[:KEPT] = self.buffer[size:end]

    def _class_before(self, at: int) -> str:
        """Read the value of (0002,0002), which lies right before the eight bytes that head (0002,0003)."""
        start = self.buffer.rfind(b"UI", 0, at - 8)
        return self.buffer[start + 4 : at - 8].rstrip(b"\0").decode("ascii", "replace")

    def answer(self) -> bytes:
        items = [
            {
                "00081150": {"vr": "UI", "Value": [sop_class]},
                "00081155": {"vr": "UI", "Value": [uid]},
                "00081190": {"vr": "UR", "Value": [f"http://127.0.0.1/instances/{uid}"]},
            }
            for sop_class, uid in self._found
        ]
        return json.dumps({"00081199": {"vr": "SQ", "Value": items}}).encode()


def serve(connection: socket.socket, least: int) -> None:
    """Answer requests on one connection until the client ends it."""
    scanner = Scanner(least)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, cast("BufferedReader", connection.makefile("rb", buffering=1 << 16)) as stream:
        while request := stream.readline():
            headers = _headers(stream)
            if headers.get("expect", "").lower() == "100-continue":
                connection.sendall(CONTINUE)
            scanner.start()
            _read_body(stream, headers, scanner)
            body = scanner.answer() if request.startswith(b"POST") else b"[]"
            close = headers.get("connection", "").lower() == "close"
            connection.sendall(_answer(body, close=close))
            if close:
                return


def _headers(stream: BufferedReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    while (line := stream.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return headers


def _read_body(stream: BufferedReader, headers: dict[str, str], scanner: Scanner) -> None:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        _read(stream, int(headers.get("content-length", "0")), scanner)
        return
    while size := int(stream.readline().partition(b";")[0], 16):
        _read(stream, size, scanner)
        stream.readline()
    stream.readline()


def _read(stream: BufferedReader, size: int, scanner: Scanner) -> None:
    # readinto1 goes past the stream's own buffer once that is empty: one copy, the lock given up meanwhile.
    while size:
        got = stream.readinto1(scanner.room[:size])
        if not got:
            raise ConnectionError("the body was cut")
        scanner.took(got)
        size -= got


def _answer(body: bytes, *, close: bool) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/dicom+json", f"Content-Length: {len(body)}"]
    lines += ["Connection: close"] if close else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, int(sys.argv[2])), daemon=True).start()


if __name__ == "__main__":
    main()
