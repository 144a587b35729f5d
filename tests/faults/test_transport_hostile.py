"""Answers of a hostile or broken server: what is whole counts, what follows it never does, and nothing is for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from postdicom_async import OutcomeUnknown, PostDicom, Tls
from tests.faults.clients import FAST, settings
from tests.faults.test_transport import LOOPS, OK, STRAY, client, connections_to, run_in
from tests.postdicom.forms import FORMS
from tests.support.certificates import Authority
from tests.support.faulty_server import FaultyServer, Reply
from tests.support.stream_server import StreamServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WORDS = r"^(the connection broke|the answer's head cannot be read)$"


class Wire:
    """A server that writes what it is told for the so-and-so-many-th request, whichever connection it comes on.

    Attributes:
        heads: the requests, with the connection each came on.
        after: the answer to a second request on one connection.
        keeps: so many requests are answered on one connection, which ends then.
    """

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heads: list[tuple[int, bytes]] = []
        self.after = RIGHT
        self.keeps = 1000
        self.connections = self.port = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        requests = 0
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while requests < self.keeps:
                self.heads.append((number, await reader.readuntil(b"\r\n\r\n")))
                requests += 1
                writer.write(self.answers.pop(0) if self.answers else RIGHT if requests == 1 else self.after)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def wire(*answers: bytes) -> AsyncIterator[Wire]:
    made = Wire(*answers)
    async with StreamServer(made.serve) as server:
        made.url = f"http://127.0.0.1:{server.port}"
        made.port = server.port
        yield made


RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"

# What the first request is answered, and the whole answer in it: method, bytes, status, content.
WHOLE_WITH_MORE = {
    "204 with a body": ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}", 204, b""),
    "204 with chunks": (
        "GET",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        204,
        b"",
    ),
    "304 with a body": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nstray", 304, b""),
    "HEAD with a body": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray", 200, b""),
    "HEAD with an answer for a body": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n" + STRAY, 200, b""),
    "more than its length": ("GET", OK + b" and more", 200, b"ok"),
    "another answer": ("GET", OK + STRAY, 200, b"ok"),
    "a part of another answer": ("GET", OK + STRAY[:20], 200, b"ok"),
    "the head of another answer": ("GET", OK + STRAY[:-5], 200, b"ok"),
    "chunks and more": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore",
        200,
        b"ok",
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("case", WHOLE_WITH_MORE)
def test_a_whole_answer_counts_and_what_follows_it_does_not(case: str, loop: str) -> None:
    """The next request has a connection of its own: on that one nobody knows whose answer comes next."""
    method, answer, status, content = WHOLE_WITH_MORE[case]

    async def work() -> None:
        for pause in (0.0, 0.05):
            async with wire(answer) as server, client() as sender:
                got = await sender.request(method, server.url)
                assert (got.status_code, got.content) == (status, content)
                await asyncio.sleep(pause)
                assert (await sender.post(server.url)).content == b"right"
                assert [number for number, _ in server.heads] == [0, 1]

    run_in(loop, work)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_answer_in_two_parts_is_not_taken_for_the_next(loop: str) -> None:
    """Its beginning comes with the first answer, its end when the next request is on its way."""
    begun = OK + b"HTTP/1.1 200 OK\r\nX: "

    async def work() -> None:
        async with wire(begun) as server, client() as sender:
            server.after = STRAY
            assert (await sender.get(server.url)).content == b"ok"
            assert (await sender.get(server.url)).content == b"right"

    run_in(loop, work)


@pytest.mark.parametrize("loop", LOOPS)
def test_interim_answers_without_end(loop: str) -> None:
    """A few are read past; of a flood nobody waits for the end."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

    async def work() -> None:
        async with wire(interim * 5 + RIGHT) as server, client() as sender:
            assert (await sender.get(server.url)).content == b"right"
        async with (
            FaultyServer([Reply(raw=interim, again=interim * 1000), Reply(body=b"right")]) as flood,
            client() as sender,
            asyncio.timeout(10),
        ):
            with pytest.raises(httpx.TransportError, match=WORDS):
                await sender.get(flood.url)
            assert (await sender.get(flood.url)).content == b"right"

    run_in(loop, work)


TRAILERS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nright\r\n0\r\n"
CHUNKED = {
    "trailers": (TRAILERS + b"X-A: 1\r\nX-B: 2\r\n\r\n", b"right"),
    "trailers that are a length": (TRAILERS + b"Content-Length: 99\r\n\r\n", None),
    "a trailer of 2 MB": (TRAILERS + b"X: " + b"x" * 2_000_000 + b"\r\n\r\n", None),
    "20,000 trailers": (TRAILERS + b"X: y\r\n" * 20_000 + b"\r\n", None),
    "an extension of 2 MB": (TRAILERS.replace(b"a=b", b"a=" + b"b" * 2_000_000) + b"\r\n", None),
    "a sign": (TRAILERS.replace(b"5;a=b", b"+5") + b"\r\n", None),
    "a prefix": (TRAILERS.replace(b"5;a=b", b"0x5") + b"\r\n", None),
    "an underscore": (TRAILERS.replace(b"5;a=b", b"0_5") + b"\r\n", None),
    "more than 64 bits": (TRAILERS.replace(b"5;a=b", b"1" + b"0" * 15 + b"5") + b"\r\n", None),
    "bare line feeds": (TRAILERS.replace(b"\r\n", b"\n"), None),
}


@pytest.mark.parametrize("case", CHUNKED)
async def test_chunks(case: str) -> None:
    """Whole, or refused: never other bytes, and never for ever."""
    raw, content = CHUNKED[case]
    async with FaultyServer([Reply(raw=raw), Reply(body=b"right")]) as server, client() as sender, asyncio.timeout(10):
        try:
            assert (await sender.get(server.url)).content == b"right"
        except httpx.TransportError:
            assert content is None
        assert (await sender.get(server.url)).content == b"right"


CODINGS = {
    **dict.fromkeys((b"chunked", b" CHUNKED", b"gzip, chunked", b"x\r\nTransfer-Encoding: chunked"), True),
    **dict.fromkeys((b"xchunked", b"chunked, gzip", b"chunked\t", b'"chunked"', b"chunked;q=1"), False),
    b"chunked\r\nTransfer-Encoding: identity": False,
}


@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("coding", CODINGS)
async def test_what_calls_itself_chunked_is_read_so_or_refused(coding: bytes, chunks: bool) -> None:
    """Never until the connection ends, which would be taken for the end of a body that was to have a marked one."""
    body = b"5\r\nright\r\n0\r\n\r\n" if chunks else b"right"
    reply = Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n" + body, keep_alive=False)
    async with FaultyServer(reply) as server, client() as sender, asyncio.timeout(10):
        if chunks and CODINGS[coding]:
            assert (await sender.get(server.url)).content == b"right"
        else:
            with pytest.raises(httpx.TransportError, match=WORDS):
                await sender.get(server.url)


@pytest.mark.parametrize("again", [b"X: y\r\n" * 100, b"x" * 1000, b"1\r\nx\r\n" * 100])
async def test_a_head_or_trailer_without_end_takes_no_memory(again: bytes) -> None:
    raw = (
        OK[:15] + b"\r\n"
        if not again.startswith(b"1")
        else b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    )
    async with FaultyServer(Reply(raw=raw, again=again)) as server, client() as sender, asyncio.timeout(10):
        tracemalloc.start()
        try:
            with pytest.raises(httpx.TransportError):
                await sender.get(server.url)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


OLD = {
    "1.0 with a length": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nright", True),
    "1.0 kept alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nright", False),
    "1.1 to be closed": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nright", True),
    "1.0 with chunks": (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nright\r\n0\r\n\r\n", None),
}


@pytest.mark.parametrize("case", OLD)
async def test_old_http(case: str) -> None:
    answer, closes = OLD[case]
    async with wire(answer) as server, client() as sender, asyncio.timeout(10):
        for _ in range(2):
            assert (await sender.get(server.url)).content == b"right"
        if closes is not None:
            assert server.heads[-1][0] == int(closes)


@pytest.mark.parametrize("status", [b"407 Who", b"502 Bad Gateway"])
@pytest.mark.parametrize("length", [b"Content-Length: 100000", b"Transfer-Encoding: chunked", b"X: until closed"])
async def test_a_proxy_that_refuses_in_many_words_keeps_no_connection(status: bytes, length: bytes) -> None:
    body = b"186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n" if b"chunked" in length else b"x" * 100_000
    answer = b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n\r\n" + body
    async with wire(*[answer] * 10) as proxy, client(proxy=proxy.url) as sender, asyncio.timeout(10):
        for _ in range(10):
            with pytest.raises(httpx.ConnectError):
                await sender.get("https://archive.invalid")
        while connections_to(proxy.port):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("says_so", [True, False])
def test_an_end_of_tls_without_its_last_word_is_a_cut(
    says_so: bool, version: ssl.TLSVersion, loop: str, tmp_path: Path
) -> None:
    """Where only the end of the connection ends a body, anybody in between could shorten it otherwise."""
    authority = Authority(tmp_path)
    context = authority.server("127.0.0.1")
    context.maximum_version = version
    using = settings(tls=Tls(ca_file=authority.ca_file))

    def serve() -> None:
        connection, _ = listening.accept()
        secure = context.wrap_socket(connection, server_side=True)
        secure.recv(65536)
        secure.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)
        if says_so:
            with contextlib.suppress(OSError):
                secure.unwrap()
        secure.close()  # of itself it says nothing

    async def work() -> None:
        found = b""
        expected: Any = contextlib.nullcontext() if says_so else pytest.raises(httpx.ReadError, match=WORDS)
        async with client(using) as sender:
            with expected:
                async with sender.stream("GET", f"https://127.0.0.1:{listening.getsockname()[1]}") as answer:
                    async for piece in answer.aiter_raw():
                        found += piece
        assert found == b"x" * 1000

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        run_in(loop, work)
        thread.join(10)


# --- requests that must not be made twice -----------------------------------------------------------------------------

CHANGES = [form for form in FORMS if form.changes][:6]
SAYS_YES = b'{"Success":true,"Result":"11111111-2222-3333-4444-555555555555"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(SAYS_YES) + SAYS_YES
LATER = b"HTTP/1.1 102 Processing\r\n\r\n"
ENDINGS = {
    **{
        f"cut after {number}": ANSWER[:number]
        for number in (0, 1, 9, 17, 60, len(ANSWER) - len(SAYS_YES), len(ANSWER) - 1)
    },
    "an interim answer only": LATER,
    "rubbish": b"\x00\xff rubbish\r\n\r\n",
    "chunks that make no sense": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "another length": ANSWER.replace(b"Content-Length: ", b"Content-Length: 9"),
    "two answers": ANSWER + ANSWER,
    "more than the answer": ANSWER + b"more",
    "an interim answer and the answer": LATER + ANSWER,
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_get_that_changes_something_is_made_once(ending: str, loop: str) -> None:
    """On a new and on a kept connection, which ends then; counted at the service."""

    async def work() -> None:
        for before in (0, 1):
            for form in CHANGES:
                async with wire(*[ANSWER] * before, ENDINGS[ending]) as server:
                    server.keeps = before + 1
                    async with PostDicom(server.url, "demo", "demo", settings=FAST) as service:
                        for _ in range(before):
                            await form.call(service)
                        with contextlib.suppress(OutcomeUnknown):
                            await form.call(service)
                    assert len(server.heads) == before + 1
                    assert {number for number, _ in server.heads} == {0}
                    assert all(head.startswith(b"GET ") for _, head in server.heads)

    run_in(loop, work)
