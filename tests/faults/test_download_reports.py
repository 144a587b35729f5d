"""The outcomes of a download as a stream and in a file: true at any moment, in memory that does not grow."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from postdicom_async import DicomWeb, IncompleteDownload, LocalFileError, Outcome, Status, UsageError
from postdicom_async.disk import scratch
from postdicom_async.transfer import arrivals
from tests.faults.archive import MemoryArchive, is_search
from tests.faults.clients import settings
from tests.support.bodies import dicom_json, json_reply, multipart_related
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.elsewhere import killed_amid_its_report
from tests.support.faulty_server import FaultyServer, Reply, Request

ROOT = Path(__file__).parents[2]
MANY = 300
CLIENT = """
import asyncio, sys
from postdicom_async import DicomWeb
async def main(url, study, to, report):
    async with DicomWeb(url) as archive:
        await archive.download_study(study, to=to, report=report, layout="patient-of-mine/{study}/{instance}")
asyncio.run(main(*sys.argv[1:]))
"""


def in_pieces(archive: MemoryArchive, pause: float) -> MemoryArchive:
    """Let an archive send its answers slowly."""
    whole = archive.retrieve

    def retrieve(study: str, series: str | None, instance: str | None) -> Reply:
        reply = whole(study, series, instance)
        return Reply(200, reply.headers, reply.body, chunk_size=1500, pause=pause)

    archive.retrieve = retrieve  # type: ignore[method-assign]
    return archive


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed otherwise here")
async def test_a_killed_download_leaves_a_report_that_is_true(tmp_path: Path) -> None:
    files = study_files(MANY, series=3)
    to, report = tmp_path / "to", tmp_path / "report.jsonl"
    async with FaultyServer(in_pieces(MemoryArchive(files.values(), counts=True), 0.002)) as server:
        arguments = ("-c", CLIENT, server.url, uid(1), str(to), str(report))
        await killed_amid_its_report(report, *arguments)
        killed = report.read_text()
        lines = [json.loads(line) for line in killed.splitlines()]
        assert 20 <= len(lines) < MANY
        for line in lines:
            assert line["status"] == "saved"
            data = (to / "patient-of-mine" / uid(1) / line["sop_instance_uid"]).read_bytes()
            assert data == files[line["sop_instance_uid"]]
            assert line["bytes"] == len(data)
        assert stat.S_IMODE(report.stat().st_mode) == 0o600
        assert "patient-of-mine" not in killed

        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    again = [json.loads(line) for line in report.read_text()[len(killed) :].splitlines()]
    assert len(again) == MANY
    present = {line["sop_instance_uid"] for line in again if line["status"] == "present"}
    assert present >= {line["sop_instance_uid"] for line in lines}
    assert present | {line["sop_instance_uid"] for line in again if line["status"] == "saved"} == set(files)


async def test_paths_are_in_it_when_they_are_asked_for(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    archive = MemoryArchive(study_files(4).values(), counts=True)
    async with FaultyServer(archive) as server, DicomWeb(server.url, settings=settings()) as client:
        await client.download_study(uid(1), to=tmp_path / "to", report=report, report_paths=True)
    assert all(Path(json.loads(line)["path"]).is_file() for line in report.read_text().splitlines())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
async def test_a_report_that_cannot_be_written_ends_the_download(tmp_path: Path) -> None:
    archive = in_pieces(MemoryArchive(study_files(40).values(), counts=True), 0.002)
    async with FaultyServer(archive) as server, DicomWeb(server.url, settings=settings()) as client:
        with pytest.raises(LocalFileError, match="report") as caught:
            await client.download_study(uid(1), to=tmp_path / "to", report="/dev/full")
    assert caught.value.report is not None
    assert not caught.value.report.ok


async def test_whoever_leaves_early_ends_the_download(tmp_path: Path) -> None:
    archive = in_pieces(MemoryArchive(study_files(200).values(), counts=True), 0.005)
    async with FaultyServer(archive) as server, DicomWeb(server.url, settings=settings()) as client:
        async with client.download_each(uid(1), to=tmp_path) as outcomes:
            async for outcome in outcomes:
                assert Path(outcome.where).is_file()
                break
        there = len(list(tmp_path.rglob("*.dcm")))
        await asyncio.sleep(0.1)
        assert len(list(tmp_path.rglob("*.dcm"))) == there < 200
        assert not list(tmp_path.rglob("*.part"))
        with pytest.raises(UsageError):
            _ = outcomes.report


async def test_what_is_missing_is_told_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an archive that lists much and gives nothing, no more is held than what its reader is behind."""
    monkeypatch.setattr(arrivals, "_SLICE", 100)
    lists = Large(600)
    missing: list[Outcome] = []

    async def read(client: DicomWeb) -> None:
        told = client.download_each(uid(1), to=tmp_path)
        async for outcome in told:
            missing.append(outcome)
            if len(missing) == 1:
                await asyncio.sleep(0.2)
                with pytest.raises(UsageError, match="read the outcomes to their end"):
                    _ = told.report
                assert any("engine" in str(task.get_coro()) for task in asyncio.all_tasks())

    async with (
        FaultyServer(lambda request: lists(request) if is_search(request) else Reply(404)) as server,
        DicomWeb(server.url, settings=settings()) as client,
    ):
        with pytest.raises(IncompleteDownload) as caught:
            await read(client)
    assert {outcome.status for outcome in missing} == {Status.MISSING}
    assert len({outcome.uids for outcome in missing}) == 600
    assert caught.value.report is not None
    assert caught.value.report.counts == {Status.MISSING: 600}


@pytest.mark.parametrize("how", ["scope", "cancelled", "cancelled twice"])
async def test_whoever_is_cancelled_while_he_reads_leaves_nothing_under_way(how: str, tmp_path: Path) -> None:
    """When the block is left the transfer has ended, also where the block stands in a scope that is cancelled."""
    archive = in_pieces(MemoryArchive(study_files(200).values(), counts=True), 0.005)
    left: set[asyncio.Task[object]] = set()

    async def read(client: DicomWeb, scope: anyio.CancelScope, some: asyncio.Event) -> None:
        before = asyncio.all_tasks()
        try:
            with scope:
                async with client.download_each(uid(1), to=tmp_path) as outcomes:
                    async for _ in outcomes:
                        some.set()
        finally:
            left.update(task for task in asyncio.all_tasks() - before if "engine" in str(task.get_coro()))

    async with FaultyServer(archive) as server, DicomWeb(server.url, settings=settings()) as client:
        scope, some = anyio.CancelScope(), asyncio.Event()
        reading = asyncio.create_task(read(client, scope, some))
        await some.wait()
        if how == "scope":
            scope.cancel()
        else:
            reading.cancel()
        if how == "cancelled twice":
            await asyncio.sleep(0)
            reading.cancel()
        await asyncio.wait([reading])
    assert scope.cancelled_caught == (how == "scope")
    assert reading.cancelled() == (how != "scope")
    assert not left
    assert not list(tmp_path.rglob("*.part"))


# --- memory -----------------------------------------------------------------------------------------------------------


class Large:
    """An archive of one study of many tiny instances, made while it is sent; it lists them, and counts nothing."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.template = small_dicom(uid(1), uid(1, 1), uid(1, 1, 1_000_000), pixel_bytes=64)
        self.last = uid(1, 1, 1_000_000).encode()

    def uid_of(self, number: int) -> str:
        return uid(1, 1, 1_000_001 + number)

    def __call__(self, request: Request) -> Reply:
        if not is_search(request):
            return Reply(200, {"Content-Type": multipart_related([b""]).content_type}, self.body(), framing="chunked")
        if not request.path.endswith("/instances"):
            return json_reply([])
        query = dict(request.query)
        first, size = int(query["offset"]), int(query["limit"])
        numbers = range(first, min(first + size, self.count))
        return json_reply([dicom_json(SeriesInstanceUID=uid(1, 1), SOPInstanceUID=self.uid_of(n)) for n in numbers])

    def body(self) -> Iterator[bytes]:
        for number in range(self.count):
            data = self.template.replace(self.last, self.uid_of(number).encode())
            yield b"--b0undary-of-the-tests\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n"
        yield b"--b0undary-of-the-tests--\r\n"


async def test_memory_does_not_grow_with_the_number_of_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_RECENT", 64)
    monkeypatch.setattr(scratch, "_FILTER_FROM", 1 << 30)  # it is made once, sooner where the disk is slow

    async def kept(count: int) -> int:
        """Return how many blocks of memory there are when nearly all have come.

        More than a reader may lag behind are still to come.
        """
        size = 0
        async with FaultyServer(Large(count)) as server, DicomWeb(server.url, settings=settings()) as client:
            outcomes = client.download_each(uid(1), to=tmp_path / str(count), layout="{instance}")
            number = 0
            async for outcome in outcomes:
                assert outcome.status is Status.SAVED
                number += 1
                if number == count - 600:
                    gc.collect()
                    size = sys.getallocatedblocks()
            assert number == count
            assert outcomes.report.listing == "compared"
            assert outcomes.report.counts == {Status.SAVED: count}
        return size

    await kept(700)
    assert await kept(3000) - await kept(1500) < 1500 * 2, "an outcome alone takes three times as many"
