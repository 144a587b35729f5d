"""Certificates and proxies as hospitals have them, on both transports; and nothing secret in the open."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import AuthenticationFailed, ConnectionFailed, DicomWeb, Settings, Tls, UsageError
from postdicom_async.http.endpoint import choose_transport
from tests.faults.clients import FAST, transport_of
from tests.support.bodies import json_reply
from tests.support.certificates import Authority
from tests.support.faulty_server import FaultyServer, unused_port
from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

EMPTY = json_reply([])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority, **more: Any) -> Settings:
    return replace(FAST, tls=Tls(ca_file=authority.ca_file, **more))


async def searched(url: str, transport_name: str, using: Settings, **arguments: Any) -> list[Any]:
    """Search on one transport; the proxy setting goes to it as the session would give it."""
    transport = transport_of(transport_name, using, proxy=using.proxy)
    async with DicomWeb(url, settings=using, transport=transport, **arguments) as archive:
        return await archive.search_for_studies(limit=1).all()


# --- servers --------------------------------------------------------------------------------------------------------


async def test_a_private_authority(authority: Authority, transport_name: str) -> None:
    async with FaultyServer(EMPTY, ssl_context=authority.server("127.0.0.1")) as server:
        assert await searched(server.url, transport_name, trusting(authority)) == []


async def test_an_authority_that_is_not_known(authority: Authority, transport_name: str) -> None:
    async with FaultyServer(EMPTY, ssl_context=authority.server("127.0.0.1")) as server:
        with pytest.raises(ConnectionFailed, match="certificate") as caught:
            await searched(server.url, transport_name, FAST)
    assert (caught.value.temporary, caught.value.attempts, caught.value.may_have_arrived) == (False, 1, False)
    assert not server.requests


async def test_another_authority(authority: Authority, transport_name: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    async with FaultyServer(EMPTY, ssl_context=other.server("127.0.0.1")) as server:
        with pytest.raises(ConnectionFailed, match="certificate"):
            await searched(server.url, transport_name, trusting(authority))
    assert not server.requests


async def test_a_certificate_for_another_name(authority: Authority, transport_name: str) -> None:
    async with FaultyServer(EMPTY, ssl_context=authority.server("archive.example")) as server:
        with pytest.raises(ConnectionFailed, match="certificate") as caught:
            await searched(server.url, transport_name, trusting(authority))
    assert not caught.value.temporary
    assert not server.requests


async def test_verification_turned_off_by_name(authority: Authority, transport_name: str) -> None:
    using = replace(FAST, tls=Tls(accept_any_certificate=True))
    async with FaultyServer(EMPTY, ssl_context=authority.server("archive.example")) as server:
        assert await searched(server.url, transport_name, using) == []


async def test_https_to_a_plain_server(transport_name: str) -> None:
    using = replace(FAST, timeouts=replace(FAST.timeouts, connect=0.3))
    async with FaultyServer(EMPTY) as server:
        with pytest.raises(ConnectionFailed):
            await searched(server.url.replace("http:", "https:"), transport_name, using)
    assert not server.requests


# --- client certificates --------------------------------------------------------------------------------------------


async def test_a_client_certificate(authority: Authority, transport_name: str) -> None:
    certificate, key = authority.client_files()
    context = authority.server("127.0.0.1", wants_client=True)
    async with FaultyServer(EMPTY, ssl_context=context) as server:
        using = trusting(authority, certificate=certificate, key=key)
        assert await searched(server.url, transport_name, using) == []


async def test_certificate_and_key_in_one_file(authority: Authority, transport_name: str, tmp_path: Path) -> None:
    certificate, key = authority.client_files()
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    context = authority.server("127.0.0.1", wants_client=True)
    async with FaultyServer(EMPTY, ssl_context=context) as server:
        assert await searched(server.url, transport_name, trusting(authority, certificate=both)) == []


async def test_no_client_certificate_where_one_is_wanted(authority: Authority, transport_name: str) -> None:
    context = authority.server("127.0.0.1", wants_client=True)
    async with FaultyServer(EMPTY, ssl_context=context) as server:
        with pytest.raises(ConnectionFailed):
            await searched(server.url, transport_name, trusting(authority))
    assert not server.requests


async def test_a_key_with_a_password(authority: Authority) -> None:
    certificate, key = authority.client_files(b"open sesame")
    using = trusting(authority, certificate=certificate, key=key, key_password="open sesame")
    context = authority.server("127.0.0.1", wants_client=True)
    async with FaultyServer(EMPTY, ssl_context=context) as server, DicomWeb(server.url, settings=using) as archive:
        assert await archive.search_for_studies(limit=1).all() == []


# --- credentials in the open ----------------------------------------------------------------------------------------


OPEN_ROADS = ["archive.example", "10.1.2.3", "localhost.example", "127.0.0.1.example", "[2001:db8::1]"]


@pytest.mark.parametrize("auth", [("user", "pw"), "token", lambda: "token"])
@pytest.mark.parametrize(
    "host", ["archive.example", "10.1.2.3", "localhost.example", "127.0.0.1.example", "[2001:db8::1]"]
)
def test_credentials_in_the_open_are_refused(auth: Any, host: str) -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        DicomWeb(f"http://{host}/dicom-web", auth=auth)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]", "archive.localhost"])
def test_credentials_to_this_machine_are_fine(host: str) -> None:
    DicomWeb(f"http://{host}/dicom-web", auth=("user", "pw"))


def test_credentials_in_the_open_when_allowed_by_name() -> None:
    DicomWeb("http://archive.example", auth=("user", "pw"), settings=Settings(allow_http_credentials=True))


@pytest.mark.parametrize(
    "url",
    [
        "archive.example",
        "ftp://x",
        "http://",
        "https://user:pw@x/",
        "https://x/?a=b",
        "https://x/#a",
        "https://x y/",
        "http://[",
        "http://x:0x/",
        "",
        "https://x/\r\n",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match=r"^url:"):
        DicomWeb(url)


# --- proxies --------------------------------------------------------------------------------------------------------


@dataclass
class Proxy:
    """CONNECT tunnels and absolute-form requests, all of them to one port."""

    port_behind: int
    seen: list[str] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)
    wants: str | None = None
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            self.seen.append(" ".join(lines[0].split(" ")[:2]))
            named = [line for line in lines if line.lower().startswith("proxy-authorization:")]
            self.credentials += named
            if self.wants is not None and not any(self.wants in line for line in named):
                writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                await self.pass_on(head, reader, writer)

    async def pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port_behind)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            method, url, rest = head.split(b" ", 2)
            back.write(method + b" /" + url.split(b"/", 3)[3] + b" " + rest)
        with closing(back):
            await asyncio.gather(pump(reader, back), pump(there, writer))


@contextlib.contextmanager
def closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@contextlib.asynccontextmanager
async def proxy_to(port: int, wants: str | None = None) -> AsyncIterator[Proxy]:
    proxy = Proxy(port, wants=wants)
    async with StreamServer(proxy.serve) as server:
        proxy.port = server.port
        yield proxy
    await asyncio.sleep(0.01)  # closed sockets are let go of in the next rounds of the loop


async def test_a_plain_request_through_a_proxy(transport_name: str) -> None:
    async with FaultyServer(EMPTY) as server, proxy_to(server.port) as proxy:
        using = replace(FAST, proxy=f"http://127.0.0.1:{proxy.port}")
        assert await searched("http://archive.invalid/dicom-web", transport_name, using) == []
    assert [line.split("?")[0] for line in proxy.seen] == ["GET http://archive.invalid/dicom-web/studies"]
    assert len(server.requests) == 1


async def test_a_tunnel_through_a_proxy(authority: Authority, transport_name: str) -> None:
    context = authority.server("archive.invalid")
    async with FaultyServer(EMPTY, ssl_context=context) as server, proxy_to(server.port) as proxy:
        using = replace(trusting(authority), proxy=f"http://127.0.0.1:{proxy.port}")
        assert await searched("https://archive.invalid/dicom-web", transport_name, using, auth=("user", "pw")) == []
    assert proxy.seen == ["CONNECT archive.invalid:443"]
    assert server.requests[0].header("authorization")


async def test_a_proxy_that_wants_a_password(transport_name: str) -> None:
    wanted = base64.b64encode(b"me:secret").decode()
    async with FaultyServer(EMPTY) as server, proxy_to(server.port, wanted) as proxy:
        for user, fits in (("me:secret@", True), ("me:other@", False), ("", False)):
            using = replace(FAST, proxy=f"http://{user}127.0.0.1:{proxy.port}")
            expected = (
                contextlib.nullcontext() if fits else pytest.raises(AuthenticationFailed, match="the proxy refused")
            )
            with expected:
                await searched("http://archive.invalid/", transport_name, using)
    assert len(server.requests) == 1
    assert not server.requests[0].all_headers("authorization")


async def test_a_proxy_that_is_not_there(transport_name: str) -> None:
    using = replace(FAST, proxy=f"http://me:secret@127.0.0.1:{unused_port()}")
    with pytest.raises(ConnectionFailed) as caught:
        await searched("http://archive.invalid/", transport_name, using)
    assert not caught.value.may_have_arrived
    assert "secret" not in repr((caught.value, using, caught.value.__context__))


@pytest.mark.parametrize("proxy", ["nonsense", "http://[", "ftp://x:1", "http://"])
def test_a_proxy_setting_that_cannot_be_used(proxy: str) -> None:
    with pytest.raises(UsageError, match="proxy"):
        DicomWeb("https://archive.example", settings=Settings(proxy=proxy))


async def test_the_setting_reaches_the_transport_chosen() -> None:
    async with FaultyServer(EMPTY) as server, proxy_to(server.port) as proxy:
        using = replace(FAST, proxy=f"http://127.0.0.1:{proxy.port}")
        async with DicomWeb("http://archive.invalid/x", settings=using) as archive:
            assert await archive.search_for_studies(limit=1).all() == []
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("asked", [True, False])
async def test_the_environment_s_proxies_only_when_asked(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultyServer(EMPTY) as server, proxy_to(server.port) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        using = replace(FAST, use_environment_proxies=asked)
        async with DicomWeb(f"{server.url}/x", settings=using) as archive:
            assert await archive.search_for_studies(limit=1).all() == []
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with DicomWeb(f"{server.url}/x", settings=using) as archive:
            assert await archive.search_for_studies(limit=1).all() == []
    assert len(proxy.seen) == asked
    assert len(server.requests) == 2


ENVIRONMENTS: list[tuple[str, str | None, bool, bool]] = [
    ("HTTPS_PROXY", None, True, True),
    ("https_proxy", None, True, True),
    ("ALL_PROXY", None, True, True),
    ("HTTPS_PROXY", "other.example", True, True),
    ("HTTPS_PROXY", "archive.invalid", True, False),
    ("HTTPS_PROXY", ".invalid", True, False),
    ("HTTPS_PROXY", "archive.invalid:8443", True, False),
    ("HTTPS_PROXY", "*", True, False),
    ("HTTP_PROXY", None, True, False),
    ("HTTPS_PROXY", None, False, False),
]


@pytest.mark.parametrize(("variable", "no_proxy", "asked", "through"), ENVIRONMENTS)
async def test_the_environment_s_proxy_for_https(
    variable: str,
    no_proxy: str | None,
    asked: bool,
    through: bool,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name is known to the proxy alone: without it there is no way to the archive."""
    context = authority.server("archive.invalid")
    async with FaultyServer(EMPTY, ssl_context=context) as server, proxy_to(server.port) as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        if no_proxy is not None:
            monkeypatch.setenv("NO_PROXY", no_proxy)
        once = replace(trusting(authority), retry=replace(FAST.retry, max_attempts=1), use_environment_proxies=asked)
        expected = contextlib.nullcontext() if through else pytest.raises(ConnectionFailed, match="name is not known")
        async with DicomWeb("https://archive.invalid:8443/x", settings=once) as archive:
            with expected:
                assert await archive.search_for_studies(limit=1).all() == []
    assert proxy.seen == (["CONNECT archive.invalid:8443"] if through else [])


async def test_a_proxy_of_the_environment_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example")
    using = replace(FAST, use_environment_proxies=True)
    with pytest.raises(UsageError, match="proxy"):
        DicomWeb("https://archive.invalid", settings=using)


async def test_no_transport_looks_there_itself(transport_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    async with FaultyServer(EMPTY) as server:
        assert await searched(server.url, transport_name, FAST) == []
        assert choose_transport(server.url, FAST).name == "aiohttp"
