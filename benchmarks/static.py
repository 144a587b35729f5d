"""A small file server, taken where nginx is not installed: ``python -m benchmarks.static FD WWW [CERTIFICATE]``.

FD is an inherited listening socket; what lies in the folder WWW is told by `benchmarks.data.write_study`. With a PEM
file of certificate and key it speaks TLS.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from benchmarks.names import MULTIPART

TYPES = {".body": MULTIPART, ".json": "application/dicom+json"}


def serve(connection: socket.socket, www: Path, context: ssl.SSLContext | None) -> None:
    """Answer GET requests on one connection until the client ends it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(OSError):  # the client went away
        connection = context.wrap_socket(connection, server_side=True) if context else connection
        with connection, connection.makefile("rb") as stream:
            while request := stream.readline():
                close = False
                while (line := stream.readline()).strip():
                    close |= line.strip().lower() == b"connection: close"
                _answer(connection, request.split()[1].decode(), www)
                if close:
                    return


def _answer(connection: socket.socket, target: str, www: Path) -> None:
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    file = file_of(www, url.path, query)
    if file is None:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    elif int(query.get("offset", "0")):
        connection.sendall(_head(TYPES[file.suffix], 2) + b"[]")
    else:
        with file.open("rb") as body:
            connection.sendall(_head(TYPES[file.suffix], file.stat().st_size))
            connection.sendfile(body)


def file_of(www: Path, path: str, query: dict[str, str]) -> Path | None:
    """Return the file that answers a request."""
    if path == "/studies":
        candidates = [www / "count" / f"{query.get('StudyInstanceUID')}.json"]
    else:
        candidates = [www / f"{path[1:]}.body", www / f"{path[1:]}.json"]
    if path.endswith("/series") and "SeriesInstanceUID" in query:
        candidates.insert(0, www / "count" / f"{query['SeriesInstanceUID']}.json")
    return next((file for file in candidates if file.is_file()), None)


def _head(content_type: str, length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n".encode()


def main() -> None:
    listener, www, context = socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]), None
    if sys.argv[3:]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3])
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, www, context), daemon=True).start()


if __name__ == "__main__":
    main()
