"""Spans of OpenTelemetry: calls, their requests below them, what failed, and what goes to the server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id, get_current_span

from postdicom_async import (
    DicomWeb,
    IncompleteDownload,
    NotFound,
    PostDicom,
    ProtocolError,
    ServerError,
    UsageError,
    sync,
    telemetry,
)
from postdicom_async.telemetry import switch
from tests.cloud.service import CloudService, Received, envelope_frame
from tests.faults.archive import MemoryArchive, is_search, uids_of
from tests.faults.clients import FAST, settings
from tests.support.bodies import dicom_json, json_reply
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.telemetry.conftest import Traced, id_of, settled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.clients import Connect

FILES = list(study_files(3).values())
STUDY = uids_of(FILES[0]).study_instance_uid


def first(*replies: Reply) -> Any:
    """Return a fault: these replies to the first requests, then none."""
    left: Iterator[Reply] = iter(replies)
    return lambda _request: next(left, None)


async def test_an_upload_with_a_repeat(traced: Traced, connect: Connect) -> None:
    async with FaultyServer(MemoryArchive(fault=first(Reply(503)))) as server, connect(server.url) as archive:
        report = await archive.upload(FILES)
    assert report.ok
    assert traced.tree() == ["upload", "  POST store instances", "  POST store instances"]
    refused, taken = traced.named("POST store instances")
    assert refused.kind is taken.kind is SpanKind.CLIENT
    sent = len(server.requests[1].body)
    common = {
        "postdicom.operation": "store instances",
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "url.scheme": "http",
        "http.request.body.size": sent,
    }
    assert dict(refused.attributes or {}) == {
        **common,
        "http.response.status_code": 503,
        "error.type": "503",
        "http.response.body.size": 0,
    }
    answer = (taken.attributes or {})["http.response.body.size"]
    assert isinstance(answer, int)
    assert answer > 0
    assert dict(taken.attributes or {}) == {
        **common,
        "http.response.status_code": 200,
        "http.request.resend_count": 1,
        "http.response.body.size": answer,
    }
    assert refused.status.status_code is StatusCode.ERROR
    assert taken.status.status_code is StatusCode.UNSET
    upload = traced.one("upload")
    assert upload.kind is SpanKind.INTERNAL
    assert dict(upload.attributes or {}) == {"postdicom.operation": "upload", "postdicom.instances.stored": 3}
    assert upload.instrumentation_scope is not None
    assert upload.instrumentation_scope.name == "postdicom_async"


async def test_a_download_that_fails(traced: Traced, connect: Connect, tmp_path: Path) -> None:
    def fault(request: Request) -> Reply | None:
        return (
            None
            if is_search(request)
            else Reply(500, {"Content-Type": "text/plain"}, f"the study {STUDY} of Doe^Jane is locked".encode())
        )

    using = settings(max_attempts=1)
    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url, using) as archive:
        with pytest.raises(IncompleteDownload):
            await archive.download_study(STUDY, to=tmp_path)
    download = traced.one("download study")
    assert download.status.status_code is StatusCode.ERROR
    assert download.status.description == "IncompleteDownload"
    assert (download.attributes or {})["error.type"] == "IncompleteDownload"
    assert (download.attributes or {})["postdicom.instances.missing"] == 3
    assert not download.events
    assert STUDY not in traced.everything()
    requests = [span for span in traced.ended if span.kind is SpanKind.CLIENT]
    assert all(span.parent and span.parent.span_id == download.context.span_id for span in requests if download.context)
    failed = {span.name for span in requests if span.status.status_code is StatusCode.ERROR}
    assert failed == {"GET retrieve study", "GET retrieve series", "GET retrieve instance"}


async def test_a_body_that_is_cut_says_so(traced: Traced, connect: Connect) -> None:
    answer = json_reply([dicom_json(StudyInstanceUID=uid(1))] * 100, cut_after=50)
    async with FaultyServer(answer) as server, connect(server.url, settings(max_attempts=1)) as archive:
        with pytest.raises(Exception, match="search for studies"):
            await archive.search_for_studies().all()
    request = traced.one("GET search for studies")
    assert (request.attributes or {})["http.response.status_code"] == 200
    assert (request.attributes or {})["http.response.body.size"] == 50
    assert (request.attributes or {})["error.type"] == "ConnectionFailed"
    assert request.status.status_code is StatusCode.ERROR
    assert request.status.description


def paged(request: Request) -> Reply:
    """Answer with two pages of two, then one."""
    offset = int(dict(request.query).get("offset", 0))
    numbers = range(offset, min(offset + 2, 5))
    return json_reply([dicom_json(StudyInstanceUID=uid(number + 1)) for number in numbers])


async def test_pages_of_a_search_are_one_call(traced: Traced, connect: Connect) -> None:
    using = settings(page_size=2)
    async with FaultyServer(paged) as server, connect(server.url, using) as archive:
        studies = archive.search_for_studies()
        seen = [get_current_span().get_span_context().is_valid async for _ in studies]
    assert traced.tree() == ["search for studies", *["  GET search for studies"] * len(server.requests)]
    assert len(server.requests) > 2
    assert seen == [False] * 5  # what the reader does meanwhile is not part of the search


@pytest.mark.filterwarnings("error")
async def test_a_search_left_early_ends_in_another_task(
    traced: Traced, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async with FaultyServer(paged) as server, connect(server.url, settings(page_size=2)) as archive:
        assert await archive.search_for_studies().first() is not None
        results: Any = aiter(archive.search_for_studies())
        await anext(results)
        await asyncio.create_task(results.aclose())
    assert [span.status.status_code for span in traced.named("search for studies")] == [StatusCode.UNSET] * 2
    assert "different Context" not in caplog.text


async def test_it_hangs_on_the_caller_s_span_and_the_server_is_told(
    traced: Traced, tracer: Any, connect: Connect
) -> None:
    async with FaultyServer(MemoryArchive()) as server, connect(server.url) as archive:
        with tracer.start_as_current_span("night") as night:
            await archive.upload(FILES[:1])
    trace = format_trace_id(night.get_span_context().trace_id)
    assert traced.tree() == ["night", "  upload", "    POST store instances"]
    told = server.requests[0].header("traceparent").rpartition("-")[0]  # without its flags
    assert told == f"00-{trace}-{id_of(traced.one('POST store instances'))}"


async def test_baggage_stays_here(traced: Traced, connect: Connect) -> None:
    from opentelemetry import baggage, context

    token = context.attach(baggage.set_baggage("patient", "Doe^Jane"))
    try:
        async with FaultyServer(json_reply([])) as server, connect(server.url) as archive:
            await archive.search_for_studies().all()
    finally:
        context.detach(token)
    names = {name.lower() for name, _ in server.requests[0].headers}
    assert "traceparent" in names
    assert "baggage" not in names


async def test_nothing_is_sent_when_that_is_not_wanted(connect: Connect) -> None:
    telemetry.instrument(propagate=False)
    try:
        async with FaultyServer(json_reply([])) as server, connect(server.url) as archive:
            await archive.search_for_studies().all()
    finally:
        telemetry.uninstrument()
    assert "traceparent" not in {name.lower() for name, _ in server.requests[0].headers}


async def test_a_thread_of_the_caller_s_carries_its_span(traced: Traced, tracer: Any) -> None:
    async def search(url: str) -> None:
        async with DicomWeb(url, settings=FAST) as archive:
            await archive.search_for_studies().all()

    async with FaultyServer(json_reply([])) as server:
        with tracer.start_as_current_span("request"):
            await asyncio.to_thread(lambda: asyncio.run(search(server.url)))
    assert traced.tree() == ["request", "  search for studies", "    GET search for studies"]


async def test_the_synchronous_client_carries_it_too(traced: Traced, tracer: Any) -> None:
    def search(url: str) -> None:
        with tracer.start_as_current_span("request"), sync.DICOMwebClient(url) as client:
            assert client.search_for_studies() == []
            with pytest.raises(ProtocolError):
                client.retrieve_study(STUDY)

    async with FaultyServer(json_reply([])) as server:
        await asyncio.to_thread(search, server.url)
    searched = ["  search for studies", "    GET search for studies"]
    assert traced.tree() == ["request", *searched, "  retrieve study", "    GET retrieve study"]
    assert traced.one("retrieve study").status.status_code is StatusCode.ERROR


async def test_a_call_that_is_cancelled_leaves_no_open_span(traced: Traced, connect: Connect, tmp_path: Path) -> None:
    """The fixture looks for open spans."""
    using = settings(answer=30)
    async with FaultyServer(Reply(silent=True)) as server, connect(server.url, using) as archive:
        for call in (
            archive.upload(FILES),
            archive.download_study(STUDY, to=tmp_path),
            archive.search_for_studies().all(),
            archive.delete_study(STUDY),
        ):
            task = asyncio.ensure_future(call)
            before = len(server.requests) + server.in_flight
            async with asyncio.timeout(10):
                while not traced.open or len(server.requests) + server.in_flight == before:
                    await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await settled()
            assert not traced.open
    upload = traced.one("upload")
    assert (upload.attributes or {})["error.type"] == "CancelledError"
    assert upload.status.status_code is StatusCode.UNSET


async def test_a_stream_that_is_left_early(traced: Traced, connect: Connect) -> None:
    async with FaultyServer(MemoryArchive(FILES)) as server, connect(server.url) as archive:
        async with archive.iter_study(STUDY) as parts:
            async for _part in parts:
                break
        assert not traced.open
    assert traced.tree() == ["GET retrieve study"]


async def test_other_calls(traced: Traced, connect: Connect) -> None:
    uids = uids_of(FILES[0])
    async with FaultyServer(MemoryArchive(FILES[:1])) as server, connect(server.url) as archive:
        await archive.retrieve_instance(*uids)
        await archive.store_instances(FILES[1:])
    async with FaultyServer(Reply(404)) as server, connect(server.url) as archive:
        with pytest.raises(NotFound):
            await archive.delete_study(STUDY)
        with pytest.raises(NotFound):
            await archive.retrieve_study_metadata(STUDY).all()
        with pytest.raises(NotFound):
            await archive.retrieve_instance_rendered(*uids)
    calls = [line for line in traced.tree() if line[0] != " "]
    assert calls == [
        "retrieve instance",
        "store instances",
        "delete study",
        "retrieve metadata of study",
        "retrieve rendered instance",
    ]
    assert str(traced.one("delete study").status.description).startswith("the archive does not hold it")


async def test_operations(traced: Traced) -> None:
    def answer(request: Request) -> Reply:
        if "search" in request.path.lower():
            return json_reply({"Found": []}) if len(server.requests) > 1 else Reply(503)
        return json_reply({"Success": False, "Message": "Doe^Jane has one"})

    async with FaultyServer(answer) as server, PostDicom(server.url, "user", "word", settings=FAST) as account:
        await account.folders.search(name="Doe^Jane").all()
        with pytest.raises(ServerError):
            await account.folders.create("Doe^Jane")
    assert traced.tree() == [
        "search folders",
        "  GET search folders",
        "  GET search folders",
        "create folder",
        "  GET create folder",
    ]
    create, request = traced.one("create folder"), traced.one("GET create folder")
    assert create.status.status_code is StatusCode.ERROR
    assert (create.attributes or {})["error.type"] == "ServerError"
    assert request.status.status_code is StatusCode.UNSET  # the service said no with status 200
    assert "Doe" not in traced.everything()


async def test_frames_of_the_cloud_api(traced: Traced, tracer: Any) -> None:
    def answer(request: Received) -> bytes | None:
        if len(service.sent()) == 1:
            return None
        return envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": []})

    with tracer.start_as_current_span("morning"):
        async with CloudService(answer) as service, service.client(settings=settings(answer=0.3)) as api:
            await api.nodes.all()
    tree = traced.tree()
    assert tree[:3] == ["morning", "  open a session", "    GET find the region"]
    assert [line for line in tree if "nodes" in line] == ["  list DICOM nodes", *["    list DICOM nodes"] * 2]
    _, lost, answered = sorted(traced.named("list DICOM nodes"), key=lambda one: one.start_time or 0)
    assert lost.kind is answered.kind is SpanKind.CLIENT
    assert (lost.attributes or {})["error.type"] == "ConnectionFailed"
    attributes = dict(answered.attributes or {})
    assert attributes.pop("postdicom.frame.sent") == (lost.attributes or {})["postdicom.frame.sent"]
    assert attributes.pop("postdicom.frame.received")
    assert attributes == {
        "postdicom.operation": "list DICOM nodes",
        "network.protocol.name": "websocket",
        "server.address": "127.0.0.1",
        "server.port": int(service.url.rpartition(":")[2]),
    }


async def test_another_instrumentation_keeps_out(traced: Traced) -> None:
    """Those of aiohttp and httpx would write the URL; they look for this mark in the context."""
    from opentelemetry import context

    seen: list[object] = []

    def answer(_request: httpx.Request) -> httpx.Response:
        seen.append(context.get_value(context._SUPPRESS_HTTP_INSTRUMENTATION_KEY))
        return httpx.Response(200, json=[])

    async with DicomWeb("http://x", transport=httpx.MockTransport(answer)) as archive:
        await archive.search_for_studies({"PatientName": "Doe^Jane"}).all()
        seen.append(context.get_value(context._SUPPRESS_HTTP_INSTRUMENTATION_KEY))
    assert seen == [True, None]


# --- switching -------------------------------------------------------------------------------------------------------


async def test_without_being_switched_on_there_is_no_span(connect: Connect) -> None:
    found = Traced()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(found)
    with provider.get_tracer("user").start_as_current_span("alone"):
        async with FaultyServer(json_reply([])) as server, connect(server.url) as archive:
            await archive.search_for_studies().all()
    assert [span.name for span in found.ended] == ["alone"]
    assert "traceparent" not in {name.lower() for name, _ in server.requests[0].headers}


async def test_what_breaks_in_it_breaks_nothing(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise RuntimeError("Doe^Jane was here")

        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError("Doe^Jane was here")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken())
    telemetry.instrument(tracer_provider=provider)
    try:
        async with FaultyServer(MemoryArchive()) as server, connect(server.url) as archive:
            assert (await archive.upload(FILES)).ok
    finally:
        telemetry.uninstrument()
    assert "OpenTelemetry raised RuntimeError" in caplog.text
    assert "Doe" not in caplog.text


def test_the_package_is_named_when_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"postdicom-async\[otel\]"):
        telemetry.instrument()


def test_it_is_imported_only_when_it_is_switched_on() -> None:
    code = "import postdicom_async.dicomweb.client, postdicom_async.telemetry as t, sys; t.instrument\n"
    code += "assert 'opentelemetry' not in sys.modules; t.instrument(); assert 'opentelemetry.trace' in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
