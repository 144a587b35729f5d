"""Upload of DICOM files to the embedded archive: what arrives, what is asked, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import (
    Anonymization,
    BytesMoved,
    InstanceFinished,
    LocalFileError,
    ProgressEvent,
    ServerError,
    Status,
    UsageError,
)
from postdicom_async.emulator.cloud.oddities import Drop
from tests.cloud.conftest import COLLEAGUE, INSTITUTION, OTHER, Account, client_of
from tests.cloud.files import PART, dicom_of_size, held_by, study_in
from tests.support.dicom_files import small_dicom, uid

CHECK, FILE_PART, ADD_ORDER = (23, 2), (23, 3), (17, 8)
UNKNOWN = "5a1c0000-0000-4000-8000-999999999999"


async def test_a_folder_arrives_byte_for_byte(account: Account, tmp_path: Path) -> None:
    files = study_in(tmp_path / "one") | study_in(tmp_path / "two", study=2)
    (tmp_path / "notes.txt").write_text("no DICOM")
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    assert report.ok
    assert report.counts == {Status.STORED: 10, Status.NOT_DICOM: 1}
    assert report.bytes_sent == sum(map(len, files.values()))
    assert held_by(account.server) == files
    orders = await account.api.orders.search(institution_uuids=[INSTITUTION]).all()
    assert set(report.patient_order_uuids) == {order.patient_order_uuid for order in orders}
    named = {one.patient_order_uuid for one in report.outcomes if one.in_archive}
    assert named == set(report.patient_order_uuids)
    assert len(orders) == 2
    async with account.dicomweb() as archive:
        got = await archive.download_study(uid(2), to=tmp_path / "back")
    assert {one.uids.sop_instance_uid: one.path.read_bytes() for one in got.saved if one.uids}.items() <= files.items()


@pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 17])
async def test_parts(account: Account, size: int) -> None:
    data = dicom_of_size(size)
    report = await account.api.upload(data, institution_uuid=INSTITUTION, sockets=2)
    assert report.ok
    parts = sorted(account.server.cloud.sent(FILE_PART), key=lambda part: part.parameters["CurrentFilePartIndex"])
    total = -(-size // PART)
    assert [part.parameters["CurrentFilePartIndex"] for part in parts] == list(range(total))
    assert {part.parameters["CurrentFileTotalPartCount"] for part in parts} == {total}
    assert [part.data_length for part in parts] == [PART] * (total - 1) + [size - PART * (total - 1)]
    assert list(held_by(account.server).values()) == [data]


async def test_several_sockets_with_one_part_on_each(account: Account, tmp_path: Path) -> None:
    (tmp_path / "large.dcm").write_bytes(dicom_of_size(20 * PART + 5))
    study_in(tmp_path / "small", 30)
    cloud = account.server.cloud
    cloud.oddities.latency = 0.005
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=8)
    assert report.ok
    used = {part.socket for part in cloud.sent(FILE_PART)}
    assert len(used) == len(cloud.sent((3, 2))) == 8
    assert set(cloud.most_in_flight.values()) == {1}
    assert cloud.sockets == 1, "those of the upload are closed"


async def test_no_more_sockets_than_there_is_work_for(account: Account) -> None:
    report = await account.api.upload(small_dicom(), institution_uuid=INSTITUTION, sockets=8)
    assert report.ok
    assert len(account.server.cloud.sent((3, 2))) == 1


async def test_what_is_announced(account: Account, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(dicom_of_size(2048))
    (tmp_path / "b").write_bytes(dicom_of_size(1025, 2))
    await account.api.upload(tmp_path, institution_uuid="north")
    (announced,) = account.server.cloud.sent((23, 1))
    assert announced.parameters["TotalFileSize"] == 3073 / 1024
    assert announced.parameters["UploaderName"] == "Some Body - API"
    data = small_dicom(uid(3), uid(3, 1), uid(3, 1, 1))
    await account.api.as_user(COLLEAGUE).upload([data], institution_uuid=OTHER)
    announced = account.server.cloud.sent((23, 1))[-1]
    assert (announced.parameters["UploaderUuid"], announced.user_text) == (COLLEAGUE, COLLEAGUE)
    assert announced.parameters["TotalFileSize"] == len(data) / 1024
    (order,) = await account.api.orders.search(institution_uuids=[OTHER]).all()
    assert order.patient_order_uuid


# --- what the service has already -----------------------------------------------------------------------------------


async def test_what_is_there_is_skipped(account: Account, tmp_path: Path) -> None:
    study_in(tmp_path, 6)
    cloud = account.server.cloud
    first = await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    assert len(cloud.sent(CHECK)) == 1, "after no for the first file of a study the others are not asked for"
    again = await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    assert again.ok
    assert again.counts == {Status.PRESENT: 6}
    assert again.bytes_sent == 0
    assert again.patient_order_uuids == first.patient_order_uuids
    assert len(cloud.sent(CHECK)) == 7, "after yes each is asked for"
    assert len(cloud.sent(FILE_PART)) == 6
    asked = cloud.sent(CHECK)[0].parameters
    assert (asked["PatientName"], asked["PatientId"], asked["StudyInstanceUid"]) == ("TEST^FILE", "T-1", uid(1))


async def test_only_the_rest_is_sent(account: Account, tmp_path: Path) -> None:
    files = study_in(tmp_path, 6)
    for name in list(files)[:3]:
        await account.api.upload(tmp_path / f"{name}.dcm", institution_uuid=INSTITUTION)
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=1)
    assert report.counts == {Status.PRESENT: 3, Status.STORED: 3}
    assert held_by(account.server) == files


async def test_or_sent_all_the_same(account: Account, tmp_path: Path) -> None:
    study_in(tmp_path, 3)
    for _ in range(2):
        report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, existing="send")
        assert report.counts == {Status.STORED: 3}
    assert not account.server.cloud.sent(CHECK)
    assert len(account.server.cloud.sent(FILE_PART)) == 6


async def test_into_a_folder(account: Account, tmp_path: Path) -> None:
    study_in(tmp_path / "one", 3)
    study_in(tmp_path / "two", 3, study=2)
    await account.api.upload(tmp_path / "one", institution_uuid=INSTITUTION)
    folder = str((await account.api.folders.create("New")).folder_uuid)
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, folder_uuid=folder)
    assert report.counts == {Status.PRESENT: 3, Status.STORED: 3}
    inside = (await account.api.folders.contents(folder)).orders
    assert {order.patient_order_uuid for order in inside} == set(report.patient_order_uuids)
    assert len(inside) == 2
    assert len(account.server.cloud.sent(ADD_ORDER)) == 1, "an order that was there is put into the folder once"
    assert account.server.cloud.sent(FILE_PART)[-1].parameters["FolderUuidList"] == [folder]
    assert account.server.cloud.sent(CHECK)[-1].parameters["FolderUuid"] == folder


async def test_a_folder_that_is_not_there(account: Account, tmp_path: Path) -> None:
    study_in(tmp_path, 2)
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, folder_uuid=UNKNOWN)
    assert report.counts == {Status.FAILED: 2}
    assert "no such folder" in str(report.failures[0].reason)
    await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, folder_uuid=UNKNOWN)
    assert report.counts == {Status.FAILED: 2}, "there, but not where it should be"


# --- anonymised -----------------------------------------------------------------------------------------------------


async def test_anonymised(account: Account, tmp_path: Path) -> None:
    files = study_in(tmp_path, 3)
    rules = Anonymization({"PatientName": "ANON^1", "PatientID": ""}, remap_uids=True)
    for expected in (Status.STORED, Status.PRESENT):
        report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, anonymize=rules)
        assert report.counts == {expected: 3}
    held = held_by(account.server)
    assert set(held) == {one.uids.sop_instance_uid for one in report.outcomes if one.uids}
    assert not set(held) & set(files)
    assert all(b"TEST^FILE" not in data and b"ANON^1" in data for data in held.values())
    assert {f"{name}.dcm": data for name, data in files.items()} == {
        path.name: path.read_bytes() for path in tmp_path.iterdir()
    }
    asked = account.server.cloud.sent(CHECK)[0].parameters
    assert asked["PatientName"] == "ANON^1"
    assert "PatientId" not in asked


@pytest.mark.parametrize("folder", [True, False])
async def test_an_original_that_is_there_does_not_pass_for_the_anonymised_copy(
    account: Account, tmp_path: Path, folder: bool
) -> None:
    study_in(tmp_path, 3)
    (order,) = (await account.api.upload(tmp_path, institution_uuid=INSTITUTION)).patient_order_uuids
    into = (await account.api.folders.create("To share")).folder_uuid if folder else None
    for rules in (Anonymization.vendor_tags(), Anonymization({"PatientName": "ANON^1"})):
        report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, folder_uuid=into, anonymize=rules)
        assert report.counts == {Status.FAILED: 3}
        assert "perhaps the original; not sent" in str(report.failures[0].reason)
        assert report.patient_order_uuids == (), "whoever shares these would share the original"
    if into:
        assert not (await account.api.folders.contents(into)).orders
    report = await account.api.upload(
        tmp_path, institution_uuid=INSTITUTION, folder_uuid=into, anonymize=Anonymization.vendor_tags(remap_uids=True)
    )
    assert report.counts == {Status.STORED: 3}
    assert order not in report.patient_order_uuids


async def test_one_original_alone_does_not_pass_for_its_copy(account: Account, tmp_path: Path) -> None:
    """Not even where the first file of its study is not there, and the copy's answer is lost."""
    files = study_in(tmp_path, 3)
    last = sorted(tmp_path.iterdir())[-1]
    await account.api.upload(last, institution_uuid=INSTITUTION)
    account.server.cloud.oddities.drops.append(Drop("before", FILE_PART, nth=3))
    report = await account.api.upload(
        tmp_path, institution_uuid=INSTITUTION, sockets=1, anonymize=Anonymization.vendor_tags()
    )
    assert {Path(one.where).name: one.status for one in report.outcomes if not one.in_archive} == {
        last.name: Status.FAILED
    }
    assert report.counts == {Status.STORED: 2, Status.FAILED: 1}
    assert held_by(account.server)[last.stem] == files[last.stem]


# --- sources --------------------------------------------------------------------------------------------------------


async def test_every_source_has_one_outcome(account: Account, tmp_path: Path) -> None:
    files = study_in(tmp_path, 2)
    data = next(iter(files.values()))
    (tmp_path / "twin.dcm").write_bytes(data)
    (tmp_path / "cut.dcm").write_bytes(data[:300])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION)
    assert report.counts == {
        Status.STORED: 2,
        Status.DUPLICATE: 1,
        Status.UNREADABLE: 2,
        Status.NOT_DICOM: 1,
    }
    assert held_by(account.server) == files
    (order,) = report.patient_order_uuids
    assert {one.patient_order_uuid for one in report.outcomes if one.in_archive} == {order}


async def test_nothing_to_send_announces_nothing(account: Account, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    report = await account.api.upload([tmp_path, b"nor this"], institution_uuid=INSTITUTION)
    assert report.counts == {Status.NOT_DICOM: 2}
    assert not account.server.cloud.sent((23, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sockets": 0}, "sockets: give a number from 1 to 64"),
        ({"sockets": True}, "sockets: give a number from 1 to 64"),
        ({"existing": "ask"}, "existing: give 'skip' or 'send'"),
        ({"folder_uuid": "no"}, "folder_uuid: not a UUID"),
        ({"institution_uuid": UNKNOWN}, "institution_uuid: not in the account"),
        ({"institution_uuid": None}, "institution_uuid: the account has 2; name one by its UUID or its name"),
        ({"anonymize": {"PatientName": "X"}}, "anonymize: give an Anonymization, or None"),
        ({"progress": "yes"}, "progress: give a function that takes an event, or None"),
        ({"sources": 5}, "sources: give paths, bytes, data sets, streams, or an iterable of them"),
    ],
)
async def test_mistakes(account: Account, arguments: dict[str, Any], message: str) -> None:
    given = {"sources": small_dicom(), "institution_uuid": INSTITUTION, **arguments}
    with pytest.raises(UsageError) as caught:
        await account.api.upload(**given)
    assert message in str(caught.value)
    assert not [frame for frame in account.server.cloud.frames if frame.message_type == 23]


async def test_a_path_that_is_not_there(account: Account, tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="none: does not exist"):
        await account.api.upload(tmp_path / "none", institution_uuid=INSTITUTION)
    assert not account.server.cloud.sent((23, 1))


@pytest.mark.parametrize(("user", "message"), [(None, "the account has 2"), ("nobody", "not in the account")])
async def test_users_that_are_not_in_the_account(account: Account, user: str | None, message: str) -> None:
    async with client_of(account.server, user=user) as api:
        with pytest.raises(UsageError, match=f"user: {message}"):
            await api.upload(small_dicom(), institution_uuid=INSTITUTION)
        with pytest.raises(UsageError, match=f"user: {message}"):
            await api.folders.search().all()


# --- progress, refusal ----------------------------------------------------------------------------------------------


async def test_progress(account: Account, tmp_path: Path) -> None:
    (tmp_path / "large.dcm").write_bytes(dicom_of_size(5 * PART))
    study_in(tmp_path, 3)
    (tmp_path / "notes.txt").write_text("no DICOM")
    events: list[ProgressEvent] = []
    account.server.cloud.oddities.refused[FILE_PART] = 2
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, progress=events.append)
    assert report.ok
    moved = [event.totals.bytes_done for event in events if isinstance(event, BytesMoved)]
    assert moved == sorted(moved)
    assert moved[-1] == report.bytes_sent == events[-1].totals.bytes_total
    ended = [event.outcome for event in events if isinstance(event, InstanceFinished)]
    assert len(ended) == 5 == events[-1].totals.instances_done == events[-1].totals.instances_total


async def test_a_copy_that_comes_meanwhile_counts_no_byte_twice(account: Account) -> None:
    data, moved = dicom_of_size(20 * PART), asyncio.Event()

    async def sources() -> AsyncIterator[bytes]:
        yield data
        await moved.wait()
        yield data

    def progress(event: ProgressEvent) -> None:
        if isinstance(event, BytesMoved):
            moved.set()

    report = await account.api.upload(sources(), institution_uuid=INSTITUTION, sockets=1, progress=progress)
    assert [one.status for one in report.outcomes] == [Status.STORED, Status.DUPLICATE]
    assert report.bytes_sent == len(data)


async def test_an_upload_that_is_refused(account: Account) -> None:
    account.server.cloud.oddities.refused[(23, 1)] = 1
    with pytest.raises(
        ServerError, match=r"upload: the service refused the upload .*this refusal was asked for"
    ) as caught:
        await account.api.upload(small_dicom(), institution_uuid=INSTITUTION)
    report = caught.value.report
    assert report is not None
    assert [one.status for one in report.outcomes] == [Status.FAILED]  # type: ignore[attr-defined]
    assert report.outcomes[0].reason == "not sent: the service refused the upload"  # type: ignore[attr-defined]


async def test_two_uploads_at_once(account: Account, tmp_path: Path) -> None:
    files = study_in(tmp_path / "one", 20) | study_in(tmp_path / "two", 20, study=2)
    for kind in ("new", "same", "missing"):
        account.server.cloud.oddities.upload_session = kind
        reports = await asyncio.gather(
            account.api.upload(tmp_path / "one", institution_uuid=INSTITUTION, sockets=3, existing="send"),
            account.api.upload(tmp_path / "two", institution_uuid=OTHER, sockets=3, existing="send"),
        )
        assert [report.counts for report in reports] == [{Status.STORED: 20}] * 2
        assert len(set(reports[0].patient_order_uuids + reports[1].patient_order_uuids)) == 2
        assert held_by(account.server) == files
