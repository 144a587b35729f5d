"""The outcomes of an upload as a stream and in a file: true at any moment, whatever ends it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import (
    AuthenticationFailed,
    CloudApi,
    DicomWeb,
    InstanceFinished,
    LocalFileError,
    Outcome,
    ProgressEvent,
    ServerError,
    Status,
    UploadReport,
    UsageError,
)
from postdicom_async.disk import scratch
from postdicom_async.emulator import EmbeddedArchive
from tests.cloud.conftest import client_of
from tests.faults.archive import MemoryArchive
from tests.faults.clients import settings
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, uid
from tests.support.elsewhere import killed_amid_its_report
from tests.support.faulty_server import FaultyServer, Reply, Request

ROOT = Path(__file__).parents[2]
MANY = 400
FULL = Path("/dev/full")


def private_folder(folder: Path, count: int = MANY) -> Path:
    """Write files of a patient whose name stands in the path too."""
    source = folder / CANARIES["path"]
    source.mkdir()
    for number in range(1, count + 1):
        data = small_dicom(
            uid(1),
            uid(1, 1),
            uid(1, 1, number),
            pixel_bytes=64,
            patient_name=CANARIES["patient_name"],
            patient_id=CANARIES["patient_id"],
        )
        (source / f"{number:04}").write_bytes(data)
    (source / "text").write_text("no DICOM")
    return source


def lines_of(report: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in report.read_text().splitlines()]


def held(server: EmbeddedArchive) -> set[str]:
    return {one.uids.sop_instance_uid for one in server.store.instances()}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedArchive]:
    async with EmbeddedArchive(tmp_path / "archive", username="demo", password="demo") as one:
        yield one


@pytest.fixture(params=["DICOMweb", "Cloud"])
async def client(request: pytest.FixtureRequest, server: EmbeddedArchive) -> AsyncIterator[DicomWeb | CloudApi]:
    if request.param == "DICOMweb":
        async with DicomWeb(server.url, auth=server.auth, settings=settings(batch_instances=3)) as archive:
            yield archive
    else:
        async with client_of(server, user=server.cloud_user_uuid) as api:
            yield api


# --- a report in a file -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed otherwise here")
@pytest.mark.parametrize("kind", ["DICOMweb", "Cloud"])
async def test_a_killed_upload_leaves_a_report_that_is_true(
    kind: str, server: EmbeddedArchive, tmp_path: Path, canary_watch: CanaryWatch
) -> None:
    report = tmp_path / "report.jsonl"
    report.touch()
    work: dict[str, Any] = {
        "url": server.url,
        "auth": server.auth,
        "source": str(private_folder(tmp_path)),
        "report": str(report),
    }
    if kind == "Cloud":
        work |= {"keys": [server.cloud_api_key, server.cloud_account_key], "url": server.router_url}
        work |= {"user": server.cloud_user_uuid, "institution": server.institution_uuid}
    report.unlink()
    await killed_amid_its_report(report, "-m", "tests.faults.report_client", json.dumps(work))
    lines = lines_of(report)
    assert 20 <= len(lines) <= MANY
    assert {line["status"] for line in lines} <= {"stored", "not DICOM"}
    stored = [line["sop_instance_uid"] for line in lines if line["status"] == "stored"]
    assert len(set(stored)) == len(stored) >= 19
    assert set(stored) <= held(server)
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    canary_watch.feed(report.read_text(), "the report")


async def test_every_source_has_its_line(
    client: DicomWeb | CloudApi, server: EmbeddedArchive, tmp_path: Path, canary_watch: CanaryWatch
) -> None:
    source, report = private_folder(tmp_path, 20), tmp_path / "report.jsonl"
    (source / "again").write_bytes((source / "0001").read_bytes())
    report.write_text('{"status":"of an earlier run"}\n{"torn')
    told = await client.upload(source, report=report)
    _, torn, *lines = report.read_text().splitlines()
    assert torn == '{"torn'
    found = [json.loads(line) for line in lines]
    assert sorted(line["status"] for line in found) == ["duplicate", "not DICOM", *["stored"] * 20]
    assert {line["sop_instance_uid"] for line in found if line["status"] == "stored"} == held(server)
    assert told.counts == {Status.STORED: 20, Status.DUPLICATE: 1, Status.NOT_DICOM: 1}
    assert (told.ok, told.total, told.outcomes) == (True, 22, ())
    canary_watch.feed(report.read_text(), "the report")


async def test_paths_are_in_it_when_they_are_asked_for(client: DicomWeb | CloudApi, tmp_path: Path) -> None:
    source, report = private_folder(tmp_path, 3), tmp_path / "report.jsonl"
    await client.upload(source, report=report, report_paths=True)
    assert sorted(line["path"] for line in lines_of(report)) == sorted(str(path) for path in source.iterdir())


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
async def test_a_full_disk_ends_the_upload_and_what_ran_is_settled(tmp_path: Path) -> None:
    """Nothing is sent whose end would not be known; what is under way is waited for."""
    archive = MemoryArchive()
    source = private_folder(tmp_path)
    async with FaultyServer(archive) as server:
        async with DicomWeb(server.url, settings=settings(batch_instances=1, parallel_stores=2)) as client:
            with pytest.raises(LocalFileError, match="the report cannot be written") as caught:
                await client.upload(source, report=FULL)
        told = caught.value.report
    assert isinstance(told, UploadReport)
    assert told.counts == {Status.STORED: len(archive.stored)}
    assert 1 <= len(archive.stored) < 20


async def test_no_room_for_what_must_be_remembered_ends_the_upload_and_what_ran_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(scratch, "_RECENT", 6)
    monkeypatch.setattr(scratch, "_new_database", full)
    archive = MemoryArchive()
    async with FaultyServer(archive) as server:
        async with DicomWeb(server.url, settings=settings(batch_instances=4, parallel_stores=2)) as client:
            with pytest.raises(LocalFileError, match=r"the folder for temporary files: .*full") as caught:
                await client.upload(private_folder(tmp_path))
        told = caught.value.report
    assert isinstance(told, UploadReport)
    assert {status for status in told.counts if status is not Status.FAILED} == {Status.STORED}
    assert {one.uids for one in told.outcomes if one.in_archive} == set(archive.stored)
    assert all("not sent" in (one.reason or "") for one in told.failures)
    assert len(archive.stored) < MANY


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
async def test_a_disk_that_is_full_at_the_very_end(client: DicomWeb | CloudApi, server: EmbeddedArchive) -> None:
    with pytest.raises(LocalFileError, match="the report cannot be written") as caught:
        await client.upload([small_dicom()], report=FULL)
    assert isinstance(caught.value.report, UploadReport)
    assert caught.value.report.counts == {Status.STORED: 1}
    assert held(server) == {uid(1, 1, 1)}


async def test_a_report_that_cannot_be_made_ends_it_before_anything_is_sent(
    client: DicomWeb | CloudApi, server: EmbeddedArchive, tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "report"):
        with pytest.raises(LocalFileError, match="the report cannot be written"):
            await client.upload([small_dicom()], report=path)
    wrong: list[Any] = [5, ["a"], "a\0b"]
    for one in wrong:
        with pytest.raises(UsageError, match="report: give the path of a file"):
            await client.upload([small_dicom()], report=one)
    assert held(server) == set()


async def test_a_report_into_a_pipe(client: DicomWeb | CloudApi, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert (await client.upload([small_dicom()], report=pipe)).ok
        assert json.loads(os.read(reading, 10_000))["status"] == "stored"
    finally:
        os.close(reading)


async def test_what_ends_an_upload_says_more_than_a_report_that_fails(tmp_path: Path) -> None:
    async with FaultyServer(Reply(401)) as server, DicomWeb(server.url, settings=settings()) as client:
        with pytest.raises(AuthenticationFailed):
            await client.upload([small_dicom()], report=tmp_path / "report")
        if FULL.exists():
            with pytest.raises(AuthenticationFailed):
                await client.upload([small_dicom()], report=FULL)
    (line,) = lines_of(tmp_path / "report")
    assert line["status"] == "failed"
    assert "reason" in line


# --- outcomes as they come --------------------------------------------------------------------------------------------


class Drawn:
    """A stream of sources that notes how many were drawn."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.drawn = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(1, self.count + 1):
            self.drawn += 1
            yield small_dicom(uid(1), uid(1, 1), uid(1, 1, number), pixel_bytes=0)


async def test_outcomes_come_while_there_is_more_to_send(client: DicomWeb | CloudApi) -> None:
    sources = Drawn(200)
    outcomes: list[Outcome] = []
    async with client.upload_each(sources) as stream:
        async for outcome in stream:
            if not outcomes:
                assert sources.drawn < 100
            outcomes.append(outcome)
    assert [one.status for one in outcomes] == [Status.STORED] * 200
    assert {one.where for one in outcomes} == {f"bytes {number}" for number in range(1, 201)}
    assert stream.report.counts == {Status.STORED: 200}


async def test_a_slow_reader_holds_the_upload_back(server: EmbeddedArchive) -> None:
    sources = Drawn(1000)
    client = DicomWeb(server.url, auth=server.auth, settings=settings(batch_instances=10))
    async with client as archive, archive.upload_each(sources) as outcomes:
        async for _ in outcomes:
            last = -1
            while sources.drawn != last:
                last = sources.drawn
                await asyncio.sleep(0.3)
            break
    assert sources.drawn < 600
    assert len(held(server)) <= sources.drawn


@pytest.mark.parametrize("within", [True, False])
async def test_whoever_leaves_early_ends_the_upload(
    within: bool, client: DicomWeb | CloudApi, server: EmbeddedArchive
) -> None:
    sources = Drawn(1000)
    outcomes = client.upload_each(sources)
    if within:
        async with outcomes:
            async for _ in outcomes:
                break
    else:
        async with aclosing(aiter(outcomes)) as each:
            await anext(each)
    before = sources.drawn, len(held(server))
    assert sources.drawn < 600
    await asyncio.sleep(0.2)
    assert sources.drawn == before[0]
    assert len(held(server)) <= before[1] + 6 * 3, "what had left may still arrive"
    with pytest.raises(UsageError, match="read the outcomes to their end first"):
        _ = outcomes.report
    with pytest.raises(UsageError, match="can be read once"):
        await anext(aiter(outcomes))


async def test_what_ends_an_upload_is_raised_after_the_last_outcome() -> None:
    def fails_later(_: Request) -> Reply | None:
        return Reply(503) if len(archive.stored) >= 4 else None

    archive = MemoryArchive(fault=fails_later)
    outcomes: list[Outcome] = []
    quick = settings(batch_instances=2, parallel_stores=1)
    async with FaultyServer(archive) as server, DicomWeb(server.url, settings=quick) as client:

        async def read() -> None:
            async for outcome in client.upload_each(Drawn(9)):
                outcomes.append(outcome)  # noqa: PERF401 - as it comes: an error follows

        with pytest.raises(ServerError) as caught:
            await read()
    assert [one.status for one in outcomes[:4]] == [Status.STORED] * 4
    assert {one.status for one in outcomes[4:]} == {Status.FAILED}
    assert len(outcomes) == len({one.where for one in outcomes})
    assert isinstance(caught.value.report, UploadReport)
    assert caught.value.report.total == len(outcomes)


async def test_a_listener_that_raises_leaves_a_report_that_is_true(
    client: DicomWeb | CloudApi, server: EmbeddedArchive, tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def listener(event: ProgressEvent) -> None:
        if isinstance(event, InstanceFinished) and event.totals.instances_done >= 7:
            raise Enough

    report = tmp_path / "report.jsonl"
    with pytest.raises(Enough):
        await client.upload(private_folder(tmp_path, 60), progress=listener, report=report)
    lines = [line for line in lines_of(report) if line["status"] != "not DICOM"]
    by_status = {status: {line["sop_instance_uid"] for line in lines if line["status"] == status} for status in Status}
    assert len(by_status[Status.STORED]) >= 7
    assert by_status[Status.STORED] <= held(server)
    assert not by_status[Status.FAILED] & held(server), "what is there was not left out"
    assert held(server) <= by_status[Status.STORED] | by_status[Status.UNCONFIRMED]
