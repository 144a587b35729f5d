"""What a client can cost the archive: memory, time, and places that others need."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
import zlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from websockets.exceptions import InvalidStatus

from postdicom_async.emulator import ArchiveLimits, ArchiveOptions, EmbeddedArchive
from postdicom_async.emulator.dicomweb.accept import LONGEST, parse_accept, parse_media_type
from postdicom_async.emulator.dicomweb.matching import LONGEST_KEY, text_matches
from postdicom_async.emulator.store.files import INFLATED_LIMIT
from tests.emulator.cloud_support import bring_up, raw_socket
from tests.emulator.support import (
    STOW_TYPE,
    TEST_FILES,
    client_of,
    encode,
    make_dataset,
    make_instance,
    reasons_in,
    related,
    store,
    uids_in,
    with_pixels,
)
from tests.emulator.vendor_support import refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx

ROOM = 10
"""Seconds for what takes milliseconds: only what grows faster than its input needs more."""


def bomb(size: int) -> bytes:
    """Return a deflated file whose pixel data are so many zeros."""
    ds = make_dataset("1.2", "1.2.1", "1.2.1.1", Rows=1, Columns=1)
    ds.PixelData = b"\0\0"
    ds["PixelData"].VR = "OW"
    small = encode(ds, DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(small[140:144], "little")
    plain = zlib.decompress(small[start:], -zlib.MAX_WBITS)
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    packed = deflater.compress(plain[:-6] + size.to_bytes(4, "little"))
    packed += b"".join(deflater.compress(bytes(1024 * 1024)) for _ in range(size // (1024 * 1024)))
    return small[:start] + packed + deflater.flush()


async def test_a_deflated_data_set_that_swells_is_refused(client: httpx.AsyncClient) -> None:
    body = bomb(4 * INFLATED_LIMIT)
    assert len(body) < INFLATED_LIMIT // 40

    tracemalloc.start()
    try:
        answer = await store(client, body, make_instance("1.2", "1.2.1", "1.2.1.2"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reasons_in(answer) == [0xA700]
    assert uids_in(answer) == ["1.2.1.2"]
    assert peak < 2.5 * INFLATED_LIMIT


async def test_a_large_deflated_data_set_is_stored_and_read(client: httpx.AsyncClient) -> None:
    body = bomb(8 * 1024 * 1024)

    assert (await store(client, body)).status_code == 200
    (found,) = (await client.get("/studies/1.2/metadata")).json()
    assert found["00280010"]["Value"] == [1]
    part = await client.get(
        "/studies/1.2/series/1.2.1/instances/1.2.1.1/bulkdata/7FE00010", headers={"Accept": "application/octet-stream"}
    )
    assert part.content == bytes(8 * 1024 * 1024)


HOSTILE = [
    'multipart/related; type="' + '\\"' * 30_000,
    "a" * 60_000,
    '"' * 60_001,
    ";" * 60_000,
    "a/b; " + " " * 60_000 + "x",
    "a/b;" + "x=" * 30_000,
    ",".join(["a/b;q=0.5"] * 6_000),
    '"\\' * 30_000,
]


@pytest.mark.parametrize("read", [parse_accept, parse_media_type])
def test_media_types_are_read_in_one_pass(read: Callable[[str], Any]) -> None:
    started = time.monotonic()
    for text in HOSTILE:
        read(text)
    assert time.monotonic() - started < ROOM


async def test_an_accept_that_is_too_long_is_refused(client: httpx.AsyncClient) -> None:
    await store(client, make_instance())
    for text in HOSTILE:
        for path in ("/studies", "/studies/1.2.3", "/studies/1.2.3/metadata"):
            assert refused(await client.get(path, headers={"Accept": text}), 431)
        answer = await store(client, make_instance(), Accept=text)
        assert refused(answer, 431)
        assert refused(await client.post("/studies", content=b"x", headers={"Content-Type": text}), 431)
    assert refused(await client.get("/studies", params={"accept": "x" * (LONGEST + 1)}), 431)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("*a" * 500 + "b", "a" * 60_000), ("*" + "?" * 500 + "b*c", "a" * 60_000), ("*" * 1000, "a" * 60_000 + "b")],
)
def test_wildcards_go_back_over_nothing(pattern: str, text: str) -> None:
    started = time.monotonic()
    text_matches(pattern, text)
    assert time.monotonic() - started < ROOM


@pytest.mark.parametrize(
    "query",
    [
        {"PatientName": "*" * (LONGEST_KEY + 1)},
        {"StudyDate": "-" * 60_000},
        {"AccessionNumber": "\\" * 20_000},
        {"StudyInstanceUID": ",".join("1" * 12_000)},
    ],
)
async def test_keys_that_are_too_long_are_refused(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    started = time.monotonic()
    assert refused(await client.get("/studies", params=query), 400)
    assert time.monotonic() - started < ROOM


@pytest.mark.parametrize("left", [1, 40, 200])
async def test_frames_that_the_file_does_not_hold(client: httpx.AsyncClient, left: int) -> None:
    """Whichever frame is asked for: a length that goes beyond the file says nothing about where frames are."""
    data = encode(with_pixels("1.2", "1.2.1", "1.2.1.1", frames=3, rows=16, columns=16))
    assert (await store(client, data[:-left])).status_code == 200
    path = "/studies/1.2/series/1.2.1/instances/1.2.1.1"

    for end in ("frames/3", "frames/1", "bulkdata/7FE00010"):
        assert "breaks off" in refused(await client.get(f"{path}/{end}"), 500)
    assert (await client.get(path, headers={"Accept": "application/dicom"})).content == data[:-left]


@pytest.mark.parametrize("left", [1, 8, 9, 100, 5000])
async def test_encapsulated_frames_of_a_file_that_breaks_off(client: httpx.AsyncClient, left: int) -> None:
    path = next(path for path in TEST_FILES if path.name == "examples_ybr_color.dcm")
    ds = dcmread(path, stop_before_pixels=True)
    assert (await store(client, path.read_bytes()[:-left])).status_code == 200
    base = f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"

    for number in (1, ds.NumberOfFrames):
        assert "break off" in refused(await client.get(f"{base}/frames/{number}"), 500)


async def test_bulk_data_that_the_file_does_not_hold(client: httpx.AsyncClient) -> None:
    for size in (2_000, 100_000):
        ds = make_dataset("1.2", "1.2.1", "1.2.1.1", ICCProfile=b"p" * size)
        await store(client, encode(ds, ExplicitVRLittleEndian)[:-100])
        answer = await client.get("/studies/1.2/series/1.2.1/instances/1.2.1.1/bulkdata/00282000")
        assert answer.status_code in {404, 500}
        assert answer.headers["x-error-reason"]


async def test_one_frame_asked_for_a_thousand_times_is_in_memory_once(client: httpx.AsyncClient) -> None:
    ds = with_pixels("1.2", "1.2.1", "1.2.1.1", rows=512, columns=512)
    await store(client, encode(ds))
    path = f"/studies/1.2/series/1.2.1/instances/1.2.1.1/frames/{','.join('1' * 1000)}"

    tracemalloc.start()
    try:
        async with client.stream("GET", path) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_raw():
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024 * 1024


async def test_damage_has_a_status(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    await store(client, make_instance())
    (stored,) = await asyncio.to_thread(embedded_archive.store.instances)
    stored.path.write_bytes(b"no longer DICOM")

    for path in ("metadata", "bulkdata/00282000", "frames/1"):
        answer = await client.get(f"/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1/{path}")
        assert "cannot be read" in refused(answer, 500)


async def connect(archive: EmbeddedArchive) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(archive.url.rpartition(":")[2])
    return await asyncio.open_connection("127.0.0.1", port)


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return what the archive says until it ends the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionResetError:
        return b""


HEAD = b"POST /studies HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic ZGVtbzpkZW1v\r\n"
KIND = b'Content-Type: multipart/related; type="application/dicom"; boundary=limit\r\n'
QUICK = ArchiveLimits(head_timeout=0.4, body_timeout=0.4)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET /stud", b"HTTP/1.1 408 "),
        (HEAD, b"HTTP/1.1 408 "),
        (HEAD + KIND + b"Content-Length: 100\r\n\r\n", b"HTTP/1.1 408 "),
        (HEAD + KIND + b"Content-Length: 100\r\n\r\n--limit\r\n", b"HTTP/1.1 408 "),
        (HEAD + KIND + b"Transfer-Encoding: chunked\r\n\r\n5\r\n--lim", b"HTTP/1.1 408 "),
        (b"DELETE /studies/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 401 "),
        (b"GET /studies HTTP/1.1\r\nHost: localhost\r\n\r\nGET /", b"HTTP/1.1 401 "),
    ],
)
async def test_what_is_begun_and_not_ended_is_ended(sent: bytes, status: bytes) -> None:
    async with EmbeddedArchive(options=ArchiveOptions(limits=QUICK)) as archive:
        reader, writer = await connect(archive)
        writer.write(sent)

        told = await rest_of(reader)
        writer.close()

        assert told.startswith(status)
        assert (not told) == (not status)
        if status.endswith(b"408 "):
            assert b"X-Error-Reason: the " in told
        assert list((archive.folder / "incoming").iterdir()) == []


async def test_hundreds_of_half_requests_do_not_stay() -> None:
    async with EmbeddedArchive(options=ArchiveOptions(limits=QUICK)) as archive, client_of(archive) as client:
        half = [await connect(archive) for _ in range(100)]
        for number, (_, writer) in enumerate(half):
            writer.write(HEAD + (KIND + b"Content-Length: 1000000\r\n\r\n--limit\r\n" if number % 2 else b""))

        assert (await client.get("/studies")).status_code == 200
        assert all(b" 408 " in told for told in await asyncio.gather(*(rest_of(reader) for reader, _ in half)))
        for _, writer in half:
            writer.close()


async def test_a_trickle_is_no_body_and_no_head() -> None:
    async with EmbeddedArchive(options=ArchiveOptions(limits=QUICK)) as archive:
        for start in (b"GET /?", HEAD + KIND + b"Content-Length: 1000000\r\n\r\n"):
            reader, writer = await connect(archive)
            writer.write(start)
            told = asyncio.ensure_future(rest_of(reader))
            while not told.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
            assert b" 408 " in await told
            writer.close()


async def test_a_slow_but_steady_body_is_taken() -> None:
    """Longer than the patience in all, and never without enough for it."""
    limits = ArchiveLimits(head_timeout=5, body_timeout=3)
    async with EmbeddedArchive(options=ArchiveOptions(limits=limits)) as archive, client_of(archive) as client:
        body = related([make_instance(ICCProfile=b"x" * 24_000)])

        async def slowly() -> AsyncIterator[bytes]:
            for at in range(0, len(body), len(body) // 12):
                yield body[at : at + len(body) // 12]
                await asyncio.sleep(0.4)

        headers = {"Content-Type": STOW_TYPE.format("limit"), "Content-Length": str(len(body))}
        answer = await client.post("/studies", content=slowly(), headers=headers, timeout=60)

        assert answer.status_code == 200


async def test_who_does_not_read_is_cut() -> None:
    async with EmbeddedArchive(options=ArchiveOptions(limits=QUICK)) as archive, client_of(archive) as client:
        await store(client, make_instance(), encode(with_pixels("1.2", rows=4096, columns=2048, frames=4)))
        reader, writer = await connect(archive)
        writer.write(b"GET /studies/1.2 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic ZGVtbzpkZW1v\r\n\r\n")
        assert await reader.readexactly(15) == b"HTTP/1.1 200 OK"
        server = archive._server
        assert server is not None

        for _ in range(300):
            await asyncio.sleep(0.1)
            if len(server.server_state.connections) == 1:  # the other client's
                break
        else:
            pytest.fail("the connection stayed")
        assert (await client.get("/studies")).status_code == 200
        writer.transport.abort()


async def test_so_many_connections_and_no_more() -> None:
    async with (
        EmbeddedArchive(options=ArchiveOptions(limits=ArchiveLimits(max_connections=5))) as archive,
        client_of(archive) as client,
    ):
        assert (await client.get("/studies")).status_code == 200
        others = [await connect(archive) for _ in range(4)]
        reader, writer = await connect(archive)

        told = await rest_of(reader)

        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"X-Error-Reason: too many connections" in told
        assert (await client.get("/studies")).status_code == 200  # those that are there go on
        for _, one in [*others, (reader, writer)]:
            one.close()


async def test_websockets_take_no_room_of_http() -> None:
    options = ArchiveOptions(limits=ArchiveLimits(max_connections=2))
    async with EmbeddedArchive(options=options) as archive, client_of(archive) as client, AsyncExitStack() as sockets:
        session, _ = await bring_up(archive)
        for management in (4, 2):
            await sockets.enter_async_context(raw_socket(archive, session, management))

        assert (await client.get("/studies")).status_code == 200
        with pytest.raises(InvalidStatus) as caught:
            await sockets.enter_async_context(raw_socket(archive, session))
        assert caught.value.response.status_code == 503


async def test_so_many_instances_in_a_request_and_no_more() -> None:
    parts = [make_instance("1.2", "1.2.1", f"1.2.1.{number}") for number in range(7)]
    async with (
        EmbeddedArchive(options=ArchiveOptions(limits=ArchiveLimits(max_parts=6))) as archive,
        client_of(archive) as client,
    ):
        reason = refused(await store(client, *parts), 413)
        assert "6 instances" in reason
        assert (await store(client, *parts[:6])).status_code == 200


async def test_a_hundred_thousand_parts_are_refused_in_time() -> None:
    body = b"--limit\r\n\r\n\r\n" * 100_000 + b"--limit--\r\n"
    headers = {"Content-Type": STOW_TYPE.format("limit")}
    async with (
        EmbeddedArchive(options=ArchiveOptions(limits=ArchiveLimits(max_parts=100))) as archive,
        client_of(archive) as client,
    ):
        started = time.monotonic()
        refused(await client.post("/studies", content=body, headers=headers, timeout=60), 413)
        assert time.monotonic() - started < ROOM


def test_as_it_comes_the_limits_are_what_honest_clients_never_meet() -> None:
    assert ArchiveLimits() == ArchiveLimits(max_connections=500, head_timeout=20, body_timeout=60, max_parts=10_000)


async def test_half_a_websocket_handshake_does_not_stay() -> None:
    async with EmbeddedArchive(options=ArchiveOptions(limits=QUICK)) as archive:
        port = int(archive.cloud.socket_url.rpartition(":")[2])
        half = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for _, writer in half:
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")

        await asyncio.gather(*(rest_of(reader) for reader, _ in half))
        for _, writer in half:
            writer.close()
