"""Each way in which no secure connection, or no way through a proxy, comes about has its own sentence."""

from __future__ import annotations

import contextlib
import ssl
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    DicomWeb,
    PostdicomError,
    ServerError,
    Settings,
    Status,
    Tls,
)
from tests.faults.clients import FAST, transport_of
from tests.support.bodies import json_reply
from tests.support.certificates import Authority, nginx, openssl, self_signed, tls_server
from tests.support.dicom_files import small_dicom
from tests.support.faulty_server import FaultyServer, unused_port
from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

EMPTY = json_reply([])
NOW, DAY = datetime.now(UTC), timedelta(days=1)

UNKNOWN = "its authority is not known here; give the authority's certificate as tls.ca_file"
OTHER_NAME = "the server's certificate is for another host name"
EXPIRED = "the server's certificate has expired"
TOO_EARLY = "the server's certificate is not valid yet"
NOT_TLS = "the server does not speak TLS at this port"
WANTED = "the server wants a client certificate; give tls.certificate and tls.key"
PERHAPS_WANTED = "the server broke off the handshake; it may want a client certificate"
NOT_ACCEPTED = "the server does not accept the client certificate"
OWN_EXPIRED = "the server says the client certificate has expired"
TOO_OLD = "have no version of TLS in common; TLS 1.2 or 1.3 is needed"
HUNG_UP = "the server hung up while the connection was made"
WANTS_HTTPS = "the server wants https:// at this port"
PROXY_PASSWORD = "the proxy refused the credentials or wants some"
ALL = [
    *(UNKNOWN, OTHER_NAME, EXPIRED, TOO_EARLY, NOT_TLS, WANTED, PERHAPS_WANTED, NOT_ACCEPTED, OWN_EXPIRED),
    *(TOO_OLD, HUNG_UP, WANTS_HTTPS, PROXY_PASSWORD),
]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other")


def trusting(authority: Authority, **more: Any) -> Settings:
    return replace(FAST, tls=Tls(ca_file=authority.ca_file, **more))


async def failure(url: str, transport_name: str, using: Settings, proxy: str | None = None) -> PostdicomError:
    """Search, which fails; return why, having looked that nothing else is said of it."""
    transport = transport_of(transport_name, using, proxy=proxy)
    with pytest.raises(PostdicomError) as caught:
        async with DicomWeb(url, settings=using, transport=transport) as archive:
            await archive.search_for_studies(limit=1).all()
    assert caught.value.__context__ is None
    assert url.split("//")[1] not in str(caught.value)
    return caught.value


def says(error: PostdicomError, sentence: str) -> None:
    """Check that one sentence is there, and no other."""
    assert sentence in str(error)
    assert [one for one in ALL if one in str(error)] == [sentence]


# --- the server's certificate ---------------------------------------------------------------------------------------

BAD_CERTIFICATES: dict[str, tuple[dict[str, Any], bool, str]] = {
    "unknown authority": ({"names": "127.0.0.1"}, False, UNKNOWN),
    "other name": ({"names": "archive.example"}, True, OTHER_NAME),
    "expired": ({"names": "127.0.0.1", "not_before": NOW - 2 * DAY, "not_after": NOW - DAY}, True, EXPIRED),
    "too early": ({"names": "127.0.0.1", "not_before": NOW + DAY, "not_after": NOW + 2 * DAY}, True, TOO_EARLY),
}


@pytest.mark.parametrize("case", BAD_CERTIFICATES)
async def test_a_certificate_that_is_refused(case: str, authority: Authority, transport_name: str) -> None:
    (options, known, sentence) = BAD_CERTIFICATES[case]
    dates = {name: value for name, value in options.items() if name != "names"}
    context = authority.server(options["names"], **dates)
    async with FaultyServer(EMPTY, ssl_context=context) as server:
        error = await failure(server.url, transport_name, trusting(authority) if known else FAST)
    says(error, sentence)
    assert isinstance(error, ConnectionFailed)
    assert (error.temporary, error.attempts, error.may_have_arrived) == (False, 1, False)
    assert ("ca_file" in str(error)) is (sentence == UNKNOWN)


async def test_a_self_signed_certificate_that_nobody_named(tmp_path: Path, transport_name: str) -> None:
    _, context = self_signed(tmp_path, "/CN=127.0.0.1", "subjectAltName=IP:127.0.0.1")
    async with FaultyServer(EMPTY, ssl_context=context) as server:
        says(await failure(server.url, transport_name, FAST), UNKNOWN)


# --- a server's own certificate, and authorities of every kind, as ca_file ------------------------------------------

SELF_SIGNED = {
    "openssl's default": ("/CN=127.0.0.1", ("subjectAltName=IP:127.0.0.1",)),
    "no authority": ("/CN=x", ("subjectAltName=IP:127.0.0.1", "basicConstraints=critical,CA:FALSE")),
    "named by its common name": ("/CN=localhost", ()),
}


@pytest.mark.parametrize("case", SELF_SIGNED)
async def test_a_self_signed_certificate_as_its_own_authority(case: str, tmp_path: Path) -> None:
    subject, extensions = SELF_SIGNED[case]
    certificate, context = self_signed(tmp_path, subject, *extensions)
    using = replace(FAST, tls=Tls(ca_file=certificate))
    async with FaultyServer(EMPTY, ssl_context=context) as server:
        url = server.url.replace("127.0.0.1", "localhost") if case.startswith("named") else server.url
        async with DicomWeb(url, settings=using) as archive:
            assert await archive.search_for_studies(limit=1).all() == []


async def test_an_authority_made_by_hand(tmp_path: Path, transport_name: str) -> None:
    """Without the extensions that newer Pythons demand; its certificate is issued by hand, too."""
    authority, _ = self_signed(tmp_path, "/CN=Radiology Root Authority")
    key, request, leaf, names = (tmp_path / name for name in ("leaf.key", "leaf.csr", "leaf.pem", "names"))
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", key, "-out", request)
    openssl(
        *("x509", "-req", "-in", request, "-CA", authority, "-CAkey", tmp_path / "self.key", "-set_serial", "7"),
        *("-extfile", names, "-days", "10", "-out", leaf),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf, key)
    using = replace(FAST, tls=Tls(ca_file=authority))
    transport = transport_of(transport_name, using)
    async with (
        FaultyServer(EMPTY, ssl_context=context) as server,
        DicomWeb(server.url, settings=using, transport=transport) as archive,
    ):
        assert await archive.search_for_studies(limit=1).all() == []


@pytest.mark.parametrize("named", ["intermediate", "leaf"])
async def test_what_is_named_is_trusted_without_what_stands_above(named: str, tmp_path: Path) -> None:
    root = Authority(tmp_path / "root")
    below = root.ca.create_child_ca()
    leaf = below.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    ca_file = tmp_path / "named.pem"
    (below.cert_pem if named == "intermediate" else leaf.cert_chain_pems[0]).write_to_path(ca_file)
    using = replace(FAST, tls=Tls(ca_file=ca_file))
    async with FaultyServer(EMPTY, ssl_context=context) as server, DicomWeb(server.url, settings=using) as archive:
        assert await archive.search_for_studies(limit=1).all() == []


# --- the handshake --------------------------------------------------------------------------------------------------


def of_version(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("given", ["none", "another authority's", "expired"])
async def test_a_client_certificate_is_wanted(
    version: str, given: str, authority: Authority, other: Authority, transport_name: str
) -> None:
    context = of_version(authority.server("127.0.0.1", wants_client=True), ssl.TLSVersion[version])
    using = trusting(authority)
    sentence = WANTED if version == "TLSv1_3" else PERHAPS_WANTED
    if given == "another authority's":
        certificate, key = other.client_files()
        using, sentence = trusting(authority, certificate=certificate, key=key), NOT_ACCEPTED
    if given == "expired":
        both = authority.folder / "expired.pem"
        cert = authority.ca.issue_cert("client@hospital.example", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
        cert.private_key_and_cert_chain_pem.write_to_path(both)
        using, sentence = trusting(authority, certificate=both), OWN_EXPIRED
    with tls_server(context) as url:
        error = await failure(url, transport_name, using)
    says(error, sentence)
    assert isinstance(error, ConnectionFailed if sentence == PERHAPS_WANTED else AuthenticationFailed)
    assert (error.temporary, error.attempts) == (False, 1)


async def test_a_server_with_old_tls_only(authority: Authority, transport_name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = ssl.TLSVersion.TLSv1_1
    with tls_server(of_version(authority.server("127.0.0.1"), old)) as url:
        error = await failure(url, transport_name, trusting(authority))
    says(error, TOO_OLD)
    assert not error.temporary


@pytest.mark.parametrize("banner", [b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", b"SSH-2.0-Server\r\n"])
async def test_a_server_that_speaks_no_tls(banner: bytes, transport_name: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(banner)
        await writer.drain()
        await reader.read()

    async with StreamServer(answer) as server:
        error = await failure(f"https://127.0.0.1:{server.port}", transport_name, FAST)
    says(error, NOT_TLS)
    assert not error.temporary


@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_a_server_that_hangs_up_in_the_handshake(how: str, transport_name: str) -> None:
    async with FaultyServer(EMPTY, on_accept="close" if how == "closes" else "reset") as server:
        error = await failure(server.url.replace("http:", "https:"), transport_name, FAST)
    says(error, HUNG_UP)
    assert (error.temporary, error.attempts) == (True, 3)


async def test_a_connection_that_turns_to_rubbish(authority: Authority, transport_name: str) -> None:
    """After the head of the answer comes what nobody can decrypt: the connection broke, as any other does."""

    def answer(secure: ssl.SSLSocket, raw: socket.socket) -> None:
        secure.recv(65536)
        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 1000\r\n\r\n[")
        raw.sendall(b"\x17\x03\x03\x00\x30" + bytes(48))

    with tls_server(authority.server("127.0.0.1"), answer) as url:
        error = await failure(url, transport_name, trusting(authority))
    assert isinstance(error, ConnectionFailed)
    assert (error.temporary, error.attempts, error.may_have_arrived) == (True, 3, True)


# --- nginx ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def verifying(authority: Authority, tmp_path: Path) -> Iterator[int]:
    more = f"ssl_client_certificate {authority.ca_file}; ssl_verify_client on;"
    with nginx(tmp_path / "nginx", authority, more) as port:
        yield port


async def test_nginx_says_it_in_a_page(
    verifying: int, authority: Authority, other: Authority, transport_name: str
) -> None:
    certificate, key = other.client_files()
    foreign = trusting(authority, certificate=certificate, key=key)
    for scheme, using, sentence, kind in (
        ("https", trusting(authority), WANTED, AuthenticationFailed),
        ("https", foreign, NOT_ACCEPTED, AuthenticationFailed),
        ("http", FAST, WANTS_HTTPS, ServerError),
    ):
        error = await failure(f"{scheme}://127.0.0.1:{verifying}", transport_name, using)
        says(error, sentence)
        assert isinstance(error, kind)
        assert (error.status, error.temporary, error.attempts) == (400, False, 1)


async def test_nginx_s_page_as_the_answer_to_a_store(verifying: int, authority: Authority) -> None:
    async with DicomWeb(f"https://127.0.0.1:{verifying}", settings=trusting(authority)) as archive:
        with contextlib.suppress(AuthenticationFailed):
            report = await archive.upload(small_dicom())
            assert [one.status for one in report.outcomes] == [Status.FAILED]
            assert WANTED in (report.outcomes[0].reason or "")


# --- proxies --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def proxy_that_says(answer: bytes) -> AsyncIterator[str]:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with StreamServer(refuse) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_credentials(scheme: str, transport_name: str) -> None:
    refusal = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with proxy_that_says(refusal) as proxy:
        error = await failure(f"{scheme}://archive.invalid", transport_name, FAST, proxy)
    says(error, PROXY_PASSWORD)
    assert isinstance(error, AuthenticationFailed)
    assert (error.temporary, error.attempts) == (False, 1)


@pytest.mark.parametrize("status", [b"403 Forbidden", b"502 Bad Gateway", b"503 DNS failure"])
async def test_a_proxy_that_opens_no_way(status: bytes, transport_name: str) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with proxy_that_says(answer) as proxy:
        error = await failure("https://archive.invalid", transport_name, FAST, proxy)
    assert "the proxy did not open a way to the archive" in str(error)
    assert isinstance(error, ConnectionFailed)
    assert (error.may_have_arrived, error.attempts) == (False, 3)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_cannot_be_reached(scheme: str) -> None:
    using = replace(FAST, retry=replace(FAST.retry, max_attempts=1))
    for proxy, sentence in (
        (f"http://127.0.0.1:{unused_port()}", "the proxy refused the connection"),
        ("http://proxy.invalid:3128", "the proxy's host name is not known"),
    ):
        error = await failure(f"{scheme}://archive.invalid", "aiohttp", using, proxy)
        assert sentence in str(error)
        assert isinstance(error, ConnectionFailed)
        assert not error.may_have_arrived
