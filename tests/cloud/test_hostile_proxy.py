"""Between client and service: refusals, sessions that end, silence, answers that are none. Every file has its end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from postdicom_async import (
    CloudApi,
    CloudWire,
    ConnectionFailed,
    OutcomeUnknown,
    PostdicomError,
    ProtocolError,
    ServerError,
    Status,
)
from tests.cloud.files import study_in
from tests.cloud.forms import ONE
from tests.cloud.service import (
    ROUTER,
    CloudService,
    Received,
    echo,
    envelope_frame,
    refusal,
    success,
    uuid,
    views,
)
from tests.faults.clients import settings
from tests.support.dicom_files import small_dicom
from tests.support.stream_server import StreamServer

ANNOUNCE, CHECK, FILE_PART, DOCUMENT_PART = (23, 1), (23, 2), (23, 3), (23, 4)
REGISTER = (3, 2)
PARTS = CloudWire(part_bytes=400)


# --- refused parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [30, 70])
async def test_every_file_of_which_parts_are_refused_has_its_end(tmp_path: Path, percent: int) -> None:
    files = study_in(tmp_path, 60)
    whole: dict[int, set[int]] = {}
    answered = 0

    def answer(request: Received) -> bytes:
        nonlocal answered
        if request.key != FILE_PART:
            return success(request)
        answered += 1
        if answered * 37 % 100 < percent:
            return refusal(request, "busy")
        whole.setdefault(request.fields["FileIndex"], set()).add(request.fields["CurrentFilePartIndex"])
        return success(request)

    quick = settings(base=0.001, cap=0.001, budget=5)
    async with CloudService(answer) as service, service.client(settings=quick, wire=PARTS) as api:
        report = await api.upload(tmp_path, sockets=4)
    counts = report.counts
    assert sum(counts.values()) == len(report.outcomes) == len(files)
    assert set(counts) <= {Status.STORED, Status.FAILED}
    assert {one.reason for one in report.failures} <= {"busy"}
    total = next(one for one in service.sent(23) if one.key == FILE_PART).fields["CurrentFileTotalPartCount"]
    assert total > 1, "files of several parts"
    assert sum(len(parts) == total for parts in whole.values()) >= counts.get(Status.STORED, 0)


async def test_a_socket_that_was_cut_is_not_open() -> None:
    async with CloudService(echo) as service, service.client() as api:
        socket = await api._connection._main_socket()
        before = socket.is_open
        socket.cut()
        assert (before, socket.is_open) == (True, False)
        assert (await api.view.order(ONE)).url, "another one is opened"
        assert service.sockets == 2


# --- sessions that end while their sockets stay ---------------------------------------------------------------------


class Expiring(CloudService):
    """Knows one session at a time, and refuses what comes over a socket of another one.

    Attributes:
        taken: the session of the socket that each part came over, and the session that it names.
        expire_at: how many parts are taken before the session ends; none are lost by it.
        registers: whether it ever says yes to a registration.
    """

    def __init__(self, answer: Callable[[Received], Any] = success, *, registers: bool = True) -> None:
        super().__init__(answer)
        self.under: dict[int, str] = {}
        self.taken: list[tuple[str, str]] = []
        self.expire_at: int | None = None
        self.number = 0
        self.registers = registers

    def expire(self) -> None:
        self.number += 1
        self.session = uuid(self.number)

    async def _reply(self, connection: Any, request: Received) -> None:
        if request.message_type == 3:
            known = request.fields["SessionUuid"] == self.session
            if not known or (request.key == REGISTER and not self.registers):
                await connection.send(refusal(request, "no such session"))
                return
            self.under[request.socket] = self.session
        elif self.under.get(request.socket) != self.session:
            await connection.send(refusal(request, "the session has ended"))
            return
        if request.key == FILE_PART:
            self.taken.append((self.under[request.socket], request.fields["SessionUniqueUuid"]))
            if len(self.taken) == self.expire_at:
                self.expire()
        if request.key == ANNOUNCE:
            told = {"ResponseCode": 1, "ResponseMessage": {"Success": True}, "SessionUniqueUuid": self.session}
            await connection.send(envelope_frame(request, told))
            return
        await super()._reply(connection, request)


async def test_a_session_that_ends_is_renewed_once_for_all_who_wait() -> None:
    async with Expiring(echo) as service, service.client() as api:
        assert (await api.view.order(ONE)).url
        service.expire()
        found = await views(api, 20)
        assert [one.url for one in found] == [f"https://viewer.example/{uuid(number)}" for number in range(20)]
        assert len(service.asked) == 6, "brought up twice in all"
        service.expire()
        made = await asyncio.gather(*(api.folders.create(f"F{number}") for number in range(5)))
        assert len(made) == 5
        assert len(service.asked) == 9


async def test_a_refusal_in_a_session_that_lives_is_a_refusal() -> None:
    def answer(request: Received) -> bytes:
        return refusal(request, "not allowed") if request.key == (17, 2) else echo(request)

    async with Expiring(answer) as service, service.client() as api:
        for _ in range(3):
            with pytest.raises(ServerError, match=r"create folder: the service said no \(server says: not allowed"):
                await api.folders.create("X")
        assert [one.key for one in service.sent()] == [(17, 2)] * 3, "nothing that was refused is repeated"
        assert len(service.asked) == 3


async def test_a_service_that_never_registers_is_not_asked_for_ever() -> None:
    def answer(request: Received) -> bytes:
        return refusal(request, "not allowed") if request.key == (17, 2) else echo(request)

    async with Expiring(answer, registers=False) as service, service.client() as api:
        for _ in range(5):
            with pytest.raises(ServerError, match="not allowed"):
                await api.folders.create("X")
        assert len(service.asked) == 6, "opened anew once, to be sure"
        assert len([one for one in service.received if one.key == REGISTER]) == 2


async def test_keys_that_are_no_longer_taken_are_said_to_be_so() -> None:
    class Locked(Expiring):
        async def _reply(self, connection: Any, request: Received) -> None:
            if request.key == (3, 4) and self.number:
                await connection.send(refusal(request, "locked"))
            else:
                await super()._reply(connection, request)

    async with Locked(echo) as service, service.client() as api:
        service.expire()
        with pytest.raises(PostdicomError, match="check the API key"):
            await api.view.order(ONE)


@pytest.mark.parametrize("expire_at", [1, 7, 20])
async def test_parts_never_cross_sessions_when_one_ends_during_an_upload(tmp_path: Path, expire_at: int) -> None:
    study_in(tmp_path, 24)
    async with Expiring() as service, service.client(wire=PARTS) as api:
        service.expire_at = expire_at
        report = await api.upload(tmp_path, sockets=3)
    assert report.counts == {Status.STORED: 24}
    assert len(service.asked) == 6, "renewed once"
    assert all(under == named for under, named in service.taken)
    assert len({named for _, named in service.taken}) == 2


async def test_a_document_goes_on_in_the_new_session(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7\n" + b"x" * 2000)
    async with Expiring() as service, service.client(wire=PARTS) as api:
        service.expire()
        report = await api.upload_documents(tmp_path, ONE)
    assert report.counts == {Status.STORED: 1}


# --- silence and trickle --------------------------------------------------------------------------------------------


async def test_opening_a_session_has_an_end() -> None:
    """The router sends a byte now and then, for ever."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with StreamServer(trickle) as server:
        api = CloudApi(uuid(1), uuid(2), router_url=f"http://127.0.0.1:{server.port}/", settings=settings(session=0.5))
        started = time.monotonic()
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionFailed, match="open a session: the session was not opened in time"):
                await api.__aenter__()
        assert time.monotonic() - started < 15


@pytest.mark.parametrize("silent", [ANNOUNCE, DOCUMENT_PART])
async def test_documents_for_a_silent_service_end(tmp_path: Path, silent: tuple[int, int]) -> None:
    for number in range(6):
        (tmp_path / f"{number}.pdf").write_bytes(b"%PDF-1.7\n" + b"x" * 2000)

    def answer(request: Received) -> bytes | None:
        return None if request.key == silent else success(request)

    patient = settings(answer=0.1, max_attempts=5)
    async with CloudService(answer) as service, service.client(settings=patient, wire=PARTS) as api:
        with pytest.raises(ConnectionFailed, match="did not answer in time") as caught:
            await api.upload_documents(tmp_path, ONE)
    assert [one.key for one in service.sent(23)].count(silent) == 3, "the same silence three times is enough"
    report: Any = caught.value.report
    assert report.counts == {Status.FAILED: 6}, "no last part has left, so that none is attached"
    assert all(str(one.reason).startswith("not sent: ") for one in report.outcomes)


async def test_a_silent_service_is_not_asked_five_times() -> None:
    patient = settings(answer=0.05, max_attempts=5)
    async with CloudService(lambda _: None) as service, service.client(settings=patient) as api:
        with pytest.raises(ConnectionFailed, match=r"did not answer in time \(3 attempts\)"):
            await api.view.order(ONE)
        assert len(service.sent()) == 3


async def test_what_was_under_way_when_an_upload_ended(tmp_path: Path) -> None:
    """What left and was not answered is unconfirmed; what waited for its turn was not sent."""
    study_in(tmp_path, 12)
    silent = settings(answer=0.3, max_attempts=1)

    def answer(request: Received) -> bytes | None:
        return None if request.key == FILE_PART else success(request)

    async with CloudService(answer) as service, service.client(settings=silent) as api:
        with pytest.raises(ConnectionFailed) as caught:
            await api.upload(tmp_path, sockets=1)
    report: Any = caught.value.report
    sent = len([one for one in service.sent(23) if one.key == FILE_PART])
    assert sent == 3
    assert report.counts[Status.UNCONFIRMED] == 3
    assert {one.status for one in report.outcomes} == {Status.UNCONFIRMED, Status.FAILED}
    assert all("not sent" in str(one.reason) for one in report.outcomes if one.status is Status.FAILED)


# --- existing="send" ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False])
async def test_after_a_lost_answer_what_may_be_there_is_not_sent_blindly(there: bool) -> None:
    parts = 0

    def answer(request: Received) -> bytes | None:
        nonlocal parts
        if request.key == CHECK:
            return success(request, FileIfExist=there)
        parts += request.key == FILE_PART
        return None if request.key == FILE_PART and parts == 1 else success(request)

    async with CloudService(answer) as service, service.client(settings=settings(answer=0.2)) as api:
        report = await api.upload(small_dicom(), existing="send")
    (outcome,) = report.outcomes
    keys = [one.key for one in service.sent(23)]
    if there:
        assert outcome.status is Status.UNCONFIRMED
        assert "this one or an older one" in str(outcome.reason)
        assert keys == [ANNOUNCE, FILE_PART, CHECK]
    else:
        assert outcome.status is Status.STORED
        assert keys == [ANNOUNCE, FILE_PART, CHECK, FILE_PART]


@pytest.mark.parametrize("known_late", [True, False])
async def test_refused_after_a_lost_answer(known_late: bool) -> None:
    """The service took the file, knows of it a moment later, and refuses it when it comes again."""
    parts = 0

    def answer(request: Received) -> bytes | None:
        nonlocal parts
        if request.key == CHECK:
            return success(request, FileIfExist=known_late and parts > 1)
        if request.key != FILE_PART:
            return success(request)
        parts += 1
        return None if parts == 1 else refusal(request, "duplicate")

    async with CloudService(answer) as service, service.client(settings=settings(answer=0.2)) as api:
        (outcome,) = (await api.upload(small_dicom())).outcomes
    assert outcome.status is (Status.STORED if known_late else Status.FAILED)


# --- answers that are none ------------------------------------------------------------------------------------------

UNCLEAR: dict[str, Any] = {
    "nothing in it": {},
    "no code": {"ResponseMessage": {"Result": "x"}},
    "no code, nothing": {"ResponseMessage": None},
    "a code that is none": {"ResponseCode": None},
    "a flag and no words": b"null",
}


@pytest.mark.parametrize("told", UNCLEAR.values(), ids=UNCLEAR)
async def test_an_answer_that_says_neither_yes_nor_no(told: Any) -> None:
    def answer(request: Received) -> bytes:
        if request.key in {ANNOUNCE, CHECK}:
            return success(request)
        return envelope_frame(request, told, flag=0 if isinstance(told, bytes) else 1)

    quick = settings(max_attempts=2)
    async with CloudService(answer) as service, service.client(settings=quick) as api:
        with pytest.raises(OutcomeUnknown, match="create folder: outcome unknown: "):
            await api.folders.create("X")
        assert len(service.sent()) == 1
        with pytest.raises(ProtocolError, match="get view link: "):
            await api.view.order(ONE)
        report = await api.upload(small_dicom())
    assert report.counts == {Status.UNCONFIRMED: 1}


@pytest.mark.parametrize("told", [{}, {"ResponseMessage": ""}])
async def test_an_unclear_answer_to_the_bring_up_is_not_the_keys_fault(told: Any) -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, text=json.dumps(told)))
    api = CloudApi(uuid(1), uuid(2), router_url=ROUTER, settings=settings(), transport=transport)
    with pytest.raises(ProtocolError, match="find the region: "):
        await api.__aenter__()


@pytest.mark.parametrize("kind", [(17, 5), (17, 2), FILE_PART, ANNOUNCE, (3, 4)])
async def test_an_answer_to_another_operation_is_none(kind: tuple[int, int]) -> None:
    class Crossing(CloudService):
        async def _reply(self, connection: Any, request: Received) -> None:
            class Sending:
                async def send(self, frame: bytes) -> None:
                    if request.key == kind:
                        told = {"ResponseCode": 1, "ResponseMessage": {"Success": True}}
                        frame = envelope_frame(request, told, management_type=6)
                    await connection.send(frame)

            await super()._reply(Sending(), request)  # type: ignore[arg-type]

    async with Crossing(echo) as service:
        client = service.client(settings=settings(max_attempts=2))
        if kind == (3, 4):
            with pytest.raises(ProtocolError, match="open a session: an answer to another operation"):
                await client.__aenter__()
            return
        async with client as api:
            if kind == (17, 2):
                with pytest.raises(OutcomeUnknown, match="outcome unknown: an answer to another operation"):
                    await api.folders.create("X")
                assert len(service.sent()) == 1
            elif kind == (17, 5):
                with pytest.raises(ProtocolError, match="get view link: an answer to another operation"):
                    await api.view.order(ONE)
            elif kind == FILE_PART:
                report = await api.upload(small_dicom())
                assert report.counts == {Status.UNCONFIRMED: 1}
            else:
                with pytest.raises(ProtocolError, match="an answer to another operation") as caught:
                    await api.upload(small_dicom())
                report = caught.value.report  # type: ignore[assignment]
                assert report.counts == {Status.FAILED: 1}


async def test_an_answer_that_names_no_operation_is_taken() -> None:
    """The vendor's library never looks at the number: a service that leaves it at 0, which is none, still works."""

    def answer(request: Received) -> bytes:
        told = {"ResponseCode": 1, "ResponseMessage": {"Result": "https://viewer.example/x"}}
        return envelope_frame(request, told, management_type=0)

    async with CloudService(answer) as service, service.client() as api:
        assert (await api.view.order(ONE)).url == "https://viewer.example/x"
