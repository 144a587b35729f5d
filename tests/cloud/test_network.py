"""TLS, proxies, slow networks, services that fall silent."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import websockets.asyncio.client
from websockets.asyncio.server import serve

from postdicom_async import ConnectionFailed, OutcomeUnknown, PostdicomError, Status, Tls, UsageError
from tests.cloud.cutting import CuttingProxy
from tests.cloud.forms import ONE
from tests.cloud.service import CloudService, Received, echo
from tests.faults.clients import settings
from tests.support.dicom_files import small_dicom
from tests.support.stream_server import StreamServer

QUICK = settings(max_attempts=1)


class SecureService(CloudService):
    """The service over TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(echo)
        self._context = context

    async def __aenter__(self) -> Any:
        self._server = await serve(self._serve, "127.0.0.1", 0, ssl=self._context, compression=None)
        self.url = f"wss://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context_of(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_an_authority_of_ones_own(authority: trustme.CA, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with SecureService(context_of(authority, "127.0.0.1")) as service:
        trusting = settings(tls=Tls(ca_file=file), max_attempts=1)
        async with service.client(settings=trusting) as api:
            assert (await api.view.order(ONE)).url
        with pytest.raises(ConnectionFailed, match="certificate") as caught:
            await service.client(settings=QUICK).__aenter__()
    assert not caught.value.temporary


async def test_a_certificate_for_another_host(authority: trustme.CA, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    async with SecureService(context_of(authority, "other.example")) as service:
        with pytest.raises(ConnectionFailed, match="certificate"):
            await service.client(settings=settings(tls=Tls(ca_file=file), max_attempts=1)).__aenter__()


async def test_a_client_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    file, own = tmp_path / "ca.pem", tmp_path / "own.pem"
    authority.cert_pem.write_to_path(str(file))
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(str(own))
    context = context_of(authority, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    async with SecureService(context) as service:
        async with service.client(settings=settings(tls=Tls(ca_file=file, certificate=own))) as api:
            assert (await api.view.order(ONE)).url
        with pytest.raises(PostdicomError):
            await service.client(settings=settings(tls=Tls(ca_file=file), max_attempts=1)).__aenter__()


async def through_a_proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[bytes]) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    asked.append(head)
    _, target, _ = head.split(b" ", 2)
    host, _, port = target.decode().rpartition(":")
    far_in, far_out = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")

    async def passing(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    await asyncio.gather(passing(reader, far_out), passing(far_in, writer), return_exceptions=True)


async def test_a_proxy() -> None:
    asked: list[bytes] = []
    async with StreamServer(lambda r, w: through_a_proxy(r, w, asked)) as proxy, CloudService(echo) as service:
        address = f"http://user:secret@127.0.0.1:{proxy.port}"
        async with service.client(settings=settings(proxy=address)) as api:
            assert (await api.view.order(ONE)).url
            report = await api.upload(small_dicom())
            assert report.counts == {Status.STORED: 1}
    assert all(head.startswith(b"CONNECT ") and b"Proxy-Authorization: Basic" in head for head in asked)
    assert len(asked) == service.sockets == 2


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 No\r\n\r\n", b"HTTP/1.1 502 No\r\n\r\n", b"what?\r\n\r\n", b""])
async def test_a_proxy_that_does_not_work(answer: bytes) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with StreamServer(refuse) as proxy, CloudService(echo) as service:
        address = f"http://user:secret@127.0.0.1:{proxy.port}"
        with pytest.raises(PostdicomError) as caught:
            await service.client(settings=settings(proxy=address, max_attempts=1)).__aenter__()
    assert "secret" not in f"{caught.value!r} {caught.value}"
    assert service.sockets == 0


async def test_a_socks_proxy_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lacking(*_: object, **_options: object) -> None:  # as websockets defines it where python-socks is not
        raise ImportError("connecting through a SOCKS proxy requires python-socks")

    monkeypatch.setattr(websockets.asyncio.client, "connect_socks_proxy", lacking)
    async with CloudService(echo) as service:
        with pytest.raises(UsageError, match="proxy: a SOCKS proxy needs the package python-socks"):
            await service.client(settings=settings(proxy="socks5://127.0.0.1:1", max_attempts=1)).__aenter__()


async def test_the_machines_proxy_is_not_used_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with CloudService(echo) as service:
        async with service.client(settings=QUICK) as api:
            assert (await api.view.order(ONE)).url
        asking = settings(use_environment_proxies=True, max_attempts=1)
        with pytest.raises(ConnectionFailed):
            await service.client(settings=asking).__aenter__()


@pytest.mark.parametrize("stops", [False, True])
async def test_a_service_that_takes_data_slowly_or_not_at_all(stops: bool) -> None:
    """The limit is one on silence: how long a request takes to send does not matter."""
    stall = 2_000_000 if stops else None
    async with CloudService() as service, CuttingProxy(service.url, stall_after=stall, pause=0.003) as proxy:
        service.url = proxy.url
        async with service.client(settings=settings(idle_write=2.5, max_attempts=1)) as api:
            sending = api.folders.create("x" * 80_000_000)
            if stops:
                with pytest.raises(OutcomeUnknown, match="the service stopped taking data"):
                    await sending
            else:
                started = asyncio.get_running_loop().time()
                assert (await sending).raw
                assert asyncio.get_running_loop().time() - started > 2.5, "it took longer than the limit"


async def test_a_registration_that_is_never_answered_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(CloudService):
        async def _reply(self, connection: Any, request: Received) -> None:
            if request.key != (3, 2):
                await super()._reply(connection, request)

    async with Silent(echo) as service, service.client(settings=settings(connect=0.2, answer=60)) as api:
        service.drop()
        async with asyncio.timeout(10):
            assert (await api.view.order(ONE)).url
    assert [one.key for one in service.received] == [(3, 4), (3, 2), (3, 4), (17, 5)]
