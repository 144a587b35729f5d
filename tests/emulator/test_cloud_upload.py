"""DICOM files over the Cloud API: parts in any order, and what becomes of them."""

from __future__ import annotations

from itertools import count, permutations
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.emulator.cloud_support import (
    INSTITUTION,
    OTHER_INSTITUTION,
    PART,
    UNKNOWN,
    ZERO,
    Account,
    account_fixture,  # noqa: F401 - a fixture
    create,
    dicom,
    found,
    main_socket,
    make,
    order_of,
    parts,
    raw_socket,
)
from tests.emulator.support import make_instance, parts_of, store
from tests.emulator.vendor_support import order_uuids, properties, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.emulator.cloud_support import Answer

ORDER = EmbeddedArchive.order_uuid("1.2.3")


def order_in(answer: Answer) -> str | None:
    """Return the order that an accepted part's answer tells."""
    assert answer.message_type == 6
    assert answer.envelope["ResponseCode"] == 1, answer.envelope
    order = answer.envelope["ResponseMessage"]["PatientOrder"]
    return None if order is None else str(order["PatientOrderUuid"])


def incoming(archive: EmbeddedArchive) -> list[Path]:
    """Return what is not whole yet."""
    return list((archive.folder / "incoming").iterdir())


async def held(account: Account, study: str = "1.2.3") -> list[bytes]:
    """Return the files of a study as DICOMweb retrieves them, and insist that they are so on disk."""
    answer = await account.client.get(f"/studies/{study}")
    files = [part.body for part in parts_of(answer)] if answer.status_code == 200 else []
    assert files == [one.path.read_bytes() for one in account.archive.store.instances(study)]
    return files


@pytest.mark.parametrize("size", [2_000, PART - 2, PART, PART + 2, 2 * PART, 3 * PART + 2])
async def test_a_file_is_found_and_retrieved(account: Account, size: int) -> None:
    data, socket = dicom(size), account.socket

    answer = await socket.file(await socket.begin_upload(), data)

    assert order_in(answer) == ORDER
    assert (
        answer.envelope["ResponseMessage"]["PatientOrder"].items()
        >= {
            "PatientName": "Doe^Jane",
            "PatientOrderInstitutionUuid": INSTITUTION,
            "ImagesCount": 1,
        }.items()
    )
    (study,) = (await account.client.get("/studies?PatientName=Doe*")).json()
    assert study["0020000D"]["Value"] == ["1.2.3"]
    assert await held(account) == [data]
    assert await found(socket) == await order_uuids(account.client) == [ORDER]
    assert incoming(account.archive) == []
    assert not account.archive.cloud.deviations


@pytest.mark.parametrize("turn", list(permutations(range(3))))
async def test_parts_in_any_order(account: Account, turn: tuple[int, ...]) -> None:
    data = dicom(2 * PART + 500)
    pieces, session = parts(data), await account.socket.begin_upload()

    answers = [order_in(await account.socket.part(session, pieces[index], index, 3)) for index in turn]

    assert answers == [None, None, ORDER]
    assert await held(account) == [data]


async def test_parts_over_several_sockets_at_once(account: Account) -> None:
    archive, numbers = account.archive, count(1_000)
    files = [dicom(5 * PART + 100 * number, number) for number in range(1, 5)]
    session, upload = next(iter(archive.cloud.sessions)), await account.socket.begin_upload()
    async with raw_socket(archive, session, 2, numbers) as a, raw_socket(archive, session, 2, numbers) as b:
        sent: dict[Any, list[int]] = {a: [], b: []}
        for file, data in enumerate(files):
            for index, piece in enumerate(parts(data)):
                socket = (a, b)[index % 2]
                sent[socket].append(await socket.send_part(upload, piece, index, 6, file))
        answers = [order_in(answer) for socket in (a, b) for answer in await socket.answers(sent[socket])]

    assert sorted(answers, key=str) == [ORDER] * 4 + [None] * 20
    assert sorted(await held(account)) == sorted(files)


async def test_a_part_that_comes_again_changes_nothing(account: Account) -> None:
    data = dicom(2 * PART + 500)
    pieces, session = parts(data), await account.socket.begin_upload()

    answers = [order_in(await account.socket.part(session, pieces[at], at, 3)) for at in (0, 0, 1, 0, 2, 2, 0, 1)]

    assert answers == [None, None, None, None, ORDER, ORDER, ORDER, ORDER]
    assert await held(account) == [data]
    assert incoming(account.archive) == []


async def test_parts_sent_twice_at_once_make_one_file(account: Account) -> None:
    session = await account.socket.begin_upload()
    files = [dicom(PART + 500 + number, number) for number in range(1, 9)]

    sent = [
        await account.socket.send_part(session, piece, index, 2, file)
        for file, data in enumerate(files)
        for index, piece in enumerate(parts(data))
        for _ in range(3)
    ]
    answers = [order_in(answer) for answer in await account.socket.answers(sent)]

    assert answers.count(ORDER) >= 8
    assert sorted(await held(account)) == sorted(files)
    assert incoming(account.archive) == []


async def test_a_part_of_another_total_begins_the_file_anew(account: Account) -> None:
    first, second = dicom(3 * PART, 1), dicom(2 * PART, 2)
    session, socket = await account.socket.begin_upload(), account.socket

    assert order_in(await socket.part(session, parts(first)[0], 0, 3)) is None
    assert order_in(await socket.part(session, parts(first)[1], 1, 3)) is None
    assert order_in(await socket.file(session, second)) == ORDER

    assert await held(account) == [second]


@pytest.mark.parametrize(
    ("length", "index", "total", "reason"),
    [
        (PART - 1, 0, 2, "the part has another length than 512 KiB"),
        (PART + 1, 0, 1, "the part has another length than 512 KiB"),
        (PART + 1, 1, 2, "the part has another length than 512 KiB"),
        (0, 0, 1, "the part is empty"),
        (0, 1, 2, "the part is empty"),
        (5, 1, 1, "there is no such part"),
        (5, 0, 0, "there is no such part"),
        (5, -1, 1, "CurrentFilePartIndex: a whole number of at least 0 is expected"),
    ],
)
async def test_parts_that_are_none(account: Account, length: int, index: int, total: int, reason: str) -> None:
    session = await account.socket.begin_upload()

    answer = await account.socket.part(session, bytes(length), index, total)

    assert answer.envelope == {"ResponseCode": 0, "ResponseMessage": None, "Message": reason}
    assert incoming(account.archive) == []
    assert account.archive.cloud.executed[23, 3] == 0


# --- sessions of uploads ----------------------------------------------------------------------------------------------


async def test_either_session_may_be_named(account: Account) -> None:
    api = next(iter(account.archive.cloud.sessions))
    told = await account.socket.begin_upload()

    assert told != api
    assert order_in(await account.socket.file(told, dicom(number=1))) == ORDER
    assert order_in(await account.socket.file(api.upper(), dicom(number=2), 1)) == ORDER
    assert (await account.socket.file(UNKNOWN, dicom(number=3), 2)).reason == "no such upload session"
    assert len(await held(account)) == 2


async def test_the_session_of_an_upload_may_be_that_of_the_api(account: Account) -> None:
    account.archive.cloud.oddities.upload_session = "same"

    assert await account.socket.begin_upload() == next(iter(account.archive.cloud.sessions))


async def test_the_session_of_an_upload_may_not_be_told(account: Account) -> None:
    oddities = account.archive.cloud.oddities
    oddities.upload_session = "missing"
    given: dict[str, Any] = {
        "InstitutionUuid": INSTITUTION,
        "TotalFileSize": 1,
        "UploaderUuid": ZERO,
        "UploaderName": " - API",
    }

    answer = await account.socket.upload(1, **given)

    assert answer.envelope == {"ResponseCode": 1, "ResponseMessage": {"Success": True, "Message": ""}}


@pytest.mark.parametrize("kind", ["new", "same"])
async def test_uploads_one_after_another_are_not_mixed_up(account: Account, kind: Any) -> None:
    """The vendor's library names the API's session and counts files from 0 each time."""
    account.archive.cloud.oddities.upload_session = kind
    api, socket = next(iter(account.archive.cloud.sessions)), account.socket
    folders = [await make(socket, name) for name in "ab"]
    data = dicom(PART + 500)
    for folder in folders:
        await socket.begin_upload()
        assert order_in(await socket.file(api, data, FolderUuidList=[folder])) == ORDER
    assert (await properties(account.archive, account.client, ORDER))["FolderUuidList"] == folders

    await socket.told(6, PatientOrderInstitutionUuid=INSTITUTION, PatientOrderUuid=ORDER)
    await socket.begin_upload()
    assert order_in(await socket.file(api, data)) == ORDER
    assert await held(account) == [data]


async def test_a_deleted_file_may_come_again(account: Account) -> None:
    data, session = dicom(), await account.socket.begin_upload()
    await account.socket.file(session, data)
    await account.client.delete("/studies/1.2.3")
    assert await held(account) == []

    assert order_in(await account.socket.file(session, data)) == ORDER

    assert await held(account) == [data]


async def test_two_uploads_at_once(account: Account) -> None:
    first, second = dicom(2 * PART, 1), dicom(2 * PART, 2)
    a, b = await account.socket.begin_upload(), await account.socket.begin_upload()

    for index in range(2):
        for session, data in ((a, first), (b, second)):
            await account.socket.part(session, parts(data)[index], index, 2)

    assert a != b
    assert sorted(await held(account)) == sorted([first, second])


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, PART + 10])
async def test_what_is_not_dicom_is_refused_each_time(account: Account, size: int) -> None:
    """Also when its last part comes again because the answer was lost."""
    session = await account.socket.begin_upload()
    pieces = parts(bytes(size))

    answers = [await account.socket.file(session, bytes(size))]
    answers += [await account.socket.part(session, pieces[-1], len(pieces) - 1, len(pieces)) for _ in range(2)]

    assert [answer.reason for answer in answers] == ["the file is not DICOM"] * 3
    assert answers[0].envelope["ResponseMessage"] is None
    assert incoming(account.archive) == []
    assert (await account.client.get("/studies")).json() == []
    assert order_in(await account.socket.file(session, dicom(size + 2_000))) == ORDER, "another file may take its place"


async def test_files_that_an_archive_does_not_take() -> None:
    data = dicom()
    sop_class = "1.2.840.10008.5.1.4.1.1.2"
    async with (
        EmbeddedArchive(options=ArchiveOptions(refused_sop_classes=[sop_class])) as archive,
        main_socket(archive) as socket,
    ):
        session = await socket.begin_upload()
        assert (await socket.file(session, data)).reason == "this SOP class is not stored"
        no_uid = make_instance("", "1.2.3.1", "1.2.3.1.1", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
        assert (await socket.file(session, no_uid, 1)).reason == "the file has no valid UIDs"
        assert archive.store.instances() == []
        assert incoming(archive) == []


@pytest.mark.parametrize("kind", [0, 5, 6, 7, 8, -1])
async def test_other_kinds_of_upload_messages_are_refused(account: Account, kind: int) -> None:
    answer = await account.socket.upload(kind, InstitutionUuid=INSTITUTION)

    assert answer.reason == "this management type is not known"
    assert f"23/{kind}: no such management type" in account.archive.cloud.deviations


@pytest.mark.parametrize("name", ["InstitutionUuid", "SessionUniqueUuid", "FileIndex", "CurrentFilePartIndex"])
async def test_what_a_part_needs(account: Account, name: str) -> None:
    socket = account.socket
    good = socket.part_of(await socket.begin_upload(), 0, 1)
    for wrong in ("x", None, 1.5, UNKNOWN):
        answer = await socket.ask(23, 3, {**good, name: wrong}, dicom(), socket.archive.cloud_user_uuid)
        assert answer.reason.startswith((name, "no such upload session", "no such institution"))
    assert (await account.client.get("/studies")).json() == []


# --- folders, institutions, files that are there ----------------------------------------------------------------------


async def test_a_study_goes_into_folders(account: Account) -> None:
    socket = account.socket
    folders = [await make(socket, name) for name in "ab"]
    session = await socket.begin_upload()

    assert (await socket.file(session, dicom(), FolderUuidList=[folders[0], UNKNOWN])).reason == "no such folder"
    assert (await account.client.get("/studies")).json() == []
    await socket.file(session, dicom(PART + 500, 1), 1, FolderUuidList=folders[:1])
    await socket.file(session, dicom(number=2), 2, FolderUuidList=folders)
    await socket.file(session, dicom(number=3), 3)

    there = await told(account.client, "searchfolder", GetOrdersInFolder="True")
    for folder in there["FolderList"]:
        assert [(one["PatientOrderUuid"], one["ImagesCount"]) for one in folder["PatientOrderList"]] == [(ORDER, 3)]


async def test_a_study_belongs_to_the_institution_it_came_to_first(account: Account) -> None:
    session = await account.socket.begin_upload()

    first = await account.socket.file(session, dicom(number=1), InstitutionUuid=OTHER_INSTITUTION)
    await account.socket.file(session, dicom(number=2), 1)

    assert order_in(first) == ORDER
    order = await order_of(account.socket, ORDER, OTHER_INSTITUTION)
    assert (order["PatientOrderInstitutionUuid"], order["ImagesCount"]) == (OTHER_INSTITUTION, 2)
    assert await order_uuids(account.client, InstitutionUuidList=[OTHER_INSTITUTION]) == [ORDER]


async def test_a_file_replaces_one_of_the_same_uid(account: Account) -> None:
    session = await account.socket.begin_upload()
    await account.socket.file(session, dicom(size=2_000, name="Old^Name"))
    await account.socket.file(session, dicom(size=2_000, name="Old^Name"), 1)

    await account.socket.file(session, dicom(size=3_000, name="New^Name"), 2)

    assert await held(account) == [dicom(size=3_000, name="New^Name")]
    assert (await order_of(account.socket, ORDER))["PatientName"] == "New^Name"


async def check(account: Account, **uids: str) -> dict[str, Any]:
    given = {
        "SessionUniqueUuid": next(iter(account.archive.cloud.sessions)),
        "InstitutionUuid": INSTITUTION,
        "UserUuid": account.archive.cloud_user_uuid,
        **uids,
        "ApiKey": account.archive.cloud_api_key,
        "AccountKey": account.archive.cloud_account_key,
    }
    answer = await account.socket.ask(23, 2, given, b"", account.archive.cloud_user_uuid)
    assert answer.message_type == 6
    assert answer.envelope["ResponseCode"] == 1
    envelope: dict[str, Any] = answer.envelope
    return envelope


def uids_of(number: int, series: str = "1.2.3.1") -> dict[str, str]:
    return {
        "StudyInstanceUid": "1.2.3",
        "PatientName": "Doe^Jane",
        "PatientId": "",
        "SeriesInstanceUid": series,
        "SopInstanceUid": f"1.2.3.1.{number}",
    }


async def test_whether_a_file_is_there(account: Account) -> None:
    before = await check(account, **uids_of(1))
    await account.socket.file(await account.socket.begin_upload(), dicom(number=1))
    await store(account.client, dicom(number=2))
    after = [await check(account, **uids_of(number)) for number in (1, 2, 3)]

    assert before["StudyInstanceUid"] == "1.2.3"
    assert before["ResponseMessage"] == {"Success": True, "Message": "", "FileIfExist": False, "PatientOrder": None}
    told = [(one["ResponseMessage"]["FileIfExist"], one["StudyInstanceUid"]) for one in after]
    assert told == [(True, "1.2.3"), (True, "1.2.3"), (False, "1.2.3")]
    assert {one["ResponseMessage"]["PatientOrder"]["PatientOrderUuid"] for one in after} == {ORDER}
    elsewhere = await check(account, **uids_of(1, series="1.2.3.2"))
    assert elsewhere["ResponseMessage"]["FileIfExist"] is False
    assert not account.archive.cloud.deviations

    for lacking in ({}, {"SopInstanceUid": "1.2.3.1.1"}, {"StudyInstanceUid": "1.2.3"}):
        assert (await check(account, **lacking))["ResponseMessage"]["FileIfExist"] is False
    folder = await make(account.socket, "a")
    assert (await check(account, FolderUuid=folder, **uids_of(1)))["ResponseMessage"]["FileIfExist"] is True


async def test_an_order_without_images_is_no_study(account: Account) -> None:
    order = await create(account.socket, PatientName="Doe^Jane", PatientID="")

    await account.socket.file(await account.socket.begin_upload(), dicom())

    assert await found(account.socket, PatientName="Doe") == [order, ORDER]
