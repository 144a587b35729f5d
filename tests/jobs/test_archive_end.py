"""An archive as an end of a job, against the embedded archive in both dialects."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from postdicom_async import Anonymization, DicomWeb, NotFound
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.ends.end import Feature, ListedInstance, ListedStudy, Selection
from postdicom_async.results import InstanceUids, Status
from tests.faults.archive import is_search
from tests.faults.clients import FAST
from tests.faults.odd_archives import OddArchive
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer

STUDY = uid(1)


def files(series: int = 3, instances: int = 5, *, large: int = 0) -> dict[str, bytes]:
    """Return instances of one study by SOP Instance UID; the first is ``large``."""
    made = {}
    for one in range(1, series + 1):
        for number in range(1, instances + 1):
            size = large if large and one == number == 1 else 512 * number
            made[uid(1, one, number)] = small_dicom(STUDY, uid(1, one), uid(1, one, number), pixel_bytes=size)
    return made


def series_of(instance: str) -> str:
    return instance.rpartition(".")[0]


def listed(uids: Iterable[str]) -> list[ListedInstance]:
    return [ListedInstance(series_of(one), one) for one in uids]


async def opened(end: ArchiveEnd, wanted: Selection) -> dict[str, bytes]:
    """Return what an end opens, by label."""
    found: dict[str, bytes] = {}
    async for one in end.open(wanted):
        assert one.label not in found
        found[one.label] = b"".join([piece async for piece in one.body.open()])  # type: ignore[union-attr]
    return found


def by_uid(one: ListedInstance) -> str:
    return one.uid


async def taken(end: ArchiveEnd) -> tuple[list[ListedStudy], dict[str, list[ListedInstance]]]:
    studies = [one async for some in end.studies() for one in some]
    instances = {one.uid: [each async for some in end.instances(one.uid) for each in some] for one in studies}
    return studies, instances


@pytest.fixture(params=["dicomweb", "postdicom"])
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedArchive, EmbeddedArchive]]:
    async with EmbeddedArchive(tmp_path / "one") as one, EmbeddedArchive(tmp_path / "other") as other:
        yield one, other


def end_of(server: EmbeddedArchive, dialect: str, **options: object) -> ArchiveEnd:
    return ArchiveEnd(DicomWeb(server.url, auth=server.auth, dialect=dialect, settings=FAST), **options)  # type: ignore[arg-type]


async def filled(server: EmbeddedArchive, made: dict[str, bytes]) -> None:
    async with DicomWeb(server.url, auth=server.auth, settings=FAST) as client:
        (await client.upload(list(made.values()))).raise_for_failures()


async def test_from_one_archive_to_another_every_byte_is_the_same(
    servers: tuple[EmbeddedArchive, EmbeddedArchive], dialect: str
) -> None:
    made = files(large=9 << 20)
    await filled(servers[0], made)
    async with AsyncExitStack() as stack:
        source, target = [await stack.enter_async_context(end_of(one, dialect)) for one in servers]
        studies, instances = await taken(source)
        assert studies == [ListedStudy(STUDY, studies[0].date, len(made))]
        assert {one.uid for one in instances[STUDY]} == set(made)
        assert {one.uid: one.series for one in instances[STUDY]} == {one: series_of(one) for one in made}
        wanted = Selection(STUDY, None, instances[STUDY], whole=True)
        outcomes = [one async for one in target.store(source.open(wanted))]
        assert {one.where: one.status for one in outcomes} == dict.fromkeys(made, Status.STORED)
        assert sum(one.size for one in outcomes) == sum(map(len, made.values()))
        assert await opened(target, wanted) == made
        same_studies, same_instances = await taken(target)
        assert same_studies == studies
        assert sorted(same_instances[STUDY], key=by_uid) == sorted(instances[STUDY], key=by_uid)


@pytest.mark.parametrize("number", [1, 2, 9, 14])
async def test_a_part_of_a_study_is_opened_without_the_rest(
    servers: tuple[EmbeddedArchive, EmbeddedArchive], dialect: str, number: int
) -> None:
    made = files(2, 12)
    await filled(servers[0], made)
    some = random.Random(number).sample(sorted(made), number)
    async with end_of(servers[0], dialect) as source:
        assert await opened(source, Selection(STUDY, None, listed(some))) == {one: made[one] for one in some}
        of_series = sorted(one for one in made if series_of(one) == uid(1, 1))
        assert len(await opened(source, Selection(STUDY, uid(1, 1), listed(of_series), whole=True))) == 12
        nearly_all = of_series[:10]
        assert set(await opened(source, Selection(STUDY, uid(1, 1), listed(nearly_all)))) == set(nearly_all)


async def test_what_the_source_has_not_is_not_given(
    servers: tuple[EmbeddedArchive, EmbeddedArchive], dialect: str
) -> None:
    made = files(1, 3)
    await filled(servers[0], made)
    async with end_of(servers[0], dialect) as source:
        wanted = listed([*made, uid(1, 1, 99), uid(1, 2, 1)])
        assert await opened(source, Selection(STUDY, None, wanted, whole=True)) == made
        assert await opened(source, Selection(STUDY, None, wanted)) == made
        assert await opened(source, Selection(uid(7), None, listed([uid(7, 1, 1)]), whole=True)) == {}
        wrong_series = [ListedInstance(uid(1, 9), uid(1, 1, 1))]
        assert await opened(source, Selection(STUDY, None, wrong_series, whole=True)) == {}


async def test_a_study_that_is_not_there_is_none(
    servers: tuple[EmbeddedArchive, EmbeddedArchive], dialect: str
) -> None:
    async with end_of(servers[0], dialect) as end:
        await end.probe()
        assert await end.study(STUDY) is None
        assert [one async for one in end.instances(STUDY)] == []
        assert [one async for some in end.studies() for one in some] == []


async def test_instances_and_studies_are_deleted(servers: tuple[EmbeddedArchive, EmbeddedArchive]) -> None:
    made = files(2, 3)
    await filled(servers[0], made)
    async with end_of(servers[0], "dicomweb") as end:
        assert Feature.DELETES in end.features
        gone = [InstanceUids(STUDY, series_of(one), one) for one in sorted(made)[:2]]
        await end.delete(STUDY, gone)
        await end.delete(STUDY, gone)  # what is not there is deleted
        found = await end.study(STUDY)
        assert found is not None
        assert found.instances == 4
        await end.delete(STUDY, None)
        assert await end.study(STUDY) is None
        await end.delete(STUDY, None)


async def test_a_delete_that_the_archive_does_not_know_is_no_delete(
    servers: tuple[EmbeddedArchive, EmbeddedArchive], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = files(1, 2)
    await filled(servers[0], made)

    async def not_found(*_: str) -> None:
        raise NotFound("not here", status=404)

    async with end_of(servers[0], "dicomweb") as end:
        monkeypatch.setattr(DicomWeb, "delete_study", not_found)
        monkeypatch.setattr(DicomWeb, "delete_instance", not_found)
        with pytest.raises(NotFound):
            await end.delete(STUDY, None)
        with pytest.raises(NotFound):
            await end.delete(STUDY, [InstanceUids(STUDY, series_of(one), one) for one in made])
        assert (await end.study(STUDY)) is not None


async def test_leaving_early_leaves_nothing_under_way(
    servers: tuple[EmbeddedArchive, EmbeddedArchive], dialect: str
) -> None:
    made = files(2, 20, large=9 << 20)
    await filled(servers[0], made)
    before = asyncio.all_tasks()
    async with end_of(servers[0], dialect) as source:
        for whole in (True, False):
            opening = source.open(Selection(STUDY, None, listed(made), whole=whole))
            await anext(opening)
            await opening.aclose()
        assert await opened(source, Selection(STUDY, None, listed(made), whole=True)) == made
    async with asyncio.timeout(10):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.01)


async def test_anonymised_on_the_way_outcomes_bear_the_labels_of_the_originals(
    servers: tuple[EmbeddedArchive, EmbeddedArchive],
) -> None:
    made = files(1, 3, large=9 << 20)
    await filled(servers[0], made)
    rules = Anonymization.basic_profile(secret="not so secret, only for tests")
    async with AsyncExitStack() as stack:
        source, target = [await stack.enter_async_context(end_of(one, "dicomweb")) for one in servers]
        wanted = Selection(STUDY, None, listed(made), whole=True, once=True)
        outcomes = [one async for one in target.store(source.open(wanted), anonymize=rules)]
        assert {one.where: one.status for one in outcomes} == dict.fromkeys(made, Status.STORED)
        assert {one.uids.sop_instance_uid for one in outcomes if one.uids} == {rules.new_uid(one) for one in made}
        assert await target.study(STUDY) is None
        found = await target.study(rules.new_uid(STUDY))
        assert found is not None
        assert found.instances == len(made)


@pytest.mark.parametrize(("wanted", "requests"), [(18, 2), (4, 4)])
async def test_most_of_a_series_is_asked_for_as_one(wanted: int, requests: int) -> None:
    made = files(2, 12)
    some = sorted(made, key=lambda one: int(one.rpartition(".")[2]))[:wanted]
    archive = OddArchive(made.values(), counts=True)
    async with FaultyServer(archive) as server, ArchiveEnd(DicomWeb(server.url, settings=FAST)) as end:
        assert await opened(end, Selection(STUDY, None, listed(some))) == {one: made[one] for one in some}
        assert len([one for one in server.requests if not is_search(one)]) == requests
        assert len(server.requests) - requests <= 1  # one question how many there are, if any
