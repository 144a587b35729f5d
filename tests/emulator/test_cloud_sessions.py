"""Sessions on sockets, and who may ask what."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from postdicom_async.emulator import EmbeddedArchive
from tests.emulator.cloud_support import (
    COLLEAGUE,
    INSTITUTION,
    OTHER_INSTITUTION,
    UNKNOWN,
    USER,
    Account,
    RawSocket,
    account_fixture,  # noqa: F401 - a fixture
    bring_up,
    connect_to,
    main_socket,
    raw_get,
    raw_socket,
)

if TYPE_CHECKING:
    from tests.emulator.cloud_support import Answer

NO_SESSION = "there is no session on this socket"


async def test_creating_a_session_tells_the_account(account: Account) -> None:
    session, _ = await bring_up(account.archive)
    async with raw_socket(account.archive) as socket:
        answer = await socket.session(session)

    institutions = [
        {"InstitutionUuid": INSTITUTION, "InstitutionName": "North"},
        {"InstitutionUuid": OTHER_INSTITUTION, "InstitutionName": "South"},
    ]
    assert (answer.message_type, answer.own_id, answer.success, answer.message) == (4, 1, 1, "")
    assert answer.envelope == {
        "ResponseCode": 1,
        "ResponseMessage": {
            "Account": {
                "UserList": [
                    {"UserUuid": uuid, "FullName": name, "UserName": short, "InstitutionList": institutions}
                    for uuid, name, short in ((USER, "Some Body", "some.body"), (COLLEAGUE, "Other Body", "other.body"))
                ],
            }
        },
    }
    assert account.archive.cloud_user_uuid == USER


async def test_registering_a_session_is_enough(embedded_archive: EmbeddedArchive) -> None:
    session, _ = await bring_up(embedded_archive)
    async with raw_socket(embedded_archive) as socket:
        answer = await socket.session(session, 2)
        assert (answer.message_type, answer.envelope["ResponseCode"]) == (4, 1)
        assert "Account" not in answer.envelope["ResponseMessage"]
        assert (await socket.told(34))["UserList"]
        assert await socket.begin_upload()


async def test_several_sessions_on_one_socket_one_after_another(embedded_archive: EmbeddedArchive) -> None:
    sessions = [(await bring_up(embedded_archive))[0] for _ in range(3)]
    async with raw_socket(embedded_archive) as socket:
        for session in (*sessions, sessions[0]):
            for management in (4, 2):
                assert (await socket.session(session, management)).envelope["ResponseCode"] == 1
                assert (await socket.told(34))["UserList"]
        embedded_archive.cloud.sessions.discard(sessions[0])
        assert await socket.refused(34) == NO_SESSION, "the last one counts"


async def test_one_session_on_several_sockets(embedded_archive: EmbeddedArchive) -> None:
    session, _ = await bring_up(embedded_archive)
    async with raw_socket(embedded_archive, session) as first, raw_socket(embedded_archive, session, 2) as second:
        assert (await first.told(34)) == (await second.told(34))
        assert embedded_archive.cloud.sockets == 2


def opening(archive: EmbeddedArchive, session: Any) -> dict[str, Any]:
    return {"SessionUuid": session, "OtherParameterList": [f"Api={session}", f"ApiKey={archive.cloud_api_key}"]}


def assert_text(answer: Answer, reason: str) -> None:
    assert answer.message_type == 4
    assert answer.envelope["ResponseCode"] != 1
    assert answer.envelope["ResponseMessage"] == reason


@pytest.mark.parametrize("management", [4, 2])
@pytest.mark.parametrize("session", [UNKNOWN, "", "x", None, 5, [], {}, True])
async def test_an_unknown_session_is_refused(
    embedded_archive: EmbeddedArchive, session: Any, management: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_socket(embedded_archive) as socket:
        assert_text(await socket.ask(3, management, opening(embedded_archive, session)), "there is no such session")
        assert await socket.refused(34) == NO_SESSION
    assert not caplog.records


@pytest.mark.parametrize("management", [4, 2])
async def test_the_other_parameters_must_fit(embedded_archive: EmbeddedArchive, management: int) -> None:
    session, _ = await bring_up(embedded_archive)
    good = opening(embedded_archive, session)["OtherParameterList"]
    key, other = embedded_archive.cloud_api_key, embedded_archive.cloud_account_key
    async with raw_socket(embedded_archive) as socket:
        for bad in (
            None, [], "x", good[:1], good[::-1], [*good, "More=1"], [f"Api={UNKNOWN}", good[1]], [session, key],
            [good[0], f"ApiKey={other}"], [good[0], f"apikey={key}"], [good[0], {}],
        ):  # fmt: skip
            answer = await socket.ask(3, management, {"SessionUuid": session, "OtherParameterList": bad})
            assert_text(answer, "OtherParameterList does not fit the session")
        assert await socket.refused(34) == NO_SESSION
        assert (await socket.session(session, management)).envelope["ResponseCode"] == 1


@pytest.mark.parametrize("management", [0, 1, 3, 5, -1])
async def test_other_kinds_of_session_management_are_refused(
    embedded_archive: EmbeddedArchive, management: int
) -> None:
    session, _ = await bring_up(embedded_archive)
    async with raw_socket(embedded_archive) as socket:
        assert_text(await socket.session(session, management), "this management type is not known")
        assert await socket.refused(34) == NO_SESSION
    assert f"3/{management}: no such management type" in embedded_archive.cloud.deviations


async def test_a_session_of_another_archive_is_unknown(embedded_archive: EmbeddedArchive) -> None:
    session, _ = await bring_up(embedded_archive)
    async with EmbeddedArchive() as other, raw_socket(other) as socket:
        assert_text(await socket.session(session), "there is no such session")


async def test_without_a_session_nothing_is_done(embedded_archive: EmbeddedArchive) -> None:
    given = {"ParentFolderUuid": "00000000-0000-0000-0000-000000000000", "FolderName": "x"}
    async with raw_socket(embedded_archive) as socket:
        assert await socket.refused(2, **given) == NO_SESSION
        answer = await socket.upload(1, InstitutionUuid=embedded_archive.institution_uuid)
        assert (answer.envelope["ResponseCode"], answer.envelope["Message"]) == (0, NO_SESSION)
        assert not embedded_archive.cloud.executed

        embedded_archive.cloud.oddities.session_needed = False
        assert (await socket.told(2, **given))["FolderName"] == "x"


async def test_a_session_is_its_sockets_own(embedded_archive: EmbeddedArchive) -> None:
    async with main_socket(embedded_archive) as first, raw_socket(embedded_archive) as second:
        assert await second.refused(34) == NO_SESSION
        assert (await first.told(34))["UserList"]


async def test_sessions_may_be_forgotten(embedded_archive: EmbeddedArchive) -> None:
    session, _ = await bring_up(embedded_archive)
    async with raw_socket(embedded_archive, session) as socket:
        upload = await socket.begin_upload()

        embedded_archive.cloud.forget_sessions()

        assert await socket.refused(34) == NO_SESSION
        assert_text(await socket.session(session), "there is no such session")
        assert (await socket.part(upload, b"x", 0, 1)).reason == NO_SESSION
        again, _ = await bring_up(embedded_archive)
        assert (await socket.session(again)).envelope["ResponseCode"] == 1
        assert (await socket.told(34))["UserList"]


@pytest.mark.parametrize("name", ["ApiKey", "AccountKey", "UserUuid"])
async def test_keys_and_user_must_be_right(embedded_archive: EmbeddedArchive, name: str) -> None:
    reason = "there is no such user" if name == "UserUuid" else "ApiKey or AccountKey is wrong"
    async with main_socket(embedded_archive) as socket:
        for kind, management in ((17, 34), (23, 1)):
            wrongs: list[Any] = [UNKNOWN, "", None, 7, [], {}, embedded_archive.institution_uuid]
            for wrong in wrongs:
                given = {**socket.keyed(), name: wrong}
                answer = await socket.ask(kind, management, given, b"", embedded_archive.cloud_user_uuid)
                assert answer.envelope["ResponseCode"] == 0
                assert answer.envelope["Message"] == reason
                del given[name]
                assert (await socket.ask(kind, management, given, b"")).reason == reason
        assert set(embedded_archive.cloud.executed) == {(3, 4)}


async def test_requests_need_not_wait_for_one_another(embedded_archive: EmbeddedArchive) -> None:
    async with main_socket(embedded_archive) as socket:
        sent = [await socket.send(17, management, socket.keyed()) for management in (34, 22, 23, 24, 30) * 8]

        found = await socket.answers(sent)

        assert sorted(answer.requested_id for answer in found) == sent
        assert sorted(answer.own_id for answer in found) == list(range(2, 42))
        assert {answer.message_type for answer in found} == {18}
        assert embedded_archive.cloud.executed == {(3, 4): 1, **{(17, kind): 8 for kind in (34, 22, 23, 24, 30)}}


async def test_message_ids_are_given_back_whatever_they_are(embedded_archive: EmbeddedArchive) -> None:
    session, _ = await bring_up(embedded_archive)
    numbers = iter([0, 2**32 - 1, 7, 7])
    async with raw_socket(embedded_archive, session, numbers=numbers) as socket:
        for _ in range(3):
            assert (await socket.told(34))["UserList"]


# --- the connection ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 403),
        ("/?ClientUniqueId=", 403),
        ("/?ClientUniqueId={account}", 403),
        ("/?ClientUniqueId={key}&ClientUniqueId={key}", 403),
        ("/?clientuniqueid={key}", 403),
        ("/?ClientUniqueId={key}&More=1", 403),
        ("/socket?ClientUniqueId={key}", 404),
        ("/{key}", 404),
    ],
)
async def test_addresses_that_are_none(embedded_archive: EmbeddedArchive, path: str, status: int) -> None:
    text = path.format(key=embedded_archive.cloud_api_key, account=embedded_archive.cloud_account_key)

    with pytest.raises(InvalidStatus) as caught:
        await connect_to(embedded_archive.cloud.socket_url + text)

    assert caught.value.response.status_code == status
    assert embedded_archive.cloud_api_key.encode() not in (caught.value.response.body or b"")
    assert embedded_archive.cloud.sockets == 0


async def test_plain_http_gets_no_socket(embedded_archive: EmbeddedArchive) -> None:
    address = embedded_archive.cloud.socket_url.replace("ws://", "http://")

    status, body = await raw_get(f"{address}/?ClientUniqueId={embedded_archive.cloud_api_key}")

    assert 400 <= status < 500
    assert embedded_archive.cloud_api_key.encode() not in body


async def test_neither_subprotocol_nor_compression_is_agreed(embedded_archive: EmbeddedArchive) -> None:
    address = f"{embedded_archive.cloud.socket_url}/?ClientUniqueId={embedded_archive.cloud_api_key}"
    async with connect(address, compression="deflate", subprotocols=[Subprotocol("x")], proxy=None) as connection:
        assert connection.subprotocol is None
        assert not connection.protocol.extensions


async def test_all_sockets_are_dropped_at_once(embedded_archive: EmbeddedArchive) -> None:
    session, _ = await bring_up(embedded_archive)
    async with raw_socket(embedded_archive, session) as first, raw_socket(embedded_archive, session, 2) as second:
        embedded_archive.cloud.drop_sockets()

        assert [await socket.closed() for socket in (first, second)] == [(1006, ""), (1006, "")]
    async with raw_socket(embedded_archive, session) as socket:
        assert (await socket.told(34))["UserList"]
        assert embedded_archive.cloud.sockets == 1


async def test_sockets_are_cut_when_the_archive_stops() -> None:
    archive = EmbeddedArchive()
    async with archive:
        session, _ = await bring_up(archive)
        address = f"{archive.cloud.socket_url}/?ClientUniqueId={archive.cloud_api_key}"
        socket = RawSocket(archive, await connect_to(address), count(1))
        assert (await socket.session(session)).envelope["ResponseCode"] == 1
        cloud = archive.cloud
        cloud.oddities.latency = 60
        await socket.send(17, 34, socket.keyed())

    assert (await socket.closed())[0] == 1006
    assert cloud.sockets == 0
