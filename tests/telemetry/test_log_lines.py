"""Lines of the log: one for each request, with fields for those who format it themselves."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import ServerError
from postdicom_async.events import Event, RequestEnded
from tests.cloud.service import CloudService, Received, envelope_frame
from tests.faults.archive import MemoryArchive
from tests.faults.clients import settings
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply

if TYPE_CHECKING:
    from tests.faults.clients import Connect

FILES = list(study_files(2).values())
FIELDS = ("operation", "status", "attempt", "sent", "received", "seconds", "error")


def fields(record: logging.LogRecord, *names: str) -> tuple[Any, ...]:
    return tuple(vars(record)[name] for name in names)


async def test_one_for_each_request(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "postdicom_async")
    replies = iter([Reply(503)])
    fault = MemoryArchive(fault=lambda _: next(replies, None))
    async with FaultyServer(fault) as server, connect(server.url) as archive:
        await archive.upload(FILES)
    refused, again, taken = caplog.records
    size = len(server.requests[0].body)
    assert {one.name for one in caplog.records} == {"postdicom_async.http"}
    assert [one.levelno for one in caplog.records] == [logging.DEBUG, logging.INFO, logging.DEBUG]
    assert fields(refused, *FIELDS[:5], "error") == ("store instances", 503, 1, size, 0, None)
    assert fields(again, "operation", "attempt", "status", "failure") == ("store instances", 1, 503, "REFUSED")
    assert fields(taken, *FIELDS[:4], "error") == ("store instances", 200, 2, size, None)
    assert 0 < vars(taken)["seconds"] < 30
    assert refused.getMessage().startswith(f"store instances: 503, attempt 1, sent {size} bytes, received 0 bytes, ")


async def test_what_is_given_up_is_a_warning(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "postdicom_async")
    async with FaultyServer(Reply(503)) as server, connect(server.url, settings(max_attempts=2)) as archive:
        with pytest.raises(ServerError):
            await archive.search_for_studies().all()
    (record,) = caplog.records
    assert record.getMessage() == "search for studies: given up after attempt 2 (ServerError, 503)"


async def test_no_answer(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "postdicom_async.http")
    cut = json_reply([dicom_json(StudyInstanceUID=uid(1))], cut_after=10)
    script = [Reply(drop_after_request=True), cut, json_reply([])]
    async with FaultyServer(script) as server, connect(server.url) as archive:
        await archive.search_for_studies().all()
    lost, cut_off, answered = [one for one in caplog.records if one.levelno == logging.DEBUG]
    assert fields(lost, "status", "received", "error") == (None, 0, "ConnectionFailed")
    assert fields(cut_off, "status", "received", "error") == (200, 10, "ConnectionFailed")
    assert fields(answered, "status", "attempt", "error") == (200, 3, None)
    assert ": 200 ConnectionFailed, attempt 2, " in cut_off.getMessage()


async def test_frames_of_the_cloud_api(caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: Received) -> bytes:
        return envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": []})

    caplog.set_level(logging.DEBUG, "postdicom_async")
    async with CloudService(answer) as service, service.client() as api:
        await api.nodes.all()
    of_cloud = [one for one in caplog.records if one.name == "postdicom_async.cloud"]
    assert [vars(one)["operation"] for one in of_cloud] == ["open a session", "list DICOM nodes"]
    listed = of_cloud[-1]
    assert fields(listed, "status", "attempt", "error") == (None, 1, None)
    assert vars(listed)["sent"] > 50
    assert vars(listed)["received"] > 10
    of_http = [one for one in caplog.records if one.name == "postdicom_async.http"]
    assert len(of_http) == len(service.asked)


async def test_the_fields_go_into_json(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "postdicom_async")
    async with FaultyServer(json_reply([])) as server, connect(server.url) as archive:
        await archive.search_for_studies().all()
    for record in caplog.records:
        assert json.loads(json.dumps({name: vars(record)[name] for name in FIELDS}))["status"] == 200


async def test_the_event_says_the_same(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "postdicom_async")
    told: list[Event] = []
    async with FaultyServer(json_reply([])) as server, connect(server.url, settings(on_event=told.append)) as archive:
        await archive.search_for_studies().all()
        others: list[Event] = []
        await archive.with_options(on_event=others.append).search_for_studies().all()
    (one,) = told
    assert isinstance(one, RequestEnded)
    assert fields(caplog.records[0], "operation", "status", "attempt", "sent", "received", "error") == (
        one.operation,
        one.status,
        one.attempt,
        one.sent,
        one.received,
        one.error,
    )
    assert [type(event) for event in others] == [RequestEnded]


async def test_what_a_user_does_to_records_breaks_nothing(
    connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's logging raises where a record has a field already, and what a filter raises."""

    def factory(*args: Any, **more: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **more)
        vars(record)["status"] = "theirs"
        return record

    def refuses(_record: logging.LogRecord) -> bool:
        raise RuntimeError("Doe^Jane was here")

    caplog.set_level(logging.DEBUG, "postdicom_async")
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(factory)
    try:
        async with FaultyServer(json_reply([])) as server, connect(server.url) as archive:
            await archive.search_for_studies().all()
            assert vars(caplog.records[-1])["status"] == "theirs"
            assert "search for studies: 200, attempt 1" in caplog.text
            monkeypatch.setattr(logging.getLogger("postdicom_async.http"), "filters", [refuses])
            await archive.search_for_studies().all()
    finally:
        logging.setLogRecordFactory(before)


def test_nothing_is_printed_where_nothing_is_set_up() -> None:
    code = "import logging, postdicom_async.watching as w; w.HTTP_LOG.warning('seen'); w.JOBS_LOG.error('seen')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert done.stderr == done.stdout == b""
