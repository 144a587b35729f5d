"""Answers that do not come, come late, are refusals, or are none."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from postdicom_async import (
    CloudWire,
    ConnectionFailed,
    OutcomeUnknown,
    ProtocolError,
    ServerError,
    Status,
)
from tests.cloud.cutting import CuttingProxy
from tests.cloud.forms import ONE
from tests.cloud.service import CloudService, Received, echo, envelope_frame, success, uuid, views
from tests.faults.clients import settings
from tests.support.dicom_files import small_dicom

QUICK = settings(answer=0.2, max_attempts=2)


async def test_no_answer() -> None:
    silent = {(17, 5), (17, 2)}

    def answer(request: Received) -> bytes | None:
        return None if request.key in silent else success(request, SearchResultList=[])

    async with CloudService(answer) as service, service.client(settings=QUICK) as api:
        async with asyncio.timeout(5):
            read, change, other = await asyncio.gather(
                api.view.order(ONE), api.folders.create("X"), api.orders.search().all(), return_exceptions=True
            )
        assert isinstance(read, ConnectionFailed)
        assert str(read) == "get view link: the service did not answer in time (2 attempts)"
        assert isinstance(change, OutcomeUnknown)
        assert other == []
        assert [one.key for one in service.sent()].count((17, 2)) == 1
        assert service.sockets == 1
        silent.clear()
        assert (await api.folders.create("Y")).raw["Success"] is True


async def test_a_late_answer_is_for_nobody() -> None:
    held: list[bytes] = []

    def answer(request: Received) -> list[bytes]:
        if request.management_type == 5:
            held.append(success(request, Result="https://viewer.example/late"))
            return []
        return [*held, success(request, SearchResultList=[{"PatientOrderUuid": ONE}])]

    async with CloudService(answer) as service, service.client(settings=QUICK) as api:
        with pytest.raises(ConnectionFailed):
            await api.view.order(ONE)
        assert [order.patient_order_uuid for order in await api.orders.search().all()] == [ONE]


OK = {"ResponseCode": 1, "ResponseMessage": {"Success": True, "Result": ONE}}
REFUSALS: dict[str, Any] = {
    "Success false": ({"ResponseCode": 1, "ResponseMessage": {"Success": False, "Message": "busy"}}, {}),
    "another code, a text": ({"ResponseCode": 2, "ResponseMessage": "busy"}, {}),
    "another code, an object": ({"ResponseCode": 0, "ResponseMessage": {"Message": "busy"}}, {}),
    "another code, a message beside": ({"ResponseCode": 0, "ResponseMessage": None, "Message": "busy"}, {}),
    "no code, and nothing that says success": ({"ResponseMessage": {"Result": "x"}, "Message": "busy"}, {}),
    "the frame's flag and a text": ('"busy"', {"flag": 0}),
    "nested JSON": ({"ResponseCode": 1, "ResponseMessage": '{"Success":"false","Message":"busy"}'}, {}),
}


@pytest.mark.parametrize(("envelope", "frame"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_in_any_shape(envelope: Any, frame: dict[str, Any]) -> None:
    told = envelope.encode() if isinstance(envelope, str) else envelope
    async with (
        CloudService(lambda request: envelope_frame(request, told, **frame)) as service,
        service.client() as api,
    ):
        with pytest.raises(ServerError) as caught:
            await api.folders.create("X")
    assert str(caught.value) == "create folder: the service said no (server says: busy)"
    assert len(service.sent()) == 1


LINK = {"Result": "https://viewer.example/x"}
CODES_OF_SUCCESS: list[Any] = [1, "1", " 1", 1.0]
OTHER_CODES: list[Any] = [0, None, 200, "x", []]


@pytest.mark.parametrize(
    "told",
    [
        *[{"ResponseCode": code, "ResponseMessage": LINK} for code in CODES_OF_SUCCESS],
        *[{"ResponseCode": code, "ResponseMessage": {**LINK, "Success": True}} for code in OTHER_CODES],
        {"ResponseMessage": {**LINK, "Success": True}},
        {"ResponseCode": 1, "ResponseMessage": json.dumps(LINK)},
    ],
)
@pytest.mark.parametrize("flag", [1, 0])
async def test_success_in_any_spelling(told: dict[str, Any], flag: int) -> None:
    """The vendor's library looks at neither the code of a general answer nor the flag of its frame."""
    async with (
        CloudService(lambda request: envelope_frame(request, told, flag=flag)) as service,
        service.client() as api,
    ):
        assert (await api.view.order(ONE)).url == "https://viewer.example/x"


async def test_the_flag_of_the_frame_can_be_made_to_decide() -> None:
    def answer(request: Received) -> bytes:
        return envelope_frame(request, OK, flag=request.message_type != 17, message=b"busy")

    async with CloudService(answer) as service, service.client(wire=CloudWire(success_flag_decides=True)) as api:
        with pytest.raises(ServerError, match=r"the service said no .*busy"):
            await api.folders.create("X")


@pytest.mark.parametrize("code", [0, None, "0", True])
async def test_an_upload_is_a_success_by_its_code_alone(code: Any) -> None:
    def answer(request: Received) -> bytes:
        told = {"ResponseCode": code, "ResponseMessage": {"Success": True}, "Message": "busy"}
        return envelope_frame(request, told) if request.key == (23, 3) else success(request)

    async with CloudService(answer) as service, service.client() as api:
        report = await api.upload(small_dicom(), existing="send")
    assert [(one.status, one.reason) for one in report.outcomes] == [(Status.FAILED, "busy")]


@pytest.mark.parametrize("kind", [4, 6, 18, 24])
async def test_any_of_the_known_message_types_answers(kind: int) -> None:
    async with (
        CloudService(lambda request: [b"", b"\x63\x00" + b"x" * 30, envelope_frame(request, OK, message_type=kind)])
        as service,
        service.client() as api,
    ):  # fmt: skip
        assert (await api.folders.create("X")).raw


@pytest.mark.parametrize("result", [b"null", b"<html>", b"[1]", b"", b'{"Respon', b"[" * 10_000, b"NaN", b'"\\ud800"'])
async def test_an_answer_that_cannot_be_read(result: bytes) -> None:
    async with CloudService(lambda request: envelope_frame(request, result)) as service, service.client() as api:
        with pytest.raises(OutcomeUnknown, match="create folder: outcome unknown: the service answered with"):
            await api.folders.create("X")
        with pytest.raises(ProtocolError, match="get view link: the service answered with something other"):
            await api.view.order(ONE)


async def test_an_answer_that_is_cut_fails_only_its_own_request() -> None:
    def answer(request: Received) -> bytes:
        whole = echo(request)
        return whole[:25] if request.fields.get("PatientOrderUuid") == uuid(1) else whole

    async with CloudService(answer) as service, service.client(settings=QUICK) as api:
        first, second, third = await views(api, 3)
        assert first.url
        assert third.url
        assert isinstance(second, ProtocolError)
        assert str(second) == "get view link: a frame ends inside one of its fields (2 attempts)"
        assert service.sockets == 1


async def test_byte_by_byte_and_in_fragments() -> None:
    class Fragments(CloudService):
        async def _reply(self, connection: Any, request: Received) -> None:
            class Cutting:
                async def send(self, frame: bytes) -> None:
                    await connection.send([frame[at : at + 3] for at in range(0, len(frame), 3)])

            await super()._reply(Cutting(), request)  # type: ignore[arg-type]

    async with Fragments(echo) as service, CuttingProxy(service.url, dribble=True) as proxy:
        service.url = proxy.url
        async with service.client() as api:
            assert [link.url for link in await views(api, 5)] == [f"https://viewer.example/{uuid(n)}" for n in range(5)]


async def test_an_answer_beyond_the_limit() -> None:
    small = settings(json_bytes=4096, max_attempts=2)
    async with (
        CloudService(lambda request: success(request, Result="x" * 5000)) as service,
        service.client(settings=small) as api,
    ):
        with pytest.raises(ProtocolError, match=r"get view link: an answer is larger than limits.json_bytes"):
            await api.view.order(ONE)


async def test_a_service_that_finds_the_request_too_big() -> None:
    """It closes with the code that the client uses for an answer too big, which this is not."""

    class Closing(CloudService):
        async def _reply(self, connection: Any, request: Received) -> None:
            if request.fields.get("PatientOrderUuid") == ONE:
                await connection.close(1009)
            else:
                await super()._reply(connection, request)

    async with Closing(echo) as service, service.client(settings=settings(max_attempts=2)) as api:
        with pytest.raises(ConnectionFailed, match="get view link: the connection broke"):
            await api.view.order(ONE)
        assert len(service.sent()) == 2


@pytest.mark.parametrize(
    "told", [{"Success": True}, {"Success": True, "Result": "created"}, {"Success": True, "X": ONE}]
)
async def test_something_was_made_and_nobody_knows_under_which_uuid(told: dict[str, Any]) -> None:
    def answer(request: Received) -> bytes:
        return envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": told})

    new = {"patient_name": "X", "patient_id": "1", "modality": "CT"}
    async with CloudService(answer) as service, service.client() as api:
        for call in (
            lambda: api.folders.create("X"),
            lambda: api.orders.create(**new),
            lambda: api.orders.create_from_json({"PatientID": "1"}),
        ):
            with pytest.raises(OutcomeUnknown, match="but not under which UUID; search for it before doing it again"):
                await call()
        assert (await api.folders.delete(ONE)).raw, "what makes nothing names nothing"
        assert len(service.sent()) == 4


FOUND = {"PatientOrderUuid": ONE}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"SearchResultList": [FOUND]}, [ONE]),
        ({"searchresultlist": [FOUND]}, [ONE]),
        ({"InstitutionList": [{"InstitutionUuid": ONE}], "SearchResultList": []}, []),
        ({"SearchResultList": None}, []),
        ({"SearchResultList": [None, FOUND]}, [ONE]),
        (
            {"SearchResultList": [{"PatientName": "A"}, {"PatientName": "B"}, {"PatientOrderUuid": ""}]},
            [None, None, None],
        ),
        ({"SearchResultList": [FOUND, FOUND]}, [ONE]),
        ({"Result": [FOUND]}, [ONE]),
        ({"Orders": [FOUND]}, [ONE]),
    ],
)
async def test_lists_in_any_shape(told: dict[str, Any], expected: list[str | None]) -> None:
    async with CloudService(lambda request: success(request, **told)) as service, service.client() as api:
        found = await api.orders.search().all()
    assert [order.patient_order_uuid if order.is_named else None for order in found] == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"Folder": {"PatientOrderList": [FOUND], "SubFolderList": [{"FolderUuid": ONE}]}}, [ONE]),
        ({"Folder": {"SubFolderList": None}}, []),
        ({"Folder": {"PatientOrderList": [FOUND]}}, []),
        ({"Folder": None}, []),
        ({"SubFolderList": [{"FolderUuid": ONE}]}, [ONE]),
    ],
)
async def test_folders_in_any_shape(told: dict[str, Any], expected: list[str]) -> None:
    async with CloudService(lambda request: success(request, **told)) as service, service.client() as api:
        assert [folder.folder_uuid for folder in await api.folders.search().all()] == expected


@pytest.mark.parametrize("text", ["\ud800", '"\ud800"', '{"Result": "\ud800"}'])
async def test_half_a_character(text: str) -> None:
    def answer(request: Received) -> bytes:
        return envelope_frame(request, json.dumps({"ResponseCode": 1, "ResponseMessage": text}).encode())

    async with CloudService(answer) as service, service.client() as api:
        assert (await api.view.order(ONE)).url is None
