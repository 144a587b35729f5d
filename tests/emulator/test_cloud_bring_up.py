"""The three HTTP requests in front of the WebSocket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from postdicom_async.emulator.cloud.oddities import HttpAnswer
from postdicom_async.errors import UsageError
from tests.emulator.cloud_support import (
    UNKNOWN,
    ZERO,
    RawSocket,
    address_of,
    bring_up,
    bring_up_url,
    connect_to,
    envelope_of,
    main_socket,
    raw_get,
    raw_socket,
    told,
)
from tests.emulator.support import client_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from postdicom_async.emulator.cloud.oddities import BringUpStep

STEPS: list[BringUpStep] = ["web-service", "session", "socket"]


def as_it_is(text: str) -> str:
    return text


def as_a_browser(text: str) -> str:
    return text.replace('"', "%22")


def as_node(text: str) -> str:
    return quote(text, safe=':,"')


@pytest.mark.parametrize("quoted", [quote, as_it_is, as_a_browser, as_node])
async def test_parameters_may_be_escaped_or_not(
    embedded_archive: EmbeddedArchive, quoted: Callable[[str], str]
) -> None:
    session, address = await bring_up(embedded_archive, quoted)

    assert embedded_archive.cloud.sessions == {session}
    assert [request.step for request in embedded_archive.cloud.http_requests] == STEPS
    assert not embedded_archive.cloud.deviations
    assert address == embedded_archive.cloud.socket_url
    async with raw_socket(embedded_archive, session) as socket:
        assert (await socket.told(34))["UserList"]


async def test_what_is_told(embedded_archive: EmbeddedArchive) -> None:
    key = embedded_archive.cloud_api_key
    url = bring_up_url(embedded_archive.router_url, 4, address_of("1", embedded_archive.cloud_account_key), key)

    assert await envelope_of(url) == {"ResponseCode": 1, "ResponseMessage": f"{embedded_archive.url}/regionService/"}
    async with client_of() as client:
        answer = await client.get(url)
        posted = await client.post(url)
    assert answer.headers["content-type"].startswith("text/html"), "read as text whatever its type"
    assert answer.headers["cache-control"] == "no-store"
    assert posted.status_code == 405


async def test_slashes_of_the_router_do_not_matter(embedded_archive: EmbeddedArchive) -> None:
    key, account = embedded_archive.cloud_api_key, embedded_archive.cloud_account_key
    base = embedded_archive.router_url
    for address in (base, base.rstrip("/"), base + "/"):
        assert await told(bring_up_url(address, 4, address_of("2", account), key)) == embedded_archive.cloud.socket_url


async def test_sessions_are_new_each_time(embedded_archive: EmbeddedArchive) -> None:
    sessions = [(await bring_up(embedded_archive))[0] for _ in range(3)]

    assert embedded_archive.cloud.sessions == set(sessions)
    assert len(set(sessions)) == 3


def parameters_of(archive: EmbeddedArchive, step: BringUpStep) -> tuple[str, int, dict[str, Any]]:
    """Return the right address, type and parameters of a step."""
    if step == "session":
        opening = {"TransactionType": "3", "AccountKey": archive.cloud_account_key, "ApiKey": archive.cloud_api_key}
        return f"{archive.url}/regionService/", 7, opening
    return archive.router_url, 4, address_of("1" if step == "web-service" else "2", archive.cloud_account_key)


@pytest.mark.parametrize(
    ("step", "kind", "changed"),
    [
        ("web-service", 7, {}),
        ("web-service", 5, {}),
        ("web-service", 4, {"RouterKey": UNKNOWN}),
        ("web-service", 4, {"RouterKey": ""}),
        ("web-service", 4, {"RouterKey": None}),
        ("web-service", 4, {"AddressType": "3"}),
        ("web-service", 4, {"AddressType": 1}),
        ("web-service", 4, {"AddressType": []}),
        ("web-service", 4, {"AdapterType": "1"}),
        ("socket", 4, {"RouterKey": UNKNOWN}),
        ("socket", 4, {"AdapterType": 2}),
        ("session", 4, {}),
        ("session", 7, {"TransactionType": "2"}),
        ("session", 7, {"TransactionType": 3}),
        ("session", 7, {"AccountKey": UNKNOWN}),
        ("session", 7, {"ApiKey": UNKNOWN}),
        ("session", 7, {"ApiKey": ZERO}),
    ],
)
async def test_what_is_wrong_gets_another_code_and_a_reason(
    embedded_archive: EmbeddedArchive, step: BringUpStep, kind: int, changed: dict[str, Any]
) -> None:
    base, _, given = parameters_of(embedded_archive, step)
    given = {name: value for name, value in {**given, **changed}.items() if value is not None}

    envelope = await envelope_of(bring_up_url(base, kind, given, embedded_archive.cloud_api_key))

    assert_refused(embedded_archive, envelope)


def assert_refused(archive: EmbeddedArchive, envelope: dict[str, Any]) -> None:
    assert envelope["ResponseCode"] != 1
    reason = envelope["ResponseMessage"]
    assert isinstance(reason, str)
    assert reason
    for secret in (archive.cloud_api_key, archive.cloud_account_key, UNKNOWN):
        assert secret not in reason
    assert not archive.cloud.sessions


@pytest.mark.parametrize("step", STEPS)
async def test_the_caller_is_known_by_the_api_key(embedded_archive: EmbeddedArchive, step: BringUpStep) -> None:
    base, kind, given = parameters_of(embedded_archive, step)

    for caller in (embedded_archive.cloud_account_key, UNKNOWN, ""):
        assert_refused(embedded_archive, await envelope_of(bring_up_url(base, kind, given, caller)))


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '"x"', "{", "{}", "{'AddressType':'1'}", "[" * 10_000, "%ff", "%00"]
)
@pytest.mark.parametrize("step", ["web-service", "session"])
async def test_parameters_that_are_none(embedded_archive: EmbeddedArchive, step: BringUpStep, text: str) -> None:
    base, kind, given = parameters_of(embedded_archive, step)

    envelope = await envelope_of(bring_up_url(base, kind, given, embedded_archive.cloud_api_key, lambda _: text))

    assert_refused(embedded_archive, envelope)


async def test_no_query_at_all(embedded_archive: EmbeddedArchive) -> None:
    for base in (embedded_archive.router_url, f"{embedded_archive.url}/regionService/"):
        assert_refused(embedded_archive, await envelope_of(base))


@pytest.mark.parametrize("step", STEPS)
async def test_the_host_name_of_a_page_may_be_there(embedded_archive: EmbeddedArchive, step: BringUpStep) -> None:
    base, kind, given = parameters_of(embedded_archive, step)

    await told(bring_up_url(base, kind, {**given, "ClientHostName": "żółw.example"}, embedded_archive.cloud_api_key))

    (request,) = embedded_archive.cloud.http_requests
    assert request.parameters["ClientHostName"] == "żółw.example"
    expected = [] if step == "session" else [f"{step}: the parameters are not what the library sends"]
    assert list(embedded_archive.cloud.deviations) == expected


async def test_the_time_is_not_looked_at_but_noted(embedded_archive: EmbeddedArchive) -> None:
    base, kind, given = parameters_of(embedded_archive, "socket")
    good = bring_up_url(base, kind, given, embedded_archive.cloud_api_key)
    head = good.partition("&Cache=")[0]

    for url in (head, f"{head}&Cache=", f"{head}&Cache=yesterday"):
        assert await told(url) == embedded_archive.cloud.socket_url
        assert "socket: Cache is no time in milliseconds" in embedded_archive.cloud.deviations
        embedded_archive.cloud.deviations.clear()
    for _ in range(2):
        assert await told(good) == embedded_archive.cloud.socket_url
    assert not embedded_archive.cloud.deviations


async def test_what_differs_from_the_library_is_noted(embedded_archive: EmbeddedArchive) -> None:
    base, kind, given = parameters_of(embedded_archive, "web-service")
    key, cloud = embedded_archive.cloud_api_key, embedded_archive.cloud
    other_order = {name: given[name] for name in reversed(given)}
    text = quote(json.dumps(given))

    await told(bring_up_url(base, kind, other_order, key))
    await told(f"{base}?Parameters={text}&RequestType={kind}&ClientUniqueId={key}&Cache=1")

    assert list(cloud.deviations) == [
        "web-service: the parameters are not what the library sends",
        "web-service: the query is not what the library sends",
    ]
    assert cloud.http_requests[1].query == ("Parameters", "RequestType", "ClientUniqueId", "Cache")
    assert key not in repr(cloud.http_requests)
    assert embedded_archive.cloud_account_key not in repr(cloud.http_requests)


# --- oddities ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
async def test_answers_of_ones_own(embedded_archive: EmbeddedArchive, step: BringUpStep) -> None:
    base, kind, given = parameters_of(embedded_archive, step)
    url = bring_up_url(base, kind, given, embedded_archive.cloud_api_key)
    embedded_archive.cloud.oddities.http[step] = [HttpAnswer(503, "busy"), HttpAnswer(body="<html>"), HttpAnswer()]

    assert await raw_get(url) == (503, b"busy")
    for other in set(STEPS) - {step}:
        base, kind, given = parameters_of(embedded_archive, other)
        await told(bring_up_url(base, kind, given, embedded_archive.cloud_api_key))
    assert await raw_get(url) == (200, b"<html>")
    assert (await envelope_of(url))["ResponseCode"] == 2
    assert await told(url)


@pytest.mark.parametrize("ends", ["", "/", "/prefix", "/prefix/"])
async def test_addresses_of_the_socket_may_end_in_any_way(embedded_archive: EmbeddedArchive, ends: str) -> None:
    embedded_archive.cloud.oddities.address_ends = ends
    session, address = await bring_up(embedded_archive)
    query = f"?ClientUniqueId={embedded_archive.cloud_api_key}"

    assert address == embedded_archive.cloud.socket_url + ends
    for as_the_library_does in (f"{address}/{query}", f"{address.rstrip('/')}/{query}"):
        async with connect_to(as_the_library_does) as connection:
            socket = RawSocket(embedded_archive, connection, iter([1]))
            assert (await socket.session(session)).envelope["ResponseCode"] == 1


async def test_the_address_of_the_region_may_have_no_slash(embedded_archive: EmbeddedArchive) -> None:
    embedded_archive.cloud.oddities.plain_region = True
    base, kind, given = parameters_of(embedded_archive, "web-service")

    region = await told(bring_up_url(base, kind, given, embedded_archive.cloud_api_key))

    assert region == f"{embedded_archive.url}/regionService"
    async with main_socket(embedded_archive) as socket:
        assert (await socket.told(34))["UserList"]


async def test_addresses_of_another_host() -> None:
    archive = EmbeddedArchive(host="::1")
    try:
        await archive.__aenter__()
    except UsageError:
        pytest.skip("there is no IPv6 here")
    try:
        async with main_socket(archive) as socket:
            assert archive.cloud.socket_url.startswith("ws://[::1]:")
            assert (await socket.told(34))["UserList"]
    finally:
        await archive.__aexit__(None, None, None)


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_keys_of_ones_own() -> None:
    keys = ("ABCDEF01-2345-4789-ABCD-EF0123456789", ZERO)
    async with EmbeddedArchive(options=ArchiveOptions(cloud_keys=keys)) as archive:
        assert (archive.cloud_api_key, archive.cloud_account_key) == (keys[0].lower(), ZERO)
        async with main_socket(archive) as socket:
            assert (await socket.told(34))["UserList"]
        assert keys[0].lower() not in repr(archive)


@pytest.mark.parametrize("bad", ["", "x", "ABCDEF01-2345-6789-ABCD-EF0123456789", f" {UNKNOWN}", f"{UNKNOWN}\n"])
def test_keys_that_are_no_guids(bad: str) -> None:
    for keys in ((bad, UNKNOWN), (UNKNOWN, bad)):
        with pytest.raises(UsageError, match="cloud_keys"):
            EmbeddedArchive(options=ArchiveOptions(cloud_keys=keys))


async def test_upper_case_keys_are_the_same_keys(embedded_archive: EmbeddedArchive) -> None:
    key, account = embedded_archive.cloud_api_key.upper(), embedded_archive.cloud_account_key.upper()
    opening = {"TransactionType": "3", "AccountKey": account, "ApiKey": key}

    await told(bring_up_url(embedded_archive.router_url, 4, address_of("1", account), key))
    session = await told(bring_up_url(f"{embedded_archive.url}/regionService/", 7, opening, key))

    async with connect_to(f"{embedded_archive.cloud.socket_url}/?ClientUniqueId={key}") as connection:
        socket = RawSocket(embedded_archive, connection, iter(range(1, 9)))
        given = {"SessionUuid": session, "OtherParameterList": [f"Api={session}", f"ApiKey={key}"]}
        assert (await socket.ask(3, 4, given)).envelope["ResponseCode"] == 1
        keys = {"UserUuid": embedded_archive.cloud_user_uuid.upper(), "ApiKey": key, "AccountKey": account}
        assert (await socket.ask(17, 34, keys)).told["UserList"]


def test_outside_async_with_there_is_no_cloud() -> None:
    with pytest.raises(UsageError):
        _ = EmbeddedArchive().cloud
