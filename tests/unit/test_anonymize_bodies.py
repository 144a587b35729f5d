"""Anonymised files as they are sent: streamed in bounded memory, whole or not at all, as often as it takes."""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import Anonymization, LocalFileError
from postdicom_async.disk import files
from postdicom_async.disk.anonymized import AnonymizedBody, anonymized, anonymized_now
from postdicom_async.disk.files import FileBody, Unusable
from postdicom_async.disk.sources import Usable, read_sources
from tests.support.anonymizing import Writer, dataset_bytes, leaves, meta_end, refusal, result_of, sent, usable
from tests.support.dicom_files import DEFLATED, EXPLICIT, IMPLICIT, JPEG, small_dicom, uid
from tests.support.large import large

PIECE = 64 * 1024
MEMORY = 5 << 20
RULES = Anonymization(
    {"PatientName": "Q^R", "PatientID": None, "StudyID": "7"},
    insert_absent=True,
    remap_uids=True,
    secret="of the tests",
)
CHANGED = "a source changed while it was read"
LARGE = 400 << 20


async def source_at(path: Path, piece: int = PIECE) -> Usable:
    (found,) = [one async for group in read_sources(path, piece=piece) for one in group]
    assert isinstance(found, Usable), found
    return found


async def body_at(path: Path, rules: Anonymization = RULES) -> AnonymizedBody:
    result = await anonymized(await source_at(path), rules)
    assert isinstance(result, Usable), result
    assert isinstance(result.body, AnonymizedBody)
    return result.body


async def content(body: AnonymizedBody) -> bytes:
    return b"".join([piece async for piece in body.open()])


@contextmanager
def bounded_memory(limit: int) -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the sizes of all reads from files."""
    sizes: list[int] = []
    real = FileBody.ranges

    @contextmanager
    def noted(self: FileBody) -> Iterator[Callable[[int, int], bytes]]:
        with real(self) as read:

            def read_and_note(at: int, size: int) -> bytes:
                data = read(at, size)
                sizes.append(len(data))
                return data

            yield read_and_note

    monkeypatch.setattr(FileBody, "ranges", noted)
    return sizes


# --- the same however it is read --------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, JPEG])
@pytest.mark.parametrize("pixel_bytes", [0, 100, 300_000])
async def test_a_file_and_its_bytes_give_the_same(tmp_path: Path, syntax: str, pixel_bytes: int) -> None:
    data = small_dicom(transfer_syntax=syntax, pixel_bytes=pixel_bytes)
    (tmp_path / "x").write_bytes(data)
    body = await body_at(tmp_path / "x")
    expected = sent(result_of(data, RULES))
    for _ in range(2):
        assert await content(body) == b"".join(body.pieces()) == expected
    assert body.length == len(expected)
    assert len(expected) % 2 == 0
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("length", range(1, 20))
def test_a_deflated_file_is_of_even_length(length: int) -> None:
    out = sent(result_of(small_dicom(transfer_syntax=DEFLATED, pixel_bytes=0), {"PatientName": "Q" * length}))
    assert len(out) % 2 == 0
    assert {leaf.tag: leaf.value.strip() for leaf in leaves(out)}[0x00100010] == b"Q" * length


async def test_pieces_are_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(small_dicom(pixel_bytes=1 << 20))
    sizes = [len(piece) async for piece in (await body_at(tmp_path / "x")).open()]
    assert len(sizes) > 1
    assert max(sizes) <= PIECE + 512 * 1024  # what is gathered, and the run that filled it


async def test_labels_and_headers(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(small_dicom())
    result = await anonymized(await source_at(tmp_path / "x"), RULES)
    assert isinstance(result, Usable)
    assert result.label == str(tmp_path / "x")
    assert result.header.uids.sop_instance_uid == RULES.new_uid(uid(1, 1, 1))
    assert result.header.transfer_syntax_uid == EXPLICIT


# --- bounded memory ---------------------------------------------------------------------------------------------------


def sparse(path: Path, syntax: str) -> None:
    """Write a file with so many pixels that it must not be held; they are holes, but for the last ones."""
    to = Writer(syntax)
    if syntax == JPEG:
        header = to.element(0x7FE00010, "OB", b"", length=0xFFFFFFFF) + to.element(0xFFFEE000, "", b"")
        header += to.element(0xFFFEE000, "", b"", length=LARGE)
        end = to.element(0xFFFEE000, "", b"\xff\xd9") + to.element(0xFFFEE0DD, "", b"")
    else:
        header, end = to.element(0x7FE00010, "OW", b"", length=LARGE), to.element(0xFFFCFFFC, "OB", bytes(500))
    start = to.file(to.element(0x00100010, "PN", "QUILLFEATHER"), after=header)
    with path.open("wb") as file:
        file.write(start)
        file.seek(len(start) + LARGE - 4)
        file.write(b"LAST" + end)


@pytest.mark.parametrize("syntax", [IMPLICIT, large(EXPLICIT), JPEG])
async def test_a_large_file_is_streamed(tmp_path: Path, syntax: str, reads: list[int]) -> None:
    sparse(tmp_path / "large", syntax)
    anonymized_now(usable(small_dicom()), RULES)  # what is imported once
    with bounded_memory(MEMORY):
        body = await body_at(tmp_path / "large")
        assert sum(reads) < 40 * PIECE  # pixels are passed over
        assert body.length > LARGE
        length, start, end = 0, b"", b""
        async for piece in body.open():
            start = start or piece[:2000]
            length, end = length + len(piece), (end + piece[-64:])[-64:]
    assert length == body.length
    assert max(reads) <= 512 * 1024
    assert b"QUILL" not in start
    assert b"Q^R " in start
    tail = end[end.index(b"LAST") :]
    ends = b"\xfe\xff\x00\xe0\x02\0\0\0\xff\xd9\xfe\xff\xdd\xe0\0\0\0\0" if syntax == JPEG else b""
    assert tail == b"LAST" + ends


async def test_a_large_deflated_file_is_streamed(tmp_path: Path) -> None:
    """It is unpacked and packed again piece by piece."""
    to = Writer(DEFLATED)
    size = 60 << 20
    start = to.file(to.element(0x00100010, "PN", "QUILLFEATHER"))
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    packed = [packer.compress(dataset_bytes(start) + to.element(0x7FE00010, "OW", b"", length=size))]
    packed += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    (tmp_path / "large").write_bytes(start[: meta_end(start)] + b"".join(packed) + packer.flush())
    with bounded_memory(MEMORY):
        body = await body_at(tmp_path / "large")
        out = await content(body)
    assert len(out) == body.length < 1 << 20
    found = {leaf.tag: leaf.value for leaf in leaves(out)}
    assert found[0x00100010] == b"Q^R "
    assert found[0x7FE00010] == bytes(size)


async def test_many_changes_are_held_as_what_they_are(tmp_path: Path) -> None:
    """A long sequence of small items, each with something to remove."""
    to = Writer(EXPLICIT)
    item = to.element(0xFFFEE000, "", to.element(0x00081150, "UI", "1.2") + to.element(0x00100010, "PN", "A^B"))
    count = 20_000
    sequence = to.element(0x00081140, "SQ", item * count)
    (tmp_path / "x").write_bytes(to.file(sequence))
    body = await body_at(tmp_path / "x", Anonymization({"PatientName": None}))
    kept = to.element(0xFFFEE000, "", to.element(0x00081150, "UI", "1.2"))
    assert to.element(0x00081140, "SQ", kept * count) in await content(body)


# --- a source that changes --------------------------------------------------------------------------------------------


def rewritten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data)
    os.utime(path, (1, 1))


def other(path: Path) -> None:
    path.with_name("other").write_bytes(path.read_bytes())
    path.with_name("other").replace(path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES = [rewritten, cut, longer]


@pytest.mark.parametrize("change", [*CHANGES, other])
@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
async def test_changed_before_it_is_read(tmp_path: Path, change: Callable[[Path], None], syntax: str) -> None:
    (tmp_path / "x").write_bytes(small_dicom(transfer_syntax=syntax))
    source = await source_at(tmp_path / "x")
    result = await anonymized(source, RULES)
    assert isinstance(result, Usable)
    change(tmp_path / "x")
    with pytest.raises(LocalFileError, match=CHANGED) as caught:
        await anext(aiter(result.body.open()))
    assert str(tmp_path) not in str(caught.value)
    assert refusal(await anonymized(source, RULES)) == f"cannot be anonymised: {CHANGED}"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
async def test_changed_while_it_is_read(tmp_path: Path, change: Callable[[Path], None], syntax: str) -> None:
    """Whatever has been read by then, it never ends as if it were whole."""
    path = tmp_path / "x"
    path.write_bytes(small_dicom(transfer_syntax=syntax, pixel_bytes=4 << 20))
    pieces = aiter((await body_at(path)).open())
    await anext(pieces)
    change(path)
    with pytest.raises(LocalFileError):
        await rest_of(pieces)


async def test_replaced_while_it_is_read(tmp_path: Path) -> None:
    """What has been opened is still there, but whether it was rewritten before it was unlinked cannot be told."""
    (tmp_path / "x").write_bytes(small_dicom(pixel_bytes=4 << 20))
    pieces = aiter((await body_at(tmp_path / "x")).open())
    await anext(pieces)
    other(tmp_path / "x")
    with pytest.raises(LocalFileError, match=CHANGED):
        await rest_of(pieces)


async def rest_of(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def test_gone_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(small_dicom())
    source = await source_at(tmp_path / "x")
    body = await body_at(tmp_path / "x")
    (tmp_path / "x").unlink()
    with pytest.raises(LocalFileError, match="a source: does not exist"):
        await content(body)
    result = await anonymized(source, RULES)
    assert refusal(result) == "cannot be anonymised: does not exist"
    assert isinstance(result, Unusable)
    assert result.size == len(small_dicom())


async def test_a_deflated_source_that_became_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that the file system does not tell."""
    path = tmp_path / "x"
    data = small_dicom(transfer_syntax=DEFLATED)
    path.write_bytes(data)
    body = await body_at(path)
    monkeypatch.setattr(FileBody, "require_unchanged", lambda *_: None)
    inflated = dataset_bytes(data)
    as_long = inflated[:-1000] + bytes(1000)
    for broken in (data[:-40], b"\x07" * 300, packed(inflated[:-1000]), packed(as_long), packed(b"short")):
        path.write_bytes(broken if broken.startswith(data[:132]) else data[: meta_end(data)] + broken)
        with pytest.raises(LocalFileError, match=r"a source (changed|ended early) while it was read"):
            await content(body)


def packed(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


# --- ended early ------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note the files that are open."""
    noted: list[Any] = []

    class Noted(FileIO):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            noted.append(self)

    monkeypatch.setattr(files, "FileIO", Noted)
    return noted


async def test_nobody_reads_on(tmp_path: Path, opened: list[Any]) -> None:
    (tmp_path / "x").write_bytes(small_dicom(pixel_bytes=4 << 20))
    async with aclosing((await body_at(tmp_path / "x")).open()) as pieces:
        assert await anext(pieces)
    assert len(opened) >= 3
    assert all(file.closed for file in opened)


async def test_cancelled_while_it_is_read(tmp_path: Path, opened: list[Any]) -> None:
    (tmp_path / "x").write_bytes(small_dicom(pixel_bytes=4 << 20))
    body = await body_at(tmp_path / "x")
    reading = asyncio.Event()

    async def read() -> None:
        async with aclosing(body.open()) as pieces:
            async for _ in pieces:
                reading.set()

    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(file.closed for file in opened)
