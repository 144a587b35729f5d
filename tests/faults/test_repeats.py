"""What is repeated, how often and when; and what must never be."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    NotFound,
    PostdicomError,
    ProtocolError,
    RateLimited,
    ServerError,
    UsageError,
)
from tests.faults.clients import FAST, settings
from tests.support.bodies import json_reply
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer, Reply, Request, unused_port

if TYPE_CHECKING:
    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

EMPTY = json_reply([])


async def search(connect: Connect, url: str, using: Any = FAST, **arguments: Any) -> list[Any]:
    async with connect(url, using, **arguments) as archive:
        return await archive.search_for_studies(limit=1).all()


@pytest.mark.parametrize(
    "fault",
    [
        Reply(500),
        Reply(502),
        Reply(503),
        Reply(504),
        Reply(408),
        Reply(429, {"Retry-After": "0"}),
        Reply(drop_after_request=True),
        Reply(drop_after_request=True, reset=True),
        Reply(200, body=b"[" + b" " * 500, cut_after=100),
        Reply(200, body=b"[" + b" " * 500, cut_after=100, framing="chunked"),
        Reply(raw=b"not HTTP at all\r\n\r\n"),
        Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Len"),
    ],
    ids=lambda fault: f"{fault.status} {fault.drop_after_request} {fault.reset} {fault.cut_after} {fault.framing}",
)
async def test_a_search_is_repeated(fault: Reply, connect: Connect) -> None:
    async with FaultyServer([fault, fault, EMPTY]) as server:
        assert await search(connect, server.url) == []
    assert len(server.requests) == 3


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_attempts_are_bounded(attempts: int, connect: Connect) -> None:
    async with FaultyServer(Reply(502)) as server:
        with pytest.raises(ServerError) as caught:
            await search(connect, server.url, settings(max_attempts=attempts))
    assert len(server.requests) == caught.value.attempts == attempts
    assert (caught.value.status, caught.value.temporary) == (502, True)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 406, 409, 410, 411, 413, 414, 415, 422, 431, 501, 505, 418])
async def test_what_a_repeat_cannot_mend_is_not_repeated(status: int, connect: Connect) -> None:
    async with FaultyServer(Reply(status)) as server, connect(server.url) as archive:
        with pytest.raises(PostdicomError) as caught:
            await archive.retrieve_study_metadata(uid(1)).all()
    assert len(server.requests) == 1
    assert (caught.value.status, caught.value.temporary, caught.value.attempts) == (status, False, 1)


async def test_time_is_bounded(connect: Connect) -> None:
    slow = settings(max_attempts=50, max_seconds=0.2, base=0.05, cap=0.05)
    async with FaultyServer(Reply(503)) as server:
        started = time.monotonic()
        with pytest.raises(ServerError):
            await search(connect, server.url, slow)
    assert time.monotonic() - started < 1.5
    assert 2 < len(server.requests) < 50


async def test_the_budget_bounds_all_calls_of_a_session(connect: Connect) -> None:
    async with FaultyServer(Reply(503)) as server, connect(server.url, settings(budget=4, max_attempts=3)) as archive:
        for _ in range(10):
            with pytest.raises(ServerError):
                await archive.search_for_studies().all()
    assert len(server.requests) == 10 + 4


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("after", ["0.3", "date"])
async def test_retry_after_is_waited_for(after: str, connect: Connect) -> None:
    text = in_seconds(1.5) if after == "date" else after  # a date has whole seconds: 0.5 to 1.5 from now
    async with FaultyServer([Reply(503, {"Retry-After": text}), EMPTY]) as server:
        started = time.monotonic()
        await search(connect, server.url)
    assert time.monotonic() - started >= 0.3
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("after", ["3600", "date", "99999999999999"])
async def test_retry_after_too_long(status: int, after: str, connect: Connect) -> None:
    text = in_seconds(3600) if after == "date" else after
    async with FaultyServer(Reply(status, {"Retry-After": text})) as server:
        with pytest.raises(RateLimited) as caught:
            await search(connect, server.url)
    assert len(server.requests) == 1
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 3500
    assert caught.value.temporary


async def test_a_refused_connection(connect: Connect) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        await search(connect, f"http://127.0.0.1:{unused_port()}")
    assert (caught.value.attempts, caught.value.may_have_arrived, caught.value.temporary) == (3, False, True)
    assert "refused" in str(caught.value)


async def test_an_unknown_host(connect: Connect) -> None:
    with pytest.raises(ConnectionFailed, match="host name is not known"):
        await search(connect, "http://archive.invalid", settings(max_attempts=1))


# --- delete ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Reply(500), Reply(503), Reply(429), Reply(drop_after_request=True), Reply(raw=b"x")])
@pytest.mark.parametrize("on_a_used_connection", [True, False])
async def test_a_delete_that_was_sent_is_never_repeated(
    fault: Reply, on_a_used_connection: bool, connect: Connect
) -> None:
    def answer(request: Request) -> Reply:
        if request.method != "DELETE":
            return EMPTY
        return Reply(raw=b"") if fault.drop_after_request else fault

    async with FaultyServer(answer) as server, connect(server.url) as archive:
        if on_a_used_connection:
            await archive.search_for_studies(limit=1).all()
        with pytest.raises(PostdicomError) as caught:
            await archive.delete_study(uid(1))
    assert [request.method for request in server.requests].count("DELETE") == 1
    if isinstance(caught.value, ConnectionFailed):
        assert caught.value.may_have_arrived


async def test_a_delete_that_never_left_is_repeated(connect: Connect) -> None:
    async with connect(f"http://127.0.0.1:{unused_port()}") as archive:
        with pytest.raises(ConnectionFailed) as caught:
            await archive.delete_instance(uid(1), uid(1, 1), uid(1, 1, 1))
    assert (caught.value.attempts, caught.value.may_have_arrived) == (3, False)


async def test_delete(connect: Connect) -> None:
    async with FaultyServer([Reply(200), Reply(204), Reply(404)]) as server, connect(server.url) as archive:
        await archive.delete_study(uid(1))
        await archive.delete_series(uid(1), uid(1, 1))
        with pytest.raises(NotFound):
            await archive.delete_instance(uid(1), uid(1, 1), uid(1, 1, 1))
    assert [request.method for request in server.requests] == ["DELETE"] * 3


async def test_an_idle_connection_closed_by_the_server_is_no_failure(connect: Connect) -> None:
    """The server hangs up between two requests; the next one goes out on a new connection, even a delete."""
    closing = Reply(200, {"Content-Type": "application/json"}, b"[]", keep_alive=False)

    def answer(request: Request) -> Reply:
        return Reply(200) if request.method == "DELETE" else closing

    async with FaultyServer(answer) as server, connect(server.url) as archive:
        for _ in range(5):
            await archive.search_for_studies(limit=1).all()
            await server.until(lambda seen: not seen.open_connections)
            await archive.delete_study(uid(1))
    assert len(server.requests) == 10


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_token_is_refreshed_once_for_twenty_tasks(kind: str, connect: Connect) -> None:
    asked: list[str] = []

    def token() -> str:
        asked.append(f"token-{len(asked)}")
        return asked[-1]

    async def token_later() -> str:
        await asyncio.sleep(0.02)
        return token()

    valid = "token-0"

    def answer(request: Request) -> Reply:
        return EMPTY if request.header("authorization") == f"Bearer {valid}" else Reply(401)

    async with (
        FaultyServer(answer) as server,
        connect(server.url, auth=token if kind == "plain" else token_later) as archive,
    ):
        await archive.search_for_studies(limit=1).all()
        valid = "token-1"
        await asyncio.gather(*[archive.search_for_studies(limit=1).all() for _ in range(20)])
    assert asked == ["token-0", "token-1"]
    assert len(server.requests) <= 1 + 40


async def test_a_token_that_stays_wrong_is_an_error(connect: Connect) -> None:
    calls: list[int] = []

    def token() -> str:
        calls.append(1)
        return f"token-{len(calls)}"

    async with FaultyServer(Reply(401)) as server:
        with pytest.raises(AuthenticationFailed) as caught:
            await search(connect, server.url, auth=token)
    assert (len(server.requests), len(calls), caught.value.status) == (2, 2, 401)


async def test_a_wrong_password_is_not_tried_again(connect: Connect) -> None:
    async with FaultyServer(Reply(401)) as server:
        with pytest.raises(AuthenticationFailed):
            await search(connect, server.url, auth=("user", "wrong"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("made", [b"bytes", "", "two words", "line\r\nInjected: yes", None])
async def test_a_callable_that_gives_no_token(made: object, connect: Connect) -> None:
    async with FaultyServer([]) as server:
        with pytest.raises(AuthenticationFailed):
            await search(connect, server.url, auth=lambda: made)


async def test_a_store_is_sent_again_after_a_refresh(connect: Connect) -> None:
    tokens = iter(["old", "new"])
    seen: list[bytes] = []

    def answer(request: Request) -> Reply:
        if request.method == "POST":
            seen.append(request.body)
        return EMPTY if request.header("authorization") == "Bearer new" else Reply(401)

    async with FaultyServer(answer) as server, connect(server.url, auth=lambda: next(tokens)) as archive:
        await archive.upload(small_dicom())
    assert len(seen) == 2
    assert seen[0] == seen[1]


# --- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int, connect: Connect) -> None:
    async with FaultyServer([]) as other:
        reply = Reply(status, {"Location": f"{other.url}/studies"})
        async with FaultyServer(reply) as server, connect(server.url, auth=("user", "password")) as archive:
            with pytest.raises(ServerError, match="redirect"):
                await archive.search_for_studies().all()
            with pytest.raises(ServerError, match="redirect"):
                await archive.upload(small_dicom())
            with pytest.raises(ServerError, match="redirect"):
                await archive.delete_study(uid(1))
    assert other.connections == 0
    assert len(server.requests) == 3


async def test_bulk_data_stays_on_this_server(connect: Connect) -> None:
    value = Reply(200, {"Content-Type": "application/octet-stream"}, b"value")
    async with FaultyServer([]) as other, FaultyServer(value) as server:
        port = server.port
        async with connect(f"{server.url}/dicom-web", auth=("user", "password")) as archive:
            for url in (
                f"{other.url}/bulk/1",
                f"//127.0.0.1:{other.port}/bulk/1",
                f"https://127.0.0.1:{port}/bulk/1",
                f"http://localhost:{port}/bulk/1",
                f"http://127.0.0.1:{port}@127.0.0.1:{other.port}/",
                "http://[broken/",
                "http://127.0.0.1:99999/",
                "http://127.0.0.1:x/",
                "file:///etc/passwd",
                "ftp://127.0.0.1/",
                "javascript:1",
            ):
                with pytest.raises(UsageError):
                    await archive.retrieve_bulkdata(url)
            for url in (
                "bulk/1",
                "/other/bulk/1",
                f"{server.url}/bulk/1",
                "../bulk/1?x=y",
                f"http://user:pw@127.0.0.1:{port}/b",
            ):
                assert await archive.retrieve_bulkdata(url) == b"value"
    assert other.connections == 0
    assert [request.target for request in server.requests] == [
        "/dicom-web/bulk/1",
        "/other/bulk/1",
        "/bulk/1",
        "/bulk/1?x=y",
        "/b",
    ]


@pytest.mark.parametrize("url", ["a b\r\nX-Injected: 1", "bulk\r\n\r\nGET / HTTP/1.1", "bulk\x00", "bülk/ü", "a\tb"])
async def test_an_odd_bulk_data_address_cannot_inject(url: str, connect: Connect) -> None:
    value = Reply(200, {"Content-Type": "application/octet-stream"}, b"value")
    async with FaultyServer(value) as server, connect(server.url) as archive:
        with contextlib.suppress(UsageError, ProtocolError):
            await archive.retrieve_bulkdata(url)
    assert len(server.requests) <= 1
    for request in server.requests:
        assert not request.all_headers("x-injected")
        assert request.target.isascii()
        assert " " not in request.target
