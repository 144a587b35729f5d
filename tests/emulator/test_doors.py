"""Who is let in: hosts, pages of other origins, and guesses."""

from __future__ import annotations

import ast
import base64
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import postdicom_async.emulator
from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from postdicom_async.emulator.doors import Guesses, is_known_host, may_connect
from postdicom_async.errors import UsageError
from tests.emulator.support import client_of, make_instance, store
from tests.emulator.vendor_support import create_order, refused, told

if TYPE_CHECKING:
    import httpx

OWN = frozenset({"127.0.0.1", "archive.example"})


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8042", True),
        ("127.0.0.1", True),
        ("127.9.9.9:1", True),
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("localhost.:80", True),
        ("viewer.localhost:80", True),
        ("[::1]:8042", True),
        ("Archive.Example:8042", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:8042", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil-localhost", False),
        ("192.0.2.7", False),
        ("[2001:db8::1]:80", False),
        ("localhost@evil.example", False),
        ("[", False),
        ("[::1", False),
        ("evil.example/localhost", False),
    ],
)
def test_names_of_this_machine(host: str, known: bool) -> None:
    assert is_known_host(host, OWN) is known
    assert is_known_host(host, None)


@pytest.mark.parametrize("all_of_them", ["0.0.0.0", "::", ""])
def test_an_archive_on_all_addresses_is_known_by_each(all_of_them: str) -> None:
    hosts = frozenset({all_of_them})
    assert is_known_host("192.0.2.7:8042", hosts)
    assert is_known_host("[2001:db8::1]", hosts)
    assert not is_known_host("evil.example", hosts)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://localhost:3000", True),
        ("https://LOCALHOST", True),
        ("https://viewer.example", True),
        ("https://viewer.example:444", False),
        ("http://viewer.example", False),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_origins(origin: str | None, allowed: bool) -> None:
    assert may_connect(origin, "localhost:8042", ["https://viewer.example"]) is allowed
    assert may_connect(origin, "localhost:8042", ["*"])


async def test_a_foreign_host_gets_nothing(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    order = await create_order(embedded_archive, client)
    share = (await told(client, "sharepatientorderwithurl", OrderUuidList=[order], ExpireDate="2099-01-01"))["Result"]
    for path in ("/studies", share, embedded_archive.router_url, "/deleteorder", "/nothing"):
        assert "Host" in refused(await client.get(path, headers={"Host": "rebound.example:80"}), 421)
        assert (await client.get(path, headers={"Host": "localhost"})).status_code != 421


async def test_names_that_are_allowed() -> None:
    async with (
        EmbeddedArchive(options=ArchiveOptions(allow_host=["Archive.example"])) as archive,
        client_of(archive) as client,
    ):
        assert (await client.get("/studies", headers={"Host": "archive.EXAMPLE:443"})).status_code == 200
        assert (await client.get("/studies", headers={"Host": "other.example"})).status_code == 421


async def opened(archive: EmbeddedArchive, key: str = "", **headers: str) -> int:
    """Open a WebSocket and return the status: 101 when it was opened."""
    address = f"{archive.cloud.socket_url}/?ClientUniqueId={key or archive.cloud_api_key}"
    try:
        async with connect(address, additional_headers=headers, proxy=None, compression=None):
            return 101
    except InvalidStatus as refusal:
        return refusal.response.status_code


async def test_pages_that_may_open_a_websocket() -> None:
    async with EmbeddedArchive(options=ArchiveOptions(allow_origin=["https://viewer.example/"])) as archive:
        assert await opened(archive) == 101
        assert await opened(archive, Origin="https://viewer.example") == 101
        assert await opened(archive, Origin=archive.url) == 101
        assert await opened(archive, Origin="https://evil.example") == 403
        assert await opened(archive, Origin="null") == 403


async def test_a_websocket_of_a_foreign_host(embedded_archive: EmbeddedArchive) -> None:
    address = f"{embedded_archive.cloud.socket_url}/?ClientUniqueId={embedded_archive.cloud_api_key}"
    port = address.split(":")[2].split("/")[0]
    with pytest.raises(InvalidStatus) as caught:
        async with connect(
            f"ws://rebound.example:{port}/?ClientUniqueId={embedded_archive.cloud_api_key}",
            host="127.0.0.1", proxy=None,
        ):  # fmt: skip
            pass
    assert caught.value.response.status_code == 421


@pytest.mark.parametrize("wrong", ["viewer.example", "https://viewer.example/path", "https://a@b", "", "https://"])
def test_origins_that_are_none(wrong: str) -> None:
    with pytest.raises(UsageError, match="allow_origin"):
        EmbeddedArchive(options=ArchiveOptions(allow_origin=[wrong]))
    with pytest.raises(UsageError, match="allow_origin: give a list"):
        EmbeddedArchive(options=ArchiveOptions(allow_origin="https://viewer.example"))


@pytest.mark.parametrize("wrong", ["https://archive.example", "archive.example:80", "a@b"])
def test_hosts_that_are_none(wrong: str) -> None:
    with pytest.raises(UsageError, match="allow_host"):
        EmbeddedArchive(options=ArchiveOptions(allow_host=[wrong]))


PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization,searchfolder"}


async def test_pages_of_allowed_origins_may_ask() -> None:
    page = "http://viewer.example:3000"
    async with (
        EmbeddedArchive(options=ArchiveOptions(allow_origin=[page])) as archive,
        client_of(archive) as client,
        client_of() as stranger,
    ):
        before = await stranger.options(f"{archive.url}/searchfolder", headers={"Origin": page, **PREFLIGHT})
        asked = await client.get("/studies?NoSuch=1", headers={"Origin": page})
        wrong = await stranger.get(f"{archive.url}/studies", headers={"Origin": page, **basic("wrong")})
        foreign = await client.get("/studies", headers={"Origin": "http://evil.example"})
        barred = await stranger.options(
            f"{archive.url}/studies", headers={"Origin": "http://evil.example", **PREFLIGHT}
        )

    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == page
    assert {"authorization", "searchfolder"} <= set(before.headers["access-control-allow-headers"].split(","))
    assert {"GET", "HEAD", "POST", "DELETE"} <= set(before.headers["access-control-allow-methods"].split(", "))
    for answer in (asked, wrong):
        assert answer.headers["access-control-allow-origin"] == page
        assert "Origin" in answer.headers["vary"]
        exposed = answer.headers["access-control-expose-headers"]
        assert {"Warning", "X-Error-Reason", "Content-Location"} <= set(exposed.split(", "))
    assert (asked.status_code, wrong.status_code) == (200, 401)
    assert "access-control-allow-origin" not in foreign.headers
    assert "access-control-allow-origin" not in barred.headers


async def test_without_being_told_no_page_may(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    answer = await client.get("/studies", headers={"Origin": "http://localhost:3000"})
    before = await client.options("/studies", headers={"Origin": "http://localhost:3000", **PREFLIGHT})

    for one in (answer, before):
        assert not [name for name in one.headers if name.startswith("access-control")]


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"demo:{password}".encode()).decode()}


async def tries_until_slowed(attempt: object) -> int:
    """Make wrong attempts until one is not looked at; there is a bound that a test reaches at once."""
    assert callable(attempt)
    for number in range(200):
        answer = await attempt(number)
        if answer == 429:
            return number
        assert answer in {200, 401, 403}
    pytest.fail("nothing slowed the guesses")


async def test_passwords_cannot_be_guessed_without_end(embedded_archive: EmbeddedArchive) -> None:
    async with client_of() as stranger:

        async def guess(number: int) -> int:
            answer = await stranger.get(f"{embedded_archive.url}/studies", headers=basic(f"wrong{number}"))
            if answer.status_code == 429:
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert refused(answer, 429)
            return answer.status_code

        assert await tries_until_slowed(guess) >= 10
        # the right one is not looked at either: else it would show
        assert (await stranger.get(f"{embedded_archive.url}/studies", headers=basic("demo"))).status_code == 429
        assert (await stranger.get(f"{embedded_archive.url}/studies")).status_code == 401


async def test_right_passwords_are_never_slowed(client: httpx.AsyncClient) -> None:
    for _ in range(200):
        assert (await client.get("/instances")).status_code == 200


async def test_the_password_of_a_share(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    await store(client, make_instance())
    link = (await told(
        client, "sharepatientorderwithurl", OrderUuidList=[embedded_archive.order_uuid("1.2.3")],
        ExpireDate="2099-01-01", SharePassword="secret",
    ))["Result"]  # fmt: skip
    async with client_of() as stranger:

        async def guess(number: int) -> int:
            return (await stranger.post(link, data={"password": f"wrong{number}"})).status_code

        assert await tries_until_slowed(guess) >= 10
        late = await stranger.post(link, data={"password": "secret"})
        assert late.status_code == 429
        assert int(late.headers["retry-after"]) >= 1
        assert "Too many attempts" in late.text


async def test_keys_of_the_cloud_api(embedded_archive: EmbeddedArchive) -> None:
    async with client_of() as stranger:

        async def guess(number: int) -> int:
            query = {"RequestType": "4", "ClientUniqueId": f"{number}", "Cache": "1", "Parameters": PARAMETERS}
            return (await stranger.get(embedded_archive.router_url, params=query)).status_code

        assert await tries_until_slowed(guess) >= 10
        assert await opened(embedded_archive) == 429


PARAMETERS = '{"RouterKey": "x", "AddressType": "1", "AdapterType": "2"}'


async def test_keys_at_the_websocket(embedded_archive: EmbeddedArchive) -> None:
    async def guess(number: int) -> int:
        return await opened(embedded_archive, key=f"{number}")

    assert await tries_until_slowed(guess) >= 10


def test_tokens_grow_again_and_addresses_are_forgotten() -> None:
    now = 0.0
    guesses = Guesses(lambda: now)
    while not (wait := guesses.begin("a")):
        pass
    assert wait == 1
    assert guesses.begin("b") == 0, "another address is not slowed"
    now += 1
    assert guesses.begin("a") == 0
    assert guesses.begin("a") == 1
    now += 10_000
    taken = 0
    while not guesses.begin("a"):
        taken += 1
    assert taken == 50

    now += 10_000
    taken = sum(guesses.begin(str(number)) == 0 for number in range(20_000))
    assert taken == 500, "all addresses together"
    assert len(guesses._by_address) <= 4096


def test_secrets_are_compared_in_constant_time() -> None:
    """No ``==`` of a name that says it is a key, a password or a token, anywhere in the archive."""
    secret = {"api_key", "account_key", "password", "password_hash", "_wanted", "credentials"}
    found = []
    for path in Path(postdicom_async.emulator.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq | ast.In) for op in node.ops):
                names = {getattr(one, "attr", getattr(one, "id", "")) for one in (node.left, *node.comparators)}
                found += [(path.name, node.lineno)] if names & secret else []
    assert not found
