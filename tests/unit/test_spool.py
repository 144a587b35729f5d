"""Streams as sources: read when their turn comes, kept in bounded memory or in a private file, gone afterwards."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiofiles
import pytest
from starlette.datastructures import UploadFile

from postdicom_async.bodies import Body, BytesBody
from postdicom_async.dicom.anonymize import Anonymization
from postdicom_async.dicomweb.retrieve import Part
from postdicom_async.disk import spool
from postdicom_async.disk.anonymized import anonymized
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import IdentifiedSource, Usable, measure, read_sources
from postdicom_async.disk.spool import SpooledFile
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.results import InstanceUids, Status
from tests.support.dicom_files import DEFLATED, small_dicom, study_files, uid
from tests.support.ids import shown

PIECE = 100_000
LARGE = small_dicom(pixel_bytes=300_000)


async def found_in(sources: Any, **options: Any) -> list[IdentifiedSource]:
    return [one async for group in read_sources(sources, piece=PIECE, **options) for one in group]


async def content(body: Body) -> bytes:
    return b"".join([piece async for piece in body.open()])


async def usable(sources: Any) -> Usable:
    (one,) = await found_in(sources)
    assert isinstance(one, Usable), one
    return one


async def unusable(sources: Any) -> Unusable:
    (one,) = await found_in(sources)
    assert isinstance(one, Unusable), one
    return one


async def streamed(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]
        await asyncio.sleep(0)


class Iterable:
    """Can be iterated over, and is no generator."""

    def __init__(self, *pieces: Any) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[Any]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


class Reader:
    """Is read, as an open file is; its lines are nobody's business."""

    def __init__(self, data: bytes) -> None:
        self.buffer = BytesIO(data)

    async def read(self, size: int = -1, /) -> bytes:
        await asyncio.sleep(0)
        return self.buffer.read(size)

    async def readline(self) -> bytes:
        raise AssertionError("read by lines")

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> bytes:
        return await self.readline()


class PartLike(Iterable):
    """Is a stream, and has a ``read`` with another meaning, as `Part` has."""

    uids = InstanceUids("1.2", "1.3", "1.4")

    async def read(self, limit: int | None = None) -> bytes:
        raise AssertionError("read whole")


@pytest.fixture
def small_room(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a stream be in a file from 100 kB on, and three such streams be in memory at a time."""
    monkeypatch.setattr(spool, "_MOST_IN_MEMORY", 100_000)
    monkeypatch.setattr(spool, "_memory", spool._Memory(300_000))
    monkeypatch.setattr(spool, "_READ", 50_000)
    return 100_000


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make temporary files in a folder of their own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


async def until_none_is_open(folder: Path) -> None:
    """Wait: the thread that read last may not have let go of its work yet."""
    async with asyncio.timeout(10):
        while open_files(folder):
            await asyncio.sleep(0.01)


def open_files(folder: Path) -> list[int]:
    """Return the descriptors of what this process has open in a folder, with or without a name."""
    gc.collect()
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            if str(link.readlink()).startswith(str(folder)):
                found.append(int(link.name))
        except FileNotFoundError:  # that of the listing
            continue
    return found


# --- what is a stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2048, 300_000])
@pytest.mark.parametrize(
    "make",
    [
        lambda data: [streamed(data)],
        lambda data: (one for one in [streamed(data)]),
        lambda data: [Iterable(bytearray(data[:300]), b"", memoryview(data)[300:])],
        lambda data: [Reader(data)],
        lambda data: Reader(data),
        lambda data: UploadFile(BytesIO(data)),
        lambda data: [UploadFile(BytesIO(data))],
    ],
    ids=["generator", "generated", "iterable", "reader in a list", "reader", "upload", "upload in a list"],
)
async def test_it_arrives_whole_and_can_be_sent_again(make: Any, size: int, small_room: int) -> None:
    data = small_dicom(pixel_bytes=size)
    one = await usable(make(data))
    assert isinstance(one.body, BytesBody if size < small_room else SpooledFile)
    assert one.label == "stream 1"
    assert one.body.length == len(data)
    assert one.header.uids.sop_instance_uid == uid(1, 1, 1)
    for _ in range(2):
        assert await content(one.body) == data


@pytest.mark.parametrize("alone", [True, False])
async def test_a_handle_of_aiofiles(tmp_path: Path, alone: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(LARGE)
    async with aiofiles.open(path, "rb") as handle:
        one = await usable(handle if alone else [handle])
    assert (one.label, await content(one.body)) == (str(path), LARGE)


async def test_a_stream_reader() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(LARGE)
    reader.feed_eof()
    assert await content((await usable(reader)).body) == LARGE


@pytest.mark.parametrize("alone", [True, False])
async def test_a_part_of_an_answer(alone: bool) -> None:
    part = PartLike(LARGE[:500], LARGE[500:])
    assert await content((await usable(part if alone else [part])).body) == LARGE


async def test_a_name_is_the_label() -> None:
    assert (await usable(UploadFile(BytesIO(LARGE), filename="x.dcm"))).label == "x.dcm"


async def test_streams_among_others_in_order(tmp_path: Path) -> None:
    one, two, three, four, five = study_files(5).values()
    (tmp_path / "file").write_bytes(two)
    mixture = [streamed(one), tmp_path / "file", three, Reader(four), streamed(b"junk"), five]

    async def arriving() -> AsyncIterator[Any]:
        for source in mixture:
            yield source

    found = await found_in(arriving())
    expected = ["stream 1", str(tmp_path / "file"), "bytes 3", "stream 4", "stream 5", "bytes 6"]
    assert [source.label for source in found] == expected
    assert [await content(source.body) for source in found if isinstance(source, Usable)] == [
        one, two, three, four, five,
    ]  # fmt: skip


@pytest.mark.parametrize("wrap", [lambda file: file, lambda file: [file], lambda file: iter([file])])
async def test_an_open_file_is_no_stream(tmp_path: Path, wrap: Any) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    with (
        (tmp_path / "x").open("rb") as file,
        pytest.raises(UsageError, match="give its path, or open it with aiofiles"),
    ):
        await found_in(wrap(file))


async def test_a_stream_cannot_be_measured() -> None:
    assert await measure([streamed(LARGE)]) is None
    assert await measure(Reader(LARGE)) is None
    assert await measure(UploadFile(BytesIO(LARGE))) is None


@pytest.mark.parametrize(
    ("location", "uids"),
    [
        ("https://a.example/dicom-web/studies/1.2/series/1.3/instances/1.4", InstanceUids("1.2", "1.3", "1.4")),
        ("/studies/1.2/series/1.3/instances/1.4/frames/1", InstanceUids("1.2", "1.3", "1.4")),
        ("/studies/1.2/series/1.3/instances/1.4?x", InstanceUids("1.2", "1.3", "1.4")),
        ("/studies/1.2/series/1.3/instances/1.4x", None),
        ("/studies/1.2/series/1..3/instances/1.4", None),
        ("/studies/1.2", None),
        ("", None),
    ],
)
def test_a_part_knows_what_the_server_says_it_is(location: str, uids: InstanceUids | None) -> None:
    part = object.__new__(Part)
    part.location = location
    assert part.uids == uids


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        (Iterable(), Status.NOT_DICOM, "empty stream"),
        (Iterable(b"", b""), Status.NOT_DICOM, "empty stream"),
        (UploadFile(BytesIO()), Status.NOT_DICOM, "empty stream"),
        (Iterable(b"junk"), Status.NOT_DICOM, "no DICOM file (PS3.10)"),
        (Iterable(LARGE[:200], LookupError("DOE^JANE")), Status.UNREADABLE, "the stream broke: LookupError"),
        (Iterable(TimeoutError()), Status.UNREADABLE, "the stream broke: TimeoutError"),
        (Iterable(OSError(errno.EIO, "x", "DOE")), Status.UNREADABLE, "the stream broke: the disk failed"),
        (
            Iterable(LARGE, ProtocolError("the part did not arrive whole")),
            Status.UNREADABLE,
            "the stream broke: the part did not arrive whole",
        ),
        (Iterable("text"), Status.UNREADABLE, "the stream gives str instead of bytes"),
        (Iterable(LARGE, None), Status.UNREADABLE, "the stream gives NoneType instead of bytes"),
    ],
    ids=shown,
)
async def test_a_stream_that_cannot_be_sent(source: Any, status: Status, reason: str) -> None:
    found = await found_in([source, small_dicom()])
    (one, other) = found
    assert isinstance(one, Unusable)
    assert (one.status, one.reason) == (status, reason)
    assert isinstance(other, Usable), "the next one is not concerned"


@pytest.mark.parametrize("large", [False, True])
async def test_a_stream_that_ends_early(large: bool, small_room: int) -> None:
    data = (LARGE if large else small_dicom())[:-2]
    one = await unusable([streamed(data)])
    assert (one.status, one.size) == (Status.UNREADABLE, len(data))
    assert "cut off" in one.reason or "missing" in one.reason or "ends" in one.reason
    (sent,) = await found_in([streamed(data)], send_truncated=True)
    assert isinstance(sent, Usable)


async def test_a_broken_part_is_told_by_its_uids() -> None:
    one = await unusable([PartLike(LARGE[:1000], ProtocolError("the part did not arrive whole"))])
    assert one.uids == PartLike.uids
    assert one.reason == "the stream broke: the part did not arrive whole"


async def test_a_text_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("text")
    async with aiofiles.open(tmp_path / "x") as handle:
        assert (await unusable([handle])).reason == "the stream gives str instead of bytes"


async def test_no_room_on_the_disk(small_room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/private")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    one = await unusable([streamed(LARGE)])
    assert one.status is Status.FAILED
    assert one.reason == "not sent: no room to keep the stream: the disk is full"


# --- where it is kept -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
async def test_the_file_is_private_and_gone_with_its_body(small_room: int, temporary: Path) -> None:
    one = await usable([streamed(LARGE)])
    assert isinstance(one.body, SpooledFile)
    (descriptor,) = open_files(temporary)
    status = os.fstat(descriptor)
    assert (stat.S_IMODE(status.st_mode), status.st_nlink, status.st_size) == (0o600, 0, len(LARGE))
    assert not list(temporary.iterdir()), "it has no name"
    sending = one.body.open()
    await anext(sending)
    del one
    assert open_files(temporary), "who sends it has it"
    await sending.aclose()
    del sending
    await until_none_is_open(temporary)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
@pytest.mark.parametrize("end", ["cancelled", "broken"])
async def test_nothing_is_left_of_a_stream_that_did_not_end(small_room: int, temporary: Path, end: str) -> None:
    closed = asyncio.Event()
    written = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield LARGE
            yield bytes(60_000)
            written.set()
            if end == "broken":
                raise LookupError
            await asyncio.Event().wait()
        finally:
            closed.set()

    task = asyncio.create_task(found_in([endless()]))
    await written.wait()
    if end == "cancelled":
        assert len(open_files(temporary)) == 1
        task.cancel()
    await asyncio.wait([task])
    assert closed.is_set()
    assert task.cancelled() == (end == "cancelled")
    del task
    for _ in range(100):  # the thread that wrote it may be letting go of it just now
        if not open_files(temporary):
            break
        await asyncio.sleep(0.01)
    assert not open_files(temporary)
    assert not list(temporary.iterdir())
    assert spool._memory.take(300_000), "its memory is free"


async def test_all_streams_together_are_in_bounded_memory(small_room: int) -> None:
    files = [small_dicom(instance=uid(1, 1, number), pixel_bytes=88_000) for number in range(1, 11)]
    found = await found_in([streamed(data, 10_000) for data in files])
    kept = [type(one.body).__name__ for one in found if isinstance(one, Usable)]
    assert kept == ["SpooledBytes"] * 3 + ["SpooledFile"] * 7
    assert [await content(one.body) for one in found if isinstance(one, Usable)] == files
    del found
    gc.collect()
    assert isinstance((await usable([streamed(files[0])])).body, BytesBody), "there is room again"


async def test_a_stream_is_not_read_before_its_turn() -> None:
    begun = []

    async def noted(number: int, data: bytes) -> AsyncIterator[bytes]:
        begun.append(number)
        yield data

    streams = [noted(number, data) for number, data in enumerate(study_files(5).values())]
    reading = read_sources(streams, piece=PIECE)
    for number in range(3):
        assert len(await anext(reading)) == 1
        assert begun == list(range(number + 1))
    await reading.aclose()


async def test_paths_given_lazily_are_drawn_as_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(small_dicom())
    drawn = 0

    def many() -> Iterator[Path]:
        nonlocal drawn
        while True:
            drawn += 1
            yield tmp_path / "x"

    async def arriving() -> AsyncIterator[Path]:
        for path in many():
            yield path

    for sources in (many(), arriving()):
        drawn = 0
        reading = read_sources(sources, piece=PIECE)
        taken = len(await anext(reading)) + len(await anext(reading))
        assert taken <= drawn <= 65
        await reading.aclose()


# --- anonymised -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["", DEFLATED])
async def test_a_stream_in_a_file_can_be_anonymised(small_room: int, syntax: str) -> None:
    data = small_dicom(pixel_bytes=300_000, **({"transfer_syntax": syntax} if syntax else {}))
    source = await usable([streamed(data)])
    assert isinstance(source.body, SpooledFile)
    rules = Anonymization({"PatientName": "ANON"})
    changed = await anonymized(source, rules)
    expected = await anonymized(Usable("x", source.header, BytesBody(data)), rules)
    assert isinstance(changed, Usable)
    assert isinstance(expected, Usable)
    del source
    assert await content(changed.body) == await content(expected.body) != data
    assert changed.body.length == expected.body.length
