"""What one operation costs over the bare call: ``python -m benchmarks.operations``.

Processor time of this process for ``archive.folders.create(...)`` beside ``httpx.AsyncClient.get`` with the same
headers, on the transport that a session gets and on httpx's own, against a small server in another process. Both in one
run, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from statistics import median
from subprocess import PIPE, Popen

import httpx

from benchmarks.measure import cpu_seconds
from benchmarks.table import machine
from postdicom_async import PostDicom, Settings
from postdicom_async.http.endpoint import choose_transport

TARGET = 1.3
NAME = "Łukasz^Święty"
BODY = b'{"Success":true,"Message":"","FolderUuid":"01234567-89ab-cdef-0123-456789abcdef"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
HEADERS = {
    "CreateFolderParameters": (
        r'{"FolderName":"\u0141ukasz^\u015awi\u0119ty","FolderDescription":"Monday","ParentFolderUuid":""}'
    ),
    "Cache-Control": "no-store",
    "Accept-Encoding": "identity",
    "User-Agent": "postdicom-async",
    "Authorization": f"Basic {b64encode(b'demo:demo').decode()}",
}
Call = Callable[[], Awaitable[object]]
Make = Callable[[], httpx.AsyncBaseTransport]


class Answering(asyncio.Protocol):
    """Answer every request alike."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        self._transport.write(ANSWER * len(requests))


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def server() -> Iterator[str]:
    with Popen([sys.executable, "-m", "benchmarks.operations", "--serve"], stdout=PIPE, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


async def compare(make: Make, url: str, rounds: int, calls: int) -> tuple[float, float, float]:
    """Return seconds of the bare call, of ours, and the median over the rounds of their ratio."""
    async with (
        httpx.AsyncClient(transport=make(), trust_env=False) as client,
        PostDicom(url, "demo", "demo", transport=make()) as archive,
    ):

        async def bare() -> object:
            answer = await client.get(f"{url}/createfolder", headers=HEADERS)
            return answer.json()["FolderUuid"]

        async def ours() -> object:
            return (await archive.folders.create(NAME, description="Monday")).folder_uuid

        await _cost(bare, calls), await _cost(ours, calls)  # warms up
        pairs = [(await _cost(bare, calls), await _cost(ours, calls)) for _ in range(rounds)]
    ratio = median(own / other for other, own in pairs)
    return median(other for other, _ in pairs), median(own for _, own in pairs), ratio


async def _cost(call: Call, calls: int) -> float:
    before = cpu_seconds()
    for _ in range(calls):
        await call()
    return (cpu_seconds() - before) / calls


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operations", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of both sides in turn (15)")
    parser.add_argument("--calls", type=int, default=300, help="in each round (300)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return 0
    print("Processor time of one operation, median, microseconds")
    print(f"{'transport':<12}{'bare httpx':>12}{'PostDicom':>12}{'ratio':>8}")
    ratios = []
    with server() as url:
        chosen = choose_transport(url, Settings())
        makers: dict[str, Make] = {chosen.name: chosen.make, "httpx": httpx.AsyncHTTPTransport}
        for transport, make in makers.items():
            other, own, ratio = asyncio.run(compare(make, url, options.rounds, options.calls))
            print(f"{transport:<12}{other * 1e6:>12.0f}{own * 1e6:>12.0f}{ratio:>8.2f}")
            ratios.append(ratio)
    print(f"\nTarget: at most {TARGET}x. {'Reached.' if max(ratios) <= TARGET else 'Missed.'}\n\n{machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
