"""A session is opened, refused, and closed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from postdicom_async import (
    AuthenticationFailed,
    CloudApi,
    ConnectionFailed,
    OutcomeUnknown,
    PostdicomError,
    ProtocolError,
    UsageError,
)
from tests.cloud.conftest import INSTITUTION, Account, client_of
from tests.cloud.service import API_KEY, SESSION, CloudService, Received, refusal
from tests.support.stream_server import StreamServer


async def test_what_is_under_way_at_the_end_fails() -> None:
    async with CloudService(lambda _request: None) as service:
        async with service.client() as api:
            waiting = asyncio.create_task(api.folders.create("X"))
            await asyncio.sleep(0.05)
        with pytest.raises(OutcomeUnknown):
            await waiting
        with pytest.raises(UsageError, match="the session is closed"):
            await api.folders.create("Y")
        with pytest.raises(UsageError, match="opened already"):
            await api.__aenter__()


async def test_before_it_is_open() -> None:
    api = CloudService().client()
    with pytest.raises(UsageError, match="use it inside 'async with'"):
        await api.folders.search().all()


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (403, AuthenticationFailed, "open the WebSocket: the service refused the connection (status 403)"),
        (302, ConnectionFailed, "open the WebSocket: the service did not open a WebSocket (status 302; 3 attempts)"),
        (500, ConnectionFailed, "open the WebSocket: the service did not open a WebSocket (status 500; 3 attempts)"),
    ],
)
async def test_a_refused_socket(status: int, kind: type[PostdicomError], message: str) -> None:
    tries = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with StreamServer(refuse) as server:
        service = CloudService()
        service.url = f"ws://127.0.0.1:{server.port}"
        with pytest.raises(kind) as caught:
            await service.client().__aenter__()
    assert str(caught.value) == message
    assert tries == (1 if kind is AuthenticationFailed else 3)


@pytest.mark.parametrize("step", ["web-service", "session", "socket"])
async def test_a_refused_bring_up(account: Account, step: Any) -> None:
    from postdicom_async.emulator.cloud.oddities import HttpAnswer

    account.server.cloud.oddities.http[step] = [HttpAnswer()]
    with pytest.raises(AuthenticationFailed, match="the service did not accept it; check the API key, the account key"):
        await account.another().__aenter__()
    account.server.cloud.oddities.http[step] = [HttpAnswer(503), HttpAnswer(500)]
    async with account.another() as api:
        assert api.account.users


async def test_wrong_keys(account: Account) -> None:
    wrong = CloudApi(API_KEY, account.server.cloud_account_key, router_url=account.server.router_url)
    with pytest.raises(AuthenticationFailed, match="find the region: "):
        await wrong.__aenter__()
    assert not account.server.cloud.sent((3, 4))[1:]


@pytest.mark.parametrize("address", ["", "  ", "ftp://x/", "http:///", "not an address", "http://user@"])
async def test_addresses_that_are_none(address: str) -> None:
    service = CloudService()
    service.url = address
    with pytest.raises(ProtocolError):
        await service.client().__aenter__()


@pytest.mark.parametrize(
    ("router", "socket"), [("https://router.example/", "ws://127.0.0.1:1"), (None, "ws://far.example")]
)
async def test_no_key_goes_out_in_the_open_where_the_router_leads(router: str | None, socket: str) -> None:
    service = CloudService()
    service.url = socket
    options = {"router_url": router} if router else {}
    with pytest.raises(ProtocolError, match="gave an address without encryption; it was not used"):
        await service.client(**options).__aenter__()


@pytest.mark.parametrize(
    "router", ["foo", "router.example/", "ftp://router.example/", "http://", "https://x:y/", "https://[1", 5]
)
def test_a_router_that_is_none(router: Any) -> None:
    with pytest.raises(UsageError, match=r"^router_url: give an absolute address such as https://"):
        CloudService().client(router_url=router)


async def test_a_router_in_the_open_is_refused() -> None:
    with pytest.raises(UsageError, match="router_url: the keys would travel unencrypted"):
        CloudService().client(router_url="http://router.example/")


async def test_two_clients_do_not_meet(account: Account) -> None:
    async with client_of(account.server) as second:
        account.server.cloud.drop_sockets()
        await asyncio.gather(account.api.folders.search().all(), second.folders.search().all())
        one, two = await asyncio.gather(account.api.folders.create("One"), second.folders.create("Two"))
        assert one.folder_uuid != two.folder_uuid
    assert await account.api.orders.search(institution_uuids=[INSTITUTION]).all() == []


async def test_an_account_that_is_none() -> None:
    async with CloudService() as service:
        service.account = None
        with pytest.raises(ProtocolError, match="open a session: the answer holds no account"):
            await service.client().__aenter__()
        async with asyncio.timeout(5):
            while service.open:
                await asyncio.sleep(0.01)


async def test_a_session_that_is_refused() -> None:
    class Refusing(CloudService):
        async def _reply(self, connection: Any, request: Received) -> None:
            await connection.send(refusal(request, f"no session {SESSION} for {API_KEY}"))

    async with Refusing() as service:
        with pytest.raises(AuthenticationFailed, match="did not open the session") as caught:
            await service.client().__aenter__()
    assert caught.value.reason == "no session [sent value] for [sent value]"


async def test_the_transport_is_closed_in_the_end() -> None:
    closed = 0

    class Closing(httpx.MockTransport):
        async def aclose(self) -> None:
            nonlocal closed
            closed += 1

    async with CloudService() as service, service.client(transport=Closing(service._bring_up)):
        pass
    assert closed
