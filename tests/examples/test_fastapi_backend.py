"""The FastAPI example for real: uvicorn in a process of its own, an HTTP client in front, an archive behind."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from postdicom_async import PostDicom
from postdicom_async.emulator import EmbeddedArchive
from tests.examples.running import Backend, running_backend
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, unused_port
from tests.support.large import large
from tests.support.plain_http import NO_AUTHORITIES
from tests.support.stream_server import StreamServer

pytest.importorskip("fastapi")

MIB = 1 << 20
FLAT = 32 * MIB
HAS_PROC = Path("/proc/self/clear_refs").exists()
STUDY = uid(50)
MULTIPART = 'multipart/related; type="application/dicom"; boundary=x'
PART = b"\r\n--x\r\nContent-Type: application/dicom\r\n\r\n"
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: {MULTIPART}\r\nContent-Length: 999999\r\n\r\n".encode()
SOON = str(datetime.now(UTC).date() + timedelta(days=7))


def browser() -> httpx.AsyncClient:
    most = httpx.Limits(max_connections=100)
    return httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False, timeout=30, limits=most)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[EmbeddedArchive]:
    async with EmbeddedArchive(tmp_path / "archive") as running:
        yield running


@pytest.fixture
async def backend(archive: EmbeddedArchive, tmp_path: Path) -> AsyncIterator[Backend]:
    async with running_backend(archive.url, tmp_path / "log") as running:
        yield running


async def add_study(archive: EmbeddedArchive, folder: Path, study: str, sizes: list[int]) -> set[str]:
    """Put a study into the archive; return the digests of its files."""
    digests = set()
    for number, size in enumerate(sizes, start=1):
        path = folder / f"{study}.{number}"
        path.write_bytes(small_dicom(study, f"{study}.1", f"{study}.1.{number}", pixel_bytes=size, number=number))
        digests.add(digest(path.read_bytes()))
        await archive.add([path])
        path.unlink()
    return digests


def contents(archive: Path | io.BytesIO) -> set[str]:
    """Return the digests of what a ZIP archive holds; its checksums are checked on the way."""
    with zipfile.ZipFile(archive) as opened:
        return {digest(opened.read(name)) for name in opened.namelist()}


# --- studies ---------------------------------------------------------------------------------------------------------


async def test_200_mb_pass_through_with_flat_memory(archive: EmbeddedArchive, backend: Backend, tmp_path: Path) -> None:
    small = await add_study(archive, tmp_path, uid(51), [MIB] * 3)
    large = await add_study(archive, tmp_path, STUDY, [10 * MIB] * 19 + [MIB] * 10)
    small_dicom.cache_clear()
    async with browser() as client:
        assert contents(io.BytesIO((await client.get(f"{backend.url}/studies/{uid(51)}")).content)) == small
        before = _restart_peak(backend)
        target = tmp_path / "study.zip"
        with target.open("wb") as file:
            async with client.stream("GET", f"{backend.url}/studies/{STUDY}") as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"] == "application/zip"
                assert STUDY in answer.headers["content-disposition"]
                async for chunk in answer.aiter_raw():
                    file.write(chunk)
    assert target.stat().st_size > 200 * 10**6
    assert contents(target) == large
    if HAS_PROC:
        assert backend.memory()[1] - before < FLAT


def _restart_peak(backend: Backend) -> int:
    if not HAS_PROC:
        return 0
    backend.forget_peak()
    return backend.memory()[0]


async def test_50_at_once_with_flat_memory(archive: EmbeddedArchive, backend: Backend, tmp_path: Path) -> None:
    studies = {uid(60, n): await add_study(archive, tmp_path, uid(60, n), [2 * MIB + n, 1000, 0]) for n in range(1, 6)}
    small_dicom.cache_clear()
    assert await _still_serves(backend)
    before = _restart_peak(backend)
    async with browser() as client, asyncio.TaskGroup() as group:
        for number, study in enumerate(list(studies) * 10):
            name = tmp_path / f"{number}.zip"
            group.create_task(_fetched(client, f"{backend.url}/studies/{study}", name, slow=number < 10))
    for number, study in enumerate(list(studies) * 10):
        assert contents(tmp_path / f"{number}.zip") == studies[study]
    if HAS_PROC:  # 100 MiB went through
        assert backend.memory()[1] - before < 2 * FLAT


async def _fetched(client: httpx.AsyncClient, url: str, target: Path, *, slow: bool) -> None:
    with target.open("wb") as file:
        async with client.stream("GET", url) as answer:
            assert answer.status_code == 200
            async for chunk in answer.aiter_raw():
                file.write(chunk)
                if slow:
                    await asyncio.sleep(0.01)


class Endless:
    """A study that does not end, and how much of it was taken."""

    def __init__(self) -> None:
        self.given = 0

    def __iter__(self) -> Iterator[bytes]:
        block = bytes(65536)
        yield PART
        while True:
            self.given += len(block)
            yield block


def endless(body: Endless) -> Reply:
    return Reply(200, {"Content-Type": MULTIPART}, body, framing="chunked")


async def test_a_browser_that_goes_away_ends_the_download(tmp_path: Path) -> None:
    body = Endless()
    async with FaultyServer(endless(body)) as upstream, running_backend(upstream.url, tmp_path / "log") as backend:
        async with browser() as client, client.stream("GET", f"{backend.url}/studies/{STUDY}") as answer:
            received = 0
            async for chunk in answer.aiter_raw():
                received += len(chunk)
                if received > 5 * MIB:
                    break
            assert upstream.open_connections == 1
        left = time.perf_counter()
        await upstream.until(lambda seen: seen.open_connections == 0)
        assert time.perf_counter() - left < 1
        assert await _still_serves(backend)


async def test_a_browser_that_does_not_read_holds_the_download_back(tmp_path: Path) -> None:
    body = Endless()
    async with FaultyServer(endless(body)) as upstream, running_backend(upstream.url, tmp_path / "log") as backend:
        assert await _still_serves(backend)
        before = _restart_peak(backend)
        async with browser() as client, client.stream("GET", f"{backend.url}/studies/{STUDY}"):
            await asyncio.sleep(0.7)
            taken = body.given
            await asyncio.sleep(0.7)
            assert body.given == taken < FLAT
            if HAS_PROC:
                assert backend.memory()[1] - before < FLAT
        left = time.perf_counter()
        await upstream.until(lambda seen: seen.open_connections == 0)
        assert time.perf_counter() - left < 1


async def _still_serves(backend: Backend) -> bool:
    async with browser() as client:
        return (await client.get(f"{backend.url}/studies/x")).status_code == 422


@asynccontextmanager
async def falling_silent(first: bytes) -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """Answer each request with some bytes and no more; tell when one was asked, and when it was hung up.

    Without any bytes the head comes late, and then nobody must take it.
    """
    asked, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        asked.set()
        if not first:
            await asyncio.sleep(0.4)
            writer.write(HEAD + PART)
        await reader.read()
        gone.set()
        writer.close()

    async with StreamServer(serve) as server:
        yield f"http://127.0.0.1:{server.port}", asked, gone


@pytest.mark.parametrize(
    "first", [b"", large(HEAD), large(HEAD + PART), HEAD + PART + b"DICM"], ids=["nothing", "head", "part", "some"]
)
async def test_a_browser_need_not_wait_for_an_archive_that_fell_silent(first: bytes, tmp_path: Path) -> None:
    async with falling_silent(first) as (url, asked, gone), running_backend(url, tmp_path / "log") as backend:
        async with browser() as client:
            task = asyncio.create_task(client.get(f"{backend.url}/studies/{STUDY}"))
            await asked.wait()
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(1):
            await gone.wait()
        assert await _still_serves(backend)
    assert "Traceback" not in backend.log.read_text()


async def test_a_study_that_breaks_off_never_looks_whole(tmp_path: Path) -> None:
    whole = PART.lstrip() + bytes(100_000) + PART + bytes(200_000)
    reply = Reply(200, {"Content-Type": MULTIPART}, whole, declared_length=len(whole) + 9, cut_after=len(whole))
    async with FaultyServer(reply) as upstream, running_backend(upstream.url, tmp_path / "log") as backend:
        async with browser() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"{backend.url}/studies/{STUDY}")
        assert await _still_serves(backend)


# --- errors ----------------------------------------------------------------------------------------------------------


async def test_statuses(archive: EmbeddedArchive, backend: Backend) -> None:
    async with browser() as client:
        unknown = await client.get(f"{backend.url}/studies/{uid(99)}")
        malformed = await client.get(f"{backend.url}/studies/1.2.x")
    assert (unknown.status_code, malformed.status_code) == (404, 422)
    assert "does not hold it" in unknown.json()["detail"]
    assert "study_instance_uid" in malformed.json()["detail"]


FAILING: list[tuple[Reply, int, dict[str, str]]] = [
    (Reply(401), 502, {}),
    (Reply(400), 502, {}),
    (Reply(429, {"Retry-After": "9999"}), 503, {"retry-after": "9999"}),
    (Reply(200, {"Content-Type": "text/html"}, b"<html>"), 502, {}),
    (Reply(200, {"Content-Type": MULTIPART}, b"--x--\r\n"), 502, {}),
]


async def test_statuses_of_a_failing_archive(tmp_path: Path) -> None:
    replies = [reply for reply, _, _ in FAILING]
    async with (
        FaultyServer(lambda _: replies[0]) as upstream,
        running_backend(upstream.url, tmp_path / "log") as backend,
        browser() as client,
    ):
        for reply, status, headers in FAILING:
            replies[0] = reply
            answer = await client.get(f"{backend.url}/studies/{STUDY}")
            assert answer.status_code == status, reply
            assert headers.items() <= dict(answer.headers).items()
            assert answer.json()["detail"]


# --- search and upload -----------------------------------------------------------------------------------------------


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"image-{number}.dcm", content)) for number, content in enumerate(contents, 1)]


FILES = list(study_files(3, study=7, series=1).values())
MIXED = form(*FILES, FILES[0][:-50], b"no DICOM")


async def test_what_is_uploaded_is_found_and_fetched(archive: EmbeddedArchive, backend: Backend) -> None:
    async with browser() as client:
        assert (await client.get(f"{backend.url}/studies")).json() == []
        stored = await client.post(f"{backend.url}/studies", files=MIXED)
        found = await client.get(f"{backend.url}/studies", params={"patient_name": "TEST*", "study_date": "2020-"})
        none = await client.get(f"{backend.url}/studies", params={"patient_name": "NOBODY"})
        wrong = await client.get(f"{backend.url}/studies", params={"study_date": "soon"})
        zipped = await client.get(f"{backend.url}/studies/{uid(7)}")
        watched = await client.post(f"{backend.url}/studies/events", files=form(*FILES))
    answer = stored.json()
    assert (answer["ok"], answer["counts"]) == (False, {"stored": 3, "unreadable": 1, "not DICOM": 1})
    assert [(one["file"], one["status"]) for one in answer["failures"]] == [("image-4.dcm", "unreadable")]
    assert [(one["StudyInstanceUID"], one["NumberOfStudyRelatedInstances"]) for one in found.json()] == [(uid(7), "3")]
    assert none.json() == []
    assert wrong.status_code == 422
    assert contents(io.BytesIO(zipped.content)) == {digest(data) for data in FILES}
    assert watched.headers["content-type"].startswith("text/event-stream")
    *_, last, end = (json.loads(line[6:]) for line in watched.text.splitlines() if line.startswith("data: "))
    assert last["instances_done"] == 3
    assert end == {"problem": "", "counts": {"stored": 3}}


async def test_a_browser_that_leaves_ends_its_upload(tmp_path: Path) -> None:
    half_a_head = b"HTTP/1.1 200 OK\r\n"
    async with falling_silent(half_a_head) as (url, asked, gone), running_backend(url, tmp_path / "log") as backend:
        async with browser() as client:
            posting = asyncio.create_task(client.post(f"{backend.url}/studies", files=form(*FILES)))
            await asked.wait()
            await asyncio.sleep(0.1)
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
        async with asyncio.timeout(5):
            await gone.wait()
        assert await _still_serves(backend)
    assert "Traceback" not in backend.log.read_text()


# --- links -----------------------------------------------------------------------------------------------------------


async def test_a_second_opinion(archive: EmbeddedArchive, backend: Backend) -> None:
    wanted = {"folder": "Second opinion", "expires": SOON, "password": "cnry-s3cret"}
    async with browser() as client:
        made = await client.post(f"{backend.url}/second-opinions", data=wanted, files=form(*FILES))
        assert made.status_code == 201
        answer = made.json()
        assert (answer["failed_step"], answer["counts"]) == ("", {"stored": 3})
        assert (await client.post(answer["url"], data={"password": "cnry-s3cret"})).status_code == 303

        past = await client.post(
            f"{backend.url}/second-opinions", data={**wanted, "expires": "2001-01-01"}, files=form(*FILES)
        )
        assert past.status_code == 422
        partly = await client.post(f"{backend.url}/second-opinions", data=wanted, files=MIXED)
        assert (partly.status_code, partly.json()["failed_step"], partly.json()["url"]) == (502, "upload", None)
        archive.fault("sharefolderwithurl", "cut-after")
        lost = await client.post(f"{backend.url}/second-opinions", data=wanted, files=form(*FILES))
        assert (lost.status_code, lost.json()["failed_step"]) == (504, "share")
        assert lost.json()["folder_uuid"]
    assert "cnry-s3cret" not in backend.log.read_text()


async def test_a_link(archive: EmbeddedArchive, backend: Backend, tmp_path: Path) -> None:
    files = await add_study(archive, tmp_path, STUDY, [1000, 2000])
    async with PostDicom(archive.url, "demo", "demo") as own:
        order = await own.orders.search().first()
    assert order
    wanted = {
        "patient_order_uuids": [order.patient_order_uuid],
        "expires": SOON,
        "password": "cnry-s3cret",
        "downloadable": True,
    }
    async with browser() as client:
        made = await client.post(f"{backend.url}/shares", json=wanted)
        assert made.status_code == 201
        url = made.json()["url"]
        assert url.startswith(archive.url)
        assert (await client.post(url, data={"password": "wrong"})).status_code == 403
        assert (await client.post(url, data={"password": "cnry-s3cret"})).status_code == 303
        assert contents(io.BytesIO((await client.get(f"{url}/download")).content)) >= files

        over = await client.post(f"{backend.url}/shares", json={**wanted, "expires": "2001-01-01"})
        blank = await client.post(f"{backend.url}/shares", json={**wanted, "password": " "})
        none = await client.post(f"{backend.url}/shares", json={**wanted, "patient_order_uuids": []})
        assert [over.status_code, blank.status_code, none.status_code] == [422] * 3
        unknown = await client.post(
            f"{backend.url}/shares", json={**wanted, "patient_order_uuids": [str(archive_uuid())]}
        )
        assert unknown.status_code == 404
        archive.fault("createsharelink", "cut-after")
        lost = await client.post(f"{backend.url}/shares", json=wanted)
        assert lost.status_code == 504
        assert "outcome unknown" in lost.json()["detail"]
    assert [call.operation for call in archive.vendor_calls].count("createsharelink") == 3
    assert "cnry-s3cret" not in backend.log.read_text()


def archive_uuid() -> str:
    return "5a1c0000-0000-4000-8000-999999999999"


async def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    async with running_backend(f"http://127.0.0.1:{unused_port()}", tmp_path / "log") as backend, browser() as client:
        answer = await client.post(
            f"{backend.url}/shares", json={"patient_order_uuids": [archive_uuid()], "expires": SOON}
        )
    assert answer.status_code == 502
    assert "refused" in answer.json()["detail"]
