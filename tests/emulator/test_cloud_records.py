"""What the archive remembers of what came, and what it writes of it: nothing."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from postdicom_async.emulator.cloud import state as cloud_state
from postdicom_async.emulator.cloud.oddities import Drop
from tests.emulator.cloud_support import (
    INSTITUTION,
    LATER,
    UNKNOWN,
    ZERO,
    Account,
    RawSocket,
    account_fixture,  # noqa: F401 - a fixture
    bring_up,
    bring_up_url,
    compact,
    connect_to,
    create,
    dicom,
    encode,
    make,
    raw_get,
    raw_socket,
    until,
)
from tests.support.canaries import CANARIES, CanaryWatch, canary_watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postdicom_async.emulator.cloud.state import Cloud

# --- frames -----------------------------------------------------------------------------------------------------------


async def test_requests_are_remembered_as_they_came(account: Account) -> None:
    cloud, socket = account.archive.cloud, account.socket
    given = socket.keyed(FolderName="x", ParentFolderUuid=ZERO)

    number = await socket.send(17, 2, given)
    await socket.receive()
    session = await socket.begin_upload()
    await socket.file(session, dicom(2_000))

    (frame,) = cloud.sent((17, 2))
    assert (frame.socket, frame.message_type, frame.message_id, frame.management_type) == (1, 17, number, 2)
    assert list(frame.parameters.items()) == list(given.items())
    assert (frame.data_length, frame.user_text, frame.trailing, frame.key) == (0, "", b"\x00", (17, 2))
    (part,) = cloud.sent((23, 3))
    assert (part.data_length, part.user_text) == (2_000, account.archive.cloud_user_uuid)
    assert [one.key for one in cloud.frames] == [(3, 4), (17, 2), (23, 1), (23, 3)]
    assert [one.message_id for one in cloud.frames] == [1, 2, 3, 4]


async def test_what_is_refused_is_remembered_too(account: Account) -> None:
    assert await account.socket.refused(4, FolderUuid=UNKNOWN)
    assert await account.socket.refused(99)

    assert [frame.key for frame in account.archive.cloud.frames][1:] == [(17, 4), (17, 99)]
    assert account.archive.cloud.executed == {(3, 4): 1}


async def test_remembering_can_be_turned_off(account: Account) -> None:
    cloud = account.archive.cloud
    cloud.frames.clear()
    cloud.recording = False

    await make(account.socket, "x")

    assert not cloud.frames
    assert cloud.executed[17, 2] == 1


async def test_sockets_are_numbered_and_counted(account: Account) -> None:
    cloud, session = account.archive.cloud, next(iter(account.archive.cloud.sessions))
    async with raw_socket(account.archive, session, 2) as second:
        await second.told(34)
        assert cloud.sockets == 2
    async with raw_socket(account.archive, session, 2) as third:
        await third.told(34)
    await until(lambda: cloud.sockets == 1)

    assert [frame.socket for frame in cloud.sent((17, 34))] == [2, 3]


async def test_parts_in_flight(account: Account) -> None:
    cloud, socket = account.archive.cloud, account.socket
    session, data = await socket.begin_upload(), bytes(512 * 1024)
    for index in range(3):
        await socket.part(session, data, index, 9)
    assert cloud.most_in_flight == {1: 1}

    api = next(iter(cloud.sessions))
    cloud.oddities.missing = {(23, 3): 100}
    async with raw_socket(account.archive, api, 2, count(100)) as second:
        for index in range(4):
            await second.send_part(session, data, 3 + index, 9)
        await until(lambda: cloud.executed[23, 3] == 7)

    assert cloud.most_in_flight == {1: 1, 2: 4}


# --- deviations -------------------------------------------------------------------------------------------------------


async def deviations(cloud: Cloud, socket: RawSocket, frame: bytes) -> list[str]:
    """Send a frame and return what is noted of it; it is answered all the same."""
    cloud.deviations.clear()
    await socket.connection.send(frame)
    assert (await socket.receive()).envelope["ResponseCode"] == 1
    return list(cloud.deviations)


async def test_frames_that_end_in_another_way(account: Account) -> None:
    cloud, socket = account.archive.cloud, account.socket
    general = encode(17, 9, 34, compact(socket.keyed()))
    session = next(iter(cloud.sessions))
    opening = {
        "SessionUuid": session,
        "OtherParameterList": [f"Api={session}", f"ApiKey={account.archive.cloud_api_key}"],
    }
    register = encode(3, 9, 2, compact(opening))
    note = "the frame does not end as the library's do"

    assert await deviations(cloud, socket, general) == []
    assert await deviations(cloud, socket, general[:-1]) == [f"17/34: {note}"]
    assert await deviations(cloud, socket, general + b"\x00") == [f"17/34: {note}"]
    assert await deviations(cloud, socket, register) == []
    assert await deviations(cloud, socket, register + b"\x00") == [f"3/2: {note}"]
    more = encode(3, 9, 2, compact({**opening, "ApiKey": account.archive.cloud_api_key}))
    assert await deviations(cloud, socket, more) == ["3/2: ApiKey is no field of it"]


async def test_parameters_in_another_order_or_too_many(account: Account) -> None:
    cloud, socket = account.archive.cloud, account.socket
    good = socket.keyed(ParentFolderUuid=ZERO, FolderName="ń")
    turned = {name: good[name] for name in reversed(good)}

    assert await deviations(cloud, socket, encode(17, 9, 2, compact(good))) == []
    assert await deviations(cloud, socket, encode(17, 9, 2, compact(turned))) == [
        "17/2: the fields are in another order"
    ]
    assert await deviations(cloud, socket, encode(17, 9, 2, compact({"More": 1, **good}))) == [
        "17/2: More is no field of it"
    ]
    spaced = compact(good).replace(b":", b": ")
    assert await deviations(cloud, socket, encode(17, 9, 2, spaced)) == [
        "17/2: the JSON text is written in another way"
    ]


async def test_the_user_behind_the_data(account: Account) -> None:
    cloud, socket = account.archive.cloud, account.socket
    session, user = await socket.begin_upload(), account.archive.cloud_user_uuid
    given, note = socket.part_of(session, 0, 1), "23/3: the user UUID behind the data is another than in the JSON text"

    assert await deviations(cloud, socket, encode(23, 9, 3, compact(given), dicom(), user)) == []
    assert await deviations(cloud, socket, encode(23, 9, 3, compact(given), dicom(), "")) == [note]
    assert await deviations(cloud, socket, encode(23, 9, 3, compact(given), dicom(), ZERO)) == [note]


# --- nothing is written -----------------------------------------------------------------------------------------------

API_KEY, ACCOUNT_KEY = "0a0a0a0a-1111-4111-8111-aaaaaaaaaaaa", "0b0b0b0b-2222-4222-8222-bbbbbbbbbbbb"
SESSION = "0c0c0c0c-3333-4333-8333-cccccccccccc"
MAIL, SECRET, NAME = "cnry.quillfeather@example.org", CANARIES["token"], CANARIES["patient_name"]


@pytest.fixture(name="watch")
def _watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[CanaryWatch]:
    monkeypatch.setattr(cloud_state, "uuid4", lambda: UUID(SESSION))
    keys = {"api_key": API_KEY, "account_key": ACCOUNT_KEY, "session": SESSION, "mail": MAIL}
    with canary_watch({**CANARIES, **keys}) as watch:
        yield watch


def archive_of_canaries() -> EmbeddedArchive:
    return EmbeddedArchive(
        options=ArchiveOptions(cloud_keys=(API_KEY, ACCOUNT_KEY), institutions={INSTITUTION: "North"})
    )


async def everything(socket: RawSocket) -> None:
    """Say secrets and patient data in every way."""
    told, folder = socket.told, await make(socket, NAME, FolderDescription=CANARIES["header"])
    order = await create(socket, PatientName=NAME, PatientID=CANARIES["patient_id"], OrderAccessionNumber=SECRET)
    await told(1, PatientName=NAME, PatientId=CANARIES["patient_id"])
    await told(13, PatientOrderInstitutionUuid=INSTITUTION, PatientOrderUuid=order)
    await told(5, PatientName=NAME)
    shared = {"SharePassword": SECRET, "ShareTitle": NAME, "ShareDescription": NAME, "ExpireDate": LATER}
    await told(14, FolderUuid=folder, Email=MAIL, **shared)
    nested = {"IdentityInformation": {"Name": NAME}, NAME: NAME}
    await told(25, InstitutionUuid=INSTITUTION, JsonParameters=nested)
    session = await socket.begin_upload()
    await socket.file(session, dicom(name=NAME), FolderUuidList=[folder])
    assert (await socket.file(session, NAME.encode(), 1)).reason == "the file is not DICOM"
    for wrong in (NAME, {NAME: NAME}, [NAME], f"{NAME}\x00"):
        for kind, field in ((2, "ParentFolderUuid"), (14, "Email"), (31, "GroupId"), (3, "GetOrdersInFolder")):
            await socket.refused(kind, **{"FolderUuid": folder, "PatientOrderUuid": order, field: wrong, "FlagId": 1})


async def test_nothing_is_written_of_what_is_asked(watch: CanaryWatch) -> None:
    async with archive_of_canaries() as archive:
        session, _ = await bring_up(archive)
        async with raw_socket(archive, session) as socket:
            await everything(socket)
        cloud = archive.cloud
        assert session == SESSION
        assert len(cloud.frames) > 20
        for thing in (archive, cloud, cloud.oddities, cloud.mails, cloud.frames, cloud.http_requests):
            watch.feed(thing)
        watch.feed(list(cloud.folder_shares))


BAD_FRAMES: dict[str, bytes | str] = {
    "cut": encode(17, 1, 2, compact({"FolderName": NAME, "ApiKey": API_KEY}))[:-9],
    "no JSON": encode(17, 1, 2, NAME.encode() + API_KEY.encode()),
    "half a character": encode(17, 1, 2, b'{"FolderName":"' + NAME.encode() + b'\\ud800"}'),
    "a text frame": f"{NAME} {API_KEY} {SESSION}",
    "no such type": encode(99, 1, 2, compact({"FolderName": NAME})),
    "not UTF-8": encode(17, 1, 2, b"\xff" + NAME.encode()),
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
async def test_nothing_is_written_of_bad_frames(
    frame: bytes | str, watch: CanaryWatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with archive_of_canaries() as archive, raw_socket(archive, (await bring_up(archive))[0]) as socket:
        await socket.connection.send(frame)
        watch.feed_text(str(await socket.closed()))
    assert any("is closed" in record.message for record in caplog.records)


async def test_nothing_is_written_of_bad_addresses(watch: CanaryWatch) -> None:
    async with archive_of_canaries() as archive:
        for parameters in ({"RouterKey": NAME, "AddressType": API_KEY}, {NAME: SECRET}, {"RouterKey": 5}):
            url = bring_up_url(archive.router_url, 4, parameters, API_KEY)
            watch.feed_text((await raw_get(url))[1])
        watch.feed_text((await raw_get(f"{archive.router_url}?Parameters={API_KEY}{NAME}&RequestType=4"))[1])
        for path in (f"/{API_KEY}?{NAME}", f"/?ClientUniqueId={ACCOUNT_KEY}", f"/?ClientUniqueId={API_KEY}&x={SECRET}"):
            address = archive.cloud.socket_url.replace("ws://", "http://")
            watch.feed_text((await raw_get(address + path))[1])
        watch.feed(list(archive.cloud.deviations))


@pytest.mark.parametrize("when", ["before", "after", "during"])
async def test_nothing_is_written_of_lost_connections(when: Any, watch: CanaryWatch) -> None:
    async with archive_of_canaries() as archive, raw_socket(archive, (await bring_up(archive))[0]) as socket:
        archive.cloud.oddities.drops = [Drop(when, (17, 2))]
        await socket.send(17, 2, socket.keyed(ParentFolderUuid=ZERO, FolderName=NAME))
        assert (await socket.closed())[0] == 1006
        connection = await connect_to(f"{archive.cloud.socket_url}/?ClientUniqueId={API_KEY}")
        connection.transport.abort()


async def test_a_failure_of_the_archives_own_is_written_without_values(
    watch: CanaryWatch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with archive_of_canaries() as archive, raw_socket(archive, (await bring_up(archive))[0]) as socket:
        monkeypatch.setattr(archive.store, "transaction", lambda: 1 / 0)
        reason = await socket.refused(2, ParentFolderUuid=ZERO, FolderName=NAME)
        watch.feed_text(reason)
    assert any("17/2 failed" in record.message for record in caplog.records)
