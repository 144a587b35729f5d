"""Hundreds of requests to a server that does anything, many of them cancelled: no answer is ever another's."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from postdicom_async import Tls
from postdicom_async.http.aiohttp_transport import AiohttpTransport
from tests.faults.clients import settings
from tests.faults.test_transport import LOOPS, STRAY, connections_to, run_in
from tests.support.certificates import Authority
from tests.support.elsewhere import serving_elsewhere
from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

REQUESTS = 600
AT_ONCE = 24
LARGE = 400_000
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def in_chunks(body: bytes) -> bytes:
    chunks = [b"%x\r\n%b\r\n" % (len(body[at : at + 3]), body[at : at + 3]) for at in range(0, len(body), 3)]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"


KEPT = {
    "whole": whole,
    "in chunks": in_chunks,
    "after interim answers": lambda body: INTERIM * 3 + whole(body),
    "with more": lambda body: whole(body) + b"more",
    "with the beginning of another": lambda body: whole(body) + b"HTTP/1.1 200 OK\r\nX: ",
    "with another": lambda body: whole(body) + STRAY,
    "large": lambda body: whole(body + b"." * LARGE),
}
ENDED = {
    "not at all": lambda _: b"",
    "its beginning": lambda body: whole(body)[:30],
    "of HTTP 1.0": lambda body: whole(body).replace(b"1.1", b"1.0"),
    "all but the end": lambda body: whole(body)[:-1],
    "whole, and ended": whole,
}


class Anything:
    """The server: what it does next is drawn. A request's target is what it answers."""

    def __init__(self, seed: int) -> None:
        self.seen: Counter[bytes] = Counter()
        self.chance = random.Random(seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split()[1]
        self.seen[target] += 1
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or b"0")
        if length == LARGE and self.chance.random() < 0.3:
            writer.write(whole(target))  # early
            return self.chance.random() < 0.5 and bool(await reader.readexactly(length))
        await reader.readexactly(length)
        ends = self.chance.random() < 0.25
        make = self.chance.choice(list((ENDED if ends else KEPT).values()))
        for piece in self._pieces(make(target)):
            writer.write(piece)
            await asyncio.sleep(self.chance.choice([0, 0, 0.001]))
        await writer.drain()
        return not ends

    def _pieces(self, answer: bytes) -> Iterator[bytes]:
        cut = self.chance.randrange(len(answer) + 1) if STRAY not in answer else len(answer)
        yield from (answer[:cut], answer[cut:])


@contextlib.contextmanager
def served(anything: Anything, context: ssl.SSLContext | None) -> Iterator[int]:
    """Serve from a thread; give the port."""
    with serving_elsewhere(lambda: StreamServer(anything.serve, ssl=context)) as server:
        yield server.port


class Client:
    """Makes requests, each with a target of its own, and looks at what it gets."""

    def __init__(self, transport: AiohttpTransport, url: str, seed: int) -> None:
        self.transport = transport
        self.url = url
        self.chance = random.Random(seed)
        self.ends: Counter[str] = Counter()

    async def all(self) -> None:
        numbers = iter(range(REQUESTS))

        async def some() -> None:
            for number in numbers:
                await self._perhaps_cancelled(number)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def _perhaps_cancelled(self, number: int) -> None:
        task = asyncio.ensure_future(self._one(f"/{number}/"))
        how = self.chance.random()
        if how < 0.3:
            for _ in range(self.chance.randrange(60)):
                await asyncio.sleep(0)
        elif how < 0.6:
            await asyncio.wait([task], timeout=self.chance.choice([0.0005, 0.002, 0.006, 0.02]))
        if how < 0.6:
            task.cancel()
        async with asyncio.timeout(60):
            await asyncio.wait([task])
        if task.cancelled():
            self.ends["cancelled"] += 1
        else:
            task.result()

    async def _one(self, target: str) -> None:
        length = self.chance.choice([0, 10, 5000, LARGE])
        headers = {"Content-Length": str(length)} if length else {}
        content = self._pieces(length) if length else None
        request = httpx.Request("PUT" if length else "GET", self.url + target, headers=headers, content=content)
        try:
            answer = await self.transport.handle_async_request(request)
            try:
                stream: Any = answer.stream
                found = b"".join([piece async for piece in stream])
            finally:
                await answer.aclose()
        except httpx.TransportError:
            self.ends["failed"] += 1
            return
        assert found.rstrip(b".") == target.encode()
        assert len(found) in (len(target), len(target) + LARGE)
        self.ends["answered"] += 1

    async def _pieces(self, length: int) -> AsyncIterator[bytes]:
        while length:
            piece = min(length, self.chance.choice([1000, 65536, 300_000]))
            length -= piece
            yield bytes(piece)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("secure", [True, False])
def test_no_answer_is_anothers_and_no_request_is_made_twice(secure: bool, loop: str, tmp_path: Path) -> None:
    """And when all is over there is no connection left."""
    authority = Authority(tmp_path)
    anything = Anything(1)

    async def work() -> None:
        transport = AiohttpTransport(settings(tls=Tls(ca_file=authority.ca_file) if secure else Tls()))
        client = Client(transport, f"http{'s' if secure else ''}://127.0.0.1:{port}", 2)
        await client.all()
        await transport.aclose()
        assert min(client.ends[end] for end in ("answered", "failed", "cancelled")) > 20, client.ends
        async with asyncio.timeout(5):
            while connections_to(port):
                await asyncio.sleep(0.01)

    with served(anything, authority.server("127.0.0.1") if secure else None) as port:
        run_in(loop, work)
    assert set(anything.seen.values()) == {1}
