"""Streams of unknown length on their way into an archive: whole, again after a lost answer, and when they break."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from starlette.datastructures import UploadFile

from postdicom_async import DicomWeb, PostdicomError, Status, UploadReport
from postdicom_async.disk import spool
from tests.cloud.conftest import INSTITUTION, Account, account
from tests.cloud.files import PART, dicom_of_size, held_by
from tests.faults.archive import MemoryArchive, uids_of
from tests.faults.clients import settings
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.faults.clients import Connect

__all__ = ["account"]  # a fixture

LARGE = small_dicom(pixel_bytes=300_000)


@pytest.fixture(params=["memory", "file"])
def kept_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have streams kept in memory or, however small they are, in files."""
    if request.param == "file":
        monkeypatch.setattr(spool, "_MOST_IN_MEMORY", 0)
    return str(request.param)


async def streamed(data: bytes, breaks: BaseException | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 10_000):
        yield data[at : at + 10_000]
    if breaks is not None:
        raise breaks


async def test_they_arrive_byte_for_byte_with_their_exact_length(connect: Connect, kept_in: str) -> None:
    one, two, three = study_files(3).values()
    requests: list[Request] = []

    def seen(request: Request) -> Reply | None:
        requests.append(request)
        return None

    archive = MemoryArchive(fault=seen)
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload([streamed(one), UploadFile(BytesIO(two), filename="two"), three])
    assert [outcome.where for outcome in report.outcomes] == ["stream 1", "two", "bytes 3"]
    assert report.ok
    assert set(archive.stored.values()) == {one, two, three}
    stores = [request for request in requests if request.method == "POST"]
    assert all(int(request.header("content-length")) == len(request.body) for request in stores)


async def test_a_lost_answer_is_made_good(connect: Connect, kept_in: str) -> None:
    lost: list[bytes] = []

    def lose_the_first(request: Request) -> Reply | None:
        if request.method == "POST" and not lost:
            lost.append(request.body)
            return Reply(drop_after_request=True)
        return None

    archive = MemoryArchive(fault=lose_the_first)
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload([streamed(LARGE)])
    assert report.ok
    assert LARGE in lost[0]
    assert list(archive.stored.values()) == [LARGE]


async def test_from_one_archive_to_another(connect: Connect, kept_in: str) -> None:
    files = list(study_files(7).values())
    source, target = MemoryArchive(files), MemoryArchive()
    async with (
        FaultyServer(source) as one,
        FaultyServer(target) as other,
        connect(one.url) as there,
        connect(other.url) as here,
    ):
        report = await here.upload(there.iter_study(uid(1)))
        async for part in there.iter_instance(*uids_of(files[0])):
            (again,) = await here.store_instances(part)
    assert report.counts == {Status.STORED: 7}
    assert again.ok
    assert target.stored == source.stored


async def test_what_was_whole_arrives_when_the_source_breaks_off(connect: Connect) -> None:
    files = list(study_files(3).values())

    def cut(request: Request) -> Reply | None:
        whole = MemoryArchive(files)(request)
        assert isinstance(whole.body, bytes)
        return Reply(200, whole.headers, whole.body, cut_after=len(whole.body) - 500)

    target = MemoryArchive()
    async with (
        FaultyServer(MemoryArchive(fault=cut)) as one,
        FaultyServer(target) as other,
        connect(one.url) as there,
        connect(other.url) as here,
    ):
        with pytest.raises(PostdicomError) as caught:
            await here.upload(there.iter_study(uid(1)))
    report = caught.value.report
    assert isinstance(report, UploadReport)
    assert report.counts[Status.STORED] + report.counts[Status.FAILED] == 2, "sent, or not sent because of the end"
    (broken,) = [outcome for outcome in report.outcomes if outcome.status is Status.UNREADABLE]
    assert str(broken.reason).startswith("the stream broke: ")
    assert uids_of(files[2]) not in target.stored


@pytest.mark.parametrize("breaks", [None, RuntimeError("DOE^JANE")])
async def test_a_stream_that_breaks_costs_only_itself(connect: Connect, breaks: Exception | None, kept_in: str) -> None:
    others = list(study_files(3).values())[1:]
    archive = MemoryArchive()
    sources: list[bytes | AsyncIterator[bytes]] = [
        others[0],
        streamed(LARGE[:100_000], breaks),
        streamed(b""),
        streamed(others[1]),
    ]
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload(sources)
    statuses = [outcome.status for outcome in report.outcomes]
    assert statuses == [Status.STORED, Status.UNREADABLE, Status.NOT_DICOM, Status.STORED]
    assert ("RuntimeError" in str(report.outcomes[1].reason)) == (breaks is not None)
    assert "DOE" not in str(report.outcomes[1].reason)
    assert set(archive.stored.values()) == set(others)


async def test_the_same_stream_twice_is_a_duplicate(connect: Connect, kept_in: str) -> None:
    other = small_dicom(patient_name="OTHER^ONE", pixel_bytes=300_000)
    archive = MemoryArchive()
    async with FaultyServer(archive) as server, connect(server.url) as client:
        report = await client.upload([streamed(LARGE), streamed(LARGE), LARGE, streamed(other)])
    statuses = [outcome.status for outcome in report.outcomes]
    assert statuses == [Status.STORED, Status.DUPLICATE, Status.DUPLICATE, Status.FAILED]
    assert list(archive.stored.values()) == [LARGE]


async def test_into_the_cloud_api(account: Account, kept_in: str) -> None:
    data = dicom_of_size(3 * PART + 17)
    report = await account.api.upload([streamed(data)], institution_uuid=INSTITUTION, sockets=2)
    assert report.ok
    assert list(held_by(account.server).values()) == [data]


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("kind", ["tasks", "time-out"])
async def test_what_fails_behind_the_callers_generator_is_raised(kind: str, at_once: int) -> None:
    """Tasks of its own fill a queue: when one fails, what it did not give is not passed over."""
    files = list(study_files(40).values())

    async def produce(queue: asyncio.Queue[bytes]) -> None:
        for number, data in enumerate(files):
            if number == 20:
                raise LookupError("theirs")
            await queue.put(data)

    async def sources() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue(2)
        if kind == "tasks":
            async with asyncio.TaskGroup() as group:
                group.create_task(produce(queue))
                while True:
                    yield await queue.get()
        else:
            async with asyncio.timeout(0.5):
                yield files[0]
                await asyncio.sleep(3600)

    archive = MemoryArchive()
    limits = settings(batch_instances=1, parallel_stores=at_once)
    async with FaultyServer(archive) as server, DicomWeb(server.url, settings=limits) as client:
        async with asyncio.timeout(60):
            with pytest.raises(BaseException) as caught:
                await client.upload(sources())
    assert isinstance(caught.value, TimeoutError if kind == "time-out" else BaseExceptionGroup)
    if isinstance(caught.value, BaseExceptionGroup):
        assert caught.value.subgroup(LookupError)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
