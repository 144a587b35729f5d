"""Answers that do not come, come late, are refusals, or are none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from postdicom_async import (
    ConnectionFailed,
    OutcomeUnknown,
    PostdicomError,
    ProtocolError,
    ServerError,
)
from tests.cloud.cutting import CuttingProxy
from tests.cloud.forms import ONE
from tests.cloud.service import CloudService, Received, echo, envelope_frame, success, uuid, views
from tests.faults.clients import settings

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


OK = {"ResponseCode": 1, "ResponseMessage": {"Success": True}}
REFUSALS: dict[str, Any] = {
    "Success false": ({"ResponseCode": 1, "ResponseMessage": {"Success": False, "Message": "busy"}}, {}),
    "another code, a text": ({"ResponseCode": 2, "ResponseMessage": "busy"}, {}),
    "another code, an object": ({"ResponseCode": 0, "ResponseMessage": {"Message": "busy"}}, {}),
    "another code, a message beside": ({"ResponseCode": 0, "ResponseMessage": None, "Message": "busy"}, {}),
    "no code": ({"ResponseMessage": {"Success": True}, "Message": "busy"}, {}),
    "the frame's flag": (OK, {"flag": 0, "message": b"busy"}),
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


@pytest.mark.parametrize("code", [1, "1", " 1"])
async def test_success_in_any_spelling(code: Any) -> None:
    told = {"ResponseCode": code, "ResponseMessage": {"Result": "https://viewer.example/x"}}
    async with CloudService(lambda request: envelope_frame(request, told)) as service, service.client() as api:
        assert (await api.view.order(ONE)).url == "https://viewer.example/x"


@pytest.mark.parametrize("kind", [4, 6, 18, 24])
async def test_any_of_the_known_message_types_answers(kind: int) -> None:
    async with (
        CloudService(lambda request: [b"", b"\x63\x00" + b"x" * 30, envelope_frame(request, OK, message_type=kind)])
        as service,
        service.client() as api,
    ):  # fmt: skip
        assert (await api.folders.create("X")).raw


@pytest.mark.parametrize("result", [b"null", b"<html>", b"[1]", b"", b'{"Respon'])
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
        with pytest.raises(PostdicomError, match="get view link: the connection broke"):
            await api.view.order(ONE)
