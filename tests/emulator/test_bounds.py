"""What a client can cost the archive: memory, time, and places that others need."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from postdicom_async.emulator.accept import LONGEST, parse_accept, parse_media_type
from postdicom_async.emulator.bounded_file import INFLATED_LIMIT
from postdicom_async.emulator.matching import LONGEST_KEY, text_matches
from tests.emulator.support import (
    TEST_FILES,
    encode,
    make_dataset,
    make_instance,
    reasons_in,
    store,
    uids_in,
    with_pixels,
)
from tests.emulator.vendor_support import refused

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from postdicom_async.emulator import EmbeddedArchive

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
