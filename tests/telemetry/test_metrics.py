"""Metrics add up to what the report says and to what went over the wire."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("opentelemetry.sdk")

from postdicom_async import Status
from tests.cloud.service import CloudService
from tests.faults.archive import MemoryArchive, uids_of
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.clients import Connect
    from tests.telemetry.conftest import Traced

FILES = list(study_files(3).values())
STUDY = uids_of(FILES[0]).study_instance_uid
INSTANCES, SIZES = "postdicom.client.instances", "postdicom.client.instances.size"
SENT, RECEIVED, SECONDS = "postdicom.client.sent", "postdicom.client.received", "http.client.request.duration"


async def test_of_an_upload(traced: Traced, connect: Connect, tmp_path: Path) -> None:
    """One instance is given twice, one file is none, and the first request is refused."""
    (tmp_path / "letter.txt").write_text("no DICOM")
    refused: list[Request] = []

    def fault(request: Request) -> Reply | None:
        refused.append(request)
        return Reply(503) if len(refused) == 1 else None

    async with FaultyServer(MemoryArchive(fault=fault)) as server, connect(server.url) as archive:
        report = await archive.upload([*FILES, FILES[0], tmp_path])
    assert report.counts == {Status.STORED: 3, Status.DUPLICATE: 1, Status.NOT_DICOM: 1}
    assert traced.sums(INSTANCES, "postdicom.operation", "postdicom.status") == {
        ("upload", status.value): count for status, count in report.counts.items()
    }
    assert traced.sums(SIZES, "postdicom.status")["stored"] == report.bytes_sent == sum(map(len, FILES))
    assert traced.sums(SENT, "postdicom.operation") == {
        "store instances": sum(len(request.body) for request in server.requests)
    }
    assert traced.sums(SECONDS, "http.response.status_code", "error.type") == {(503, "503"): 1, (200, None): 1}


async def test_of_a_download(traced: Traced, connect: Connect, tmp_path: Path) -> None:
    async with FaultyServer(MemoryArchive(FILES, counts=True)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
        again = await archive.download_study(STUDY, to=tmp_path)
    assert report.counts == {Status.SAVED: 3}
    assert again.counts == {Status.PRESENT: 3}
    counted = traced.sums(INSTANCES, "postdicom.operation", "postdicom.status")
    assert counted == {("download study", "saved"): 3, ("download study", "present"): 3}
    assert traced.sums(SIZES, "postdicom.status")["saved"] == report.bytes_received == sum(map(len, FILES))
    received = traced.sums(RECEIVED, "postdicom.operation")
    assert report.bytes_received < received["retrieve study"] < report.bytes_received + 1000  # the boundaries too
    assert sum(traced.sums(SECONDS, "postdicom.operation").values()) == len(server.requests)


async def test_of_the_cloud_api(traced: Traced) -> None:
    file = small_dicom(instance=uid(1, 1, 7))
    async with CloudService() as service, service.client() as api:
        report = await api.upload(file)
        frames = len(service.received)
    assert traced.sums(INSTANCES, "postdicom.operation") == {"upload": len(report.outcomes)}
    counted = traced.sums("postdicom.client.frame.duration", "postdicom.operation")
    assert sum(counted.values()) == frames
    assert traced.sums(SENT, "postdicom.operation")["upload"] > len(file)


@pytest.mark.parametrize("attribute", ["http.request.resend_count", "network.peer.address"])
async def test_few_attributes(attribute: str, traced: Traced, connect: Connect) -> None:
    """Each value of an attribute is a series of its own to those who store metrics."""
    async with FaultyServer([Reply(503), Reply(503), MemoryArchive()]) as server, connect(server.url) as archive:
        await archive.upload(FILES[:1])
    for name in (SENT, RECEIVED, SECONDS):
        assert set(traced.sums(name, attribute)) == {None}


async def test_instances_counted_in_threads(traced: Traced) -> None:
    """They are given to the SDK in groups: none is lost, whoever counts at the same time."""
    from postdicom_async import watching

    def count() -> None:
        for _ in range(2000):
            watching.tell_instance("upload", "stored", 3, None)

    await asyncio.gather(*(asyncio.to_thread(count) for _ in range(4)))
    with watching.watch_call("upload"):
        pass
    assert traced.sums(INSTANCES, "postdicom.status") == {"stored": 8000}
    assert traced.sums(SIZES, "postdicom.status") == {"stored": 24000}
