"""What the Cloud API does unlike the rest, on demand."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async.emulator.cloud.oddities import (
    CloudOddities,
    Drop,
    not_json,
    null_result,
    other_code,
    string_code,
    text_message,
)
from tests.emulator.cloud_support import (
    ZERO,
    Account,
    account_fixture,  # noqa: F401 - a fixture
    bring_up,
    decode,
    dicom,
    make,
    raw_socket,
)
from tests.emulator.vendor_support import told

if TYPE_CHECKING:
    from tests.emulator.cloud_support import RawSocket

FOLDER = {"ParentFolderUuid": ZERO, "FolderName": "x"}


async def folders(account: Account) -> int:
    """Return how many folders there are, seen from the other side."""
    return len((await told(account.client, "searchfolder"))["FolderList"])


async def raw(socket: RawSocket) -> bytes | str:
    frame: bytes | str = await socket.connection.recv()
    return frame


async def test_latency(account: Account) -> None:
    account.archive.cloud.oddities.latency = 0.2
    started = time.perf_counter()

    sent = [await account.socket.send(17, 34, account.socket.keyed()) for _ in range(30)]
    await account.socket.answers(sent)

    assert 0.2 <= time.perf_counter() - started < 30 * 0.2, "they wait beside one another"


async def test_answers_in_another_order(account: Account) -> None:
    account.archive.cloud.oddities.shuffled = 20

    sent = [await account.socket.send(17, 34, account.socket.keyed()) for _ in range(20)]
    found = await account.socket.answers(sent)

    numbers = [answer.own_id for answer in found]
    assert sorted(numbers) == list(range(2, 22))
    assert numbers != sorted(numbers)


async def test_answers_that_are_held_back_are_given_when_no_more_come(account: Account) -> None:
    account.archive.cloud.oddities.shuffled = 100

    sent = [await account.socket.send(17, 34, account.socket.keyed()) for _ in range(5)]

    assert len(await account.socket.answers(sent)) == 5
    assert await account.socket.told(34)


async def test_missing_answers(account: Account) -> None:
    account.archive.cloud.oddities.missing = {(17, 2): 2}

    lost = [await account.socket.send(17, 2, account.socket.keyed(**FOLDER)) for _ in range(2)]
    assert (await account.socket.told(34))["UserList"]
    await make(account.socket, "x")

    assert len(lost) == 2
    async with asyncio.timeout(10):  # nothing tells when those are done
        while account.archive.cloud.executed[17, 2] < 3 or await folders(account) < 3:
            await asyncio.sleep(0.01)
    assert await folders(account) == account.archive.cloud.executed[17, 2] == 3, "they were done"


async def test_refusals_that_were_asked_for(account: Account) -> None:
    socket, oddities = account.socket, account.archive.cloud.oddities
    session = await socket.begin_upload()
    oddities.refused = {(17, 2): 2, (23, 3): 1, (3, 2): 1}

    for _ in range(2):
        answer = await socket.general(2, **FOLDER)
        told = {"Success": False, "Message": "this refusal was asked for"}
        assert answer.envelope == {"ResponseCode": 1, "ResponseMessage": told}
    oddities.refusal_text = "no"
    answer = await socket.part(session, dicom(), 0, 1)
    assert answer.envelope == {"ResponseCode": 0, "ResponseMessage": None, "Message": "no"}
    answer = await socket.session(next(iter(account.archive.cloud.sessions)), 2)
    assert answer.envelope == {"ResponseCode": 0, "ResponseMessage": "no"}

    assert await folders(account) == 0
    assert (await account.client.get("/studies")).json() == []
    assert await make(socket, "x")
    assert (await socket.part(session, dicom(), 0, 1)).envelope["ResponseCode"] == 1


async def test_answers_given_twice(account: Account) -> None:
    account.archive.cloud.oddities.duplicates = True

    number = await account.socket.send(17, 2, account.socket.keyed(**FOLDER))
    first, second = await account.socket.receive(), await account.socket.receive()

    assert first == second
    assert first.requested_id == number
    assert await folders(account) == 1


async def test_text_frames_before_answers(account: Account) -> None:
    account.archive.cloud.oddities.text_frames = True

    for _ in range(2):
        number = await account.socket.send(17, 34, account.socket.keyed())
        assert isinstance(await raw(account.socket), str)
        assert (await account.socket.receive()).requested_id == number


async def test_garbage_before_answers(account: Account) -> None:
    account.archive.cloud.oddities.garbage = True
    number = await account.socket.send(17, 34, account.socket.keyed())

    garbage = [await raw(account.socket) for _ in range(5)]

    assert (await account.socket.receive()).requested_id == number
    for frame in garbage:
        assert isinstance(frame, bytes)
        is_answer = frame[:2] in {b"\x04\x00", b"\x06\x00", b"\x12\x00"} and len(frame) >= 10
        assert not is_answer or int.from_bytes(frame[6:10], "little") == 2**32 - 1
    assert b"" in garbage


async def test_a_greeting(account: Account) -> None:
    account.archive.cloud.oddities.greeting = True
    session, _ = await bring_up(account.archive)

    async with raw_socket(account.archive) as socket:
        greeting = await socket.receive()
        assert (greeting.message_type, greeting.requested_id) == (2, 0)
        assert (await socket.session(session)).envelope["ResponseCode"] == 1


async def test_what_stands_around_the_answer(account: Account) -> None:
    oddities, socket = account.archive.cloud.oddities, account.socket
    usual = await socket.general(34)
    oddities.success_flag, oddities.frame_text = 0, "Łaskawie nie"

    odd = await socket.general(34)

    assert (usual.success, usual.message) == (1, "")
    assert (odd.success, odd.message) == (0, "Łaskawie nie")
    assert odd.envelope == usual.envelope


@pytest.mark.parametrize("types", [{3: 4, 17: 18, 23: 6}, {3: 18, 17: 4, 23: 18}, {3: 6, 17: 6, 23: 24}, {}])
async def test_types_of_answers(account: Account, types: dict[int, int]) -> None:
    account.archive.cloud.oddities.response_types = types
    session = next(iter(account.archive.cloud.sessions))

    found = [await account.socket.session(session), await account.socket.general(34), await account.socket.upload(1)]

    assert [answer.message_type for answer in found] == [types.get(kind, 18) for kind in (3, 17, 23)]


async def test_answers_changed_at_will(account: Account) -> None:
    oddities, socket = account.archive.cloud.oddities, account.socket
    usual = (await socket.general(22)).envelope

    async def changed(how: Any) -> Any:
        oddities.envelope = how
        return (await socket.general(22)).envelope

    assert await changed(string_code) == {**usual, "ResponseCode": "1"}
    assert await changed(other_code) == {**usual, "ResponseCode": 2}
    assert await changed(text_message) == {"ResponseCode": 0, "ResponseMessage": "the service says no"}
    assert await changed(null_result) is None
    assert await changed(lambda key, envelope: [key, envelope]) == [[17, 22], usual]
    assert await changed(lambda _key, _envelope: b'{"raw":"\xc5\x82"}') == {"raw": "ł"}
    oddities.envelope = not_json
    await socket.send(17, 22, socket.keyed())
    frame = await raw(socket)
    assert isinstance(frame, bytes)
    assert frame.endswith(b"<html>busy</html>")
    with pytest.raises(json.JSONDecodeError):
        decode(frame)
    oddities.envelope = None
    assert (await socket.general(22)).envelope == usual
    assert account.archive.cloud.executed[17, 22] == 9, "all of them were done"


# --- connections that are lost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1), ("during", 1)])
async def test_a_socket_is_lost(account: Account, when: Any, done: int) -> None:
    cloud = account.archive.cloud
    cloud.oddities.drops = [Drop(when, (17, 2))]
    session = next(iter(cloud.sessions))
    async with raw_socket(account.archive, session) as other:
        assert (await account.socket.told(34))["UserList"]

        await account.socket.send(17, 2, account.socket.keyed(**FOLDER))

        assert (await account.socket.closed())[0] == 1006
        assert cloud.oddities.drops == []
        assert (await other.told(34))["UserList"]
        assert await folders(account) == cloud.executed[17, 2] == done


@pytest.mark.parametrize(("text", "head"), [("", 2), ("x" * 1_000, 4), ("x" * 100_000, 10)])
async def test_an_answer_cut_in_the_middle_of_its_frame(
    account: Account, text: str, head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = bytes_of(account.socket, monkeypatch)
    account.archive.cloud.oddities.frame_text = text
    account.archive.cloud.oddities.drops = [Drop("during", (3, 2))]

    await account.socket.send(3, 2, {"SessionUuid": ""})

    assert (await account.socket.closed())[0] == 1006
    assert received[0] == 0x82
    announced = received[1] if head == 2 else int.from_bytes(received[2:head], "big")
    assert [2, 4, 10][(received[1] > 125) + (received[1] > 126)] == head, "the shortest way to write a length"
    assert announced > len(text)
    assert len(received) == head + announced // 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_not_a_byte_of_an_answer(account: Account, when: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    received = bytes_of(account.socket, monkeypatch)
    account.archive.cloud.oddities.drops = [Drop(when)]

    await account.socket.send(17, 34, account.socket.keyed())

    assert (await account.socket.closed())[0] == 1006
    assert received == b""


def bytes_of(socket: RawSocket, monkeypatch: pytest.MonkeyPatch) -> bytearray:
    """Return what grows by each byte that comes from now on."""
    received, onward = bytearray(), socket.connection.data_received

    def take(data: bytes) -> None:
        received.extend(data)
        onward(data)

    monkeypatch.setattr(socket.connection, "data_received", take)
    return received


async def test_a_socket_is_lost_at_the_how_many_th_request(account: Account) -> None:
    session = next(iter(account.archive.cloud.sessions))
    account.archive.cloud.oddities.drops = [Drop("after", (17, 2), nth=3)]
    async with raw_socket(account.archive, session) as socket:
        for _ in range(2):
            assert (await socket.told(34))["UserList"]
            await make(socket, "x")
        await socket.send(17, 2, socket.keyed(**FOLDER))
        assert (await socket.closed())[0] == 1006
    assert await folders(account) == 3


def test_drops_are_counted_down() -> None:
    any_second, folder_first, folder_third = Drop("before", nth=2), Drop("after", (17, 2)), Drop("during", (17, 2), 3)
    oddities = CloudOddities(drops=[any_second, folder_first, folder_third])

    found = [oddities.drop(key) for key in ((17, 2), (17, 34), (17, 2), (17, 2), (17, 2))]

    assert found == [folder_first, any_second, None, folder_third, None]
    assert oddities.drops == []


def test_two_drops_at_one_request_are_two() -> None:
    oddities = CloudOddities(drops=[Drop("before"), Drop("after")])

    found = [oddities.drop((17, 2)) for _ in range(3)]

    assert [drop.when if drop else None for drop in found] == ["before", "after", None]
