"""Upload, to every archive."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from postdicom_async import (
    Anonymization,
    AuthenticationFailed,
    DicomWeb,
    InstanceUids,
    LocalFileError,
    NotFound,
    PostdicomError,
    Status,
    TransferError,
    UsageError,
)
from postdicom_async.emulator.samples import pydicom_test_files
from tests.live.conftest import ORTHANC, SETTINGS, Server
from tests.live.support import Progress, by_uid, dataset_of, require_identical, require_stored
from tests.support.dicom_files import DEFLATED, IMPLICIT, JPEG, small_dicom, study_files, uid


async def test_samples_with_progress(
    any_archive: DicomWeb, samples: Path, transport_name: str, any_server: Server
) -> None:
    progress = Progress()
    async with any_server.client(transport_name) as client:
        report = await client.upload(samples, progress=progress)
    size = sum(path.stat().st_size for path in samples.rglob("*.dcm"))
    require_stored(report, 21)
    assert report.bytes_sent == size
    assert [outcome.size for outcome in report.outcomes] == [Path(o.where).stat().st_size for o in report.outcomes]
    progress.require_sound(instances=21, size=size)
    assert progress.events[-1].totals.bytes_total == size


async def test_pydicoms_own_files_and_back(archive: DicomWeb, tmp_path: Path) -> None:
    paths = pydicom_test_files()
    report = await archive.upload(paths)
    assert len(paths) > 40
    refused = [outcome for outcome in report.outcomes if outcome.status is Status.FAILED]
    assert all(outcome.in_archive or outcome in refused for outcome in report.outcomes)
    assert len(refused) <= 3, [(outcome.reason_code, outcome.reason) for outcome in refused]
    assert all(outcome.reason for outcome in refused)
    stored = by_uid(Path(outcome.where) for outcome in report.outcomes if outcome.in_archive)
    came_back: dict[str, bytes] = {}
    for study in {
        outcome.uids.study_instance_uid for outcome in report.outcomes if outcome.uids and outcome.in_archive
    }:
        download = await archive.download_study(study, to=tmp_path / "out")
        came_back |= {one.uids.sop_instance_uid: one.path.read_bytes() for one in download.saved if one.uids}
    assert came_back == stored


async def test_an_anonymised_copy_where_its_original_is(
    any_archive: DicomWeb, any_server: Server, tmp_path: Path
) -> None:
    """Orthanc, as it is set up here, keeps what it has and says that it stored the copy; the other replaces it."""
    files = list(study_files(3).values())
    rules = Anonymization({"PatientName": "ANON"})
    require_stored(await any_archive.upload(files[:2]), 2)
    report = await any_archive.upload(files, anonymize=rules)
    keeps = any_server.name == ORTHANC
    assert [outcome.status for outcome in report.outcomes] == [*["failed" if keeps else "stored"] * 2, "stored"]
    assert ("perhaps the original" in str(report.outcomes[0].reason)) == keeps
    remapped = await any_archive.upload(files, anonymize=Anonymization({"PatientName": "ANON"}, remap_uids=True))
    require_stored(remapped, 3)


async def test_two_variants_of_a_study_under_one_secret(archive: DicomWeb, archive_server: Server) -> None:
    """Orthanc files by Patient ID, and returns neither variant any more; the other replaces the first."""
    first, second, third = study_files(3).values()
    rules = {one: Anonymization({"PatientID": one}, remap_uids=True, secret="of both variants") for one in "AB"}
    require_stored(await archive.upload([first], anonymize=rules["A"]), 1)
    require_stored(await archive.upload([second], anonymize=rules["A"]), 1)
    report = await archive.upload([second, third], anonymize=rules["B"])
    if archive_server.name != ORTHANC:
        require_stored(report, 2)
        return
    assert report.counts == {Status.UNCONFIRMED: 2}
    (reason,) = {str(one.reason) for one in report.outcomes}
    assert reason.startswith("the archive lists its study under more than one Patient ID, and may return it under none")
    assert reason.endswith("delete the wrong one there; a variant needs another secret")
    with pytest.raises(NotFound):
        await archive.retrieve_instance(*rules["A"].uids_after(InstanceUids(uid(1), uid(1, 1), uid(1, 1, 2))))
    again = await archive.upload([first], anonymize=rules["A"], existing="skip")
    assert [(one.status, str(one.reason).partition(",")[0]) for one in again.outcomes] == [
        (Status.FAILED, "not sent: the archive lists its study under more than one Patient ID")
    ]


async def test_every_kind_of_source(any_archive: DicomWeb, tmp_path: Path) -> None:
    one, two, three, four = study_files(4).values()
    (tmp_path / "file").write_bytes(one)

    async def arriving() -> AsyncIterator[bytes]:
        yield three

    def generated() -> Iterator[bytes]:
        yield four

    require_stored(await any_archive.upload(tmp_path / "file"), 1)
    require_stored(await any_archive.upload(dataset_of(two)), 1)
    require_stored(await any_archive.upload(arriving()), 1)
    require_stored(await any_archive.upload(generated()), 1)
    found = await any_archive.search_for_instances(study_instance_uid=uid(1), series_instance_uid=uid(1, 1)).all()
    assert len(found) == 4


@pytest.mark.parametrize("syntax", [IMPLICIT, DEFLATED, JPEG])
async def test_bytes_go_and_come_as_they_are(archive: DicomWeb, tmp_path: Path, syntax: str) -> None:
    data = small_dicom(transfer_syntax=syntax)
    require_stored(await archive.upload(data), 1)
    require_identical(await archive.download_study(uid(1), to=tmp_path), {uid(1, 1, 1): data})


async def test_a_folder_with_other_files_in_it(any_archive: DicomWeb, tmp_path: Path) -> None:
    for number, data in enumerate(study_files(3).values()):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    (tmp_path / "readme.dcm").write_text("not DICOM")
    (tmp_path / "empty").touch()
    (tmp_path / "cut").write_bytes(small_dicom()[:170])
    progress = Progress()
    report = await any_archive.upload(tmp_path, progress=progress)
    assert dict(report.counts) == {
        Status.STORED: 3,
        Status.NOT_DICOM: 2,
        Status.UNREADABLE: 1,
    }
    assert not report.ok
    assert [Path(outcome.where).name for outcome in report.failures] == ["cut"]
    with pytest.raises(TransferError) as caught:
        report.raise_for_failures()
    assert caught.value.report is report
    progress.require_sound(instances=6, size=report.bytes_sent)
    assert progress.events[-1].totals.bytes_total == report.bytes_sent


async def test_duplicates_within_an_upload(any_archive: DicomWeb) -> None:
    first, second = study_files(2).values()
    other = small_dicom(uid(1), uid(1, 1), uid(1, 1, 1), patient_id="other")
    report = await any_archive.upload([first, second, first, other, bytes(first)])
    assert [outcome.status for outcome in report.outcomes] == [
        Status.STORED,
        Status.STORED,
        Status.DUPLICATE,
        Status.FAILED,
        Status.DUPLICATE,
    ]
    assert report.bytes_sent == len(first) + len(second)


async def test_the_same_upload_again(any_archive: DicomWeb, tmp_path: Path) -> None:
    files = study_files(8, series=2)
    require_stored(await any_archive.upload(list(files.values())), 8)
    again = await any_archive.upload(list(files.values()))
    assert again.ok, [(outcome.status, outcome.reason) for outcome in again.failures]
    require_identical(await any_archive.download_study(uid(1), to=tmp_path), files)


async def test_the_same_uid_with_other_bytes(archive: DicomWeb, archive_server: Server, tmp_path: Path) -> None:
    """No archive may be believed to hold what it does not: Orthanc keeps the first file and says that it stored it."""
    old, new = small_dicom(patient_name="OLD"), small_dicom(patient_name="NEW")
    require_stored(await archive.upload(old), 1)
    report = await archive.upload(new)
    (kept,) = (await archive.download_study(uid(1), to=tmp_path)).saved
    assert kept.path.read_bytes() in (old, new)
    if archive_server.name == ORTHANC:
        assert kept.path.read_bytes() == old
    elif report.ok:
        assert kept.path.read_bytes() == new


@pytest.mark.above_the_transport
async def test_500_instances_at_once(archive: DicomWeb, transport_name: str, archive_server: Server) -> None:
    files = study_files(500, series=4, pixel_bytes=512)
    async with archive_server.client(transport_name) as client:
        report = await client.upload(list(files.values()))
        require_stored(report, 500)
        found = await client.search_for_instances(study_instance_uid=uid(1)).raw.all()
        assert {item["00080018"]["Value"][0] for item in found} == set(files)


async def test_store_instances_in_one_request(any_archive: DicomWeb) -> None:
    files = study_files(12, series=2)
    outcomes = await any_archive.store_instances([*files.values(), b"not DICOM"])
    assert [outcome.status for outcome in outcomes] == [Status.STORED] * 12 + [Status.NOT_DICOM]
    assert [outcome.uids.sop_instance_uid for outcome in outcomes if outcome.uids] == list(files)


async def test_only_one_study(archive: DicomWeb) -> None:
    own, foreign = small_dicom(), small_dicom(uid(2), uid(2, 1), uid(2, 1, 1))
    for outcomes in (
        (await archive.upload([own, foreign], study_instance_uid=uid(1))).outcomes,
        await archive.store_instances([own, foreign], study_instance_uid=uid(1)),
    ):
        assert [outcome.status for outcome in outcomes] == [Status.STORED, Status.FAILED]
        assert outcomes[1].uids == InstanceUids(uid(2), uid(2, 1), uid(2, 1, 1))
    assert await archive.search_for_studies({"StudyInstanceUID": uid(2)}).all() == []


@pytest.mark.parametrize("nothing", [[], ()])
async def test_nothing_to_do(archive: DicomWeb, tmp_path: Path, nothing: list[bytes]) -> None:
    for sources in (nothing, tmp_path):
        report = await archive.upload(sources)
        assert report.ok
        assert report.outcomes == ()


async def test_missing_folder(archive: DicomWeb, tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="does not exist"):
        await archive.upload(tmp_path / "nothing")


@pytest.mark.parametrize("auth", [("demo", "wrong"), ("nobody", "demo"), "token", None])
async def test_wrong_credentials(
    archive_server: Server, auth: tuple[str, str] | str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with DicomWeb(archive_server.url, auth=auth, settings=SETTINGS) as client:
        with pytest.raises(AuthenticationFailed) as stored:
            await client.upload(list(study_files(7).values()))
        with pytest.raises(AuthenticationFailed) as searched:
            await client.search_for_studies().all()
        with pytest.raises(AuthenticationFailed) as downloaded:
            await client.download_study(uid(1), to=tmp_path / "out")
    gc.collect()  # asyncio tells of exceptions that nobody looked at
    assert not [record for record in caplog.records if record.name == "asyncio"]
    for error in (stored.value, searched.value, downloaded.value):
        assert error.status in {401, 403}
        assert not error.temporary


async def test_wrong_address(archive_server: Server, tmp_path: Path) -> None:
    wrong = Server("x", archive_server.url + "/no/such/service", archive_server.auth)
    async with wrong.client() as client:
        for call in (
            client.upload(small_dicom()),
            client.search_for_studies().all(),
            client.download_study(uid(1), to=tmp_path),
        ):
            with pytest.raises((NotFound, PostdicomError)):
                await call


async def test_delete(embedded_server: Server) -> None:
    files = study_files(6, series=3)
    async with embedded_server.client() as client:
        await client.upload(list(files.values()))
        await client.delete_instance(uid(1), uid(1, 1), uid(1, 1, 1))
        await client.delete_series(uid(1), uid(1, 2))
        left = await client.search_for_instances(study_instance_uid=uid(1)).all()
        assert {item.SOPInstanceUID for item in left} == {uid(1, 1, 4), uid(1, 3, 3), uid(1, 3, 6)}
        await client.delete_study(uid(1))
        assert await client.search_for_studies().all() == []
        for call in (
            client.delete_study(uid(1)),
            client.delete_series(uid(1), uid(1, 1)),
            client.delete_instance(uid(1), uid(1, 1), uid(1, 1, 1)),
        ):
            with pytest.raises(NotFound):
                await call


async def test_an_archive_that_does_not_delete(orthanc: object, archive: DicomWeb, archive_server: Server) -> None:
    if archive_server.name != ORTHANC:
        return
    with pytest.raises(PostdicomError) as caught:
        await archive.delete_study(uid(1))
    assert caught.value.status == 405
    assert not caught.value.temporary


async def test_arguments_are_checked_before_anything_is_sent(archive: DicomWeb) -> None:
    with pytest.raises(UsageError, match="study_instance_uid"):
        await archive.upload(small_dicom(), study_instance_uid="../x")
    with pytest.raises(UsageError, match="series_instance_uid"):
        await archive.delete_series(uid(1), "")
