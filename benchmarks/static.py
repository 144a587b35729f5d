"""A small file server, taken where nginx is not installed: ``python -m benchmarks.static FD < routes.json``.

FD is an inherited listening socket; the routes are objects as `benchmarks.servers.Route` has them.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

Routes = dict[str, tuple[str, str]]


def serve(connection: socket.socket, routes: Routes) -> None:
    """Answer GET requests on one connection until the client ends it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as stream:
        while request := stream.readline():
            close = False
            while (line := stream.readline()).strip():
                close |= line.strip().lower() == b"connection: close"
            _answer(connection, request.split()[1].decode(), routes)
            if close:
                return


def _answer(connection: socket.socket, target: str, routes: Routes) -> None:
    url = urlsplit(target)
    if url.path not in routes:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return
    file, content_type = routes[url.path]
    if int(parse_qs(url.query).get("offset", ["0"])[0]):
        connection.sendall(_head(content_type, 2) + b"[]")
        return
    with Path(file).open("rb") as body:
        connection.sendall(_head(content_type, Path(file).stat().st_size))
        connection.sendfile(body)


def _head(content_type: str, length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n".encode()


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    routes = {route["path"]: (route["file"], route["content_type"]) for route in json.load(sys.stdin)}
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, routes), daemon=True).start()


if __name__ == "__main__":
    main()
