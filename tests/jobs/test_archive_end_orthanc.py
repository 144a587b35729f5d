"""An Orthanc as an end of a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from postdicom_async import DicomWeb, ServerError
from postdicom_async.disk.sources import Usable
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.ends.archive import ArchiveEnd
from postdicom_async.jobs.ends.end import ListedStudy, Selection
from postdicom_async.results import InstanceUids, Status
from tests.faults.clients import FAST
from tests.support.dicom_files import JPEG, small_dicom, uid
from tests.support.orthanc import OrthancServer

STUDY = uid(1)
MADE = {
    uid(1, one, n): small_dicom(STUDY, uid(1, one), uid(1, one, n), pixel_bytes=1024 * n)
    for one in (1, 2)
    for n in range(1, 13)
} | {uid(1, 3, 1): small_dicom(STUDY, uid(1, 3), uid(1, 3, 1), transfer_syntax=JPEG)}


def end_of(orthanc: OrthancServer) -> ArchiveEnd:
    return ArchiveEnd(DicomWeb(orthanc.url, auth=(orthanc.username, orthanc.password), settings=FAST))


async def opened(end: ArchiveEnd, wanted: Selection) -> dict[str, bytes]:
    found = {}
    async for one in end.open(wanted):
        assert isinstance(one, Usable)
        found[one.label] = b"".join([piece async for piece in one.body.open()])
    return found


@pytest.mark.parametrize("dialect", ["dicomweb", "postdicom"])
async def test_from_an_embedded_archive_to_orthanc_and_back(
    orthanc: OrthancServer, tmp_path: Path, dialect: str
) -> None:
    async with EmbeddedArchive(tmp_path / "one") as one, EmbeddedArchive(tmp_path / "two") as two:
        async with DicomWeb(one.url, auth=one.auth, settings=FAST) as client:
            (await client.upload(list(MADE.values()))).raise_for_failures()
        source, back = (
            ArchiveEnd(DicomWeb(each.url, auth=each.auth, dialect=dialect, settings=FAST)) for each in (one, two)
        )
        async with source, back, end_of(orthanc) as end:
            await end.probe()
            assert await end.study(STUDY) is None
            listed = [each async for some in source.instances(STUDY) for each in some]
            outcomes = [each async for each in end.store(source.open(Selection(STUDY, None, listed, True, True)))]
            assert {each.where: each.status for each in outcomes} == dict.fromkeys(MADE, Status.STORED)
            assert {one: orthanc.file(one) for one in MADE} == MADE

            assert [each async for some in end.studies() for each in some] == [
                ListedStudy(STUDY, (await end.study(STUDY) or ListedStudy("")).date, len(MADE))
            ]
            there = [each async for some in end.instances(STUDY) for each in some]
            assert {each.uid: each.series for each in there} == {each.uid: each.series for each in listed}
            assert await opened(end, Selection(STUDY, None, there, whole=True)) == MADE
            some = there[3:6] + there[-2:]
            assert await opened(end, Selection(STUDY, None, some)) == {each.uid: MADE[each.uid] for each in some}
            nearly = sorted(each for each in there if each.series == uid(1, 1))[:10]
            assert set(await opened(end, Selection(STUDY, uid(1, 1), nearly))) == {each.uid for each in nearly}

            outcomes = [each async for each in back.store(end.open(Selection(STUDY, None, there, True, True)))]
            assert {each.status for each in outcomes} == {Status.STORED}
            assert await opened(back, Selection(STUDY, None, there, whole=True)) == MADE


async def test_orthanc_deletes_nothing_over_dicomweb_and_that_is_said(orthanc: OrthancServer) -> None:
    async with end_of(orthanc) as end:
        async with DicomWeb(orthanc.url, auth=(orthanc.username, orthanc.password), settings=FAST) as client:
            (await client.upload(list(MADE.values()))).raise_for_failures()
        with pytest.raises(ServerError, match="does not offer this"):
            await end.delete(STUDY, [InstanceUids(STUDY, uid(1, 1), uid(1, 1, 1))])
        with pytest.raises(ServerError, match="does not offer this"):
            await end.delete(STUDY, None)
    assert orthanc.instance_uids() == set(MADE)
