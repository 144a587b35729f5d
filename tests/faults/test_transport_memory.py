"""What one stream holds in memory, on a real socket: a piece, not several."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from postdicom_async import Timeouts
from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.dicomweb.store import RelatedBody
from postdicom_async.disk.files import FileBody
from postdicom_async.disk.sources import Usable
from postdicom_async.http.aiohttp_transport import AiohttpTransport
from postdicom_async.http.exchange import Clock, SentBody, Watchdog
from tests.faults.clients import FAST
from tests.support.dicom_files import small_dicom
from tests.support.faulty_server import FaultyServer, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

MIB = 1 << 20


@contextmanager
def sink(length: int) -> Iterator[str]:
    """Take so many bytes of a request, and answer; in a thread, and in memory that does not grow."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            buffer = bytearray(1 << 16)
            left = length
            while left > 0:
                left -= connection.recv_into(buffer)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


async def test_a_file_is_not_kept_while_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By any of the layers that hand it on."""
    data = small_dicom(pixel_bytes=MIB - 4096)
    header = read_header(data, complete=True)
    assert isinstance(header, InstanceHeader)
    (tmp_path / "1.dcm").write_bytes(data)
    del data
    file = FileBody.of(tmp_path / "1.dcm", (tmp_path / "1.dcm").stat(), MIB)
    held: list[int] = []
    read = FileBody._read_whole

    def noted(body: FileBody) -> bytes:
        held.append(tracemalloc.get_traced_memory()[0])
        return read(body)

    monkeypatch.setattr(FileBody, "_read_whole", noted)
    parts = [Usable(str(number), header, file) for number in range(8)]
    body = RelatedBody(parts, lambda _part, _sent: None)
    with sink(body.length) as url:
        transport = AiohttpTransport(FAST)
        await _warm(transport)
        clock = Clock()
        watch = Watchdog(clock)
        stream = SentBody(body, watch, Timeouts(), math.inf, whole=False)
        headers = {"Content-Length": str(body.length)}
        tracemalloc.start()
        try:
            with watch:
                request = httpx.Request("POST", url, headers=headers, content=stream)
                answer = await transport.handle_async_request(request)
        finally:
            tracemalloc.stop()
        await answer.aclose()
        await transport.aclose()
        clock.close()
    assert len(held) == len(parts)
    assert min(held[1:]) < MIB // 2  # the thread that has read one may hold it a moment longer


async def _warm(transport: AiohttpTransport) -> None:
    async with FaultyServer() as server:
        await (await transport.handle_async_request(httpx.Request("GET", server.url))).aclose()


async def test_what_was_read_ahead_is_handed_over_as_it_came() -> None:
    """Not joined, which would double it."""
    async with FaultyServer(Reply(body=bytes(8 * MIB))) as server:
        transport = AiohttpTransport(FAST)
        answer = await transport.handle_async_request(httpx.Request("GET", server.url))
        sizes = []
        stream: Any = answer.stream
        async for piece in stream:
            sizes.append(len(piece))
            await asyncio.sleep(0.02)
        await answer.aclose()
        await transport.aclose()
    assert sum(sizes) == 8 * MIB
    assert max(sizes) <= 256 * 1024  # the most that the event loop takes from the system at once
