"""The Cloud API as an end of a job, against the embedded archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from postdicom_async import CloudApi, ConnectionFailed, DicomWeb, UsageError
from postdicom_async.bodies import BytesBody
from postdicom_async.dicom.header import InstanceHeader, read_header
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.emulator.context import INSTITUTIONS, USERS
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.ends.cloud import CloudEnd
from postdicom_async.jobs.ends.end import Feature, ListedInstance, Selection
from postdicom_async.results import Outcome, Status
from tests.faults.clients import FAST
from tests.support.dicom_files import small_dicom, uid

STUDY = uid(1)
MADE = {uid(1, 1, n): small_dicom(STUDY, uid(1, 1), uid(1, 1, n), pixel_bytes=1024 * n) for n in range(1, 8)}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedArchive]:
    async with EmbeddedArchive(tmp_path / "cloud") as archive:
        yield archive


def cloud_end(server: EmbeddedArchive) -> CloudEnd:
    keys = server.cloud_api_key, server.cloud_account_key
    api = CloudApi(*keys, user=next(iter(USERS)), router_url=server.router_url, settings=FAST)
    return CloudEnd(api, name="cloud", institution_uuid=next(iter(INSTITUTIONS)))


async def gather(outcomes: AsyncIterator[Outcome], into: dict[str, Outcome]) -> None:
    async for one in outcomes:
        assert one.where not in into
        into[one.where] = one


async def held_by(server: EmbeddedArchive) -> dict[str, bytes]:
    """Return what the archive has of the study, through its other face."""
    found = {}
    async with ArchiveEnd(DicomWeb(server.url, auth=server.auth, settings=FAST)) as end:
        listed = [one async for some in end.instances(STUDY) for one in some]
        async for one in end.open(Selection(STUDY, None, listed, whole=True)):
            assert isinstance(one, Usable)
            found[one.label] = b"".join([piece async for piece in one.body.open()])
    return found


def usable(label: str, data: bytes) -> Usable:
    header = read_header(data, complete=True)
    assert isinstance(header, InstanceHeader)
    return Usable(label, header, BytesBody(data))


async def test_it_stores_and_says_so_of_each_and_sends_nothing_twice(server: EmbeddedArchive) -> None:
    async def sources() -> AsyncIterator[Usable | Unusable]:
        for one, data in MADE.items():
            yield usable(one, data)
        yield Unusable("broken", Status.UNREADABLE, "cut off")

    async with cloud_end(server) as end:
        await end.probe()
        first = {one.where: one.status async for one in end.store(sources())}
        again = {one.where: one.status async for one in end.store(sources())}
        cloud = server.cloud
        assert not set(cloud.deviations)
    assert first == dict.fromkeys(MADE, Status.STORED) | {"broken": Status.UNREADABLE}
    assert again == dict.fromkeys(MADE, Status.PRESENT) | {"broken": Status.UNREADABLE}
    assert await held_by(server) == MADE


async def test_from_a_dicomweb_archive_a_large_instance_is_kept_until_it_is_sent(
    server: EmbeddedArchive, tmp_path: Path
) -> None:
    large = small_dicom(STUDY, uid(1, 2), uid(1, 2, 1), pixel_bytes=9 << 20)
    async with EmbeddedArchive(tmp_path / "source") as other:
        async with DicomWeb(other.url, auth=other.auth, settings=FAST) as client:
            (await client.upload([large, *MADE.values()])).raise_for_failures()
        wanted = [ListedInstance(uid(1, 1), one) for one in MADE] + [ListedInstance(uid(1, 2), uid(1, 2, 1))]
        source = ArchiveEnd(DicomWeb(other.url, auth=other.auth, settings=FAST))
        async with source, cloud_end(server) as end:
            opened = source.open(Selection(STUDY, None, wanted, whole=True, once=True))
            found = {one.where: one.status async for one in end.store(opened)}
    assert found == dict.fromkeys([*MADE, uid(1, 2, 1)], Status.STORED)
    assert await held_by(server) == {**MADE, uid(1, 2, 1): large}


async def test_a_source_that_fails_gives_what_came_and_then_its_error(server: EmbeddedArchive) -> None:
    async def sources() -> AsyncIterator[Usable | Unusable]:
        for one, data in list(MADE.items())[:3]:
            yield usable(one, data)
        raise ConnectionFailed("the source is gone")

    async with cloud_end(server) as end:
        found: dict[str, Outcome] = {}
        with pytest.raises(ConnectionFailed, match="the source is gone"):
            await gather(end.store(sources()), found)
    assert {one: outcome.status for one, outcome in found.items()} == dict.fromkeys(list(MADE)[:3], Status.STORED)


async def test_when_the_service_goes_away_everything_taken_has_an_outcome() -> None:
    taken = []

    async def sources() -> AsyncIterator[Usable | Unusable]:
        for one, data in MADE.items():
            taken.append(one)
            yield usable(one, data)
            await asyncio.sleep(0)

    async with AsyncExitStack() as closing, EmbeddedArchive() as server:
        end = await closing.enter_async_context(cloud_end(server))
        await server.__aexit__(None, None, None)
        found: dict[str, Outcome] = {}
        with pytest.raises(ConnectionFailed):
            await gather(end.store(sources()), found)
        assert set(found) == set(taken)
        assert all(one.temporary and not one.in_archive for one in found.values())
        with pytest.raises(ConnectionFailed):
            await end.probe()


async def test_what_it_cannot_is_refused_in_one_line(server: EmbeddedArchive) -> None:
    end = cloud_end(server)
    assert end.features == Feature.STORES | Feature.CONFIRMS
    assert server.cloud_api_key not in repr(end) + end.name + end.identity
    for ask in (end.studies, lambda: end.instances(STUDY), lambda: end.open(Selection(STUDY, None, []))):
        with pytest.raises(UsageError, match="the Cloud API cannot"):
            ask()
    with pytest.raises(UsageError, match="the Cloud API cannot"):
        await end.study(STUDY)
    with pytest.raises(UsageError, match="the Cloud API cannot"):
        await end.delete(STUDY, None)
    with pytest.raises(UsageError, match="api: give"):
        CloudEnd("x")  # type: ignore[arg-type]
