"""What the library's transport sends, and what it makes of what comes, on the wire and on either event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import anyio
import httpx
import pytest

from postdicom_async import ConnectionFailed, DicomWeb, Settings, Tls
from postdicom_async.http.aiohttp_transport import AiohttpTransport
from tests.faults.clients import settings
from tests.support.certificates import Authority
from tests.support.exchange import ReplyFraming
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

MIB = 1 << 20
LOOPS = ["asyncio", "uvloop"]
FRAMINGS = get_args(ReplyFraming)
TABLE, ESTABLISHED = Path("/proc/self/net/tcp"), "01"


@contextlib.asynccontextmanager
async def client(using: Settings | None = None, *, proxy: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Give an httpx client on the transport: it follows redirects and keeps cookies no more than it is told to."""
    transport = AiohttpTransport(using or settings(), proxy=proxy)
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=None) as made:
        yield made


def run_in(loop: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run work in an event loop of its own."""
    factory = asyncio.new_event_loop
    if loop == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())


class Source(httpx.AsyncByteStream):
    """A body that remembers how many pieces were taken, and whether it was closed."""

    def __init__(self, *pieces: bytes | Exception, pause: float = 0.0) -> None:
        self.pieces = pieces
        self.pause = pause
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                self.taken += 1
                yield piece
                await asyncio.sleep(self.pause)
        finally:
            self.closed = True


def post(url: str, body: httpx.AsyncByteStream, length: int | None) -> httpx.Request:
    """Make a request with a streamed body of that announced length; chunked without one."""
    headers = {} if length is None else {"Content-Length": str(length)}
    return httpx.Request("POST", url, headers=headers, content=body)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


# --- requests -------------------------------------------------------------------------------------------------------


async def test_what_is_sent_is_what_was_given() -> None:
    """No header is added, none respelled; nothing in the address is quoted anew."""
    path = "/a%2Fb/%7Ec/d+e,f;g='h'(i)/%zz?x=%5B1%5D&y=a+b&z=%2C,;[]|"
    headers = [("X-Odd-SPELLING", "1"), ("accept", "a/b"), ("X-Twice", "1"), ("X-Twice", "2")]
    async with FaultyServer() as server, client() as sender:
        request = httpx.Request("GET", server.url, headers=headers)
        request.url = request.url.copy_with(raw_path=path.encode())
        await sender.send(request)
    received = server.requests[0]
    assert received.target == path
    assert received.headers == (("Host", server.url[7:]), *headers)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
async def test_a_request_without_a_body_has_no_more_than_a_length_of_none(method: str) -> None:
    async with FaultyServer() as server, client() as sender:
        await sender.request(method, server.url)
        await sender.request(method, server.url)
    for request in server.requests:
        assert not request.all_headers("transfer-encoding")
        assert request.all_headers("content-length") in ([], ["0"])
    assert server.connections == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST"])
async def test_a_request_is_sent_once(method: str) -> None:
    """Some libraries repeat what HTTP calls idempotent when a kept connection breaks. PostDICOM's GETs create."""
    async with FaultyServer([Reply(), Reply(drop_after_request=True), Reply()]) as server, client() as sender:
        await sender.request(method, server.url)
        with pytest.raises(httpx.TransportError):
            await sender.request(method, server.url)
        assert len(server.requests) == 2
        assert server.connections == 1  # the second was sent on the connection of the first
        await sender.request(method, server.url)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_whole_body_up(framing: str, loop: str) -> None:
    chance = random.Random(3)
    pieces = [chance.randbytes(chance.choice([0, 1, 1000, 70_000, 600_000])) for _ in range(12)]
    whole = b"".join(pieces)

    async def work() -> None:
        async with FaultyServer() as server, client() as sender:
            for _ in range(2):
                length = len(whole) if framing == "content-length" else None
                answer = await sender.send(post(server.url, Source(*pieces), length))
                assert answer.status_code == 200
        assert server.connections == 1
        assert server.bodies == [whole, whole]
        assert {one.framing for one in server.requests} == {framing}

    run_in(loop, work)


# A body, the length that was announced for it.
LIES = {
    "shorter": ((b"x" * 10, b"y" * 9), 20),
    "empty": ((), 20),
    "longer in its last piece": ((b"x" * 10, b"y" * 11), 20),
    "longer by a piece": ((b"x" * 10, b"y" * 10, b"z"), 20),
    "much longer": ((b"x" * MIB, b"y" * MIB), MIB),
}


@pytest.mark.parametrize("case", LIES)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_body_of_another_length_than_announced_never_arrives_whole(case: str, loop: str) -> None:
    pieces, length = LIES[case]
    source = Source(*pieces)

    async def work() -> None:
        async with FaultyServer() as server, client() as sender:
            with pytest.raises(httpx.LocalProtocolError):
                await sender.send(post(server.url, source, length))
            await server.until(lambda seen: not seen.open_connections)
            assert not server.bodies
            assert source.closed
            assert (await sender.get(server.url)).status_code == 200  # on a connection that knows nothing of it

    run_in(loop, work)


@pytest.mark.parametrize("after", [0, 1, 8])
@pytest.mark.parametrize("chunked", [True, False])
async def test_what_a_source_raises_comes_out_as_it_is(chunked: bool, after: int) -> None:
    reason = LookupError("the file has gone")
    source = Source(*[b"x" * 100_000] * after, reason)
    async with FaultyServer() as server, client() as sender:
        with pytest.raises(LookupError) as caught:
            await sender.send(post(server.url, source, None if chunked else 10 * MIB))
        assert caught.value is reason
        await server.until(lambda seen: not seen.open_connections)
        assert not server.bodies
        assert source.closed


# --- early answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("status", [401, 413, 417])
@pytest.mark.parametrize("then", ["lingers", "closes", "resets"])
def test_an_early_answer_beats_the_write_that_failed(then: str, status: int, loop: str) -> None:
    """The archive answers before it has read the body, and hangs up: what it said counts."""
    reply = Reply(status, body=b"too much", answer_before_body=True, lingering=then == "lingers")

    async def work() -> None:
        async with FaultyServer(on_head=lambda _: reply) as server, client() as sender:
            for pause in (0, 0, 0.002):
                source = Source(*[b"x" * 200_000] * 100, pause=pause)
                answer = await sender.send(post(server.url, source, 20 * MIB))
                assert (answer.status_code, answer.content) == (status, b"too much")
                assert source.closed
            await server.until(lambda seen: not seen.open_connections)

    run_in(loop, work)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_early_answer_that_the_loop_has_not_seen(loop: str) -> None:
    """The loop is busy when it comes, and the next it does is a write that fails."""

    async def busy() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await asyncio.sleep(0.05)
        yield b"x" * 1000
        time.sleep(0.3)
        for _ in range(10):
            yield b"x" * 1000

    def answer(connection: socket.socket) -> None:
        time.sleep(0.1)
        connection.sendall(TOO_MUCH)
        connection.close()  # with something unread: the rest is met with a reset

    async def work() -> None:
        with thread_server(b"", answer) as url:
            async with client() as sender:
                answered = await sender.send(httpx.Request("POST", url, content=busy()))
                assert (answered.status_code, answered.content) == (413, b"too much")

    run_in(loop, work)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_early_answer_over_tls(loop: str, authority: Authority) -> None:
    reply = Reply(413, body=b"too much", answer_before_body=True)
    using = settings(tls=Tls(ca_file=authority.ca_file))

    async def work() -> None:
        server = FaultyServer(on_head=lambda _: reply, ssl_context=authority.server("127.0.0.1"))
        async with server, client(using) as sender:
            source = Source(*[b"x" * 200_000] * 100)
            answer = await sender.send(post(server.url, source, 20 * MIB))
            assert (answer.status_code, answer.content) == (413, b"too much")
            await server.until(lambda seen: not seen.open_connections)

    run_in(loop, work)


async def test_an_early_answer_stops_the_sending() -> None:
    """It is read to its end, and the rest of the body stays here."""
    given = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield b"x" * 10_000
            await asyncio.sleep(0.001)

    async with FaultyServer(on_head=lambda _: Reply(413, answer_before_body=True)) as server, client() as sender:
        request = httpx.Request("POST", server.url, content=pieces())
        assert (await sender.send(request)).status_code == 413
        seen = given
        await asyncio.sleep(0.05)
    assert given - seen <= 2
    assert seen < 1000


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_whole_body_down(framing: ReplyFraming, loop: str) -> None:
    """Taken at once or slowly; with pieces of every size, among them some larger than what is read ahead."""
    body = random.Random(4).randbytes(MIB + MIB // 2 + 17)
    sizes = iter([7000, 100, 65536, 1 << 20, 8192, 300_000])

    async def work() -> None:
        def answer(request: Request) -> Reply:
            return Reply(body=body if request.target == "/" else body[:1000], framing=framing, chunk_size=next(sizes))

        async with FaultyServer(answer) as server, client() as sender:
            for pause in (0, 0, 0.001):
                found = b""
                async with sender.stream("GET", server.url) as reply:
                    async for piece in reply.aiter_raw():
                        found += piece
                        await asyncio.sleep(pause)
                assert found == body
            assert server.connections == (3 if framing == "until-close" else 1)

    run_in(loop, work)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("slowly", [True, False])
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_what_came_before_a_cut_is_there(framing: ReplyFraming, reset: bool, slowly: bool, loop: str) -> None:
    """And then it is a cut; where only the end of the connection ends a body, a reset is one, a close is not."""
    body = random.Random(5).randbytes(MIB)
    cut = 400_003
    ends = framing == "until-close" and not reset

    async def work() -> None:
        reply = Reply(body=body, framing=framing, cut_after=cut, reset=reset, chunk_size=50_000)
        async with FaultyServer(reply) as server, client() as sender:
            found = b""
            expected: Any = contextlib.nullcontext() if ends else pytest.raises(httpx.TransportError)
            with expected:
                async with sender.stream("GET", server.url) as answer:
                    async for piece in answer.aiter_raw():
                        found += piece
                        if slowly:
                            await asyncio.sleep(0.01)
            # A reset lets the system drop what nobody has read yet.
            assert found == body[:cut] or (reset and slowly and body.startswith(found))

    run_in(loop, work)


BROKEN_CHUNKS = {
    "no number": b"5\r\nhello\r\nxyz\r\n",
    "longer than it says": b"5\r\nhello, world\r\n0\r\n\r\n",
    "a huge number": b"5\r\nhello\r\n" + b"f" * 40 + b"\r\n",
}


@pytest.mark.parametrize("case", BROKEN_CHUNKS)
async def test_chunks_that_make_no_sense_are_a_cut_at_once(case: str) -> None:
    """The connection stays open: nobody may wait for what does not come."""
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + BROKEN_CHUNKS[case]
    for apart in (True, False):
        head, _, rest = raw.partition(b"hello")
        reply = Reply(raw=head + b"hello" if apart else raw, again=rest if apart else b"", pause=0.05)
        async with FaultyServer(reply) as server, client() as sender, asyncio.timeout(5):
            with pytest.raises(httpx.TransportError):
                await sender.get(server.url)


WORDS = r"^(the connection broke|the answer's head cannot be read)$"
HOSTILE_HEADS = {
    "one line of 2 MB": b"HTTP/1.1 200 " + b"x" * 2_000_000 + b"\r\n\r\n",
    "one field of 2 MB": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000 + b"\r\n\r\n",
    "20,000 fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "another version": b"HTTP/7.3 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a zero byte": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nrubbish",
}


@pytest.mark.parametrize("case", HOSTILE_HEADS)
async def test_a_hostile_head(case: str) -> None:
    """Refused or read past: no crash, no hang, no words of it in the error; the next request is none the worse."""
    script = [Reply(raw=HOSTILE_HEADS[case]), Reply(body=b"right")]
    async with FaultyServer(script) as server, client() as sender, asyncio.timeout(10):
        if case == "a switch of protocols":
            assert (await sender.get(server.url)).status_code == 101
        else:
            with pytest.raises(httpx.TransportError, match=WORDS):
                await sender.get(server.url)
        assert (await sender.get(server.url)).content == b"right"


@pytest.mark.parametrize("case", ["one field of 2 MB", "20,000 fields", "no HTTP"])
async def test_a_head_that_cannot_be_read_is_named(case: str) -> None:
    using = settings(max_attempts=1)
    async with FaultyServer(Reply(raw=HOSTILE_HEADS[case])) as server, DicomWeb(server.url, settings=using) as archive:
        with pytest.raises(ConnectionFailed, match="the head of the answer is not HTTP, or larger than is read"):
            await archive.search_for_studies(limit=1).all()


async def test_headers_are_what_was_sent() -> None:
    """Doubles, odd bytes and their spelling."""
    raw = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Odd: caf\xe9  \r\nContent-Length: 0\r\n\r\n"
    async with FaultyServer(Reply(raw=raw)) as server, client() as sender:
        answer = await sender.get(server.url)
    assert answer.headers.raw == [
        *((b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"X-Odd", b"caf\xe9"), (b"Content-Length", b"0")),
    ]


async def test_nothing_is_kept_followed_or_unpacked(caplog: pytest.LogCaptureFixture) -> None:
    packed = gzip.compress(b"right")
    headers = [("Location", "/elsewhere"), ("Set-Cookie", "a=1"), ("Set-Cookie", "o dd;name=\x01"), ("Set-Cookie", "")]
    reply = Reply(302, [*headers, ("Content-Encoding", "gzip")], packed)
    transport = AiohttpTransport(settings())
    with caplog.at_level(logging.DEBUG):
        async with FaultyServer(reply) as server:
            for _ in range(2):
                answer = await transport.handle_async_request(httpx.Request("GET", server.url))
                stream: Any = answer.stream
                assert b"".join([piece async for piece in stream]) == packed
                assert answer.status_code == 302
                await answer.aclose()
            await transport.aclose()
    assert len(server.requests) == 2
    assert not server.requests[1].all_headers("cookie")
    assert not [one for one in caplog.records if one.name != "asyncio"]


async def test_bytes_are_handed_over_as_they_come() -> None:
    """What has come is not held back for more."""
    found = 0
    async with (
        FaultyServer(Reply(body=b"x" * 5000, chunk_size=100, stall_after=300)) as server,
        client() as sender,
        sender.stream("GET", server.url) as answer,
        asyncio.timeout(5),
    ):
        async for piece in answer.aiter_raw():
            found += len(piece)
            if found == 300:
                break


@pytest.mark.parametrize("loop", LOOPS)
def test_an_answer_that_nobody_reads_is_not_taken(loop: str) -> None:
    """The archive is held back; no more is in memory than a few times what is read ahead."""
    sent = 0

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    async def work() -> None:
        taken, before = 0, -1
        async with (
            StreamServer(pour) as server,
            client() as sender,
            sender.stream("GET", f"http://127.0.0.1:{server.port}") as answer,
        ):
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 16 * MIB  # the sockets' own buffers are most of it
            held: Any = answer.stream
            assert held._stream._answer.content._size <= MIB
            async for piece in answer.aiter_raw():
                taken += len(piece)
                if taken > before + 4 * MIB:
                    break

    run_in(loop, work)


# --- kept connections -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def thread_server(answer: bytes, then: Callable[[socket.socket], None]) -> Iterator[str]:
    """Answer the first request of each connection so, from a thread, and then do something with it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        ended = threading.Event()
        kept: list[socket.socket] = []

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listening.accept()
                    kept.append(connection)
                    connection.settimeout(2)
                    connection.recv(65536)
                    connection.sendall(answer)
                    then(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join(10)
            for connection in kept:
                connection.close()


TOO_MUCH = b"HTTP/1.1 413 Too much\r\nContent-Length: 8\r\n\r\ntoo much"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STRAY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["close", "stray answer"])
def test_a_connection_that_ended_unseen_is_not_used_again(how: str, loop: str) -> None:
    """The event loop was busy and has not seen it; a request that cannot be repeated must not be lost to that."""

    def then(connection: socket.socket) -> None:
        if how == "close":
            connection.close()
        else:
            time.sleep(0.02)
            connection.sendall(STRAY)

    async def work() -> None:
        with thread_server(OK, then) as url:
            async with client() as sender:
                for _ in range(5):
                    assert (await sender.post(url, content=b"x")).content == b"ok"
                    time.sleep(0.1)

    run_in(loop, work)


@pytest.mark.parametrize("extra", [STRAY, STRAY + STRAY, STRAY[:20], b"\r\n\r\nrubbish"])
async def test_more_than_was_asked_for_is_no_answer_to_the_next(extra: bytes) -> None:
    """Whether it comes with the answer or after it, and whether the loop has seen it or not."""
    for turns in (0, 3, 40):
        async with FaultyServer([Reply(raw=OK + extra), Reply(body=b"right")]) as server, client() as sender:
            assert (await sender.get(server.url)).content == b"ok"
            for _ in range(turns):
                await asyncio.sleep(0)
            assert (await sender.get(server.url)).content == b"right"


POUR = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    for _ in range(10):
        connection, _ = listening.accept()
        connection.recv(65536)
        try:
            connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
            for _ in range(1000):
                connection.sendall(bytes(1 << 20))
        except OSError:
            pass
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_a_scope_of_anyio_s_ends_a_stream_that_never_runs_dry(loop: str) -> None:
    """As web backends use it: a browser that has gone is not downloaded for."""
    after = 0

    async def read(url: str) -> None:
        nonlocal after
        async with client() as sender, sender.stream("GET", url) as answer:
            with anyio.CancelScope() as scope:
                # Seen together with what has come, as the end of another connection would be.
                threading.Timer(0.1, asyncio.get_running_loop().call_soon_threadsafe, (scope.cancel,)).start()
                async for piece in answer.aiter_raw():
                    after += len(piece) if scope.cancel_called else 0
                    time.sleep(0.001)  # something is done with it, and more has come by then

    async def work() -> None:
        with subprocess.Popen([sys.executable, "-c", POUR], stdout=subprocess.PIPE, text=True) as pouring:
            assert pouring.stdout is not None
            url = f"http://127.0.0.1:{int(pouring.stdout.readline())}"
            for _ in range(10):
                await read(url)
            pouring.kill()
        assert after < 64 * MIB

    run_in(loop, work)


# --- letting go -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("kind", ["get", "upload", "answer under way"])
def test_ten_requests_cancelled_on_a_silent_server_leave_no_socket(
    kind: str, secure: bool, loop: str, authority: Authority
) -> None:
    reply = Reply(body=b"x" * 1000, stall_after=10) if kind == "answer under way" else Reply(silent=True)
    head = Reply(stop_reading_after=1000) if kind == "upload" else None
    using = settings(tls=Tls(ca_file=authority.ca_file)) if secure else settings()

    async def work() -> None:
        context = authority.server("127.0.0.1") if secure else None
        server = FaultyServer(reply, on_head=lambda _: head, ssl_context=context, keep_bodies=False)
        async with server, client(using) as sender:
            sources = [Source(*[b"x" * 500_000] * 100) for _ in range(10)]
            if kind == "upload":
                calls = [sender.send(post(server.url, source, 50_000_000)) for source in sources]
            else:
                calls = [sender.get(server.url) for _ in sources]
            tasks = [asyncio.ensure_future(call) for call in calls]
            await server.until(lambda seen: seen.in_flight == 10)
            taken = -1
            while taken != sum(source.taken for source in sources):  # until nothing moves any more
                taken = sum(source.taken for source in sources)
                await asyncio.sleep(0.2)
            assert connections_to(server.port) == 10
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(1):
                while connections_to(server.port):
                    await asyncio.sleep(0.01)

    run_in(loop, work)


@pytest.mark.parametrize("framing", get_args(ReplyFraming))
async def test_an_answer_under_way_when_all_is_closed_has_not_ended(framing: ReplyFraming) -> None:
    """Its reader does not wait for ever, and the end of its connection is not the end of its body."""
    async with FaultyServer(Reply(body=b"x" * 1000, framing=framing, stall_after=500)) as server:
        transport = AiohttpTransport(settings())
        answer = await transport.handle_async_request(httpx.Request("GET", server.url))
        pieces = answer.aiter_raw()
        assert await anext(pieces)
        reading = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        await transport.aclose()
        with pytest.raises(httpx.ReadError):
            await reading


def connections_to(port: int) -> int:
    """Count our ends of the connections to a port of this machine that are still there, by the system."""
    if not TABLE.exists():
        pytest.skip("the system has no such table")
    lines = [line.split() for line in TABLE.read_text().splitlines()[1:]]
    return sum(target.endswith(f":{port:04X}") and state == ESTABLISHED for _, _, target, state, *_ in lines)
