"""What no client would send."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import threading
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.emulator.vendor.parameters import (
    BadParameters,
    deviations_of,
    is_guid,
    json_object,
    read_parameters,
)
from tests.emulator.cloud_support import PART, UNKNOWN, ZERO, bring_up, encode, main_socket, raw_socket, until

if TYPE_CHECKING:
    from postdicom_async.emulator import EmbeddedArchive
    from tests.emulator.cloud_support import RawSocket

HEAD = struct.Struct("<HIii")
FRAMES: dict[str, bytes | str] = {
    "nothing": b"",
    "cut": HEAD.pack(17, 1, 34, 0)[:-1],
    "no such type": HEAD.pack(24, 1, 1, 0),
    "longer than it is": HEAD.pack(17, 1, 34, 2**31 - 1) + b"{}",
    "a negative length of data": HEAD.pack(23, 1, 3, 2) + b"{}" + struct.pack("<i", -5),
    "not UTF-8": HEAD.pack(17, 1, 34, 2) + b"\xff\xff",
    "no JSON": encode(17, 1, 34, b"{"),
    "no object": encode(17, 1, 34, b"[]"),
    "no text": encode(17, 1, 34, b""),
    "half a character": encode(17, 1, 34, b'{"UserUuid":"\\ud800"}'),
    "too deep": encode(17, 1, 34, b'{"A":' + b"[" * 100_000),
    "a long number": encode(17, 1, 34, b'{"A":' + b"9" * 5_000 + b"}"),
    "a text frame": "{}",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
async def test_what_is_no_request_closes_its_socket_alone(
    embedded_archive: EmbeddedArchive, frame: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    async with main_socket(embedded_archive) as other, main_socket(embedded_archive) as socket:
        await socket.connection.send(frame)

        code, reason = await socket.closed()

        assert code == 1007
        assert reason
        assert (await other.told(34))["UserList"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert set(embedded_archive.cloud.executed) == {(3, 4), (17, 34)}


async def test_a_huge_message_is_not_waited_for(embedded_archive: EmbeddedArchive) -> None:
    async with raw_socket(embedded_archive) as socket:
        socket.connection.transport.write(struct.pack(">BBQ", 0x82, 0xFF, 2**40) + bytes(4))

        assert (await socket.closed())[0] == 1009


async def test_parts_pass_through_in_bounded_memory(embedded_archive: EmbeddedArchive) -> None:
    """However many come before the first is answered, and though none ever is."""
    many, cloud = 64, embedded_archive.cloud
    async with main_socket(embedded_archive) as socket:
        session = await socket.begin_upload()
        cloud.oddities.latency = 3600
        tracemalloc.start()
        try:
            await send_parts(socket, session, many)
            await until(lambda: cloud.executed[23, 3] == many)
            await until(lambda: tracemalloc.get_traced_memory()[0] < 4 * PART)  # threads may hold one yet
            left, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert max(cloud.most_in_flight.values()) == many
    assert peak < many * PART / 2
    assert left < 4 * PART


async def test_what_cannot_be_handled_yet_is_not_read(embedded_archive: EmbeddedArchive) -> None:
    """With every thread of the archive busy, parts wait in their sockets and not in memory."""
    many, cloud, free = 64, embedded_archive.cloud, threading.Event()
    async with main_socket(embedded_archive) as socket:
        session = await socket.begin_upload()
        busy = [cloud.context.executor.submit(free.wait) for _ in range(32)]
        try:
            sending = asyncio.create_task(send_parts(socket, session, many))
            await until(lambda: max(cloud.most_in_flight.values(), default=0) > 16)
            for _ in range(50):
                assert await bring_up(embedded_archive), "the archive has other things to do meanwhile"
            waiting = max(cloud.most_in_flight.values())
        finally:
            free.set()
        answers = await socket.answers(await sending)

    assert all(one.result() for one in busy)
    assert waiting == 17
    assert {answer.envelope["ResponseCode"] for answer in answers} == {1}


async def send_parts(socket: RawSocket, session: str, many: int) -> list[int]:
    return [await socket.send_part(session, bytes(PART), 0, 2, file) for file in range(many)]


async def test_parts_beyond_any_file_are_refused(
    embedded_archive: EmbeddedArchive, caplog: pytest.LogCaptureFixture
) -> None:
    async with main_socket(embedded_archive) as socket:
        session = await socket.begin_upload()
        for index, total in ((2**70, 2**71), (2**40, 2**40 + 1), (2**24, 2**24 + 1)):
            assert (await socket.part(session, bytes(PART), index, total)).reason == "there is no such part"
    assert not caplog.records
    assert not list((embedded_archive.folder / "incoming").iterdir())


async def test_a_failure_of_the_archives_own_is_told(
    embedded_archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with main_socket(embedded_archive) as socket:
        monkeypatch.setattr(embedded_archive.store, "transaction", lambda: 1 / 0)

        assert await socket.refused(3, ParentFolderUuid=ZERO) == "the archive failed: ZeroDivisionError"
        assert (await socket.told(34))["UserList"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert embedded_archive.cloud.executed[17, 3] == 0


# --- parameters -------------------------------------------------------------------------------------------------------

FIELDS = (
    "UserUuid", "FolderUuidList?", "Email?", "PerformedDatetime?", "ExpireDate?", "GroupId?", "FileIndex?",
    "TotalFileSize?", "FileBuffer?", "JsonParameters?", "Modalities?", "GetOrdersInFolder?", "FolderName?",
)  # fmt: skip
GOOD: list[tuple[str, Any]] = [
    ("UserUuid", ZERO),
    ("UserUuid", UNKNOWN.upper()),
    ("FolderUuidList", [UNKNOWN, ZERO]),
    ("FolderUuidList", []),
    ("FolderUuidList", None),
    ("Email", "a@b.cd"),
    ("Email", "a.b+c'd@b-c.d1.example"),
    ("Email", '"two words @ once"@b.cd'),
    ("Email", "a@[999.0.0.1]"),
    ("Email", ""),
    ("PerformedDatetime", "2024-02-29 23:59"),
    ("PerformedDatetime", "2024-02-29 "),
    ("PerformedDatetime", "2024-02-29"),
    ("ExpireDate", "0001-01-01"),
    ("ExpireDate", ""),
    ("GroupId", 0),
    ("GroupId", -1),
    ("GroupId", "5"),
    ("FileIndex", 0),
    ("TotalFileSize", 0),
    ("TotalFileSize", 0.5),
    ("FileBuffer", [0, 255]),
    ("JsonParameters", {}),
    ("Modalities", ["CT", ""]),
    ("GetOrdersInFolder", False),
    ("FolderName", " "),
]
BAD: list[tuple[str, Any]] = [
    ("UserUuid", None),
    ("UserUuid", ""),
    ("UserUuid", UNKNOWN.replace("-", "")),
    ("UserUuid", f"{{{UNKNOWN}}}"),
    ("UserUuid", f"{UNKNOWN}\n"),
    ("UserUuid", "99999999-9999-6999-8999-999999999999"),
    ("UserUuid", "99999999-9999-4999-7999-999999999999"),
    ("UserUuid", 5),
    ("FolderUuidList", UNKNOWN),
    ("FolderUuidList", [UNKNOWN, "x"]),
    ("FolderUuidList", [[]]),
    ("FolderUuidList", {}),
    ("Email", "a@b"),
    ("Email", "a b@c.de"),
    ("Email", "a..b@c.de"),
    ("Email", ".a@c.de"),
    ("Email", "a@c.d"),
    ("Email", "a@c_d.ef"),
    ("Email", "a@c.de\n"),
    ("Email", '""@c.de'),
    ("Email", "a@[1.2.3]"),
    ("Email", ["a@b.cd"]),
    ("PerformedDatetime", "2024-02-30 10:00"),
    ("PerformedDatetime", "2024-02-03 24:00"),
    ("PerformedDatetime", "2024-02-03 10:00:00"),
    ("PerformedDatetime", "2024-02-03T10:00"),
    ("ExpireDate", "2024-2-3"),
    ("ExpireDate", "\uff12024-02-03"),
    ("ExpireDate", "2023-02-29"),
    ("ExpireDate", 20240203),
    ("GroupId", "x"),
    ("GroupId", 5.0),
    ("GroupId", True),
    ("FileIndex", -1),
    ("FileIndex", "0"),
    ("TotalFileSize", -1),
    ("TotalFileSize", "1"),
    ("TotalFileSize", float("nan")),
    ("TotalFileSize", True),
    ("FileBuffer", [256]),
    ("FileBuffer", [-1]),
    ("FileBuffer", ["a"]),
    ("FileBuffer", "abc"),
    ("JsonParameters", "{}"),
    ("JsonParameters", [1]),
    ("Modalities", "CT"),
    ("Modalities", [1]),
    ("GetOrdersInFolder", 1),
    ("GetOrdersInFolder", "true"),
    ("FolderName", 1),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_values_that_are_understood(name: str, value: Any) -> None:
    read_parameters(FIELDS, {"UserUuid": UNKNOWN, name: value})


@pytest.mark.parametrize(("name", "value"), BAD)
def test_values_that_are_not(name: str, value: Any) -> None:
    with pytest.raises(BadParameters, match=f"^{name}") as caught:
        read_parameters(FIELDS, {"UserUuid": UNKNOWN, name: value})

    assert not isinstance(value, str) or len(value) < 5 or value not in str(caught.value)
    assert caught.value.__context__ is None


@given(st.dictionaries(st.sampled_from([name.removesuffix("?") for name in FIELDS]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5,
)))  # fmt: skip
def test_whatever_json_comes_is_read_or_refused(values: dict[str, Any]) -> None:
    given = json_object(json.dumps({"UserUuid": UNKNOWN, **values}))
    assert isinstance(deviations_of(FIELDS, given), list)
    try:
        read = read_parameters(FIELDS, given)
    except BadParameters:
        return
    assert is_guid(read.text("UserUuid"))
    assert all(is_guid(item) for item in read.items("FolderUuidList"))


def test_ways_to_differ_from_the_library() -> None:
    fields = ("UserUuid", "FolderName?", "TotalFileSize?", "ApiKey")
    same = {"UserUuid": "u", "FolderName": "ź", "TotalFileSize": 1, "ApiKey": "k"}
    assert deviations_of(fields, same, '{"UserUuid":"u","FolderName":"ź","TotalFileSize":1,"ApiKey":"k"}') == []
    assert deviations_of(fields, {"ApiKey": "k", "UserUuid": "u"}) == ["the fields are in another order"]
    assert deviations_of(fields, {**same, "More": 1}) == ["More is no field of it"]
    assert deviations_of(fields, {**same, "TotalFileSize": 1.0}) == ["a whole number is written with decimals"]
    for text in (json.dumps(same), json.dumps(same, separators=(",", ":"))):
        assert deviations_of(fields, same, text) == ["the JSON text is written in another way"]


def test_json_that_can_just_be_read_can_be_compared() -> None:
    """Writing happens deeper in the stack than reading did."""
    depth = 0
    with suppress(BadParameters):
        for depth in range(1, 1_200):
            text = '{"A":' + "[" * depth + "]" * depth + "}"
            found = compared_deep_in_the_stack(json_object(text), text)
            assert found in ([], ["the JSON text is written in another way"])
    assert depth > 100


def compared_deep_in_the_stack(parameters: dict[str, Any], text: str, frames: int = 20) -> list[str]:
    if frames:
        return compared_deep_in_the_stack(parameters, text, frames - 1)
    return deviations_of(("A",), parameters, text)


async def test_what_is_logged_of_a_bad_frame_shows_nothing_of_it(
    embedded_archive: EmbeddedArchive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with raw_socket(embedded_archive) as socket:
        await socket.connection.send(encode(17, 1, 34, b'{"UserUuid":"secret"'))
        code, reason = await socket.closed()

    assert (code, reason) == (1007, "the parameters are no JSON object")
    assert "secret" not in caplog.text
