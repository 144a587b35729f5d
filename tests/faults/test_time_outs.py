"""Silence ends a call, length never does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from postdicom_async import ConnectionFailed, IncompleteDownload, Status
from tests.faults.archive import MemoryArchive, is_search, name_of
from tests.faults.clients import files_below, settings
from tests.support.bodies import dicom_json, json_reply, multipart_related, stow_answer
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.clients import Connect

STUDY = uid(1)
FILES = list(study_files(3).values())
SILENT = settings(connect=0.15, answer=0.15, idle_read=0.15, idle_write=0.15, max_attempts=2)
MOVING = settings(connect=0.3, answer=0.3, idle_read=0.3, idle_write=0.3, max_attempts=1)


async def test_a_server_that_accepts_and_says_nothing(connect: Connect) -> None:
    started = time.monotonic()
    async with FaultyServer(on_accept="silent") as server, connect(server.url, SILENT) as archive:
        with pytest.raises(ConnectionFailed, match="in time") as caught:
            await archive.search_for_studies().all()
    assert (caught.value.attempts, caught.value.temporary) == (2, True)
    assert time.monotonic() - started < 4


async def test_a_tls_server_that_accepts_and_says_nothing(connect: Connect) -> None:
    started = time.monotonic()
    async with (
        FaultyServer(on_accept="silent") as server,
        connect(server.url.replace("http:", "https:"), SILENT) as archive,
    ):
        with pytest.raises(ConnectionFailed, match="in time") as caught:
            await archive.delete_study(STUDY)
    assert (caught.value.attempts, caught.value.may_have_arrived) == (2, False)
    assert time.monotonic() - started < 4


async def test_no_answer_to_a_request(connect: Connect) -> None:
    async with FaultyServer(Reply(silent=True)) as server, connect(server.url, SILENT) as archive:
        with pytest.raises(ConnectionFailed, match="did not answer in time") as caught:
            await archive.search_for_studies().all()
    assert (len(server.requests), caught.value.attempts) == (2, 2)


async def test_a_search_that_stalls(connect: Connect) -> None:
    stalled = json_reply([dicom_json(StudyInstanceUID=uid(1))] * 20, stall_after=10)
    async with FaultyServer([stalled, json_reply([])]) as server, connect(server.url, SILENT) as archive:
        assert await archive.search_for_studies(limit=1).all() == []
    assert len(server.requests) == 2


async def test_a_download_that_stalls_keeps_what_was_whole(connect: Connect, tmp_path: Path) -> None:
    whole = multipart_related(FILES)

    def fault(request: Request) -> Reply | None:
        if request.path == "/studies" or is_search(request):
            return None
        return whole.reply(stall_after=len(FILES[0]) + len(FILES[1]) + 500)

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url, SILENT) as archive:
        with pytest.raises(IncompleteDownload, match="stopped sending") as caught:
            await archive.download_study(STUDY, to=tmp_path)
    assert len(caught.value.report.missing) == 1
    assert caught.value.temporary
    assert files_below(tmp_path) == {name_of(file): file for file in FILES[:2]}


@pytest.mark.parametrize("kind", ["bytes", "path"])
async def test_an_archive_that_stops_reading(kind: str, connect: Connect, tmp_path: Path) -> None:
    big = small_dicom(pixel_bytes=12 << 20)
    (tmp_path / "big").write_bytes(big)

    def on_head(request: Request) -> Reply | None:
        return Reply(stop_reading_after=1000) if request.method == "POST" else None

    async with FaultyServer(MemoryArchive(), on_head=on_head) as server, connect(server.url, SILENT) as archive:
        report = await archive.upload(big if kind == "bytes" else tmp_path / "big")
    assert [one.status for one in report.outcomes] == [Status.UNCONFIRMED]
    assert [request.method for request in server.requests].count("GET") >= 1


# --- long, but moving ---------------------------------------------------------------------------------------------


async def test_a_long_download_that_moves(connect: Connect, tmp_path: Path) -> None:
    body = multipart_related(FILES)
    slow = body.reply(chunk_size=len(body.body) // 10, pause=0.1)

    def fault(request: Request) -> Reply | None:
        return None if is_search(request) else slow

    started = time.monotonic()
    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url, MOVING) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert report.ok
    assert time.monotonic() - started > 0.8


@pytest.mark.parametrize("kind", ["bytes", "path"])
async def test_a_long_upload_that_moves(kind: str, connect: Connect, tmp_path: Path) -> None:
    big = small_dicom(pixel_bytes=10 << 20)
    (tmp_path / "big").write_bytes(big)
    named = Reply(
        200, {"Content-Type": "application/dicom+json"}, stow_answer(referenced=[uid(1, 1, 1)]), read_rate=8 << 20
    )
    patient = settings(idle_write=0.4, answer=5, max_attempts=1)
    started = time.monotonic()
    async with FaultyServer([named]) as server, connect(server.url, patient) as client:
        report = await client.upload(big if kind == "bytes" else tmp_path / "big")
    assert [one.status for one in report.outcomes] == [Status.STORED]
    assert len(server.requests) == 1
    assert server.requests[0].complete
    assert server.requests[0].size > len(big)
    assert time.monotonic() - started > 0.8


async def test_an_archive_that_thinks_before_it_answers(connect: Connect) -> None:
    """Longer than the silence allowed while sending, shorter than the wait for an answer."""
    archive = MemoryArchive()

    def fault(request: Request) -> Reply | None:
        whole = archive.store(request)
        return Reply(200, whole.headers, whole.body, delay_before=0.6)

    archive.fault = fault
    async with FaultyServer(archive) as server, connect(server.url, settings(idle_write=0.2, answer=3)) as client:
        report = await client.upload(FILES)
    assert report.ok
    assert len(server.requests) == 1
