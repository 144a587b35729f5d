"""The faulty server does what its script says, as a bare socket sees it."""

from __future__ import annotations

import asyncio
import ssl
from itertools import repeat
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.support.faulty_server import FaultyServer, Reply, Request, unused_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GET = b"GET /a%20b?x=1&y= HTTP/1.1\r\nHost: t\r\nX-Two: 1\r\nx-two: 2\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"


async def talk(server: FaultyServer, sent: bytes, *, tls: ssl.SSLContext | None = None) -> bytes:
    """Send the bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
    try:
        writer.write(sent)
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


async def test_records_the_request_as_sent() -> None:
    async with FaultyServer(Reply(keep_alive=False, body=b"hello")) as server:
        answer = await talk(server, GET)
    request = server.requests[0]
    assert (request.method, request.target, request.path) == ("GET", "/a%20b?x=1&y=", "/a b")
    assert request.query == [("x", "1"), ("y", "")]
    assert request.all_headers("X-TWO") == ["1", "2"]
    assert request.complete
    assert request.framing == "none"
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")
    assert body_of(answer) == b"hello"


@pytest.mark.parametrize(
    ("sent", "framing"),
    [
        (POST + b"0123456789", "content-length"),
        (CHUNKED + b"4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\n\r\n", "chunked"),
    ],
)
async def test_reads_both_request_framings(sent: bytes, framing: str) -> None:
    async with FaultyServer(Reply(keep_alive=False)) as server:
        await talk(server, sent)
    request = server.requests[0]
    assert (request.body, request.size, request.framing, request.complete) == (
        b"0123456789",
        10,
        framing,
        True,
    )


@pytest.mark.parametrize(
    ("sent", "received"),
    [(POST + b"0123", b"0123"), (CHUNKED + b"a\r\n0123", b"0123"), (CHUNKED + b"2\r\n01\r\n", b"01")],
)
async def test_a_cut_request_is_recorded_as_incomplete(sent: bytes, received: bytes) -> None:
    async with FaultyServer() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        await writer.drain()
        writer.close()
        await server.until(lambda seen: bool(seen.requests))
    assert (server.requests[0].body, server.requests[0].complete) == (received, False)


async def test_answer_framings() -> None:
    replies = [
        Reply(body=b"abcdef", framing="chunked", chunk_size=4, keep_alive=False),
        Reply(body=b"abcdef", framing="until-close"),
        Reply(body=(b"abc", b"def"), declared_length=6, keep_alive=False),
        Reply(raw=b"nonsense"),
    ]
    async with FaultyServer(replies) as server:
        assert body_of(await talk(server, GET)) == b"4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n"
        until_close = await talk(server, GET)
        assert b"Content-Length" not in until_close
        assert body_of(until_close) == b"abcdef"
        assert body_of(await talk(server, GET)) == b"abcdef"
        assert await talk(server, GET) == b"nonsense"


async def test_keep_alive_serves_several_requests_on_one_connection() -> None:
    async with FaultyServer([Reply(204), Reply(keep_alive=False)]) as server:
        answer = await talk(server, GET + GET)
    assert answer.startswith(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert server.connections == 1
    assert [request.connection for request in server.requests] == [0, 0]


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
async def test_cut_closes_after_so_many_body_bytes(framing: str) -> None:
    reply = Reply(body=b"x" * 100, framing=framing, cut_after=40, chunk_size=16)  # type: ignore[arg-type]
    async with FaultyServer(reply) as server:
        body = body_of(await talk(server, GET))
    assert body.count(b"x") == 40
    assert not body.endswith(b"0\r\n\r\n")


async def test_cut_with_reset_is_an_rst_after_the_bytes() -> None:
    async with FaultyServer(Reply(body=b"x" * 100, cut_after=40, reset=True)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 100" in head
        assert await reader.readexactly(40) == b"x" * 40
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


@pytest.mark.parametrize(
    "reply", [Reply(drop_after_request=True, reset=True), Reply(drop_mid_request_after=4, reset=True)]
)
async def test_drops_with_reset(reply: Reply) -> None:
    async with FaultyServer(reply) as server:
        with pytest.raises(ConnectionResetError):
            await talk(server, POST + b"0123456789")
    assert server.requests[0].complete is reply.drop_after_request
    assert server.requests[0].size == (10 if reply.drop_after_request else 4)


async def test_drop_without_reset_is_an_end_without_an_answer() -> None:
    async with FaultyServer(Reply(drop_after_request=True)) as server:
        assert await talk(server, POST + b"0123456789") == b""
    assert server.bodies == [b"0123456789"]


async def test_answer_before_the_body_can_be_read_by_a_client_still_sending() -> None:
    async with FaultyServer(Reply(413, answer_before_body=True)) as server:
        answer = await talk(server, POST)
        await server.until(lambda seen: seen.in_flight == 0)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert server.requests[0].size == 0
    assert not server.requests[0].complete


@pytest.mark.parametrize(
    "reply", [Reply(body=b"x" * 100, stall_after=10), Reply(silent=True), Reply(stop_reading_after=3)]
)
async def test_stalls_keep_the_connection_open(reply: Reply) -> None:
    async with FaultyServer(reply) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(POST + b"0123456789")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(-1), 0.1)
        assert server.open_connections == 1
        writer.close()
    assert server.requests[0].size == (3 if reply.stop_reading_after else 10)


@pytest.mark.parametrize("how", ["reset", "close", "silent"])
async def test_faults_at_accept(how: str) -> None:
    async with FaultyServer(on_accept=how) as server:  # type: ignore[arg-type]
        if how == "close":
            assert await talk(server, b"") == b""
            return
        with pytest.raises(ConnectionResetError if how == "reset" else TimeoutError):
            await asyncio.wait_for(talk(server, GET), 0.1)


async def test_handlers_see_the_whole_request_and_may_be_coroutines() -> None:
    async def echo(request: Request) -> Reply:
        return Reply(body=request.body[::-1], keep_alive=False)

    async with FaultyServer(echo) as server:
        assert body_of(await talk(server, POST + b"0123456789")) == b"9876543210"


async def test_on_head_can_overrule_the_script() -> None:
    def refuse_posts(head: Request) -> Reply | None:
        return Reply(401, answer_before_body=True) if head.method == "POST" else None

    async with FaultyServer(Reply(keep_alive=False), on_head=refuse_posts) as server:
        assert (await talk(server, POST)).startswith(b"HTTP/1.1 401")
        assert (await talk(server, GET)).startswith(b"HTTP/1.1 200")


async def test_more_requests_than_answers_is_a_failed_test() -> None:
    async def use() -> None:
        async with FaultyServer([Reply(keep_alive=False)]) as server:
            await talk(server, GET)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(GET)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 501")
            writer.close()

    with pytest.raises(AssertionError, match="more than the script"):
        await use()


@pytest.mark.parametrize("broken", [lambda _: 1 / 0, lambda _: Reply(drop_mid_request_after=1)])
async def test_a_failing_handler_is_a_failed_test(broken: Callable[[Request], Reply]) -> None:
    async def use() -> None:
        async with FaultyServer(broken) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(GET)
            await server.until(lambda seen: bool(seen.failures))
            writer.close()

    with pytest.raises(AssertionError, match="handler"):
        await use()


async def test_counts_requests_in_flight() -> None:
    async with FaultyServer(repeat(Reply(delay_before=0.05, keep_alive=False))) as server:
        await asyncio.gather(*(talk(server, GET) for _ in range(5)))
        assert server.in_flight == 0
    assert server.peak_in_flight == 5


async def test_large_answers_need_not_be_held() -> None:
    def blocks() -> Iterator[bytes]:
        yield from repeat(bytes(65536), 64)

    async with FaultyServer([Reply(body=blocks(), declared_length=64 * 65536, keep_alive=False)]) as server:
        assert len(body_of(await talk(server, GET))) == 4 * 1024 * 1024


async def test_reads_every_request_slowly() -> None:
    async with FaultyServer(lambda request: Reply(body=request.body, keep_alive=False), read_rate=50) as server:
        started = asyncio.get_running_loop().time()
        assert body_of(await talk(server, POST + b"0123456789")) == b"0123456789"
    assert asyncio.get_running_loop().time() - started > 0.15
    assert server.requests[0].complete


async def test_refuses_connections_and_keeps_those_there_are() -> None:
    async with FaultyServer(repeat(Reply(body=b"ok"))) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        server.refuse()
        with pytest.raises(ConnectionRefusedError):
            await talk(server, GET)
        writer.write(GET)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_tls() -> None:
    authority = trustme.CA()
    server_side, client_side = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    authority.configure_trust(client_side)
    async with FaultyServer(Reply(keep_alive=False, body=b"ok"), ssl_context=server_side) as server:
        assert server.url.startswith("https://")
        assert body_of(await talk(server, GET, tls=client_side)) == b"ok"


def test_unused_port_is_a_port() -> None:
    assert 0 < unused_port() < 65536
