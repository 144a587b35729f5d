"""What a transport is given for one request, and how much is made for it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from postdicom_async import DicomWeb, Settings
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Session
from tests.faults.clients import FAST, transport_of
from tests.support.bodies import json_reply
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

SMALL, LARGE = b"x" * 65_536, b"x" * 65_537


class Seen(httpx.AsyncBaseTransport):
    """Notes in what pieces each body came."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[httpx.Request] = []
        self.pieces: list[list[bytes]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.pieces.append([piece async for piece in request.stream if piece])
        return httpx.Response(self.statuses.pop(0), content=b"{}")

    @property
    def bodies(self) -> list[bytes]:
        return [b"".join(pieces) for pieces in self.pieces]


class Pieces:
    """A body in pieces of at most 10,000 bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.length = data, len(data)

    async def open(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self.data), 10_000):
            yield self.data[start : start + 10_000]


async def send(transport: httpx.AsyncBaseTransport, body: bytes | None, settings: Settings = FAST) -> None:
    session = Session("https://archive.example/dicom-web", auth=None, settings=settings, transport=transport)
    await session.open()
    call = Call("store", "POST", "/studies", Repeat.STORE, body=None if body is None else Pieces(body))
    await session.fetch(call, cap=100)
    await session.close()


@pytest.mark.parametrize(("body", "pieces"), [(None, 0), (b"", 0), (SMALL, 1), (LARGE, 7)])
async def test_a_small_body_goes_out_in_one_piece(body: bytes | None, pieces: int) -> None:
    transport = Seen(200)
    await send(transport, body)
    (request,) = transport.requests
    assert [len(one) for one in transport.pieces] == [pieces]
    assert transport.bodies == [body or b""]
    assert request.headers["content-length"] == str(len(body or b""))
    assert request.headers["host"] == "archive.example"
    assert "transfer-encoding" not in request.headers
    assert request.url == "https://archive.example/dicom-web/studies"


async def test_chunked_uploads_have_no_length() -> None:
    transport = Seen(200)
    await send(transport, b"tiny", Settings(chunked_upload=True))
    (request,) = transport.requests
    assert transport.bodies == [b"tiny"]
    assert request.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in request.headers


@pytest.mark.parametrize("body", [SMALL, LARGE])
async def test_a_repeat_sends_the_whole_body_again(body: bytes) -> None:
    transport = Seen(503, 429, 200)
    await send(transport, body)
    assert transport.bodies == [body] * 3


async def test_one_request_and_one_response_an_exchange(transport_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[str] = Counter()
    for kind in (httpx.Request, httpx.Response, httpx.AsyncClient, httpx.Cookies):

        def counted(one: Any, *args: Any, _kind: Any = kind, _init: Any = kind.__init__, **options: Any) -> None:
            made[_kind.__name__] += 1
            _init(one, *args, **options)

        monkeypatch.setattr(kind, "__init__", counted)
    async with FaultyServer(json_reply([])) as server:
        client = DicomWeb(server.url, settings=FAST, transport=transport_of(transport_name, FAST), auth=("u", "p"))
        async with client as archive:
            for _ in range(10):
                await archive.search_for_studies(limit=1).all()
    assert made == {"Request": 10, "Response": 10}


async def test_no_cookie_is_kept(transport_name: str) -> None:
    def answer(request: Request) -> Reply:
        assert not request.header("cookie")
        return Reply(200, {"Content-Type": "application/dicom+json", "Set-Cookie": "session=1"}, b"[]")

    async with FaultyServer(answer) as server:
        client = DicomWeb(server.url, settings=FAST, transport=transport_of(transport_name, FAST))
        async with client as archive:
            for _ in range(2):
                await archive.search_for_studies(limit=1).all()
    assert len(server.requests) == 2


class Broken(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"["
        raise httpx.ReadError("https://archive.example/studies?PatientName=DOE")


async def test_a_transport_of_the_caller_s_may_fail_in_any_way_httpx_knows() -> None:
    faults: list[httpx.HTTPError | httpx.Response] = [
        httpx.ReadTimeout(""),
        httpx.WriteError(""),
        httpx.Response(200, stream=Broken()),
        httpx.Response(200, json=[]),
    ]

    def handler(request: httpx.Request) -> httpx.Response:
        fault = faults.pop(0)
        if isinstance(fault, httpx.HTTPError):
            raise fault
        return fault

    settings = Settings(timeouts=FAST.timeouts, retry=type(FAST.retry)(max_attempts=4, base=0.001))
    url = "https://archive.example"
    async with DicomWeb(url, settings=settings, transport=httpx.MockTransport(handler)) as archive:
        assert await archive.search_for_studies(limit=1).all() == []
    assert not faults
