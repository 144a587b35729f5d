"""An answer while it arrives: lengths, packing, caps."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.errors import ConnectionFailed, ProtocolError
from postdicom_async.http.answer import Answer, StreamedAnswer
from postdicom_async.http.exchange import Clock
from postdicom_async.http.problems import Problem
from postdicom_async.http.repeat import CallPatience
from postdicom_async.http.retry import Failure
from postdicom_async.settings import Limits, Timeouts


class Wire(httpx.AsyncByteStream):
    """A body in given pieces, and then an error or the end."""

    def __init__(self, pieces: Sequence[bytes], error: Exception | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self.closed += 1


class Made:
    """An answer over a wire of ours, counting its releases."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        headers: dict[str, str] | httpx.Headers | None = None,
        *,
        status: int = 200,
        error: Exception | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.released = 0
        self.wire = Wire(pieces, error)
        response = httpx.Response(status, headers=headers or {}, stream=self.wire)
        self.answer = StreamedAnswer(
            response,
            operation="search",
            kind="search",
            limits=limits or Limits(),
            timeouts=Timeouts(idle_read=5.0),
            clock=Clock(),
            patience=CallPatience(None, 3),
            in_vain=lambda: None,
            release=self._release,
        )

    def _release(self) -> None:
        self.released += 1

    async def body(self) -> bytes:
        async with self.answer as answer:
            return b"".join([chunk async for chunk in answer.chunks()])


async def body_of(pieces: Sequence[bytes], headers: dict[str, str] | None = None, *, expansion: int = 100) -> bytes:
    return await Made(pieces, headers, limits=replace(Limits(), expansion=expansion)).body()


DATA = bytes(range(256)) * 40


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (None, None),
        ("0", 0),
        ("17", 17),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("\u00b2", None),
        ("abc", None),
        ("1, 1", None),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, None),
        ("9" * 4000, None),
    ],
)
async def test_length(value: str | None, length: int | None) -> None:
    headers = [] if value is None else [(b"Content-Length", value.encode("latin-1"))]
    assert Made([], httpx.Headers(headers)).answer.length == length


@pytest.mark.parametrize(
    ("headers", "marked"),
    [
        ({}, False),
        ({"Content-Length": "5"}, True),
        ({"Transfer-Encoding": "chunked"}, True),
        ({"Transfer-Encoding": "gzip, Chunked"}, True),
        ({"Transfer-Encoding": "chunked, gzip"}, False),
        ({"Transfer-Encoding": "xchunked"}, False),
        ({"Transfer-Encoding": "chunked;q=1"}, False),
        ({"Content-Length": "x"}, False),
    ],
)
async def test_end_is_marked(headers: dict[str, str], marked: bool) -> None:
    assert Made([], headers).answer.end_is_marked is marked


async def test_plain_body_and_one_release() -> None:
    made = Made([DATA[:10], DATA[10:]], {"Content-Length": str(len(DATA)), "Content-Type": "x/y"}, status=206)
    assert await made.body() == DATA
    await made.answer.aclose()
    assert (made.released, made.answer.ok, made.answer.content_type) == (1, True, "x/y")
    assert made.wire.closed


async def test_short_body_is_an_error() -> None:
    with pytest.raises(ConnectionFailed, match="before its announced length") as caught:
        await body_of([DATA], {"Content-Length": str(len(DATA) + 1)})
    assert caught.value.may_have_arrived


async def test_a_broken_wire_is_an_error_without_its_words() -> None:
    made = Made([DATA], error=httpx.ReadError("http://host/?PatientName=DOE"))
    with pytest.raises(ConnectionFailed) as caught:
        await made.body()
    assert "DOE" not in str(caught.value)
    assert caught.value.__context__ is None
    assert made.released == 1


# --- packed answers -------------------------------------------------------------------------------------------------


def packed(kind: str, data: bytes) -> bytes:
    return gzip.compress(data) if kind.endswith("gzip") else zlib.compress(data)


@pytest.mark.parametrize("kind", ["gzip", "x-gzip", "deflate", " GZip "])
@given(data=st.binary(max_size=3000), cut=st.integers(1, 50))
@pytest.mark.asyncio
async def test_unpacked_whole_and_in_pieces(kind: str, data: bytes, cut: int) -> None:
    wire = packed(kind.strip().lower(), data)
    pieces = [wire[start : start + cut] for start in range(0, len(wire), cut)]
    assert await body_of(pieces, {"Content-Encoding": kind}) == data


@pytest.mark.parametrize("kind", ["", "identity", "Identity"])
async def test_not_packed(kind: str) -> None:
    assert await body_of([DATA], {"Content-Encoding": kind}) == DATA


@pytest.mark.parametrize("kind", ["br", "zstd", "compress", "gzip, gzip", "x-unknown"])
async def test_other_packing_is_refused(kind: str) -> None:
    with pytest.raises(ProtocolError, match="unasked"):
        await body_of([DATA], {"Content-Encoding": kind})


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
async def test_cut_anywhere_is_an_error(kind: str) -> None:
    wire = packed(kind, DATA)
    for end in range(1, len(wire), 7):
        with pytest.raises((ConnectionFailed, ProtocolError)):
            await body_of([wire[:end]], {"Content-Encoding": kind})


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
async def test_flipped_bytes_are_an_error_or_harmless(kind: str) -> None:
    wire = bytearray(packed(kind, DATA))
    for at in range(len(wire)):
        wire[at] ^= 0xFF
        with suppress(ConnectionFailed, ProtocolError):
            assert await body_of([bytes(wire)], {"Content-Encoding": kind}) == DATA
        wire[at] ^= 0xFF


async def test_garbage_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="damaged"):
        await body_of([b"not packed at all"], {"Content-Encoding": "gzip"})


async def test_nothing_after_the_packed_body_is_lost_silently() -> None:
    two_members = gzip.compress(b"first") + gzip.compress(b"second")
    for pieces in ([two_members], [two_members[:30], two_members[30:]], [gzip.compress(b"first"), b"more"]):
        with pytest.raises(ProtocolError, match="damaged"):
            await body_of(pieces, {"Content-Encoding": "gzip"})


async def test_an_empty_body_may_be_called_packed() -> None:
    """204, or no bytes announced, with the proxy's Content-Encoding left on. Nothing at all is a cut."""
    assert await Made([], {"Content-Encoding": "gzip"}, status=204).body() == b""
    assert await body_of([], {"Content-Encoding": "gzip", "Content-Length": "0"}) == b""
    with pytest.raises(ConnectionFailed, match="ended early"):
        await body_of([], {"Content-Encoding": "gzip"})


async def test_a_bomb_is_refused_early() -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    with pytest.raises(ProtocolError, match="far more"):
        await body_of([bomb], {"Content-Encoding": "deflate"}, expansion=10)


async def test_the_bound_is_exact() -> None:
    data = bytes(5 << 20)
    wire = zlib.compress(data, 9)
    fits = -(-(len(data) - (1 << 20)) // len(wire))
    assert await body_of([wire], {"Content-Encoding": "deflate"}, expansion=fits) == data
    with pytest.raises(ProtocolError, match="far more"):
        await body_of([wire], {"Content-Encoding": "deflate"}, expansion=fits - 1)


async def test_unpacked_in_pieces_with_turns_for_others() -> None:
    data = bytes(range(256)) * (20 << 10)
    made = Made([zlib.compress(data)], {"Content-Encoding": "deflate"}, limits=replace(Limits(), expansion=1000))
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())
    pieces = [chunk async for chunk in made.answer.chunks()]
    ticking.cancel()
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 1 << 20
    assert turns >= len(pieces) - 1 >= 4


async def test_a_small_text_may_pack_well() -> None:
    text = b" " * 900_000
    assert await body_of([zlib.compress(text, 9)], {"Content-Encoding": "deflate"}, expansion=10) == text


# --- whole and partly -----------------------------------------------------------------------------------------------


async def test_read_all_within_the_cap() -> None:
    found = await Made([DATA], {"Content-Type": "x/y"}).answer.read_all(len(DATA))
    assert isinstance(found, Answer)
    assert (found.status, found.body, found.content_type) == (200, DATA, "x/y")
    assert "x/y" not in repr(found)


async def test_read_all_beyond_the_cap() -> None:
    with pytest.raises(Problem) as caught:
        await Made([DATA, DATA]).answer.read_all(len(DATA))
    assert caught.value.failure is Failure.FINAL
    assert isinstance(caught.value.error, ProtocolError)


async def test_read_some_takes_what_there_is() -> None:
    assert await Made([DATA, DATA]).answer.read_some(100) == DATA[:100]
    assert await Made([b"abc"], error=httpx.ReadError("x")).answer.read_some(100) == b"abc"
    assert await Made([b"abc"], {"Content-Encoding": "br"}).answer.read_some(100) == b""


class SlowWire(Wire):
    """A body whose pieces come half a second apart."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("length", [3, 4])
async def test_a_last_byte_that_comes_late(length: int) -> None:
    """When it is there, the answer is whole, and nothing is gained by throwing it away."""
    wire = SlowWire([b"a", b"b", b"c", b"d"])
    answer = StreamedAnswer(
        httpx.Response(200, headers={"Content-Length": str(length)}, stream=wire),
        operation="search",
        kind="search",
        limits=Limits(),
        timeouts=Timeouts(idle_read=0.9, least_rate_window=0.9),
        clock=Clock(),
        patience=CallPatience(None, 3),
        in_vain=lambda: None,
        release=lambda: None,
    )
    async with answer:
        chunks = answer.chunks()
        assert [await anext(chunks) for _ in range(2)] == [b"a", b"b"]
        if length == 3:
            assert await anext(chunks) == b"c"
            return
        with pytest.raises(ConnectionFailed, match="less than 1024 bytes a second"):
            await anext(chunks)
