"""Keys, session ids and patient data show nowhere: not in logs at DEBUG, not in errors, reprs or reports."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from postdicom_async import Anonymization, CloudApi, PostdicomError, UsageError
from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.cloud.forms import FORMS, ONE, TWO, Form
from tests.cloud.service import ACCOUNT_KEY, API_KEY, SESSION, CloudService, Received, envelope_frame, success
from tests.faults.clients import settings, transport_of
from tests.support.canaries import CANARIES, CanaryWatch, canary_watch, frames_that_left
from tests.support.dicom_files import small_dicom
from tests.support.faulty_server import unused_port
from tests.support.stream_server import StreamServer

KEYS = {"api_key": API_KEY, "account_key": ACCOUNT_KEY, "session": SESSION}
SECRET, NAME, PATIENT = CANARIES["token"], CANARIES["patient_name"], CANARIES["patient_id"]
LATER = "2999-12-31"
MAIL = "cnry.quillfeather@example.org"
QUICK = settings(answer=0.1, max_attempts=2)


@pytest.fixture(name="watch")
def _watch() -> Any:
    with canary_watch({**CANARIES, **KEYS, "mail": MAIL}) as watch:
        for name in ("websockets.client", "httpcore", "httpx"):
            logging.getLogger(name).setLevel(logging.DEBUG)
        yield watch


def a_file() -> bytes:
    return small_dicom(patient_name=NAME, patient_id=PATIENT)


CALLS: dict[str, Callable[[CloudApi], Any]] = {
    "create order": lambda a: a.orders.create(
        patient_name=NAME,
        patient_id=PATIENT,
        patient_birthdate="1899-12-31",
        modality="CT",
        accession_number="CNRYACC-7731",
        patient_complaints=CANARIES["query"],
        order_scheduled_datetime="2030-01-01 10:00",
    ),
    "create order with JSON": lambda a: a.orders.create_from_json(
        {"PatientName": NAME, "PatientID": PATIENT, "OrderNote1": CANARIES["query"], "OrderModality": "CT"}
    ),
    "search orders": lambda a: a.orders.search(patient_name=NAME, patient_id=PATIENT).all(),
    "create folder": lambda a: a.folders.create(NAME, description=CANARIES["header"]),
    "update folder": lambda a: a.folders.update(ONE, name=NAME, description=CANARIES["header"]),
    "search folders": lambda a: a.folders.search(name=NAME).all(),
    "share folder": lambda a: a.folders.share(ONE, password=SECRET, title=NAME, expires=LATER),
    "share by e-mail": lambda a: a.folders.share_by_email(ONE, MAIL, password=SECRET, expires=LATER),
    "view": lambda a: a.view.patient(NAME, patient_birthdate="1899-12-31"),
    "upload": lambda a: a.upload(a_file()),
    "upload anonymised": lambda a: a.upload(a_file(), anonymize=Anonymization({"PatientName": SECRET})),
}  # fmt: skip


def in_words(request: Received) -> str:
    """Return all that was sent, in the ways a service may repeat it."""
    sent = request.fields
    parts = ", ".join(part for value in sent.values() if isinstance(value, str) for part in value.split("^"))
    file = f"{NAME} {PATIENT} {NAME.partition('^')[0]}" if request.message_type == 23 else ""
    return f"{file} bad: {parts} {request.text.decode()} {json.dumps(request.text.decode())}"


def found(request: Received) -> bytes:
    """Answer with what was sent, and with lists."""
    told = {**request.fields, "SearchResultList": [request.fields], "Folder": {"SubFolderList": [request.fields]}}
    return success(request, **told)


def no(request: Received) -> bytes:
    return envelope_frame(
        request, {"ResponseCode": 1, "ResponseMessage": {"Success": False, "Message": in_words(request)}}
    )


def no_beside(request: Received) -> bytes:
    return envelope_frame(request, {"ResponseCode": 0, "ResponseMessage": None, "Message": in_words(request)})


def no_in_the_frame(request: Received) -> bytes:
    return envelope_frame(
        request, {"ResponseCode": 1, "ResponseMessage": {}}, flag=0, message=in_words(request).encode()
    )


FAILURES: dict[str, Callable[[Received], bytes | None]] = {
    "no": no,
    "no beside": no_beside,
    "no in the frame": no_in_the_frame,
    "a page": lambda request: envelope_frame(request, f"<html>{in_words(request)}".encode()),
    "a list": lambda request: envelope_frame(request, [in_words(request)]),
    "cut": lambda request: envelope_frame(request, {"ResponseMessage": in_words(request)})[:60],
    "no answer": lambda _request: None,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_success(call: Callable[[CloudApi], Any], watch: CanaryWatch) -> None:
    async with CloudService(found) as service, service.client() as api:
        for thing in (api, api.account, api.orders, api.folders, api.settings, api._connection, api._connection.keys):
            watch.feed(thing)
        given = await call(api)
    watch.feed(given)
    assert given


@pytest.mark.parametrize("before_the_parts", [set(), {(23, 1), (23, 2)}], ids=["all", "parts"])
@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_failures(
    call: Callable[[CloudApi], Any],
    failing: Callable[[Received], bytes | None],
    before_the_parts: set[tuple[int, int]],
    watch: CanaryWatch,
) -> None:
    def answer(request: Received) -> bytes | None:
        return success(request) if request.key in before_the_parts else failing(request)

    async with CloudService(answer) as service, service.client(settings=QUICK) as api:
        caught: Any = None
        try:
            caught = await call(api)
        except PostdicomError as error:
            caught = error
    watch.feed(caught)
    assert not isinstance(caught, BaseException) or not frames_that_left(caught)
    for outcome in getattr(caught, "outcomes", ()):
        watch.feed(outcome)
        watch.feed_text(str(outcome.reason))
    assert "quillfeather" not in str(caught).lower()
    assert service.received


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("step", ["web-service", "session", "socket"])
@pytest.mark.parametrize("status", [200, 401, 403, 404, 500, 302])
async def test_the_bring_up(transport: str, step: Any, status: int, watch: CanaryWatch) -> None:
    """Its addresses carry both keys, and whatever answers may repeat them."""
    from postdicom_async.emulator.cloud.oddities import HttpAnswer

    async with EmbeddedArchive(options=ArchiveOptions(cloud_keys=(API_KEY, ACCOUNT_KEY))) as archive:
        body = json.dumps({"ResponseCode": 2, "ResponseMessage": f"no {API_KEY} {ACCOUNT_KEY}"})
        archive.cloud.oddities.http[step] = [HttpAnswer(status, body)] * 2
        api = CloudApi(
            API_KEY,
            ACCOUNT_KEY,
            router_url=archive.router_url,
            settings=QUICK,
            transport=transport_of(transport, QUICK),
        )
        with pytest.raises(PostdicomError) as caught:
            await api.__aenter__()
    watch.feed(caught.value)
    watch.feed(api)
    assert not frames_that_left(caught.value)


async def test_addresses_of_the_bring_up_that_fail(watch: CanaryWatch) -> None:
    for address in (f"http://127.0.0.1:{unused_port()}/{CANARIES['path']}/", f"http://{SECRET}.invalid/"):
        api = CloudApi(
            API_KEY, ACCOUNT_KEY, router_url=address, settings=settings(allow_http_credentials=True, max_attempts=1)
        )
        with pytest.raises(PostdicomError) as caught:
            await api.__aenter__()
        watch.feed(caught.value)


@pytest.mark.parametrize(
    "told", [f"ws://127.0.0.1:1/{SECRET}", f"x{SECRET}", f"ws://{SECRET}@127.0.0.1:1", f"ws://[{SECRET}"]
)
async def test_addresses_of_the_socket_that_fail(told: str, watch: CanaryWatch) -> None:
    service = CloudService()
    service.url = told
    with pytest.raises(PostdicomError) as caught:
        await service.client().__aenter__()
    watch.feed(caught.value)


@pytest.mark.parametrize("status", [401, 403, 404, 500, 302])
async def test_a_refused_socket(status: int, watch: CanaryWatch) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = f"{unquote(head)} {SESSION}".encode()
        writer.write(f"HTTP/1.1 {status} {API_KEY}\r\nX-Echo: {API_KEY}\r\nContent-Length: {len(body)}\r\n".encode())
        writer.write(f"Location: ws://127.0.0.1:1/?ClientUniqueId={API_KEY}\r\n\r\n".encode() + body)
        writer.close()

    async with StreamServer(refuse) as server:
        service = CloudService()
        service.url = f"ws://127.0.0.1:{server.port}"
        with pytest.raises(PostdicomError) as caught:
            await service.client().__aenter__()
    watch.feed(caught.value)


async def test_no_websocket_at_all(watch: CanaryWatch) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(head.replace(b"GET", b"WHO"))
        writer.close()

    async with StreamServer(talk) as server:
        service = CloudService()
        service.url = f"ws://127.0.0.1:{server.port}"
        with pytest.raises(PostdicomError) as caught:
            await service.client().__aenter__()
    watch.feed(caught.value)


async def test_connections_that_break(watch: CanaryWatch) -> None:
    async with CloudService(found) as service, service.client(settings=QUICK) as api:
        waiting = [asyncio.create_task(CALLS[name](api)) for name in ("create folder", "search orders", "upload")]
        for _ in range(4):
            await asyncio.sleep(0.005)
            service.drop()
        for one in await asyncio.gather(*waiting, return_exceptions=True):
            watch.feed(one)
            assert not isinstance(one, BaseException) or not frames_that_left(one)


@pytest.mark.parametrize(
    "keys",
    [
        ("", ACCOUNT_KEY),
        (API_KEY, None),
        (SECRET, ACCOUNT_KEY),
        (API_KEY, SECRET),
        (API_KEY + "0", ACCOUNT_KEY),
        (5, 6),
    ],
)
def test_keys_that_are_none(keys: tuple[Any, Any], watch: CanaryWatch) -> None:
    with pytest.raises(UsageError, match=r"^(api_key|account_key): ") as caught:
        CloudApi(*keys)
    watch.feed(caught.value)
    assert not frames_that_left(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: a.folders.share(ONE, password=SECRET + "\ud800", expires=LATER),
        lambda a: a.folders.share_by_email(ONE, SECRET, expires=LATER),
        lambda a: a.folders.create(NAME, parent_folder_uuid=SECRET),
        lambda a: a.orders.search(patient_name=NAME, study_date_from=NAME).all(),
        lambda a: a.orders.create_from_json({"PatientSex": NAME}),
        lambda a: a.orders.create_from_json({"OrderAccessionNumber": NAME}),
        lambda a: a.groups.create([TWO, NAME]),
        lambda a: a.flags.set(ONE, group_id=SECRET, flag_id=1),
        lambda a: a.shares.create_link([ONE], password=SECRET),
        lambda a: a.upload(a_file(), institution_uuid=NAME),
        lambda a: a.as_user(NAME).users.all(),
    ],
)
async def test_mistakes(call: Callable[[CloudApi], Any], watch: CanaryWatch) -> None:
    async with CloudService(found) as service, service.client() as api:
        with pytest.raises(UsageError) as caught:
            await call(api)
    watch.feed(caught.value)
    assert not frames_that_left(caught.value)
    assert not service.sent()
    assert not service.sent(23)


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_tracebacks_of_every_operation(form: Form, watch: CanaryWatch) -> None:
    """Refused, and in a session that is not open: neither the keys nor the arguments are in a frame that leaves."""
    async with CloudService(no) as service, service.client(settings=QUICK) as api:
        with pytest.raises(PostdicomError) as refused:
            await form.call(api)
    with pytest.raises(UsageError) as closed:
        await form.call(CloudApi(API_KEY, ACCOUNT_KEY))
    for error in (refused.value, closed.value):
        watch.feed(error)
        assert not frames_that_left(error)


async def test_tracebacks_of_uploads_that_cannot_go_on(watch: CanaryWatch, tmp_path: Path) -> None:
    letter = tmp_path / "letter.pdf"
    letter.write_bytes(b"%PDF-1.4 " + NAME.encode())
    calls: list[Callable[[CloudApi], Any]] = [
        lambda a: a.upload(a_file(), institution_uuid=SECRET),
        lambda a: a.upload(tmp_path / "nowhere"),
        lambda a: a.upload_documents(letter, SECRET),
        lambda a: a.upload_documents(tmp_path / "nowhere", ONE),
        lambda a: a.as_user(SECRET).upload(a_file()),
        lambda a: a.__aenter__(),
    ]
    async with CloudService(found) as service, service.client(settings=QUICK) as api:
        for call in calls:
            with pytest.raises(PostdicomError) as caught:
                await call(api)
            watch.feed(caught.value)
            assert not frames_that_left(caught.value)


async def test_tracebacks_of_calls_that_their_caller_ends(watch: CanaryWatch) -> None:
    async with CloudService(lambda _request: None) as service, service.client() as api:
        for name in ("create order", "search orders", "upload"):
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.05):
                    await CALLS[name](api)
            watch.feed(caught.value)
            assert not frames_that_left(caught.value)


async def test_logs_say_what_happens_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "postdicom_async")
    async with CloudService(found) as service, service.client(settings=QUICK) as api:
        service.answer = lambda _request: None
        with pytest.raises(PostdicomError):
            await api.view.order(ONE)
    assert any("get view link: attempt 1 failed (LOST)" in record.message for record in caplog.records)
