"""The floor: one plain socket, a file at the other end, nothing parsed."""

from __future__ import annotations

import json
import socket
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks.measure import Measurement, Meter, Task
from benchmarks.names import INSTANCE_PREFIX, MULTIPART

if TYPE_CHECKING:
    from urllib.parse import SplitResult

PIECE = 1 << 20


def run(task: Task) -> Measurement:
    return _download(task) if task.action == "download" else _upload(task)


def _download(task: Task) -> Measurement:
    base, buffer, moved = urlsplit(task.url), bytearray(PIECE), 0
    view = memoryview(buffer)
    with Meter() as meter, _connect(base) as connection, Path(task.target, "body").open("wb") as file:
        target = f"{base.path}{task.bodies[0]}"
        accept = 'multipart/related; type="application/dicom"'
        connection.sendall(_request("GET", target, base, {"Accept": accept, **_credentials(task)}))
        while size := connection.recv_into(buffer):
            file.write(view[:size])
            moved += size
    with Path(task.target, "body").open("rb") as file:
        if not file.readline().startswith(b"HTTP/1.1 200"):
            raise RuntimeError("the answer was not 200")
    return meter.result(0, moved)


def _upload(task: Task) -> Measurement:
    base, size = urlsplit(task.url), Path(task.bodies[0]).stat().st_size
    headers = {
        "Content-Type": MULTIPART,
        "Content-Length": str(size),
        "Accept": "application/dicom+json",
        **_credentials(task),
    }
    answer = b""
    with Meter() as meter, _connect(base) as connection, Path(task.bodies[0]).open("rb") as file:
        connection.sendall(_request("POST", f"{base.path}/studies", base, headers))
        connection.sendfile(file)
        while piece := connection.recv(PIECE):
            answer += piece
    return meter.result(stored_in(answer), size)


def stored_in(answer: bytes) -> int:
    """How many of the benchmark's instances a store answer calls stored."""
    found = json.loads(answer[answer.index(b"{") : answer.rindex(b"}") + 1])
    items = found.get("00081199", {}).get("Value", [])
    return sum(item["00081155"]["Value"][0].startswith(INSTANCE_PREFIX) for item in items)


def _connect(base: SplitResult) -> socket.socket:
    return socket.create_connection((base.hostname or "127.0.0.1", base.port or 80))


def _credentials(task: Task) -> dict[str, str]:
    pair = b64encode(f"{task.user}:{task.password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"} if task.user else {}


def _request(method: str, target: str, base: SplitResult, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {base.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
